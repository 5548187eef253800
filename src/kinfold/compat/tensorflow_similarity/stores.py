"""`tensorflow_similarity.stores`: what an index keeps of each embedding."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core import files
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy

Record = tuple[np.ndarray, int | None, Any]


class Store(abc.ABC):
    """Records of an embedding, a label and data, by number; subclass it for one of your own."""

    @abc.abstractmethod
    def add(self, embedding: Tensor, label: int | None = None, data: Any = None) -> int:
        """Add a record and return its number.

        Args:
            embedding: [d].
            label: class id, or None.
            data: anything that belongs to it, such as the image, or None.
        """

    @abc.abstractmethod
    def batch_add(
        self,
        embeddings: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        data: Sequence[Any] | None = None,
    ) -> list[int]:
        """Add n records, of embeddings [n, d], and return their numbers."""

    @abc.abstractmethod
    def get(self, idx: int) -> Record:
        """Return the embedding, the label and the data of a number."""

    @abc.abstractmethod
    def batch_get(self, idxs: Sequence[int]) -> tuple[list[np.ndarray], list[Any], list[Any]]:
        """Return the embeddings, the labels and the data of several numbers."""

    @abc.abstractmethod
    def size(self) -> int:
        """Return the number of records."""

    @abc.abstractmethod
    def save(self, path: str, compression: bool = True) -> None:
        """Write the records into a folder."""

    @abc.abstractmethod
    def load(self, path: str) -> int:
        """Read what `save` wrote and return the number of records."""

    @abc.abstractmethod
    def to_data_frame(self, num_records: int = 0) -> Any:
        """Return the first records, all for 0, as a `pandas.DataFrame`."""


class MemoryStore(Store):
    """Records in lists.

    A file holds no Python objects, so that a foreign one can do no harm: the data of all records
    must be arrays of one shape or strings, where it is not None.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.stores import MemoryStore
    >>> store = MemoryStore()
    >>> store.batch_add(np.eye(2), labels=[3, 4], data=["a", "b"])
    [0, 1]
    >>> store.get(1)
    (array([0., 1.]), 4, 'b')
    """

    def __init__(self) -> None:
        self.embeddings: list[np.ndarray] = []
        self.labels: list[int | None] = []
        self.data: list[Any] = []

    def add(self, embedding: Tensor, label: int | None = None, data: Any = None) -> int:
        self.embeddings.append(to_numpy(embedding))
        self.labels.append(None if label is None else int(label))
        self.data.append(data)
        return self.size() - 1

    def batch_add(
        self,
        embeddings: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        data: Sequence[Any] | None = None,
    ) -> list[int]:
        rows = to_numpy(embeddings)
        for name, column in (("labels", labels), ("data", data)):
            if column is not None and len(column) != len(rows):
                raise ValueError(
                    f"`{name}` must have an entry for each of the {len(rows)} embeddings. "
                    f"Received {len(column)}."
                )
        return [
            self.add(row, None if labels is None else labels[i], None if data is None else data[i])
            for i, row in enumerate(rows)
        ]

    def get(self, idx: int) -> Record:
        return self.embeddings[idx], self.labels[idx], self.data[idx]

    def batch_get(self, idxs: Sequence[int]) -> tuple[list[np.ndarray], list[Any], list[Any]]:
        return (
            [self.embeddings[idx] for idx in idxs],
            [self.labels[idx] for idx in idxs],
            [self.data[idx] for idx in idxs],
        )

    def size(self) -> int:
        return len(self.embeddings)

    def save(self, path: str, compression: bool = True) -> None:
        """Write the records into the file `index.npz` of a folder.

        Raises:
            TypeError: data that is neither arrays of one shape nor strings.
        """
        held = [one for one in self.data if one is not None]
        arrays: dict[str, Any] = {
            "embeddings": np.array(self.embeddings, np.float32),
            "labels": np.array([0 if one is None else one for one in self.labels], np.int64),
            "has_label": np.array([one is not None for one in self.labels], bool),
            "has_data": np.array([one is not None for one in self.data], bool),
            "data": _column(held),
        }
        Path(path).mkdir(parents=True, exist_ok=True)
        write = np.savez_compressed if compression else np.savez
        with files.atomic_write(Path(path) / "index.npz") as beside, beside.open("wb") as file:
            write(file, **arrays)

    def load(self, path: str) -> int:
        file = Path(path) / "index.npz"
        if not file.exists():
            raise ValueError(f"There is no store of an index at {str(path)!r}.")
        with np.load(file, allow_pickle=False) as arrays:
            self.embeddings = list(arrays["embeddings"])
            labels, has_label = arrays["labels"].tolist(), arrays["has_label"]
            self.labels = [
                one if there else None for one, there in zip(labels, has_label, strict=True)
            ]
            data = arrays["data"]
            held = iter(data.tolist() if data.dtype.kind == "U" else list(data))
            self.data = [next(held) if there else None for there in arrays["has_data"]]
        return self.size()

    def to_data_frame(self, num_records: int = 0) -> Any:
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_data_frame() needs pandas: pip install pandas") from error
        some = slice(num_records or None)
        return pandas.DataFrame(
            {
                "embeddings": self.embeddings[some],
                "data": self.data[some],
                "labels": self.labels[some],
            }
        )


def _column(held: list[Any]) -> np.ndarray:
    if all(isinstance(one, str) for one in held):
        return np.array(held, str)
    arrays = [to_numpy(one) for one in held]
    kinds = {(one.shape, one.dtype.str) for one in arrays}
    if len(kinds) > 1 or any(one.dtype.kind not in "biufc" for one in arrays):
        raise TypeError(
            "A store can save data that is arrays of one shape and dtype, or strings. Received "
            f"{sorted({type(one).__name__ for one in held})}; save it elsewhere and store its name."
        )
    return np.stack(arrays)
