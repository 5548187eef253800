"""The range of values in the images that a model takes: chosen once, and saved with the model."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from kinfold.core.readers import change
from kinfold.core.stored import Stored, blocks, some

KINDS = ("bytes", "unit", "standardised")
_LAYER = "to_bytes"
_SPREAD = 3.0  # standard deviations about the mean that become 0 to 255
_BLOCK = 1 << 22  # values looked at at once

Images = np.ndarray | Stored  # [n, height, width, channels]


@dataclass(frozen=True)
class Scaling:
    """What values a model takes, and so what its first layer does to reach 0 to 255.

    Args:
        kind: "bytes": the model takes 0 to 255, and changes nothing. "unit": it takes 0 to 1, and
            multiplies by 255. "standardised": it takes any floats, and subtracts the mean of the
            training images and divides by their standard deviation, channel by channel; the mean
            less 3 standard deviations becomes 0, the mean and 3 more become 255.
        mean: of each channel, for "standardised".
        deviation: the standard deviation of each channel, for "standardised".

    Example:

    >>> from kinfold.encoders.scaling import Scaling
    >>> Scaling("unit").said()
    'images with values from 0 to 1'
    """

    kind: str = "bytes"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def of(cls, x: Images) -> "Scaling":
        """Choose by the training images [n, height, width, channels].

        uint8 is "bytes". Other numbers are "unit" from 0 to 1, "bytes" from 0 to 255, and
        "standardised" where any lies outside.
        """
        kind = kind_of(x)
        if kind != "standardised":
            return cls(kind)
        mean = _mean(x)
        squares = np.zeros(len(mean))
        for block in _blocks(x):
            squares += ((block - mean) ** 2).sum(axis=(0, 1, 2))
        deviation = np.sqrt(squares / (math.prod(x.shape) // len(mean)))
        # A channel that never changes has no scale: its differences stay as they are.
        constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
        deviation = np.where(constant, 1.0, deviation)
        return cls(kind, tuple(mean.tolist()), tuple(deviation.tolist()))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scaling":
        """Build it from what `get_config` gave; ValueError where it is something else."""
        try:
            kind, mean, deviation = (config[name] for name in ("kind", "mean", "deviation"))
            scaling = cls(kind, *(tuple(float(v) for v in values) for values in (mean, deviation)))
        except (TypeError, KeyError, ValueError):
            scaling = cls("")
        if scaling.kind not in KINDS or min(scaling.deviation, default=1.0) <= 0:
            raise ValueError(f"a scaling is one of {', '.join(KINDS)}, not {config!r}")
        return scaling

    def get_config(self) -> dict[str, Any]:
        """All that it is, for a JSON file."""
        return asdict(self)

    def layer(self) -> keras.Layer | None:
        """Build the layer of Keras that brings images to 0 to 255; None where they are so."""
        scale, offset = self._line()
        if self.kind == "bytes":
            return None
        if len(scale) == 1:  # a list would be one of the channels
            return keras.layers.Rescaling(scale[0], offset[0], name=_LAYER, dtype="float32")
        return keras.layers.Rescaling(scale, offset, name=_LAYER, dtype="float32")

    def _line(self) -> tuple[list[float], list[float]]:
        if self.kind != "standardised":
            return [255.0 if self.kind == "unit" else 1.0], [0.0]
        scale = [127.5 / (_SPREAD * deviation) for deviation in self.deviation]
        offset = [127.5 - a * mean for a, mean in zip(scale, self.mean, strict=True)]
        return scale, offset

    def said(self) -> str:
        """Say what the model takes, after "the model takes"."""
        if self.kind == "standardised":
            mean, deviation = np.mean(self.mean), np.mean(self.deviation)
            return (
                "images of floating numbers, which it standardises (their mean in training is "
                f"{mean:.4g}, their standard deviation {deviation:.4g})"
            )
        return f"images with values from 0 to {255 if self.kind == 'bytes' else 1}"

    def notes(self, train: Images, others: dict[str, Images]) -> list[str]:
        """Say what the model takes, and which images of its own data are doubtful."""
        lines = [f"The model takes {self.said()}."]
        if train.dtype == np.uint8 and _extremes(some(train))[1] <= 1:
            lines.append(
                "The images to train on are uint8 without a value above 1, nearly black. Save "
                "masks as floating numbers from 0 to 1."
            )
        top = {"bytes": 255, "unit": 1}.get(self.kind, np.inf)
        for name, x in others.items():
            low, high = _extremes(some(x) if x.dtype == np.uint8 else x)
            if self.kind != "standardised" and (low < 0 or high > top):
                lines.append(
                    f"The {name} images reach from {low:.4g} to {high:.4g}, those to train on lie "
                    f"from 0 to {top}: are they of one unit? They are taken as they are."
                )
        return lines

    def convert(self, x: Images, name: str) -> tuple[Images, str]:
        """Bring other images to the range of this model, where that can be done in one way only.

        Args:
            x: images [n, height, width, channels].
            name: of their data, for messages.

        Returns:
            The images, and a note of what was done to them, or "".

        Raises:
            ValueError: the images could be of more than one range.
        """
        other = kind_of(x)
        if other == self.kind:
            return x, self._far(x, name)
        if (self.kind, other) == ("bytes", "unit"):
            said = f"The images of {name} lie from 0 to 1; they are multiplied by 255, as"
            return change(x, _times_255), f"{said} the model takes {self.said()}."
        if (self.kind, other) == ("unit", "bytes") and _whole_numbers(x):
            said = f"The images of {name} lie from 0 to 255; they are divided by 255, as"
            return change(x, _by_255), f"{said} the model takes {self.said()}."
        if self.kind == "standardised" and x.dtype != np.uint8:
            return x, self._far(x, name)
        wanted = {
            "bytes": "Save them with values from 0 to 255, as uint8",
            "unit": "Save them with values from 0 to 1, or as uint8",
            "standardised": "Save them as floating numbers, as the training images were",
        }
        low, high = _extremes(x)
        raise ValueError(
            f"The images of {name} lie from {low:.4g} to {high:.4g} ({x.dtype}); the model "
            f"takes {self.said()}. {wanted[self.kind]}."
        )

    def _far(self, x: Images, name: str) -> str:
        """A note where floats differ so much from those of training that units may differ."""
        if self.kind != "standardised":
            return ""
        theirs = Scaling.of(x) if kind_of(x) == "standardised" else None
        mean = np.array(theirs.mean if theirs else _mean(x))
        away = np.abs(mean - self.mean) / np.array(self.deviation)
        if away.max() <= _SPREAD:
            return ""
        return (
            f"The images of {name} have a mean of {mean.mean():.4g}, far from training: the model "
            f"takes {self.said()}. They are taken as they are."
        )


def kind_of(x: Images) -> str:
    """Say which range images lie in: one of `KINDS`."""
    if x.dtype == np.uint8:
        return "bytes"
    low, high = _extremes(x)
    if low < 0 or high > 255:
        return "standardised"
    return "unit" if high <= 1 else "bytes"


def value_range(model: keras.Model) -> tuple[float, float]:
    """Find the values that become 0 and 255 in a model whose first layer scales its input."""
    for layer in model.layers:
        if layer.name == _LAYER:
            scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
            return float((-offset / scale).min()), float(((255 - offset) / scale).max())
    return 0.0, 255.0


def _whole_numbers(x: Images) -> bool:
    """Whether all values are whole, as those of pictures are."""
    return x.dtype.kind in "iu" or all(bool((b == np.rint(b)).all()) for b in _blocks(x))


def _extremes(x: Images) -> tuple[float, float]:
    lows, highs = zip(*((block.min(), block.max()) for block in _blocks(x)), strict=True)
    return float(min(lows)), float(max(highs))


def _mean(x: Images) -> np.ndarray:
    """Of each channel, float64."""
    sums = sum(block.sum(axis=(0, 1, 2), dtype=np.float64) for block in _blocks(x))
    return sums / math.prod(x.shape[:-1])


def _blocks(x: Images) -> Iterator[np.ndarray]:
    """The images some at a time, as they may be many, or be read for this."""
    return blocks(x, max(1, _BLOCK // math.prod(x.shape[1:])))


def _times_255(x: np.ndarray) -> np.ndarray:
    return x * np.float32(255)


def _by_255(x: np.ndarray) -> np.ndarray:
    return x / np.float32(255)
