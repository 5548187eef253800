"""What every opening function gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kinfold.datasets._split import Split


@dataclass
class Source:
    """All examples of some data, of which only the labels are read yet.

    Attributes:
        split: the examples; x is a `Stored`.
        parts: "train", "validation" or "test" for each example; None where the data is not divided.
        groups: the value of each example in the column that splits must keep whole; None where
            none was asked for.
        kept_in: the files on disk that hold the examples.
    """

    split: Split
    parts: list[str] | None
    groups: list[str] | None
    kept_in: list[Path]
