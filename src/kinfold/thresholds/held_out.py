"""Embeddings of classes that a model was not trained on, kept to calibrate its decisions by."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core import files
from kinfold.search import Index
from kinfold.thresholds.pairs import calibrate
from kinfold.thresholds.result import Threshold
from kinfold.thresholds.unknown import calibrate_search

FAR = 0.01  # where nothing else is asked for
_SELF = 1e-6  # a distance of an example to itself


class HeldOut:
    """Embeddings of classes that a run was not trained on, which its decisions are calibrated by.

    Args:
        embeddings: float32 [n, d].
        labels: int64 [n].
        names: of the classes.
        model: the identity of the model that gave the embeddings.
        distance: what the run compares embeddings by.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        labels: np.ndarray,
        names: tuple[str, ...],
        model: str,
        distance: str = "cosine",
    ) -> None:
        self.embeddings, self.labels, self.names = embeddings, labels, names
        self.model, self.distance = model, distance

    def pairs(self, far: float | None = None, **asked: Any) -> Threshold:
        """The distance up to which two examples are of one class; see `thresholds.calibrate`."""
        return calibrate(self.embeddings, self.labels, far, distance=self.distance, **asked)

    def search(self, index: Index, far: float | None = None) -> Threshold:
        """The distance up to which the nearest item of an index answers a query.

        `far` is the share of queries of unknown classes that are accepted, at the size of this
        index; None for 0.01, or one of the held-out examples where there are less than a hundred.
        The held-out examples are the queries; items of their own class are left aside.
        """
        if far is None:
            far = max(FAR, 1 / len(self.embeddings))
        if len(index) == 0:
            raise ValueError("The index is empty, so there is nothing to calibrate.")
        labels = index.labels.tolist()
        number = {name: k for k, name in enumerate(self.names)}
        of = np.array([number.get(str(label), -1) for label in labels], np.int64)
        if not any(label is not None for label in labels):
            warnings.warn(
                "The items of this index have no labels, so items of the classes that decide are "
                "taken for strangers, and more queries are called unknown than need be.",
                stacklevel=2,
            )
        nearest = index.search(self.embeddings, 1)
        alike = nearest.distances[:, 0] < _SELF
        own = np.where(alike, index.rows(nearest.ids[:, 0]), -1)
        return calibrate_search(
            self.embeddings, self.labels, index.vectors(), of, far, distance=index.distance, own=own
        )

    def save(self, path: Path) -> None:
        """Write them to a file."""
        with files.atomic_write(path) as beside, open(beside, "wb") as file:
            np.savez(
                file,
                embeddings=self.embeddings,
                labels=self.labels,
                names=np.array(self.names, dtype=np.str_),
                model=np.array(self.model),
            )

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read what `save` wrote."""
        try:
            with np.load(path) as arrays:
                return cls(
                    arrays["embeddings"],
                    arrays["labels"],
                    tuple(arrays["names"].tolist()),
                    str(arrays["model"]),
                )
        except Exception as error:  # as many kinds as there are ways to be damaged
            raise ValueError(
                f"{path} is damaged: {error}. Write it anew: kinfold calibrate."
            ) from error
