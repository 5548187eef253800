"""One process's part of a run: load the data, train the epochs that are left, measure, write."""

import dataclasses
import importlib
import platform
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kinfold
from kinfold import evaluation, runs, sources
from kinfold.epochs import CHOSEN_BY, Commit, Validation
from kinfold.evaluation import Table, as_numpy, assign
from kinfold.progress import Progress
from kinfold.report import Report, write_report
from kinfold.runs import Checkpoint, RunFolder
from kinfold.settings import Settings


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run, and its folder holds the best model so far with its table."""


class Run:
    """One process's part of a run."""

    def __init__(
        self, folder: RunFolder, settings: Settings, command: str, progress: Progress
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.command = command
        self.progress = progress
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Load the data, and build all that can turn out not to fit it."""
        start = time.monotonic()
        kept = self.folder.data.exists()
        if kept:
            self.splits = runs.read_splits(self.folder.data)
        else:
            self.splits = sources.load_splits(
                self.settings.data, self.settings.read_size(), drawn(self.progress)
            )
        train, validation, test = self.splits
        if self.settings.tensorboard:
            _check_tensorboard()
        self.encoder = untrained(self.folder, self.settings, train.x.shape[1:])
        self.batches = self.settings.make_batches(train)
        if self.settings.weights != "none" and not self.folder.start.exists():
            # Their file may be gone when the run goes on, and when its table is made.
            runs.write_weights(self.folder.start, as_numpy(self.encoder.variables))
        if not kept:
            runs.write_splits(self.folder.data, self.splits)
        self.seconds["data"] = time.monotonic() - start
        self.progress.note(
            f"{evaluation.describe(train)} to train on, {len(validation.names):,} classes to "
            f"choose the best model by, {len(test.names):,} to test on."
        )

    def go_on(self) -> Table:
        """Train the epochs that are left, measure the best model and write the result."""
        checkpoint = runs.read_checkpoint(self.folder.checkpoint)
        if checkpoint.epochs:
            self._write_from(checkpoint)
        if not self.settings.is_done(checkpoint.epochs, checkpoint.best_epoch):
            if checkpoint.epochs:
                self.progress.note(f"Going on after epoch {checkpoint.epochs}.")
            try:
                self._fit(checkpoint)
            except KeyboardInterrupt:
                self._stop()
            except runs.WriteError as error:
                done = runs.read_checkpoint(self.folder.checkpoint).epochs
                raise runs.WriteError(f"{error} {_whole(done)}") from error
        return self._finish()

    def _write_from(self, checkpoint: Checkpoint) -> None:
        """Write again what a kill between two renames may have left newer than the checkpoint."""
        assign(self.encoder.variables, checkpoint.best_weights)
        with runs.written_whole(self.folder.model) as path:
            self.encoder.save(path)
        runs.write_history(self.folder.history, checkpoint.history)

    def _fit(self, checkpoint: Checkpoint) -> None:
        settings, progress = self.settings, self.progress
        trainer = settings.make_trainer(self.encoder, len(self.splits[0].names))
        if checkpoint.epochs:
            assign(trainer.variables, checkpoint.weights)
            assign(trainer.optimizer.variables, checkpoint.optimizer)
        self.batches.current_epoch = checkpoint.epochs
        commit = Commit(self.folder, settings, self.encoder, checkpoint, progress)
        callbacks = [Validation(self.splits[1], commit), commit]
        if settings.tensorboard:
            logs = keras.callbacks.TensorBoard(str(self.folder.tensorboard), write_graph=False)
            callbacks.insert(1, logs)
        progress.begin(checkpoint.epochs, settings.epochs, len(self.batches))
        try:
            trainer.fit(
                self.batches,
                epochs=settings.epochs,
                initial_epoch=checkpoint.epochs,
                shuffle=False,  # the batches are shuffled already; this would be unseeded
                verbose=0,
                callbacks=callbacks,
            )
        finally:
            progress.end()

    def _stop(self) -> None:
        """After Ctrl-C: say what is kept, and write its table and report."""
        checkpoint = runs.read_checkpoint(self.folder.checkpoint)
        self.progress.note(f"Interrupted. {_whole(checkpoint.epochs)}")
        if checkpoint.epochs:
            self._write_from(checkpoint)
            best = checkpoint.history[CHOSEN_BY][checkpoint.best_epoch - 1]
            self.progress.note(
                f"The best model so far, of epoch {checkpoint.best_epoch} ({CHOSEN_BY} "
                f"{best:.4f}), is in {self.folder.model}. Writing its table and report; Ctrl-C "
                "again stops at once."
            )
            self._finish()
        raise Interrupted

    def _finish(self) -> Table:
        """Measure the best model on the test classes, and write the report and the metrics."""
        start = time.monotonic()
        folder, settings, test = self.folder, self.settings, self.splits[2]
        checkpoint = runs.read_checkpoint(folder.checkpoint)
        self.progress.note("Measuring on the test classes.")
        encoder = untrained(folder, settings, test.x.shape[1:])
        told = self.progress.embedding("the test examples")
        before = evaluation.embed(encoder, test.x, told)
        assign(encoder.variables, checkpoint.best_weights)
        trained = evaluation.embed(encoder, test.x, told)
        table, gain = evaluation.measure(test, before, trained)
        title = Path(settings.data).stem
        facts = self._facts(checkpoint)
        shown = {
            "command": facts["command"],
            **facts["settings"],
            **{f"{name} version": version for name, version in facts["versions"].items()},
            **{
                name: evaluation.describe(s)
                for name, s in zip(runs.SPLITS, self.splits, strict=True)
            },
            "epochs done": checkpoint.epochs,
            "best epoch": checkpoint.best_epoch,
        }
        report = Report(
            title,
            {name: value for name, value in shown.items() if value not in (None, "")},
            table,
            checkpoint.history,
            test,
            trained,
            evaluation.pixels(test.x),
            gain,
            checkpoint.collapse,
        )
        runs.writing(folder.report, lambda: write_report(folder.report, report))
        self.seconds["training"] = checkpoint.seconds
        self.seconds["evaluation"] = time.monotonic() - start
        gained = {"gain": gain} if gain else {}
        runs.write_json(folder.metrics, {**table, **gained, **facts, "seconds": self.seconds})
        which = "characters" if settings.data == sources.GLYPHS else "classes"
        self.progress.note(
            f"On {evaluation.describe(test)}, {which} unseen in training; the model of epoch "
            f"{checkpoint.best_epoch} of {settings.epochs}:\n"
            f"{evaluation.table_text(table, gain)}\n"
            f"Model, metrics and report are in {folder.path}; open {folder.report}"
        )
        return table

    def _facts(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the metrics say besides the table."""
        backend = keras.backend.backend()
        return {
            "data": self.settings.data,
            "command": self.command,
            "versions": {
                "kinfold": kinfold.__version__,
                "keras": keras.__version__,
                backend: importlib.import_module(backend).__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "backend": backend,
            "seed": self.settings.seed,
            "counts": {
                name: {"classes": len(split.names), "examples": len(split)}
                for name, split in zip(runs.SPLITS, self.splits, strict=True)
            },
            "epochs": checkpoint.epochs,
            "best_epoch": checkpoint.best_epoch,
            "finished": self.settings.is_done(checkpoint.epochs, checkpoint.best_epoch),
            "collapse": checkpoint.collapse,
            "settings": dataclasses.asdict(self.settings),
        }


def untrained(folder: RunFolder, settings: Settings, shape: tuple[int, ...]) -> keras.Model:
    """Build the encoder of a run as it is before training; weights of a file are in the folder."""
    if not folder.start.exists():
        return settings.make_encoder(shape)
    encoder = dataclasses.replace(settings, weights="none").make_encoder(shape)
    assign(encoder.variables, runs.read_weights(folder.start))
    return encoder


def _check_tensorboard() -> None:
    missing = [name for name in ("tensorflow", "tensorboard") if not find_spec(name)]
    if missing:
        raise ImportError(
            "The logs for TensorBoard are written by TensorFlow, on every backend, and "
            f"{' and '.join(missing)} is missing: pip install {' '.join(missing)}"
        )


def drawn(progress: Progress) -> Callable[[int, int], None]:
    """What the readers of data call, to show how far they are."""
    return lambda done, total: progress.working("reading the data", done, total)


def _whole(epochs: int) -> str:
    if not epochs:
        return "No epoch is whole yet."
    return f"Epoch {epochs} is whole and kept."
