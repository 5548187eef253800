"""An index with its thresholds, as one value: no search mixes two of them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

from _kinfold_threshold import Threshold
from kinfold_serving.served import Index, Served

_DIGITS = frozenset("0123456789")


@dataclass(frozen=True)
class Snapshot:
    """What is searched in, until another takes its place.

    Attributes:
        number: how many there were before it.
        index: that is searched.
        distance: the name of what it compares by.
        query: the threshold per unknown query; None if the run cannot tell it.
        pair: the threshold per pair; None if the run cannot tell it.
        why: why there are no thresholds; "" if there are.
    """

    number: int
    index: Index
    distance: str
    query: Threshold | None
    pair: Threshold | None
    why: str

    @classmethod
    def take(cls, served: Served, number: int) -> Snapshot:
        """Read the index and the calibration as they are now, and make both ready.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: it is empty, damaged, or of another model.
        """
        index, distance, calibration = served.read()
        index.search(index.vectors(np.zeros(1, np.int64)), 1)  # builds what its engine needs
        taken = cls(number, index, distance, *calibration)
        taken._prepare()
        return taken

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Of the items, object [n]."""
        return self.index.ids

    @functools.cached_property
    def labels(self) -> list[str | None]:
        """Of the items, as text."""
        return [None if one is None else str(one) for one in self.index.labels.tolist()]

    @functools.cached_property
    def classes(self) -> dict[str | None, np.ndarray]:
        """The rows of each class, in the order of their names; those without a label last."""
        if not self.labels:
            return {}
        found: dict[str | None, list[int]] = {}
        for row, label in enumerate(self.labels):
            found.setdefault(label, []).append(row)
        order = sorted(found, key=lambda label: (label is None, _natural(label or "")))
        return {label: np.array(found[label]) for label in order}

    def _prepare(self) -> None:
        """Look at all items now: whoever asks first would hold up the others."""
        for column in (self.ids, self.classes):
            len(column)

    def row_of(self, item: str) -> int | None:
        """Where the item of an id is, which may be a number; None where there is none."""
        known: list[int | str] = [item]
        if item.isdecimal() and len(item) < 19:
            known.append(int(item))
        for one in known:
            if self.index.metadata_of(one) is not None:
                return self.index.rows([one])[0]
        return None

    def file_of(self, row: int) -> str | None:
        """The file of an item; None where it is of a table."""
        found = self.index.metadata_of(self.ids[row]) or {}
        file = found.get("file")
        return file if isinstance(file, str) else None


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Numbers in a name count as numbers: class 2 comes before class 10."""
    runs = re.findall(r"[0-9]{1,18}|[^0-9]+", text)
    return [(0, int(run), "") if run[0] in _DIGITS else (1, 0, run.lower()) for run in runs]
