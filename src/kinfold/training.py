"""Training runs: a folder that holds a model, what it scored, and all that is needed to go on."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras

import kinfold
from kinfold import evaluation, pretrained, runs, sources
from kinfold.evaluation import Table
from kinfold.fit import Interrupted as Interrupted
from kinfold.fit import Run, drawn, untrained
from kinfold.progress import Progress
from kinfold.runs import RunFolder
from kinfold.runs import WriteError as WriteError
from kinfold.settings import Settings as Settings


def train(
    settings: Settings,
    out: str | os.PathLike[str],
    command: str = "",
    progress: Progress | None = None,
) -> Table:
    """Train a model and write everything about it to a folder.

    A share of the classes is held out for the test at the end and another for choosing the epoch
    whose model is kept; see `kinfold.sources`. The folder then holds `model.keras`,
    `metrics.json`, `history.csv` and `report.html`, and what `resume` needs.

    Args:
        settings: what to train, and on what.
        out: the run folder; it must not exist, or be empty.
        command: how the run was asked for, kept in its records.
        progress: hears what goes on; None for nobody.

    Returns:
        The table {"pixels": {"recall@1": ...}, "untrained": ..., "trained": ...} of the test
        classes: unit-norm raw pixels, the model before training, and the model kept. For vectors
        "raw" stands in the place of "pixels".

    Raises:
        ValueError, FileNotFoundError: settings or data that do not do, or a folder in use.
        ConnectionError: weights could not be downloaded.
        WriteError: a file could not be written; the last whole epoch is safe.
        Interrupted: after Ctrl-C; the best model so far is in the folder.

    Example:

    >>> from kinfold.training import Settings, train
    >>> table = train(Settings("glyphs"), "run")  # doctest: +SKIP
    """
    settings.check()
    sources.check_source(settings.data, settings.image_size)
    if settings.data != sources.GLYPHS:
        settings = dataclasses.replace(settings, data=str(Path(settings.data).resolve()))
    if settings.weights_file is not None:
        weights = str(pretrained.check_file(settings.weights_file).resolve())
        settings = dataclasses.replace(settings, weights=weights)
    folder = RunFolder(out)
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ValueError(
            f"{folder.path} is not empty. Go on with the run in it: kinfold train --resume "
            f"{folder.path}; or name another folder with --out."
        )
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.alone():
        _write_config(folder, settings, command)
        run = Run(folder, settings, command, progress or Progress())
        try:
            run.prepare()
        except (ValueError, FileNotFoundError, ImportError, ConnectionError):
            folder.config.unlink()  # nothing was begun: the folder is as it was
            folder.path.rmdir()
            raise
        return run.go_on()


def resume(
    out: str | os.PathLike[str],
    epochs: int | None = None,
    progress: Progress | None = None,
    patience: int | None = None,
) -> Table:
    """Go on with a run from its last whole epoch, to the result of an unbroken run.

    On the same machine weights, history and metrics are the same bit for bit. With more epochs
    than before, the learning rate goes on as in a run of that length.

    Args:
        out: the run folder.
        epochs: to train in all; None for as many as the run was begun with.
        progress: hears what goes on; None for nobody.
        patience: epochs without a better val_map@r to wait for from now on; None for as many as
            the run was begun with.

    Returns:
        The table of the test classes, as `train` does; of a finished run, what it was.

    Raises:
        FileNotFoundError: there is no run in the folder.
        ValueError: fewer epochs than before, another backend than the run's, or damaged files.
        WriteError: a file could not be written; the last whole epoch is safe.
        Interrupted: after Ctrl-C; the best model so far is in the folder.
    """
    folder = RunFolder(out)
    config = runs.read_config(folder)
    settings = Settings(**config["settings"])
    progress = progress or Progress()
    if config["backend"] != keras.backend.backend():
        raise ValueError(
            f"The run in {folder.path} trains on {config['backend']}, and Keras uses "
            f"{keras.backend.backend()} here. Set KERAS_BACKEND={config['backend']}."
        )
    if epochs is not None and epochs < settings.epochs:
        raise ValueError(
            f"The run in {folder.path} has {settings.epochs} epochs, which can be raised but not "
            f"lowered. Received: epochs={epochs}."
        )
    with folder.alone():
        folder.remove_partial_files()
        new = dataclasses.replace(
            settings, epochs=epochs or settings.epochs, patience=patience or settings.patience
        )
        if new != settings:
            new.check()
            settings = new
            _write_config(folder, settings, config["command"])
        metrics = runs.read_json(folder.metrics) if folder.metrics.exists() else {}
        if metrics.get("finished") and settings.is_done(metrics["epochs"], metrics["best_epoch"]):
            progress.note(f"The run in {folder.path} is finished: {_ended(settings, metrics)}")
            table = {name: metrics[name] for name in evaluation.ROWS if name in metrics}
            progress.note(evaluation.table_text(table, metrics.get("gain")))
            return table
        run = Run(folder, settings, config["command"], progress)
        run.prepare()
        return run.go_on()


def evaluate(run: str | os.PathLike[str], data: str, progress: Progress | None = None) -> Table:
    """Measure the model of a run on other data.

    Args:
        run: the run folder.
        data: "glyphs" (their test characters), a folder of image folders, or an .npz or .parquet
            file (all of it).
        progress: hears what goes on; None for nobody.

    Returns:
        The table, as `train` does.

    Raises:
        FileNotFoundError: there is no run in the folder, no model yet, or no such data.
        ValueError: the data does not have the shape that the model takes.
    """
    progress = progress or Progress()
    folder = RunFolder(run)
    settings = Settings(**runs.read_config(folder)["settings"])
    if not folder.model.exists():
        raise FileNotFoundError(
            f"There is no model in {folder.path} yet. Go on: kinfold train --resume {folder.path}"
        )
    model = keras.saving.load_model(folder.model)
    shape = tuple(model.input_shape[1:])
    split = sources.load_whole(data, shape, drawn(progress))
    told = progress.embedding("the examples")
    before = evaluation.embed(untrained(folder, settings, shape), split.x, told)
    table, gain = evaluation.measure(split, before, evaluation.embed(model, split.x, told))
    which = "the test characters" if data == sources.GLYPHS else f"all of {data}"
    progress.note(f"On {evaluation.describe(split)}, {which}:")
    if settings.data == str(Path(data).resolve()):
        progress.note("The model was trained on some of these classes.")
    progress.note(evaluation.table_text(table, gain))
    return table


def _ended(settings: Settings, metrics: dict[str, Any]) -> str:
    done = f"{metrics['epochs']} of {settings.epochs} epochs"
    if metrics["epochs"] >= settings.epochs:
        return f"{done}. To train it longer, raise them with --epochs."
    return (
        f"{done}, as the last {settings.patience} brought no better val_map@r. To train it longer, "
        "raise --patience."
    )


def _write_config(folder: RunFolder, settings: Settings, command: str) -> None:
    content = {
        "kinfold": kinfold.__version__,
        "command": command,
        "backend": keras.backend.backend(),
        "settings": dataclasses.asdict(settings),
    }
    runs.write_json(folder.config, content)
