"""`python -m kinfold`."""

from kinfold.cli import main

main()
