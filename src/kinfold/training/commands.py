"""Training runs: a folder that holds a model, its scores, and all that `resume` needs."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kinfold.core.files import WriteError as WriteError
from kinfold.encoders import pretrained
from kinfold.training import evaluation, own_model, records, sources, verdicts
from kinfold.training.devices import Devices, use
from kinfold.training.evaluation import Table
from kinfold.training.measuring import compare as compare
from kinfold.training.measuring import evaluate as evaluate
from kinfold.training.progress import Progress
from kinfold.training.records import Config
from kinfold.training.run_folder import RunFolder
from kinfold.training.running import Interrupted as Interrupted
from kinfold.training.running import Run
from kinfold.training.settings import Settings as Settings


def train(
    settings: Settings,
    out: str | os.PathLike[str],
    command: str = "",
    progress: Progress | None = None,
    model: keras.Model | None = None,
) -> Table:
    """Train a model and write everything about it to a folder.

    A share of the classes is held out for the test at the end and another for choosing the epoch
    whose model is kept; see `sources`. The raw input and the network before training are measured
    too, and if no epoch is better, the better of these two is kept. The folder then holds
    `model.keras`, `metrics.json`, `history.csv` and `report.html`, and what `resume` needs.

    Args:
        settings: what to train, and on what.
        out: the run folder; it must not exist, or be empty.
        command: how the run was asked for, kept in its records.
        progress: hears what goes on; None for nobody.
        model: a Keras model of your own, from a batch of examples to embeddings [n, d], in place of
            the network that the settings describe. Images are read at the size that it takes, with
            values from 0 to 255 unless the data has others. It is left as it is: a copy is trained,
            and `resume` finds it in the folder. Embeddings are compared by their cosines; with a
            distance that wants unit norm pass the loss option normalize, or end in `L2Embedding`.

    Returns:
        The table {"pixels": {"recall@1": ...}, "untrained": ..., "trained": ...} of the test
        classes: unit-norm raw pixels, the model before training, and that of the best epoch. For
        vectors "raw" stands in the place of "pixels".

    Raises:
        ValueError, FileNotFoundError: unusable settings or data, or a folder in use.
        TypeError: `model` is no Keras model.
        ConnectionError: weights could not be downloaded.
        WriteError: a file could not be written; the last whole epoch is safe.
        Interrupted: after Ctrl-C; the best model so far is in the folder.

    Example:

    >>> from kinfold.training import Settings, train
    >>> table = train(Settings("glyphs"), "run")  # doctest: +SKIP
    """
    settings.check_values()
    if model is not None:
        own_model.check(model, settings)
    asked = settings.devices if settings.devices > 1 else None
    with use(settings.devices, asked) as devices:
        settings = dataclasses.replace(settings, devices=devices.count)
        return _train(settings, RunFolder(out), command, progress or Progress(), devices, model)


def _train(
    settings: Settings,
    folder: RunFolder,
    command: str,
    progress: Progress,
    devices: Devices,
    model: keras.Model | None,
) -> Table:
    settings.check(own_model=model is not None)
    sources.check_source(settings.data, settings.image_size)
    if settings.data != sources.GLYPHS:
        settings = dataclasses.replace(settings, data=str(Path(settings.data).resolve()))
    if settings.weights_file is not None:
        weights = str(pretrained.check_file(settings.weights_file).resolve())
        settings = dataclasses.replace(settings, weights=weights)
    if devices.rank:
        return _joined(folder, devices)
    _check_free(folder)
    with contextlib.ExitStack() as held:
        with _made(folder, held):
            config = Config(settings, keras.backend.backend(), command)
            if model is not None:  # before what makes the folder a run, which could not go on
                own_model.keep(folder.own_model, model)
            records.write_config(folder, config)
            run = Run(folder, config, progress, devices)
            run.prepare()
        return run.go_on()


def _joined(folder: RunFolder, devices: Devices) -> Table:
    """Take part in the run that rank 0 prepares; the table is {}, as rank 0 has it."""
    devices.wait()
    run = Run(folder, records.read_config(folder), Progress(), devices)
    run.prepare()
    return run.go_on()


def _check_free(folder: RunFolder) -> None:
    """Refuse a folder that holds something, and say how to go on if that is a run."""
    path = folder.path
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is a file: name a folder with --out.")
    if folder.config.exists():
        raise ValueError(
            f"{path} holds a run. Go on with it: kinfold train --resume {shlex.quote(str(path))}; "
            "or name another folder with --out."
        )
    if any(path.iterdir()):
        raise ValueError(f"{path} is not empty, and holds no run: name another folder with --out.")


@contextlib.contextmanager
def _made(folder: RunFolder, held: contextlib.ExitStack) -> Iterator[None]:
    """Make the folder of a run and hold it; remove all that was made if its preparation fails.

    Ctrl-C and a full disk leave what `resume` goes on from, once there is a config.json.
    """
    before = next(path for path in [folder.path, *folder.path.parents] if path.exists())
    made = [path for path in [folder.path, *folder.path.parents] if before in path.parents]
    ours: tuple[Path, ...] = ()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        held.enter_context(folder.lock())
        ours = (folder.config, folder.listing, folder.start, folder.own_model)
        yield
    except BaseException as error:
        resumable = isinstance(error, WriteError) or not isinstance(error, Exception)
        if not (resumable and folder.config.exists()):
            for path in ours:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else put something there
                for path in made:
                    path.rmdir()
        raise


def resume(
    out: str | os.PathLike[str],
    epochs: int | None = None,
    progress: Progress | None = None,
    patience: int | None = None,
    devices: int | None = None,
) -> Table:
    """Continue a run from its last whole epoch, to the result of an uninterrupted run.

    On the same machine weights, history and metrics are the same bit for bit. With more epochs
    than before, the learning rate goes on as in a run of that length.

    Args:
        out: the run folder.
        epochs: to train in all; None for as many as the run was begun with.
        progress: hears what goes on; None for nobody.
        patience: epochs without a better val_map@r to wait for from now on; None for as many as
            the run was begun with.
        devices: that share each batch from now on; None for as many as before.

    Returns:
        The table of the test classes, as `train` does; of a finished run, what it was.

    Raises:
        FileNotFoundError: there is no run in the folder.
        ValueError: fewer epochs than before, another backend than the run's, or damaged files.
        WriteError: a file could not be written; the last whole epoch is safe.
        Interrupted: after Ctrl-C; the best model so far is in the folder.
    """
    folder = RunFolder(out)
    config = records.read_config(folder)
    settings = config.settings
    if config.backend != keras.backend.backend():
        raise ValueError(
            f"The run in {folder.path} trains on {config.backend}, and Keras uses "
            f"{keras.backend.backend()} here. Set KERAS_BACKEND={config.backend}."
        )
    if epochs is not None and epochs < settings.epochs:
        raise ValueError(
            f"The run in {folder.path} has {settings.epochs} epochs, which can be raised but not "
            f"lowered. Received: epochs={epochs}."
        )
    new: dict[str, Any] = {"epochs": epochs, "patience": patience, "devices": devices}
    settings = dataclasses.replace(settings, **{k: v for k, v in new.items() if v is not None})
    settings.check_values()
    with use(settings.devices, devices) as found:
        if found.rank:
            return _joined(folder, found)
        config = dataclasses.replace(
            config, settings=dataclasses.replace(settings, devices=found.count)
        )
        return _resume(folder, config, progress or Progress(), found)


def _resume(folder: RunFolder, config: Config, progress: Progress, devices: Devices) -> Table:
    settings = config.settings
    with folder.lock():
        folder.remove_partial_files()
        if settings != records.read_config(folder).settings:
            settings.check(own_model=folder.own_model.exists())
            records.write_config(folder, config)
        metrics = records.read_metrics(folder.metrics, evaluation.ROWS)
        if metrics.get("finished") and settings.is_done(metrics["epochs"], metrics["best_epoch"]):
            devices.wait()
            progress.note(f"The run in {folder.path} is finished: {_ended(settings, metrics)}")
            table = {name: metrics[name] for name in evaluation.ROWS if name in metrics}
            progress.note(verdicts.table_text(table, metrics.get("gain")))
            if metrics.get("note"):
                progress.note(str(metrics["note"]))
            return table
        run = Run(folder, config, progress, devices)
        run.prepare()
        return run.go_on()


def _ended(settings: Settings, metrics: dict[str, Any]) -> str:
    done = f"{metrics['epochs']} of {settings.epochs} epochs"
    if metrics["epochs"] >= settings.epochs:
        return f"{done}. To train it longer, raise them with --epochs."
    return (
        f"{done}, as the last {settings.patience} brought no better val_map@r. To train it longer, "
        "raise --patience."
    )
