"""The files of an index.

A folder holds

- `index.json`: the version of this format, distance, dimension, number of items, engine and its
  options, the model that the embeddings are of, and which files belong to it;
- `vectors-*.npy`: float32 [n, d], as NumPy writes it;
- `items-*.parquet`: a row for each, `id`, `label` and `metadata` (JSON);
- `faiss-*.index` or `milvus.db`: what an engine has built, named after the vectors it is of.

The vectors and the items are the truth: an engine's own index is built from them, and again where
it is missing, damaged or of another version. New files are
written beside the old ones and `index.json` last, in one step; it names those that count.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.core import files

FORMAT = 1
_HEAD = "index.json"
_OURS = ("vectors-*.npy", "items-*.parquet", "faiss-*.index")
_KNOWN = ("index.json", *_OURS, "milvus.db*", ".milvus.db*")


def save(index: Any, path: str | os.PathLike[str]) -> None:
    """Write an index; see `Index.save`."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Name a folder for the index.")
    if folder.is_dir() and not (folder / _HEAD).exists() and any(folder.iterdir()):
        ours = {one for pattern in _KNOWN for one in folder.glob(pattern)}
        partial = set(folder.glob(f"{files.PARTIAL}*"))
        if set(folder.iterdir()) - ours - partial:
            raise ValueError(f"{folder} holds something else than an index. Name another folder.")
    if (folder / _HEAD).exists() and not _is_ours(folder / _HEAD):
        raise ValueError(f"{folder / _HEAD} is not of an index. Name another folder.")
    tables = parquet()
    name = uuid.uuid4().hex[:12]
    vectors, items = folder / f"vectors-{name}.npy", folder / f"items-{name}.parquet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_vectors(index, vectors)
        with files.atomic_write(items) as beside:
            tables.write_table(_table(index), beside)
        files.write_json(
            folder / _HEAD,
            {
                "format": FORMAT,
                "distance": distances.serialize(index.distance),
                "dimension": index.dimension,
                "items": len(index),
                "next_id": index._items.next_id,
                "engine": index.engine,
                "compress": index.compress,
                "options": {k: v for k, v in index.options.items() if k != "token"},
                "model": index.model,
                "files": {"vectors": vectors.name, "items": items.name},
            },
        )
    except BaseException:
        for one in (vectors, items):
            with contextlib.suppress(OSError):
                one.unlink(missing_ok=True)
        raise
    index.path, index._saved = str(folder), name
    if len(index):
        index._vectors.move_to(np.load(vectors, mmap_mode="r"))
    for pattern in _OURS:
        for old in set(folder.glob(pattern)) - {vectors, items}:
            with contextlib.suppress(OSError):  # on Windows a reader may hold it
                old.unlink()


def load(cls: Any, path: str | os.PathLike[str]) -> Any:
    """Read an index; see `Index.load`."""
    folder = Path(path)
    head = folder / _HEAD
    if not head.is_file():
        raise FileNotFoundError(f"There is no index in {folder}: {_HEAD} is missing.")
    known = files.read_json(head)
    if not isinstance(known, dict) or known.get("format") != FORMAT:
        found = known.get("format") if isinstance(known, dict) else None
        raise ValueError(
            f"{head} is of another version of Kinfold: its format is {found!r}, and this one reads "
            f"{FORMAT}. Build the index anew."
        )
    tables = parquet()
    try:
        count, dimension = known["items"], known["dimension"]
        index = cls(
            distances.get(known["distance"]),
            known["engine"],
            compress=known["compress"],
            options=known["options"],
            model=str(known["model"]),
        )
        if count:
            vectors = np.load(folder / known["files"]["vectors"], mmap_mode="r")
            table = tables.read_table(folder / known["files"]["items"])
            if vectors.shape != (count, dimension) or vectors.dtype != np.float32:
                raise ValueError(f"the vectors have the shape {vectors.shape}")
            if table.num_rows != count:
                raise ValueError(f"there are {table.num_rows} items in place of {count}")
            columns = {name: table[name].to_pylist() for name in ("id", "label", "metadata")}
            metadata = [None if one is None else json.loads(one) for one in columns["metadata"]]
            new = index._items.new(count, columns["id"], columns["label"], metadata)
            index._items.extend(new)
            index._vectors.append(vectors)
            index._numbers = np.arange(count)
            index._next_number = count
        index._items.next_id = max(index._items.next_id, known["next_id"])
        index._saved = Path(known["files"]["vectors"]).stem.removeprefix("vectors-")
    except ImportError:
        raise
    except Exception as error:  # as many kinds as there are ways to be damaged
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"The index in {folder} is damaged: {what[:300]}") from error
    index.path = str(folder)
    return index


def _is_ours(head: Path) -> bool:
    """Whether a file is the head of an index, of this version or another."""
    try:
        known = files.read_json(head)
    except (OSError, ValueError):
        return True  # damaged: whoever saves here replaces it
    return isinstance(known, dict) and isinstance(known.get("format"), int)


def _write_vectors(index: Any, path: Path) -> None:
    """Write the vectors block by block: they need not fit into memory."""
    with files.atomic_write(path) as beside, open(beside, "wb") as file:
        shape = (len(index), index.dimension or 0)
        head = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        for _, rows in index._vectors.blocks():
            file.write(rows.astype("<f4", copy=False).tobytes())


def _table(index: Any) -> Any:
    import pyarrow

    items = index._items
    kinds = {type(one) for one in items.labels.tolist()} - {type(None)}
    metadata = [None if one is None else json.dumps(one) for one in items.metadata]
    text = not len(items) or isinstance(items.ids[0], str)
    return pyarrow.table(
        {
            "id": pyarrow.array(items.ids.tolist(), pyarrow.string() if text else pyarrow.int64()),
            "label": pyarrow.array(
                items.labels.tolist(), pyarrow.int64() if kinds == {int} else pyarrow.string()
            ),
            "metadata": pyarrow.array(metadata, pyarrow.string()),
        }
    )


def parquet(what: str = "The files of an index need") -> Any:
    """The module that reads and writes Parquet; `what` begins the sentence if it is missing."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{what} pyarrow: pip install kinfold[parquet]") from None
    return pyarrow.parquet
