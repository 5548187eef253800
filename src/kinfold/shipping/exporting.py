"""Writes a bundle: a run's model in another format, with its index and its threshold."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kinfold import __version__
from kinfold.core import files
from kinfold.shipping import formats, parity
from kinfold.shipping.formats import FORMATS
from kinfold.shipping.parity import Parity
from kinfold.trained.model import Trained, load
from kinfold.training.progress import Progress
from kinfold_bundle import FORMAT, HEAD, THRESHOLDS

SAMPLE = 200  # validation examples that int8 takes its ranges from


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    kind: str = "onnx",
    precision: str = "float32",
    progress: Progress | None = None,
) -> Parity:
    """Write the model of a run in another format, with its index and its threshold.

    The model takes the pixels of images as they are, uint8 [n, height, width, channels], or
    vectors, float32 [n, d], in batches of any size. It is compared with the run's own on the run's
    test classes before it is kept.

    Args:
        run: the run folder.
        out: the folder to write, which must not be there.
        kind: "onnx", "saved_model", "litert", "openvino" or "torch".
        precision: "float32", "float16" or "int8", of those that the format has.
        progress: hears what goes on; None for nobody.

    Returns:
        How the exported model compares.

    Raises:
        ValueError: no such format or precision, a package is missing, `out` is there, or the
            exported model is too far from the run's; nothing is written then.
        FileNotFoundError: there is no run.
    """
    progress, folder = progress or Progress(), Path(out)
    if kind not in FORMATS:
        raise ValueError(f"The formats are {', '.join(FORMATS)}. Received: {kind!r}.")
    if precision not in FORMATS[kind].precisions:
        these = ", ".join(FORMATS[kind].precisions)
        raise ValueError(f"{kind} is written in {these}. Received: {precision!r}.")
    if why := formats.refusal(kind):
        raise ValueError(why)
    if folder.exists():
        raise ValueError(f"{folder} is there already. Name a folder that is not.")
    trained = load(run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        found = _write(trained, beside, kind, precision, progress)
        if fault := found.fault(precision):
            raise ValueError(f"The exported model is not kept: {fault}")
        beside.chmod(0o755)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for line in found.lines():
        progress.note(line)
    progress.note(f"The model is in {folder / FORMATS[kind].file}.")
    return found


def _write(trained: Trained, folder: Path, kind: str, precision: str, progress: Progress) -> Parity:
    embedder, form = trained.embedder, FORMATS[kind]
    scaling = embedder.scaling.kind if embedder.scaling is not None else "bytes"
    pixels = embedder.takes_images and scaling in ("bytes", "unit")
    dtype = "uint8" if pixels else "float32"
    model = formats.with_input(trained.model, embedder.shape, dtype, scaling == "unit")
    path = folder / form.file
    own = trained.kept.own_data()
    test, some = own.test, _sample(len(own.validation.y), SAMPLE)
    rows = _sample(len(test.y), parity.MOST)
    x = _taken(test.x, rows, dtype, scaling == "unit")
    others = _taken(own.validation.x, some, dtype, scaling == "unit")
    progress.note(f"Writing {kind} in {precision}.")
    with _quiet():
        formats.write(model, kind, precision, path, others)
    progress.note("Comparing it with the run's own model on its test classes.")
    ours = _embedded(lambda block: keras.ops.convert_to_numpy(model(block)), x)
    theirs = _embedded(form.opened(path), x)
    calibration = trained.calibration()
    limit = None if calibration.pair is None else float(calibration.pair.distance)
    found = parity.compare(ours, theirs, np.asarray(test.y)[rows], limit)
    if (trained.path / "index" / "index.json").exists():
        trained.index.save(folder / "index")
    about = {
        "format": FORMAT,
        "kinfold": __version__,
        "kind": kind,
        "precision": precision,
        "model": form.file,
        "shape": list(embedder.shape),
        "dtype": dtype,
        "dimension": int(ours.shape[1]),
        "identity": trained.identity,
    }
    files.write_json(folder / "parity.json", found.as_dict())
    files.write_json(folder / THRESHOLDS, calibration.as_dict())
    files.write_json(folder / HEAD, about)
    return found


def _sample(count: int, most: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _taken(x: Any, rows: np.ndarray, dtype: str, unit: bool) -> np.ndarray:
    """Examples as the exported model takes them."""
    some = np.asarray(x[rows])
    if dtype == "uint8" and some.dtype != np.uint8:
        some = np.clip(np.rint(some * (255.0 if unit else 1.0)), 0, 255)
    return np.ascontiguousarray(some, dtype=dtype)


def _embedded(embeds: formats.Embeds, x: np.ndarray) -> np.ndarray:
    blocks = (x[start : start + 64] for start in range(0, len(x), 64))
    return np.concatenate([np.asarray(embeds(block), np.float32) for block in blocks])


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what exporters print and log."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(nowhere):
                yield
        finally:
            logging.disable(before)
