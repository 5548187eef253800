"""The loop over blocks and its vector-Jacobian product, in PyTorch.

Under `create_graph=True` a backward pass takes the equation on one block instead of its loop (see
`torch_numerics.again`), so that second-order gradients are right; they take its memory.
"""

from typing import Any, NamedTuple

import torch

from kinfold.core.numerics import at_least_float32, log_sum_exp
from kinfold.core.torch_numerics import again, full_precision, refuse_again
from kinfold.streaming import log_sums
from kinfold.streaming.log_sums import LogSum

Data = tuple[torch.Tensor, ...]


# Pairs of a block on a processor: with twice as many a step takes longer.
PAIRS = 2**20


def devices(x: torch.Tensor) -> None:
    """No tensor lies on several devices; see `kinfold.distributed`."""


def on_gpu(x: torch.Tensor) -> bool:
    """Whether what is computed of `x` runs on a GPU, which fused kernels serve."""
    return x.is_cuda


def snapshot(tensors: Data) -> Data:
    """Tensors that a backward pass may look at, whatever is written into the originals."""
    return tuple(t.clone() for t in tensors)


def only_shapes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands for losses and validity of an `x` without values (see `checks.is_concrete`)."""
    rows = x[:, 0]
    return rows, rows > 0


class Run(NamedTuple):
    """What a loop over blocks is given beside the tensors that gradients go to."""

    block: Any
    size: int
    sides: int  # how many of those tensors are of the anchors; the others are of the references
    anchors: Data
    references: Data

    def data(self, cut: slice) -> Data:
        return (*(a[cut] for a in self.anchors), *self.references)

    def at_once(self, *tensors: Any) -> Any:
        return self.block(*tensors, *self.anchors, *self.references)

    def on(self, cut: slice, tensors: Any) -> Any:
        xs, rs = tensors[: self.sides], tensors[self.sides :]
        return self.block(*(x[cut] for x in xs), *rs, *self.data(cut))


@full_precision
def one_block(block: Any, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    """One block, differentiated as it is."""
    x = xs[0]
    return only_shapes(x) if x.is_meta else block(*xs, *rs, *anchors, *references)


@torch.compiler.disable
@full_precision
def per_anchor(block: Any, size: int, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    if xs[0].is_meta:
        return only_shapes(xs[0])
    return _PerAnchor.apply(Run(block, size, len(xs), anchors, references), *xs, *rs)


@torch.compiler.disable
@full_precision
def weighted_sum(
    block: Any,
    size: int,
    xs: Data,
    rs: Data,
    weights: torch.Tensor,
    anchors: Data,
    references: Data,
) -> Any:
    if xs[0].is_meta:
        loss, valid = only_shapes(xs[0])
        return loss.sum(), valid
    return _WeightedSum.apply(Run(block, size, len(xs), anchors, references), weights, *xs, *rs)


@torch.compiler.disable
@full_precision
def sum_and_log_sum(
    block: Any, size: int, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data
) -> Any:
    if x.is_meta:
        return (only_shapes(x)[0],) * 2
    return _SumAndLogSum.apply(block, size, x, r, anchors, references)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, *tensors: Any) -> Any:
        rows = _Outputs(len(tensors[0]))
        for cut in _cuts(len(tensors[0]), run.size):
            rows.put(cut, run.on(cut, tensors))
        loss, valid = rows.parts
        ctx.run = run
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(valid)
        return loss, valid

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        run, tensors = ctx.run, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *again(lambda *tensors: run.at_once(*tensors)[0], tensors, [g])
        gradients = _Gradients(run, tensors, ctx.needs_input_grad[1:])
        for cut in _cuts(len(tensors[0]), run.size):
            gradients.add(cut, g[cut])
        return None, *gradients.finished()


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, weights: Any, *tensors: Any) -> Any:
        wanted = ctx.needs_input_grad[2:]
        gradients = _Gradients(run, tensors, wanted)
        rows = _Outputs(len(tensors[0]))
        for cut in _cuts(len(tensors[0]), run.size):
            on = gradients.add(cut, weights[cut]) if any(wanted) else run.on(cut, tensors)
            rows.put(cut, on)
        loss, valid = rows.parts
        ctx.gradients, ctx.run = gradients.finished(), run
        if any(ctx.needs_input_grad):  # tensors of inference have no version
            ctx.versions = [t._version for t in (*run.anchors, *run.references)]
        ctx.save_for_backward(weights, loss, *tensors)
        ctx.mark_non_differentiable(valid)
        return (loss * weights).sum(), valid

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        run, (weights, loss, *tensors) = ctx.run, ctx.saved_tensors
        if torch.is_grad_enabled():
            if ctx.versions != [t._version for t in (*run.anchors, *run.references)]:
                refuse_again("a memory of earlier batches, which has been written over since")

            def total(weights: Any, *tensors: Any) -> Any:
                return (run.at_once(*tensors)[0] * weights).sum()

            return None, *again(total, (weights, *tensors), [g])
        parts = (None if part is None else g * part for part in ctx.gradients)
        return None, g * loss if ctx.needs_input_grad[1] else None, *parts


class _SumAndLogSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, anchors: Any, references: Any
    ) -> Any:
        total = at_least_float32(x.new_zeros(len(x)))
        ctx.log_sum = LogSum(torch.full_like(total, -torch.inf), torch.zeros_like(total))
        for cut in _cuts(len(r), size):
            terms, logits = map(
                at_least_float32, block(x, r[cut], *anchors, *(a[cut] for a in references))
            )
            total += terms.sum(1)
            ctx.log_sum = ctx.log_sum.merged(log_sums.log_sum(logits, 1))
        ctx.block, ctx.size, ctx.anchors, ctx.references = block, size, anchors, references
        ctx.save_for_backward(x, r)
        return total, ctx.log_sum.value()

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, g_log_sum: Any) -> Any:
        x, r = ctx.saved_tensors
        if torch.is_grad_enabled():

            def sums(x: Any, r: Any) -> Any:
                terms, logits = map(
                    at_least_float32, ctx.block(x, r, *ctx.anchors, *ctx.references)
                )
                return terms.sum(1), log_sum_exp(logits)

            return None, None, *again(sums, (x, r), [g, g_log_sum]), None, None
        dx, dr = zeros(x), torch.empty_like(r)
        for cut in _cuts(len(r), ctx.size):
            with torch.enable_grad():
                xs, rt = (t.detach().requires_grad_() for t in (x, r[cut]))
                data = (*ctx.anchors, *(a[cut] for a in ctx.references))
                terms, logits = map(at_least_float32, ctx.block(xs, rt, *data))
            shares = log_sums.shares(logits.detach(), ctx.log_sum, g_log_sum)
            both = g[:, None].expand_as(terms), shares
            part, dr[cut] = torch.autograd.grad((terms, logits), (xs, rt), both)
            dx += part
        return None, None, dx.to(x.dtype), dr, None, None


def zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros for a sum over blocks, in float32 at least."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))


class _Outputs:
    """Outputs of all anchors, each written where it belongs.

    Kept as parts, they would lie between the freed buffers of the blocks, and glibc could not join
    these into ones large enough for the next block: memory would grow with the batch.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[torch.Tensor] = []

    def put(self, cut: slice, outputs: Any) -> None:
        if not self.parts:
            self.parts = [part.new_empty(self.n, *part.shape[1:]) for part in outputs]
        for rows, part in zip(self.parts, outputs, strict=True):
            rows[cut] = part


class _Gradients:
    """Gradients with respect to tensors of anchors and references, gathered block by block."""

    def __init__(self, run: Run, tensors: Any, wanted: Any) -> None:
        self.run, self.tensors, self.wanted = run, tensors, wanted
        self.of_anchors = range(run.sides)
        self.sums = [
            None if not w else torch.empty_like(t) if i in self.of_anchors else zeros(t)
            for i, (t, w) in enumerate(zip(tensors, wanted, strict=True))
        ]

    def add(self, cut: slice, g: torch.Tensor) -> Any:
        """Add a block's part, for the cotangent `g` of its losses; return its outputs."""
        with torch.enable_grad():
            at = [
                (t[cut] if i in self.of_anchors else t).detach().requires_grad_(w)
                for i, (t, w) in enumerate(zip(self.tensors, self.wanted, strict=True))
            ]
            loss, valid = self.run.block(*at, *self.run.data(cut))
            inputs = [t for t in at if t.requires_grad]
            parts = iter(
                torch.autograd.grad(
                    loss, inputs, g.to(loss.dtype), allow_unused=True, materialize_grads=True
                )
            )
        for i, total in enumerate(self.sums):
            if total is None:
                continue
            if i in self.of_anchors:
                total[cut] = next(parts)
            else:
                total += next(parts)
        return loss.detach(), valid

    def finished(self) -> list[torch.Tensor | None]:
        both = zip(self.sums, self.tensors, strict=True)
        return [None if total is None else total.to(t.dtype) for total, t in both]


def _cuts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
