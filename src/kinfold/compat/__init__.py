"""The names, signatures and numbers of the libraries that Kinfold replaces."""
