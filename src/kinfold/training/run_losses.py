"""The loss of a run: by its name, with its own arguments, over the batches of a run."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from _kinfold_settings import LOSSES
from _kinfold_text import did_you_mean, in_words, is_of, parse
from kinfold import distances, losses
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.paired import PairedLoss
from kinfold.losses.trainable import TrainableLoss

# What a run decides: the data gives the numbers, a step needs one mean, devices share one batch.
_OF_THE_RUN = (
    *("num_classes", "embedding_size", "reduction", "name", "dtype"),
    *("gather_across_devices", "shard_classes"),
)

# Trained so, more unseen glyphs and icons are found than with the defaults of the loss, a margin of
# 0.4 and Keras's gradient: `python -m benchmarks recipe`.
DEFAULTS = {"circle": {"margin": 0.25, "detach_weights": True}}


def loss_class(name: str) -> type[keras.losses.Loss]:
    """Return the class of a loss by its name on the command line; ValueError if there is none."""
    if name not in LOSSES:
        raise ValueError(
            f"Unknown loss.{did_you_mean(name, LOSSES)} Expected one of {', '.join(LOSSES)}. "
            f"Received: loss={name!r}."
        )
    return getattr(losses, LOSSES[name])


def options(name: str) -> dict[str, inspect.Parameter]:
    """Return the arguments that a loss takes in a run, in the order of its class.

    Example:

    >>> from kinfold.training.run_losses import options
    >>> list(options("margin"))[:3]
    ['margin', 'beta', 'distance']
    """
    parameters = inspect.signature(loss_class(name), eval_str=True).parameters
    return {one: about for one, about in parameters.items() if one not in _OF_THE_RUN}


def parse_options(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read the options of a loss as the command line gives them.

    Args:
        name: the loss.
        texts: such as ["margin=0.2", "negatives=hard"]; values are read by the types of the
            arguments of the loss.

    Raises:
        ValueError: an unknown loss or argument, one that is given twice, or a value of another
            type.

    Example:

    >>> from kinfold.training.run_losses import parse_options
    >>> parse_options("triplet", ["margin=none", "negatives=hard"])
    {'margin': None, 'negatives': 'hard'}
    """
    known = options(name)
    values: dict[str, Any] = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not equals:
            raise ValueError(
                f"--loss-option takes NAME=VALUE, such as {defaults(name)[0]}. Received: {text!r}."
            )
        if option in values:
            raise ValueError(f"--loss-option {option} is given twice: leave one of them out.")
        _check_known(name, option)
        try:
            values[option] = parse(value, known[option].annotation, f"--loss-option {option}")
        except ValueError as error:
            raise ValueError(f"{error} {_options_in_words(name)}") from None
    return values


def with_shorthands(
    name: str, given: Mapping[str, Any], shorthands: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a loss, and those that a run has a setting of its own for.

    Args:
        name: the loss.
        given: its options by their names.
        shorthands: such as {"margin": 0.2}; None where it is not set. It stands for the option of
            that name, or for "negative_margin" where the loss has two.

    Raises:
        ValueError: a shorthand that the loss has no option for, or one that is given, too.
    """
    known, found = options(name), dict(given)
    for short, value in shorthands.items():
        if value is None:
            continue
        option = short if short in known else f"negative_{short}"
        if option not in known:
            raise ValueError(
                f"The loss {name} has no {short}: leave it out, or choose another loss. "
                f"Received: {short}={value}."
            )
        if option in found:
            raise ValueError(
                f"The {short} is given twice, as {short}={value} and as the loss option "
                f"{option}={found[option]}: leave one of them out."
            )
        found[option] = value
    return found


def make(
    name: str,
    arguments: Mapping[str, Any],
    num_classes: int,
    embedding_size: int,
    examples_per_class: int,
) -> keras.losses.Loss:
    """Build the loss of a run.

    Args:
        name: its name on the command line.
        arguments: those of its class; the others have the defaults of a run, see `defaults`.
        num_classes: number of classes to train on, for a loss with prototypes.
        embedding_size: dimensions of the embedding, for a loss with prototypes.
        examples_per_class: in a batch, for a loss of pairs.

    Raises:
        ValueError: an unknown loss, or arguments that it does not take.
    """
    kind, known = loss_class(name), options(name)
    for option, value in arguments.items():
        _check_known(name, option)
        if not is_of(value, known[option].annotation):
            raise ValueError(
                f"`{option}` must be {in_words(known[option].annotation)}. "
                f"Received: {option}={value!r}. {_options_in_words(name)}"
            )
    given = {**DEFAULTS.get(name, {}), **arguments}
    if issubclass(kind, losses.PrototypeLoss):
        given |= {"num_classes": num_classes, "embedding_size": embedding_size}
    try:
        loss = kind(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error} {_options_in_words(name)}") from error
    if isinstance(loss, (PairedLoss, losses.ContrastiveLoss)):
        return TwoByTwo(loss, examples_per_class)
    return loss


def check_memory(name: str, loss: keras.losses.Loss) -> None:
    """Raise ValueError for a loss that cannot look at the examples of earlier batches."""
    if not isinstance(loss, losses.PairLoss) or not loss.takes_references:
        raise ValueError(
            f"The loss {name} compares nothing with earlier batches: leave out memory_size "
            "(--memory-size), or choose a loss over pairs, such as circle or nt-xent."
        )


class TwoByTwo(TrainableLoss):
    """A loss of pairs for batches that hold some examples of each class, one class after another.

    The first two examples of each class are its pair, the next two another, and so on; an odd one
    is left out. A loss of paired embeddings compares pairs of different classes only, so each
    round takes one pair per class, and the loss is the mean of the rounds. A loss of given
    distances takes each pair, and as many pairs of different classes: an example with the partner
    of the next class.

    Args:
        loss: an `InfoNCELoss` or `SigLIPLoss`, or a `ContrastiveLoss` of Euclidean distances.
        examples_per_class: how many examples of each class a batch holds, 2 or more.

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import ContrastiveLoss
    >>> from kinfold.training.run_losses import TwoByTwo
    >>> x = np.array([[0, 0], [0, 0.5], [1, 0], [1, 0]], "float32")
    >>> print(f"{float(TwoByTwo(ContrastiveLoss(), 2)(np.array([0, 0, 1, 1]), x)):.4f}")
    0.0625
    """

    def __init__(self, loss: PairedLoss | losses.ContrastiveLoss, examples_per_class: int) -> None:
        super().__init__(loss.name, "sum_over_batch_size", loss.dtype)
        self.loss = loss
        self.examples_per_class = checks.count(examples_per_class, "examples_per_class", least=2)

    @property
    def layer(self) -> keras.layers.Layer:
        """The layer that holds the variables, those of the loss."""
        return self.loss.layer if isinstance(self.loss, TrainableLoss) else super().layer

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss.

        Args:
            y_true: class ids; not looked at, as the order of the batch says what belongs together.
            y_pred: embeddings [classes * examples_per_class, d].
            sample_weight: None; a run has no weights.
        """
        if sample_weight is not None:
            raise ValueError("A loss of pairs takes no weights in a run.")
        x = checks.embeddings(y_pred, "y_pred", self.dtype)
        x = ops.reshape(x, (-1, self.examples_per_class, x.shape[1]))
        starts = range(0, self.examples_per_class - 1, 2)
        return sum(self._of_pairs(x[:, i], x[:, i + 1]) for i in starts) / len(starts)

    def _of_pairs(self, x: Tensor, r: Tensor) -> Tensor:
        if isinstance(self.loss, PairedLoss):
            return self.loss(None, x, ref_embeddings=r)
        euclidean = distances.get("euclidean")
        same = euclidean.paired(x, r)
        different = euclidean.paired(x, ops.roll(r, 1, axis=0))
        labels = ops.concatenate(
            [ops.ones_like(same, dtype="int32"), ops.zeros_like(same, dtype="int32")]
        )
        return self.loss(labels, ops.concatenate([same, different]))


def _check_known(name: str, option: str) -> None:
    known = options(name)
    if option not in known:
        raise ValueError(
            f"The loss {name} has no option {option!r}.{did_you_mean(option, known)} "
            f"{_options_in_words(name)}"
        )


def _options_in_words(name: str) -> str:
    return f"Options of {name}, with their defaults: {', '.join(defaults(name))}."


def defaults(name: str) -> list[str]:
    """The options of a loss with their defaults in a run, as the command line takes them.

    Example:

    >>> from kinfold.training.run_losses import defaults
    >>> defaults("circle")[:2]
    ['gamma=80', 'margin=0.25']
    """
    ours = DEFAULTS.get(name, {})
    return [f"{one}={_in_words(ours.get(one, it.default))}" for one, it in options(name).items()]


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
