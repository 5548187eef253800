"""The roads that a pair loss can take to its value, in order of preference.

Every road gives what the equation gives. The first that neither cannot nor would rather not serve
is taken, and `kinfold.streaming.road` forces one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, transformed
from kinfold.streaming import blocks, forced
from kinfold.streaming.blocks import BlockSizeRule
from kinfold.streaming.family import refusal
from kinfold.streaming.fused import choice as fused
from kinfold.streaming.problem import Problem, Row, Streamed, snapshot
from kinfold.streaming.symmetric import symmetric

Why = Callable[[Any, Problem], str | None]


class Road(NamedTuple):
    """One way to compute a loss.

    Attributes:
        name: what `kinfold.streaming.road` calls it.
        cannot: why it would be wrong, or fail, in a sentence; None where it serves.
        rather_not: why another one is better; None where it is not. A road that is forced does not
            ask.
        rows: loss of each anchor and what a mean counts of it, [n] each.
        weighted_sum: sum of the losses times weights [n], and what a mean counts [n].
    """

    name: str
    cannot: Why
    rather_not: Why
    rows: Callable[[Any, Problem], tuple[Tensor, Tensor]]
    weighted_sum: Callable[[Any, Problem, Tensor], tuple[Tensor, Tensor]]


def rows(loss: Any, problem: Problem) -> tuple[Tensor, Tensor]:
    """Loss of each anchor, and what a mean counts of it, by the best road."""
    return chosen(loss, problem).rows(loss, problem)


def weighted_sum(loss: Any, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses times weights [n], and what a mean counts of each, by the best road."""
    return chosen(loss, problem).weighted_sum(loss, problem, weights)


def chosen(loss: Any, problem: Problem) -> Road:
    """The first road that serves, or the one that is forced.

    Raises:
        RuntimeError: one is forced that cannot serve.
    """
    if name := forced.only():
        road = next(road for road in ROADS if road.name == name)
        if why := road.cannot(loss, problem):
            raise RuntimeError(forced.refused(loss, why))
        return road
    *preferred, last = ROADS
    return next((road for road in preferred if why_not(road, loss, problem) is None), last)


def why_not(road: Road, loss: Any, problem: Problem) -> str | None:
    """Why a road is not taken, in a sentence; None where it would be."""
    if forced.without(road.name):
        return "`fused_kernels(False)` leaves it out."
    if forced.only() == road.name:
        return road.cannot(loss, problem)
    if forced.only():
        return f"the road {forced.only()!r} is forced."
    return road.cannot(loss, problem) or road.rather_not(loss, problem)


def explain(loss: Any, y_true: Any, y_pred: Any, **references: Any) -> list[tuple[str, str | None]]:
    """Tell which road a loss takes, and why none before it.

    Args:
        loss: a `PairLoss`, or a `CrossBatchMemory`.
        y_true: labels, as for the loss.
        y_pred: embeddings, as for the loss.
        **references: `ref_labels`, `ref_embeddings` and `ref_mask`, as for the loss.

    Returns:
        For each road in order of preference, "fused", "symmetric", "one_block" and "blocks", None
        where it would serve, or the sentence why not. The first with None is taken.

    Raises:
        TypeError: the loss is neither.

    Example:

    >>> import numpy as np
    >>> from kinfold import streaming
    >>> from kinfold.losses import MarginLoss
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    >>> dict(streaming.explain(MarginLoss(), y, x))["symmetric"]
    'MarginLoss is not made of two log-sum-exps; see its `family`.'
    """
    if not hasattr(loss, "problem"):
        raise TypeError(
            "`explain` tells the roads of a PairLoss or a CrossBatchMemory. Received: "
            f"loss={loss!r}."
        )
    problem = loss.problem(y_true, y_pred, **references)
    loss = getattr(loss, "loss", loss)  # that of a memory
    return [(road.name, why_not(road, loss, problem)) for road in ROADS]


def streamed_rows(
    loss: Any, problem: Problem, row: Row, whole: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and what a mean counts of each anchor, by a function of its row of distances.

    Args:
        row: see `kinfold.streaming.problem.Block`.
        whole: see `kinfold.streaming.per_anchor`.
    """
    given = Streamed.of(loss, snapshot(problem), row)
    return blocks.per_anchor(*given, _rule(loss, problem), whole)


def _streamed_sum(
    loss: Any, problem: Problem, weights: Tensor, whole: bool
) -> tuple[Tensor, Tensor]:
    # The loop over blocks has its gradients before anything can be written over.
    given = Streamed.of(loss, snapshot(problem) if whole else problem, loss.row)
    block, x, r, anchors, references = given
    rule = _rule(loss, problem)
    return blocks.weighted_sum(block, x, r, weights, anchors, references, rule, whole)


def _rule(loss: Any, problem: Problem) -> BlockSizeRule:
    more = sum(ops.shape(part.embeddings)[0] for part in problem.parts[1:])
    rule = BlockSizeRule(loss.block_size, loss.numbers_a_pair(problem.x.shape[1]), more)
    return rule.on(problem.x)


def _no_tiles(loss: Any, problem: Problem) -> str | None:
    if why := refusal(loss):
        return why
    family = loss.family()
    if family.extra != "none":
        return f"{type(loss).__name__} has a statistic beside two log-sum-exps."
    if not problem.with_itself():
        return (
            "the tiles compare a batch of class ids with itself alone, without a mask or a memory."
        )
    if not hasattr(family.distance, "of_dot"):
        return f"distance={family.distance.name!r} is no function of the dot product alone."
    if problem.x.shape[0] == 0:
        return "the batch is empty."
    if backends.module("kinfold.streaming").devices(problem.x) is not None:
        return "the rows lie on several devices, each of which takes its own."
    return _no_loops(loss, problem)


def _many_launches(loss: Any, problem: Problem) -> str | None:
    if backends.module("kinfold.streaming").on_gpu(problem.x):
        return "its tiles are so small that a GPU would wait for their launches."
    return None


def _no_loops(loss: Any, problem: Problem) -> str | None:
    return "the transforms of torch.func take plain operations alone." if transformed() else None


def _too_large(loss: Any, problem: Problem) -> str | None:
    n, m = (ops.shape(side)[0] for side in (problem.x, problem.parts[0].embeddings))
    return None if transformed() else _rule(loss, problem).why_not_one_block(n, m)


def _nothing_against(loss: Any, problem: Problem) -> str | None:
    return None


def _tiles(loss: Any, problem: Problem) -> tuple[Tensor, Tensor]:
    x, diagonal = at_least_float32(problem.x), not loss.remove_diagonal
    return symmetric(loss.family(), x, problem.labels, diagonal, loss.block_size)


def _summed(of_rows: Any) -> Any:
    """`weighted_sum` of a road that has its gradients from the losses of the anchors."""

    def weighted_sum(loss: Any, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        found, counted = of_rows(loss, problem)
        return ops.sum(found * weights), counted

    return weighted_sum


def _blocks(whole: bool) -> Any:
    """`rows` and `weighted_sum` of the general roads."""
    return (
        lambda loss, problem: streamed_rows(loss, problem, loss.row, whole),
        lambda loss, problem, weights: _streamed_sum(loss, problem, weights, whole),
    )


# The last one is taken where all others say no; what it says counts only where it is forced.
ROADS = (
    Road("fused", fused.cannot, fused.rather_not, fused.rows, _summed(fused.rows)),
    Road("symmetric", _no_tiles, _many_launches, _tiles, _summed(_tiles)),
    Road("one_block", _nothing_against, _too_large, *_blocks(True)),
    Road("blocks", _no_loops, _nothing_against, *_blocks(False)),
)
