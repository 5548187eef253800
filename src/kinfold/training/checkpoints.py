"""What happens before the first epoch and at the end of each: metrics, and the commit."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kinfold.callbacks import RetrievalEvaluation
from kinfold.core import backends, files
from kinfold.datasets import Split
from kinfold.metrics.retrieval import retrieval_metrics
from kinfold.training import run_folder
from kinfold.training.devices import Devices
from kinfold.training.evaluation import as_numpy, assign
from kinfold.training.hard_negatives import HardNegatives
from kinfold.training.progress import Progress
from kinfold.training.run_folder import CHOSEN_BY, Checkpoint, RunFolder, Unfinished
from kinfold.training.settings import Settings

LIVE_METRICS = ("recall@1", "map@r")
EVERY = 600.0  # seconds of training between two writings in the middle of an epoch
_BATCH = 256


class CheckpointCallback(keras.callbacks.Callback):
    """Keeps the best model, and commits each epoch: the checkpoint's rename comes last.

    In a long epoch it also saves its progress every ten minutes. `unfinished` is such a save, of
    the epoch that begins now.

    `kept` builds the model to keep from a checkpoint, when the encoder is at its last epoch.
    Without `writes` it only tracks which epoch is the best.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        encoder: keras.Model,
        checkpoint: Checkpoint,
        progress: Progress,
        kept: Callable[[Checkpoint], keras.Model],
        writes: bool = True,
        unfinished: Unfinished | None = None,
    ) -> None:
        super().__init__()
        self.writes = writes
        self.kept = kept
        self.folder = folder
        self.settings = settings
        self.encoder = encoder
        self.checkpoint = checkpoint
        self.progress = progress
        self.collapse = checkpoint.collapse
        self.unfinished = unfinished
        self.confused: HardNegatives | None = None
        self.first = 0  # batches of this epoch that were done before
        self.start = time.monotonic() - (unfinished or checkpoint).seconds
        self.written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras's dropout on torch draws from torch's own generator, not from a state of the layer.
        if keras.backend.backend() == "torch":
            importlib.import_module("torch").manual_seed((self.settings.seed << 32) + epoch)
        state, self.unfinished, self.first = self.unfinished, None, 0
        if state is not None:
            self.first = state.batch
            assign(self.model.metrics_variables, state.metrics)  # `fit` has reset them
            for generator in state.generator:
                torch = importlib.import_module("torch")
                torch.set_rng_state(torch.from_numpy(generator))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        done = self.first + batch + 1
        whole = done >= self.settings.steps
        if self.writes and not whole and time.monotonic() - self.written > EVERY:
            self._write_unfinished(done)
        self.progress.step(done, lambda: float(logs["loss"]))

    def _write_unfinished(self, done: int) -> None:
        """Keep how far the epoch has come."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        generator = []
        if keras.backend.backend() == "torch":
            generator = [importlib.import_module("torch").get_rng_state().numpy()]
        state = Unfinished(
            self.checkpoint.epochs,
            done,
            as_numpy(self.model.variables),
            as_numpy(self.model.optimizer.variables),
            as_numpy(self.model.metrics_variables),
            generator,
            self.confused.table if self.confused else [],
            time.monotonic() - self.start,
            self.checkpoint.baseline,
        )
        run_folder.write_unfinished(self.folder.unfinished, state)
        self.written = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        checkpoint, folder, settings = self.checkpoint, self.folder, self.settings
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is {row['loss']}: training has diverged. Begin "
                "again in another folder with a lower learning rate."
            )
        history = checkpoint.history
        best = not checkpoint.best_epoch or row[CHOSEN_BY] > max(history[CHOSEN_BY])
        copied = as_numpy if self.writes else _nothing
        self.checkpoint = Checkpoint(
            {name: [*history.get(name, []), value] for name, value in row.items()},
            copied(self.model.variables),
            copied(self.model.optimizer.variables),
            epoch + 1 if best else checkpoint.best_epoch,
            copied(self.encoder.variables) if best else checkpoint.best_weights,
            self.collapse,
            time.monotonic() - self.start,
            checkpoint.baseline,
        )
        best = best and self.checkpoint.best == "trained"
        if self.writes:
            if best or not checkpoint.epochs:
                with files.atomic_write(folder.model) as path:
                    backends.save(self.kept(self.checkpoint), path)
            run_folder.write_history(folder.history, self.checkpoint.history)
            run_folder.write_checkpoint(folder.checkpoint, self.checkpoint)
            folder.unfinished.unlink(missing_ok=True)
            self.written = time.monotonic()
        self.progress.epoch(row, best)
        if settings.is_done(epoch + 1, self.checkpoint.best_epoch) and epoch + 1 < settings.epochs:
            self.model.stop_training = True
            self.progress.note(f"No better {CHOSEN_BY} in {settings.patience} epochs: stopping.")


def _nothing(variables: list[Any]) -> list[np.ndarray]:
    return []


class Validation(RetrievalEvaluation):
    """The metrics of each epoch; a collapse is told once in a run, and kept for its report."""

    def __init__(self, split: Split, commit: CheckpointCallback, devices: Devices) -> None:
        super().__init__(split.x, split.y, metrics=LIVE_METRICS, batch_size=_BATCH)
        self.devices = devices
        self.commit = commit
        self.collapsed = bool(commit.collapse)
        self.predict_callbacks = [_Told(commit.progress, len(split))]
        self.y = split.y
        self.measured = False

    def baseline(self, model: keras.Model, pixels: np.ndarray) -> dict[str, dict[str, float]]:
        """Measure the raw input and a model before training, as the epochs are measured."""
        raw = retrieval_metrics(pixels, self.y, metrics=LIVE_METRICS)
        start: dict[str, Any] = {}
        collapsed, self.collapsed = self.collapsed, True  # before training it may well be
        self.set_model(model)
        self.on_epoch_end(-1, start)
        self.collapsed, self.measured = collapsed, True
        return {"raw": {self.prefix + name: value for name, value in raw.items()}, "start": start}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.measured:  # `baseline` has embedded all that a first batch would try
            return
        with self.devices.measuring():
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with self.devices.measuring():
            super().on_epoch_end(epoch, logs)

    def tell(self, text: str) -> None:
        self.commit.collapse = text
        self.commit.progress.note(text)


class _Told(keras.callbacks.Callback):
    """Tells how far the embedding of the validation examples is."""

    def __init__(self, progress: Progress, count: int) -> None:
        super().__init__()
        self.told = progress.embedding("the validation examples")
        self.count = count

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.told(min((batch + 1) * _BATCH, self.count), self.count)
