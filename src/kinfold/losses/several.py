"""Paired losses of several partners and hard negatives an embedding, and a guard by a guide."""

from typing import Any, NamedTuple

from keras import ops

from kinfold import distributed, streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import largest, or_nan, unit_rows
from kinfold.losses.reduction import reduced


class Sides(NamedTuple):
    """What is compared: embeddings, and k candidates of each.

    Attributes:
        x: floating [n, d].
        r: candidates, floating [n, k, d]: the partners of an embedding first, then its hard
            negatives.
        guide: the same two of another model, which gets no gradient; None without one.
    """

    x: Tensor
    r: Tensor
    guide: tuple[Tensor, Tensor] | None


def sides(loss: Any, y_true: Any, y_pred: Any, ref_embeddings: Any) -> Sides:
    """Check the arguments of a call of a `PairedLoss`.

    Raises:
        ValueError: wrong shapes, or no embeddings of a guide for a loss with one.
    """
    x = ops.convert_to_tensor(y_pred, dtype=loss.dtype)
    if ref_embeddings is None:
        _check(x, "y_pred", 1 + loss.positives)
        x, r = x[:, 0], x[:, 1:]
    else:
        x = checks.embeddings(x, "y_pred", loss.dtype)
        r = ops.convert_to_tensor(ref_embeddings, dtype=loss.dtype)
        r = r[:, None] if len(r.shape) == 2 else r
        _check(r, "ref_embeddings", loss.positives)
        checks.same_count(x, r, ("y_pred", "ref_embeddings"))
    if loss.guide_margin is None:
        return Sides(x, r, None)
    columns = 1 + r.shape[1]
    shape = getattr(y_true, "shape", None)
    if shape is None or len(shape) != 3 or shape[1] not in (None, columns):
        raise ValueError(
            "With `guide_margin`, `y_true` must hold the embeddings that the guide gives to what "
            f"`y_pred` holds, shape [batch, {columns}, size]. Received "
            + ("None." if y_true is None else f"shape {None if shape is None else tuple(shape)}.")
        )
    guide = ops.stop_gradient(ops.convert_to_tensor(y_true, dtype=loss.dtype))
    checks.same_count(guide, x, ("y_true", "y_pred"))
    return Sides(x, r, (guide[:, 0], guide[:, 1:]))


def _check(x: Tensor, name: str, least: int) -> None:
    if len(checks.known_shape(x, name)) != 3 or (x.shape[1] is not None and x.shape[1] < least):
        raise ValueError(
            f"`{name}` must have at least {least} columns, shape [batch, columns, d]: partners, "
            f"and then any hard negatives. Received shape {tuple(x.shape)}."
        )


class Direction(NamedTuple):
    """Who looks for its partners among whom.

    Attributes:
        anchors: floating [a, d], `each` for every embedding, one embedding's after the other's.
        references: floating [m, d].
        of_anchors: of each anchor, the number of its embedding in the batch, and its guide.
        of_references: the number of its embedding, whether it is a partner of it, and its guide.
        each: how many anchors there are for an embedding.
    """

    anchors: Tensor
    references: Tensor
    of_anchors: tuple[Tensor, ...]
    of_references: tuple[Tensor, ...]
    each: int


def value(loss: Any, given: Sides, weights: Tensor | None, y_pred: Any) -> Tensor:
    """The loss, reduced; with the reduction "none", or without weights, that of each [n]."""
    rows, ranks = None, distributed.ranks(loss, given.x)
    if ranks:
        (rows,) = ranks.meet(distributed.facts(loss, y_pred, given.x), given.x)
    every = _directions(loss, given, rows)
    n = ops.shape(given.x)[0]
    if weights is None or loss.reduction in (None, "none"):
        mean: Any = 0.0
        for way in every:
            part, _ = streaming.per_anchor(loss.block_of_several, *way[:4], rule=loss.rule())
            mean = mean + ops.sum(ops.reshape(part, (n, -1)), axis=1) / (way.each * len(every))
        mean = or_nan(mean, given.x, given.r)
        return mean if weights is None else mean * weights
    total: Any = 0.0
    for way in every:
        shares = ops.repeat(weights, way.each) / way.each
        of_block = way.anchors, way.references, shares, way.of_anchors, way.of_references
        part, _ = streaming.weighted_sum(loss.block_of_several, *of_block, rule=loss.rule())
        total = total + part
    total = or_nan(total / len(every), given.x, given.r)
    return reduced(total, ops.ones_like(weights, dtype="bool"), weights, loss.reduction, ranks)


def _directions(loss: Any, given: Sides, rows: Any) -> list[Direction]:
    k, p = given.r.shape[1], loss.positives
    x, r = loss.wide(given.x, _flat(given.r))
    # What each is compared with is of all ranks.
    gathered = rows.gathered if rows else lambda part: part
    every_x, every_r, first = gathered(x), gathered(_by_example(r, k)), rows.first if rows else 0
    own = ops.arange(ops.shape(x)[0], dtype="int32") + first
    every = ops.arange(ops.shape(every_x)[0], dtype="int32")
    columns = ops.arange(ops.shape(every_x)[0] * k, dtype="int32")  # k of each embedding
    guides: list[Any] = [(), (), (), ()]
    if given.guide is not None:
        g, of_r = given.guide
        guides = [(g,), (_flat(gathered(of_r)),), (_flat(of_r[:, :p]),), (gathered(g),)]
    of_columns = columns // k, columns % k < p, *guides[1]
    there = Direction(x, _flat(every_r), (own, *guides[0]), of_columns, 1)
    if len(loss.directions(x, r)) == 1:
        return [there]
    own, every_one = ops.repeat(own, p), ops.ones_like(every, dtype="bool")
    partners = _flat(_by_example(r, k)[:, :p])
    back = Direction(partners, every_x, (own, *guides[2]), (every, every_one, *guides[3]), p)
    return [there, back]


def _flat(r: Tensor) -> Tensor:
    return ops.reshape(r, (-1, r.shape[-1]))


def _by_example(r: Tensor, k: int) -> Tensor:
    return ops.reshape(r, (-1, k, r.shape[-1]))


def masks(
    at: Tensor, owner: Tensor, partner: Tensor, guides: tuple[Tensor, ...], margin: float | None
) -> tuple[Tensor, Tensor]:
    """Which references are partners of each anchor, and which count as negatives; [t, m].

    Args:
        at: the number of each anchor's embedding, integers [t].
        owner: that of each reference, integers [m].
        partner: whether the reference is a partner of its embedding, boolean [m].
        guides: what the guide gives to anchors [t, g] and references [m, g], or nothing.
        margin: negatives whose cosine in the guide is above that of the nearest partner, less
            this margin, are left out.
    """
    same = ops.equal(ops.expand_dims(at, 1), ops.expand_dims(owner, 0))
    own = ops.logical_and(same, ops.expand_dims(partner, 0))
    negative = ops.logical_not(own)
    if guides and margin is not None:
        g, of_references = (unit_rows(guide) for guide in guides)
        cosine = g @ ops.transpose(of_references)
        nearest = largest(ops.where(own, cosine, ops.full_like(cosine, -2.0)), axis=1)
        apart = cosine <= ops.expand_dims(nearest, 1) - margin
        negative = ops.logical_and(negative, apart)
    return own, negative
