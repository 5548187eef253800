"""Embeddings in a Parquet file, written in constant memory; a killed writer goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core import files
from kinfold.search import store
from kinfold.trained.examples import BLOCK, Examples
from kinfold.training.progress import Progress

_BLOCKS = 16  # of examples in a part


def write(
    path: Path, examples: Examples, dimension: int, model: str, progress: Progress
) -> dict[str, str]:
    """Embed examples into a file with a row for each: path, label, embedding.

    Parts are written beside into a folder, which a later call goes on from; it is removed once the
    file is whole.

    Args:
        path: of the file.
        examples: what to embed.
        dimension: of the embeddings.
        model: the identity of the model; parts of another are written anew.
        progress: hears how far it is.

    Returns:
        Why some examples could not be read, by name; they have no row.

    Raises:
        WriteError: the disk is full or the folder cannot be written to; parts stay.
    """
    parquet = store.parquet("A file of embeddings needs")
    beside = path.with_name(f"{files.PARTIAL}{path.name}")
    same = {
        "model": model,
        "source": str(examples.source),
        "state": examples.state,
        "names": examples.names,
        "labels": examples.labels,
    }
    try:
        if not _is_of(beside, same):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            files.write_json(beside / "examples.json", same)
        bad: dict[str, str] = {}
        told = progress.embedding("the examples")
        parts = []
        for start in range(0, len(examples), _BLOCKS * BLOCK):
            part = beside / f"{start:012}.parquet"
            parts.append(part)
            stop = min(start + _BLOCKS * BLOCK, len(examples))
            if not part.exists():
                _write_part(part, examples, range(start, stop), dimension, told)
            bad |= json.loads(parquet.read_schema(part).metadata[b"unreadable"])
            told(stop, len(examples))
        with files.atomic_write(path) as whole:
            schema = _schema(dimension, examples, {"model": model})
            with parquet.ParquetWriter(whole, schema) as writer:
                for part in parts:
                    writer.write_table(parquet.read_table(part).replace_schema_metadata(None)
                                       .cast(schema))  # fmt: skip
        shutil.rmtree(beside, ignore_errors=True)
    except files.WriteError:
        raise
    except OSError as error:
        raise files.WriteError(f"Could not write {path}: {error.strerror or error}.") from error
    return bad


def _is_of(beside: Path, same: dict[str, Any]) -> bool:
    """Whether the parts in a folder are of these examples and this model."""
    try:
        return bool(files.read_json(beside / "examples.json") == same)
    except (OSError, ValueError):
        return False


def _write_part(part: Path, examples: Examples, rows: range, dimension: int, told: Any) -> None:
    import pyarrow

    read, vectors, bad = examples.gathered(rows, told)
    flat = np.concatenate(vectors) if vectors else np.empty((0, dimension), np.float32)
    schema = _schema(dimension, examples, {"unreadable": json.dumps(bad)})
    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat.ravel()), dimension)
    columns = [pyarrow.array([examples.names[row] for row in read], pyarrow.string())]
    if examples.labelled:
        columns.append(pyarrow.array([examples.labels[row] for row in read], pyarrow.string()))
    table = pyarrow.table([*columns, values], schema=schema)
    with files.atomic_write(part) as beside:
        store.parquet().write_table(table, beside)


def _schema(dimension: int, examples: Examples, metadata: dict[str, str]) -> Any:
    """path, label where any has one, embedding."""
    import pyarrow

    columns = [("path", pyarrow.string())]
    if examples.labelled:
        columns.append(("label", pyarrow.string()))
    columns.append(("embedding", pyarrow.list_(pyarrow.float32(), dimension)))
    return pyarrow.schema(columns, metadata=metadata)
