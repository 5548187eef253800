"""The model that a run has kept, with the data that it takes."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kinfold.datasets import Split, Splits
from kinfold.encoders.pretrained import first_line
from kinfold.encoders.scaling import Scaling, kind_of
from kinfold.training import evaluation, listing, records, sources
from kinfold.training.progress import Progress
from kinfold.training.records import Config
from kinfold.training.run_folder import RunFolder
from kinfold.training.running import drawn

Path_ = str | os.PathLike[str]
TRAINED_ON = "The model was trained on some of these classes."


@dataclass(frozen=True)
class Kept:
    """The model that a run has kept, with what it takes.

    Args:
        folder: of the run.
        config: how the run was begun.
        model: that was kept.
    """

    folder: RunFolder
    config: Config
    model: keras.Model

    @classmethod
    def load(cls, run: Path_) -> "Kept":
        """Load it from a run folder."""
        folder = RunFolder(run)
        config = records.read_config(folder)
        if not folder.model.exists():
            raise FileNotFoundError(
                f"There is no model in {folder.path} yet. Go on: kinfold train --resume "
                f"{shlex.quote(str(folder.path))}"
            )
        try:
            model = keras.saving.load_model(folder.model)
        except Exception as error:  # as many kinds as there are layers
            raise ValueError(
                f"{folder.model} is damaged, or of another version: {first_line(error)} Remove it, "
                f"and kinfold train --resume {shlex.quote(str(folder.path))} writes it anew."
            ) from error
        return cls(folder, config, model)

    @property
    def note(self) -> str:
        """What the run said if the model is not of an epoch; "" if it is."""
        metrics = records.read_metrics(self.folder.metrics, evaluation.ROWS)
        return str(metrics.get("note") or "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the inputs that the model takes, without the batch; those of its run where any do."""
        shape = tuple(getattr(self.model, "input_shape", (None, None))[1:])
        if None in shape:
            return tuple(listing.read(self.folder.listing).meta["shape"])
        return shape

    def read(self, data: str, progress: Progress) -> tuple[Split, str, list[str]]:
        """Read data in the range of values that the model takes.

        Returns:
            The examples; what they are, in words; and lines of what is to be said of them.
        """
        split, which = sources.load_evaluated(data, self.shape, drawn(progress))
        own = same_data(self.config.settings.data, data)
        scaling, said = self.config.scaling, self._trained_on(split) if own else []
        # Older runs name no scaling: their images from 0 to 1 were multiplied by 255.
        if split.x.ndim == 4 and not (own and (scaling or kind_of(split.x) != "unit")):
            x, note = (scaling or Scaling()).convert(split.x, data)
            split = replace(split, x=x)
            said = [*([note] if note else []), *said]
        return split, which, said

    def _trained_on(self, split: Split) -> list[str]:
        """Say so if the run has trained on some of these classes."""
        seen = sources.training_classes(self.folder) & set(split.names)
        return [TRAINED_ON] if seen else []

    def own_data(self) -> Splits:
        """The examples of the run."""
        return sources.again(self.folder, self.config.settings)[0]

    def own_test(self) -> Split:
        """The test examples of the run."""
        return self.own_data().test

    def embed(self, split: Split, told: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Embed examples that `read` gave, or of the run's own data."""
        return evaluation.embed(self.model, split.x, told)


def same_data(data: str, other: str) -> bool:
    """Whether two names of data are of one path."""
    return Path(data).resolve() == Path(other).resolve()
