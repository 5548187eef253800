"""One process's part of a run: load the data, train the epochs that are left, measure, write."""

import dataclasses
import gc
import time
from collections.abc import Callable
from importlib.util import find_spec

import keras
import numpy as np

from kinfold.core import backends, files
from kinfold.core.stored import blocks
from kinfold.datasets import Split
from kinfold.datasets._split import select_rows
from kinfold.encoders import networks
from kinfold.encoders.scaling import Scaling
from kinfold.training import (
    finishing,
    listing,
    own_model,
    recipe,
    records,
    run_folder,
    sampling,
    sources,
    unreadable,
    verdicts,
)
from kinfold.training.checkpoints import CheckpointCallback, Validation
from kinfold.training.devices import Devices
from kinfold.training.evaluation import Table, as_numpy, assign
from kinfold.training.hard_negatives import HardNegatives
from kinfold.training.progress import Progress
from kinfold.training.records import Config
from kinfold.training.run_folder import CHOSEN_BY, Checkpoint, RunFolder
from kinfold.training.untrained import untrained

_READ = 4096  # vectors read at once


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run, and its folder holds the best model so far with its table."""


class Run:
    """One process's part of a run; of several, the one of rank 0 writes and tells."""

    def __init__(
        self, folder: RunFolder, config: Config, progress: Progress, devices: Devices
    ) -> None:
        self.folder = folder
        self.config = config
        self.settings = config.settings
        self.devices = devices
        self.writes = devices.rank == 0
        self.progress = progress if self.writes else Progress()
        self.seconds: dict[str, float] = {}
        self.watched_raw = np.empty((0, 0), np.float32)

    def prepare(self) -> None:
        """Load the data, and build all that can turn out not to fit it."""
        start = time.monotonic()
        folder, settings = self.folder, self.settings
        kept = folder.listing.exists() or folder.data.exists()
        told, source, chosen = drawn(self.progress), None, ""
        if kept:
            self.splits, notes = sources.again(folder, settings, told)
            for note in notes:
                self.progress.note(note)
        else:
            own = own_model.load(folder.own_model, 0) if folder.own_model.exists() else None
            size = own_model.read_shape(own, settings) if own else settings.read_size()
            self.splits, source = sources.load(settings.data, size, told, settings.split_by)
            if own:
                own_model.check_examples(own, self.splits.train.x.shape[1:], settings.data)
        train, validation, test = self.splits
        if settings.tensorboard:
            _check_tensorboard()
        if not kept and train.x.ndim == 2:
            for _ in blocks(train.x, _READ):  # which refuses values that are not finite
                pass
        if not kept:
            settings, chosen = recipe.chosen(settings, train, folder.own_model.exists())
            self.settings = settings
            scaling = Scaling.of(train.x) if train.x.ndim == 4 else None
            self.config = dataclasses.replace(self.config, settings=settings, scaling=scaling)
            if self.writes:
                records.write_config(self.folder, self.config)
        with self.devices.scope():
            self.encoder = self._untrained()
        if self.writes and self.settings.weights != "none" and not self.folder.start.exists():
            # Their file may be gone when the run goes on, and when its table is made.
            run_folder.write_weights(self.folder.start, as_numpy(self.encoder.variables))
        if self.writes and not kept:
            listing.write(folder.listing, self.splits, source)
        if self.writes:
            self.devices.wait()  # the others read what is written now
        self.watched = self._watched()
        self.batches = settings.make_batches(train)  # where all ranks may meet
        settings.check_shares(self.batches.indices, self.devices)
        self.seconds["data"] = time.monotonic() - start
        self.progress.note(
            f"{verdicts.describe(train)} to train on, {len(validation.names):,} classes to "
            f"choose the best model by, {len(test.names):,} to test on."
        )
        scaling = self.config.scaling
        others = {"validation": validation.x, "test": test.x}
        notes = scaling.notes(train.x, others) if scaling else []
        for note in [chosen, *notes, verdicts.few_classes(train, test)]:
            if note:
                self.progress.note(note)

    def _watched(self) -> Split:
        """The validation examples that the epochs are compared by, all of them readable."""
        validation = self.splits[1]
        rows = sampling.drawn_rows(validation.y, sampling.MOST_VALIDATION)
        split = validation
        if len(rows) < len(validation):
            split = select_rows(validation, rows)
            self.progress.note(
                f"The epochs are compared by {len(rows):,} of the {len(validation):,} validation "
                "examples, the same ones each time."
            )
        split, self.watched_raw = sampling.read_once(split)
        if self.writes:
            unreadable.tell(self.folder, self.splits, self.progress)
        return split

    def go_on(self) -> Table:
        """Train the epochs that are left, measure the best model and write the result.

        Returns:
            The table; {} in a process that does not write.
        """
        checkpoint = run_folder.read_checkpoint(self.folder.checkpoint)
        if self.writes and checkpoint.epochs:
            self._write_from(checkpoint)
        if not self.settings.is_done(checkpoint.epochs, checkpoint.best_epoch):
            if checkpoint.epochs:
                self.progress.note(f"Going on after epoch {checkpoint.epochs}.")
            try:
                with self.devices.scope():
                    self._fit(checkpoint)
            except KeyboardInterrupt:
                if self.writes:
                    self._stop()
                raise Interrupted from None
            except files.WriteError as error:
                done = run_folder.read_checkpoint(self.folder.checkpoint).epochs
                raise files.WriteError(f"{error} {verdicts.whole_text(done)}") from error
        return self._finish() if self.writes else {}

    def _write_from(self, checkpoint: Checkpoint) -> None:
        """Write again what a kill between two renames may have left newer than the checkpoint."""
        assign(self.encoder.variables, checkpoint.best_weights)
        with files.atomic_write(self.folder.model) as path:
            backends.save(self._kept(checkpoint), path)
        run_folder.write_history(self.folder.history, checkpoint.history)

    def _fit(self, checkpoint: Checkpoint) -> None:
        settings, progress = self.settings, self.progress
        train = self.splits[0]
        trainer = settings.make_trainer(self.encoder, len(train.names), train.x.shape[1:])
        if checkpoint.epochs:
            assign(trainer.variables, checkpoint.weights)
            assign(trainer.optimizer.variables, checkpoint.optimizer)
        begun = run_folder.read_unfinished(self.folder.unfinished, checkpoint.epochs)
        if begun:
            assign(trainer.variables, begun.weights)
            assign(trainer.optimizer.variables, begun.optimizer)
            checkpoint.baseline = begun.baseline
            self.batches.first_batch = begun.batch
            progress.note(f"Going on in epoch {begun.epoch + 1}, after {begun.batch} batches.")
        self.batches.current_epoch = checkpoint.epochs
        if not settings.chunk:  # whose statistics are of a chunk
            self.devices.normalise_together(self.encoder)
        commit = CheckpointCallback(
            self.folder,
            settings,
            self.encoder,
            checkpoint,
            progress,
            self._kept,
            self.writes,
            begun,
        )
        validation = Validation(self.watched, commit, self.devices)
        if not checkpoint.baseline and not checkpoint.epochs:
            checkpoint.baseline = validation.baseline(trainer, self.watched_raw)
            progress.note(verdicts.start_text(checkpoint.scores))
        self.watched_raw = self.watched_raw[:0].copy()  # no more needed, and wide
        callbacks = [validation]
        if self.writes and settings.tensorboard:
            logs = keras.callbacks.TensorBoard(str(self.folder.tensorboard), write_graph=False)
            callbacks.append(logs)
        if self.writes:
            callbacks.append(unreadable.Told(self.folder, self.splits, progress))
        callbacks.append(commit)
        if settings.hard_negatives:
            hard = HardNegatives(
                self.encoder,
                train,
                self.batches,
                self.devices,
                progress,
                begun.confused if begun else (),
            )
            commit.confused = hard
            callbacks.append(hard)
        progress.begin(checkpoint.epochs, settings.epochs, settings.steps)
        # What is left of an epoch takes a `fit` of its own: Keras gives all epochs one length.
        ends = [checkpoint.epochs + 1, settings.epochs] if begun else [settings.epochs]
        try:
            for end in ends:
                done = commit.checkpoint.epochs
                if settings.is_done(done, commit.checkpoint.best_epoch):
                    break
                trainer.fit(
                    self.batches,
                    epochs=end,
                    initial_epoch=done,
                    shuffle=False,  # the batches are shuffled already; this would be unseeded
                    verbose=0,
                    callbacks=callbacks,
                )
        finally:
            progress.end()

    def _stop(self) -> None:
        """After Ctrl-C: say what is kept, and write its table and report."""
        checkpoint = run_folder.read_checkpoint(self.folder.checkpoint)
        self.progress.note(f"Interrupted. {verdicts.whole_text(checkpoint.epochs)}")
        if checkpoint.epochs:
            self._write_from(checkpoint)
            best = checkpoint.best
            which = {"raw": "the raw input", "start": "the network before training"}
            self.progress.note(
                f"The best model so far, {which.get(best, f'of epoch {checkpoint.best_epoch}')} "
                f"({CHOSEN_BY} {checkpoint.scores[best]:.4f}), is in {self.folder.model}. Writing "
                "its table and report; Ctrl-C again stops at once."
            )
            self._finish()

    def _finish(self) -> Table:
        # Only training needs these, and the trainer, which its callbacks hold in a cycle.
        del self.watched, self.batches
        gc.collect()
        return finishing.finish(
            self.folder, self.config, self.splits, self._untrained, self.progress, self.seconds
        )

    def _untrained(self) -> keras.Model:
        shape = self.splits[0].x.shape[1:]
        return untrained(self.folder, self.settings, shape, self.config.scaling)

    def _kept(self, checkpoint: Checkpoint) -> keras.Model:
        """Build the model to keep, of plain Keras layers; the encoder is at its best epoch."""
        if checkpoint.best == "raw":
            return networks.raw(self.splits[0].x.shape[1:])
        encoder = self._untrained() if checkpoint.best == "start" else self.encoder
        return encoder if self.folder.own_model.exists() else networks.plain(encoder)


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
