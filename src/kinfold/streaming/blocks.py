"""Runs a per-anchor function over blocks of anchors, so that memory is linear in the batch.

A block function takes some anchors and all references, and returns the anchors' losses and what a
mean counts of each (whether it is valid, or its number of terms), which has no gradient:
`block(x [t, d], r [m, d], *anchors [t, ...], *references [m, ...]) -> ([t], [t])`.
Anchors are independent of each other, so the blocks are exact, whatever their size.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, log_sum_exp, transformed
from kinfold.streaming import forced

Block = Callable[..., tuple[Tensor, Tensor]]

# Pairs of a block. On a processor each backend says how many (`PAIRS`): its handful of float32
# buffers then stays near a core's cache. On a GPU there is no such cache, and each block is a few
# dozen launches: 64 MiB a buffer.
PAIRS_ON_GPU = 2**24

# With fewer anchors per block, passing over the references again costs more than it saves memory.
# Products with fewer than ENOUGH rows run no faster, so use at least ENOUGH if memory allows.
FEWEST, ENOUGH = 8, 16

# One block may be this many times larger, where none then need be computed twice.
ONE_BLOCK = 4


class BlockSizeRule(NamedTuple):
    """Gives the number of rows per block once the batch size is known.

    Attributes:
        block_size: anchors per block; None chooses by the number of references.
        cost: numbers that a pair takes in a block (d for the Manhattan distance).
        more: references beside those that are given a gradient.
        pairs: of a block, where nothing else is said; None leaves them to where the anchors lie.
    """

    block_size: int | None = None
    cost: int = 1
    more: int = 0
    pairs: int | None = None

    def on(self, x: Tensor) -> "BlockSizeRule":
        """The rule where `x` lies."""
        if self.pairs is not None:
            return self
        backend = _backend()
        return self._replace(pairs=PAIRS_ON_GPU if backend.on_gpu(x) else backend.PAIRS)

    def anchors(self, m: Any) -> Any:
        """Anchors per block for `m` references, or the reverse; a number or a tensor."""
        if self.block_size is not None:
            return self.block_size
        numbers = (m + self.more) * self.cost + 1  # of an anchor
        pairs = self.pairs or _backend().PAIRS
        size = pairs // numbers + 1
        if not isinstance(size, int):
            return size
        return max(size, FEWEST, min(ENOUGH, ONE_BLOCK * pairs // numbers + 1))

    def why_not_one_block(self, n: Any, m: Any) -> str | None:
        """Why `n` anchors with `m` references had better be several blocks; None if one will do."""
        if not isinstance(n, int) or not isinstance(m, int):
            return "the size of the batch is not known while it is traced."
        size = self.anchors(m)
        if size >= n:
            return None
        if self.block_size is not None:
            return f"block_size={self.block_size}, and the batch has {n:,} anchors."
        return f"{n:,} x {m + self.more:,} pairs would take too much memory at once."


LEFT_ALONE = BlockSizeRule()


def per_anchor(
    block: Block,
    x: Tensor | tuple[Tensor, ...],
    r: Tensor | tuple[Tensor, ...],
    anchors: Sequence[Tensor] = (),
    references: Sequence[Tensor] = (),
    rule: BlockSizeRule = LEFT_ALONE,
    whole: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of each anchor and what a mean counts; the backward pass computes each block again.

    Equal to `block(x, r, *anchors, *references)`, without allocating [n, m]. Without anchors or
    without references no block is run: losses are 0, and a mean counts none.

    Args:
        block: see this module; a hashable function of `keras.ops`.
        x: anchors [n, d]; or a tuple that begins with them, of tensors [n, ...] that each get a
            gradient and are given to `block` one after the other.
        r: references [m, d], the anchors themselves where they are `x`; or a tuple of tensors that
            begins with them.
        anchors: tensors [n, ...] that are cut into blocks with `x`.
        references: tensors that every block sees whole.
        rule: sets the number of anchors per block.
        whole: whether to take one block, or never to; None leaves it to the rule.

    Returns:
        Losses [n], differentiable with respect to `x` and `r`, and what a mean counts [n]. A block
        may give several numbers of each anchor, [t, k], for [n, k] in all.
    """
    xs, rs = _tuple(x), _tuple(r)
    if 0 in (xs[0].shape[0], rs[0].shape[0]):
        return _nothing(xs, rs)
    if (devices := _backend().devices(xs[0])) is not None:
        each = _OnDevice(per_anchor, block, rule, _told(whole))
        return _backend().on_devices(each, devices, (xs, (), anchors), rs, references)
    rule = rule.on(xs[0])
    size = _size(xs[0], rs[0], rule, whole)
    data = tuple(anchors), tuple(references)
    if size is None:
        return _backend().one_block(block, xs, rs, *data)
    return _backend().per_anchor(block, size, xs, rs, *data)


def weighted_sum(
    block: Block,
    x: Tensor | tuple[Tensor, ...],
    r: Tensor | tuple[Tensor, ...],
    weights: Tensor,
    anchors: Sequence[Tensor] = (),
    references: Sequence[Tensor] = (),
    rule: BlockSizeRule = LEFT_ALONE,
    whole: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the anchors' losses times their weights; gradients are taken in the same pass.

    The weights being known, nothing is computed twice: as many matrix products as the dense form.
    Where nothing asks for a gradient, none is computed.

    Args:
        weights: floating [n].

    Returns:
        The sum, a scalar, differentiable with respect to `x`, `r` and `weights`, and what a mean
        counts of the anchors [n]. The other arguments are those of `per_anchor`.
    """
    xs, rs = _tuple(x), _tuple(r)
    if 0 in (xs[0].shape[0], rs[0].shape[0]):
        loss, valid = _nothing(xs, rs)
        return keras.ops.sum(loss * weights) + _zero((*xs, *rs)), valid
    if (devices := _backend().devices(xs[0])) is not None:
        each = _OnDevice(weighted_sum, block, rule, _told(whole))
        return _backend().on_devices(each, devices, (xs, (weights,), anchors), rs, references)
    rule = rule.on(xs[0])
    size = _size(xs[0], rs[0], rule, whole)
    data = tuple(anchors), tuple(references)
    if size is None:
        loss, valid = _backend().one_block(block, xs, rs, *data)
        return keras.ops.sum(loss * weights), valid
    return _backend().weighted_sum(block, size, xs, rs, weights, *data)


def sum_and_log_sum(
    block: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    r: Tensor,
    anchors: Sequence[Tensor] = (),
    references: Sequence[Tensor] = (),
    rule: BlockSizeRule = LEFT_ALONE,
) -> tuple[Tensor, Tensor]:
    """A sum and a log-sum-exp over the references, by blocks of them; where they are many.

    The backward pass computes each block again, unless there is but one.

    Args:
        block: a hashable function of `keras.ops`, from `x`, a block of `r`, `*anchors` and the
            blocks of `*references` to the terms of the sum [n, b] and to logits [n, b], -inf where
            there is none.
        x: anchors [n, d], all in each block.
        r: references [m, ...], of the dtype of `x`.
        anchors: tensors [n, ...].
        references: tensors [m, ...] that are cut into blocks with `r`.
        rule: sets the number of references per block, from the number of anchors.

    Returns:
        The sum [n], and the log-sum-exp [n], -inf for no logit, in float32 at least; differentiable
        with respect to `x` and `r`.
    """
    n, m, rule = keras.ops.shape(x)[0], r.shape[0], rule.on(x)
    size = rule.anchors(n) if isinstance(n, int) else rule
    largest = size * ONE_BLOCK if rule.block_size is None and isinstance(size, int) else size
    if takes_one_block(isinstance(largest, int) and m is not None and largest >= m):
        found = _backend().one_block(block, (x,), (r,), tuple(anchors), tuple(references))
        terms, logits = map(at_least_float32, found)
        return keras.ops.sum(terms, axis=1), log_sum_exp(logits)
    return _backend().sum_and_log_sum(block, size, x, r, tuple(anchors), tuple(references))


def takes_one_block(fits: bool, whole: bool | None = None) -> bool:
    """Whether to take one block: as `whole` or a forced road says, or else where it `fits`.

    Raises:
        RuntimeError: several are asked for under a transform of torch.func.
    """
    whole = _told(whole)
    if whole is False and transformed():
        raise RuntimeError(
            "The road 'blocks' was asked for, and the transforms of torch.func take plain "
            "operations alone. Leave the choice to the loss, or take 'one_block'."
        )
    return transformed() or fits if whole is None else whole


class _OnDevice(NamedTuple):
    """`per_anchor` or `weighted_sum` of a device's own anchors."""

    of: Callable[..., tuple[Tensor, Tensor]]
    block: Block
    rule: BlockSizeRule
    whole: bool | None

    def __call__(self, rows: Any, rs: Any, references: Any) -> tuple[Tensor, Tensor]:
        xs, weights, anchors = rows
        return self.of(self.block, xs, rs, *weights, anchors, references, self.rule, self.whole)


def _told(whole: bool | None) -> bool | None:
    return forced.one_block() if whole is None else whole


def _nothing(xs: tuple[Tensor, ...], rs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    loss = keras.ops.sum(at_least_float32(xs[0]), axis=1) * 0.0 + _zero((*xs[1:], *rs))
    return loss, keras.ops.zeros_like(loss, dtype="bool")


def _zero(tensors: tuple[Tensor, ...]) -> Tensor:
    """0 with a gradient of 0: a rank without anchors must take part in the backward pass too."""
    return sum(keras.ops.sum(at_least_float32(t)) * 0.0 for t in tensors)


def _size(x: Tensor, r: Tensor, rule: BlockSizeRule, whole: bool | None) -> Any:
    """Anchors per block, None for one block, or the rule where a size is not known yet."""
    n, m, rule = keras.ops.shape(x)[0], keras.ops.shape(r)[0], rule.on(x)
    if takes_one_block(rule.why_not_one_block(n, m) is None, whole):
        return None
    if not isinstance(n, int) or not isinstance(m, int):
        return rule
    return min(rule.anchors(m), n)


def _tuple(tensors: Any) -> tuple[Tensor, ...]:
    return tensors if isinstance(tensors, tuple) else (tensors,)


def _backend() -> Any:
    return backends.module("kinfold.streaming")
