"""The commands that use a run: embed, index, calibrate, search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core import files
from kinfold.datasets import shown
from kinfold.datasets._names import counted
from kinfold.search import Index
from kinfold.thresholds import Threshold
from kinfold.thresholds.held_out import FAR, HeldOut
from kinfold.thresholds.result import said
from kinfold.trained import embedder, embedding_file, page
from kinfold.trained.examples import Examples, find
from kinfold.trained.matching import Match, decide
from kinfold.trained.model import Trained, load
from kinfold.training import evaluation, sources
from kinfold.training.kept import TRAINED_ON
from kinfold.training.progress import Progress
from kinfold.training.running import drawn

Path_ = str | os.PathLike[str]


def embed(run: Path_, data: str, out: Path_, progress: Progress | None = None) -> Path:
    """Embed data with the model of a run, into a Parquet file.

    It has a row for each example that can be read: its path, its label if it has one, and its
    embedding. If the command was interrupted, the same command goes on.

    Args:
        run: the run folder.
        data: a folder of images, in class folders or not, an image; or what `train` takes.
        out: the file, whose name ends in .parquet.
        progress: hears what goes on; None for nobody.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no run or no such data.
        ValueError: the data is not what the model takes, or the name of the file.
        WriteError: the file could not be written.
    """
    progress, path = progress or Progress(), Path(out)
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"Embeddings are written as Parquet: name a file {path.stem}.parquet.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    trained = load(run)
    examples = find(data, trained.embedder, drawn(progress))
    dimension = int(trained.model.output_shape[-1])
    bad = embedding_file.write(path, examples, dimension, trained.identity, progress)
    _tell_unreadable(bad, progress)
    progress.note(f"{len(examples) - len(bad):,} embeddings of {dimension} numbers are in {path}.")
    return path


def index(
    run: Path_,
    data: str,
    progress: Progress | None = None,
    *,
    add: bool = False,
    engine: str = "auto",
    compress: str | None = None,
) -> Index:
    """Write an index of data into the run folder, for `search`.

    Args:
        run: the run folder.
        data: what is to be found later, as `embed` takes it.
        progress: hears what goes on; None for nobody.
        add: add to the index that is there; an item whose path is in it takes its place.
        engine: as `Index` takes it.
        compress: as `Index` takes it.

    Returns:
        The index, in which an item's id is its path, with its label if it has one.

    Raises:
        FileNotFoundError: there is no run, no such data, or no index to add to.
        ValueError: the data is not what the model takes, or the index to add to is of another
            model.
        WriteError: the index could not be written; the one before is as it was.
    """
    progress, trained = progress or Progress(), load(run)
    folder = trained.path / "index"
    if add and (engine != "auto" or compress is not None):
        raise ValueError("An index keeps its engine: leave out the engine and the codes, or --add.")
    there = (folder / "index.json").exists()
    if add:
        found = trained.index
    else:
        found = Index("cosine", engine, compress=compress, model=trained.identity)
    examples = find(data, trained.embedder, drawn(progress))
    ids = _ids(found, examples)
    before, told = len(found), progress.embedding("the examples")
    rows, parts, bad = examples.gathered(range(len(examples)), told)
    _tell_unreadable(bad, progress)
    if not rows:
        raise ValueError(f"{shown(data)} holds nothing that can be read.")
    found.add(
        np.concatenate(parts),
        ids=[ids[row] for row in rows],
        labels=[examples.labels[row] for row in rows],
        metadata=[_origin(examples, examples.names[row]) for row in rows],
    )
    found.save(folder)
    if found.engine in ("faiss", "milvus"):
        progress.note(f"Building what {found.engine} searches in, for later processes too.")
        found.build()
    what = f"{len(found) - before:,} new, {len(found):,} in all" if add else f"{len(found):,}"
    again = " in place of the one before" if there and not add else ""
    progress.note(f"The index of {trained.path} holds {what} items{again}.")
    return found


def calibrate(
    run: Path_, data: str, far: float = FAR, progress: Progress | None = None
) -> Threshold:
    """Calibrate the decisions of a run on other data than its validation classes.

    Args:
        run: the run folder.
        data: labelled examples of classes that the model was not trained on, as `train` takes them.
        far: the share of pairs of different classes to accept.
        progress: hears what goes on; None for nobody.

    Returns:
        The threshold of pairs at this rate.

    Raises:
        FileNotFoundError: there is no run or no such data.
        ValueError: the data is not what the model takes, or too little for the rate.
        WriteError: it could not be written.
    """
    progress, trained = progress or Progress(), load(run)
    split, which, notes = trained.kept.read(data, progress)
    seen = sources.training_classes(trained.kept.folder) & set(split.names)
    if seen:
        notes = [note for note in notes if note != TRAINED_ON]  # which says less
        notes.append(
            f"{len(seen)} of these classes were trained on, whose examples are closer than those "
            "of new ones: the false accept rate is likely to be higher than it seems."
        )
    vectors = evaluation.embed(trained.model, split.x, progress.embedding("the examples"))
    held = HeldOut(vectors, split.y.astype(np.int64), split.names, trained.identity)
    found = held.pairs(far)
    held.save(trained.kept.folder.calibration)
    progress.note("\n".join([f"Calibrated on {which}:", *notes, said(found)]))
    return found


def search(
    run: Path_,
    images: Sequence[Path_],
    progress: Progress | None = None,
    *,
    k: int = 5,
    far: float | None = None,
    html: Path_ | None = None,
) -> list[Match]:
    """Find the nearest items of the run's index for image files, and decide which class they are.

    Args:
        run: the run folder, which has an index.
        images: files.
        progress: hears what goes on; None for nobody.
        k: how many neighbours to show.
        far: the share of images of unknown classes that may be taken for a known one; None for
            0.01, or one of the held-out examples if they are few.
        html: a file for a page with the pictures; None for none.

    Returns:
        A `Match` for each image.

    Raises:
        FileNotFoundError: there is no run, or it has no index or no calibration.
        ValueError: an image cannot be read.
        WriteError: the page could not be written.
    """
    trained: Trained = load(run)
    if not trained.embedder.takes_images:
        raise ValueError(
            f"The model of {trained.path} takes vectors, and this command image files. In Python: "
            f"kinfold.load({str(trained.path)!r}).match(x)"
        )
    if html is not None and not Path(html).parent.is_dir():
        raise FileNotFoundError(f"There is no folder {Path(html).parent} to write {html} to.")
    paths = [Path(image) for image in images]
    pixels = trained.embedder.pixels_of(paths)
    embedder.unreadable(pixels, paths)
    threshold = trained.threshold(far)
    vectors: list[Any] = trained.embedder.of_pixels(pixels)
    matches = decide(trained.index.search(np.stack(vectors), k), threshold)
    if html is not None:
        files.write_text(Path(html), page.render(paths, pixels, matches, threshold))
    return matches


def _ids(index: Index, examples: Examples) -> list[str]:
    """Ids of items: their paths from the folder given, or whole where another file has that id."""
    ids = []
    for name in examples.names:
        there = index.metadata_of(name)
        new = there is None or there == _origin(examples, name)
        ids.append(name if new else f"{(examples.folder or examples.source).resolve()}/{name}")
    return ids


def _origin(examples: Examples, name: str) -> dict[str, Any]:
    """The metadata of an item: its file, or the data that it is in."""
    if examples.folder is None:
        return {"data": str(examples.source)}
    return {"file": str(examples.folder.resolve() / name)}


def _tell_unreadable(bad: dict[str, str], progress: Progress) -> None:
    if bad:
        listed = [f"{name} ({why})" for name, why in bad.items()]
        progress.note(f"Left out: {counted('unreadable', listed)}.")
