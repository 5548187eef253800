"""The fused kernels in PyTorch: what they are given, and the gradient of what they return.

A kernel returns statistics of each anchor: the log-sum-exps P over its positives and N over its
negatives, and an extra one where a loss has it. A loss combines them in float64 [n], and autograd
hands back the derivative with respect to each, which is all that the second kernel needs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from kinfold.core.torch_numerics import full_precision, refuse_again
from kinfold.streaming.family import Family
from kinfold.streaming.fused import kernel, trial
from kinfold.streaming.fused.statistics import Counts, scaled, terms, values
from kinfold.streaming.fused.tiles import tiles
from kinfold.streaming.fused.triton import launch
from kinfold.streaming.fused.triton.launch import LN2, Plan
from kinfold.streaming.fused.triton.sides import Side, classes_of, cuts, side_of

# Older ones end the process on the kernels in float32, or take no functions as constants.
TRITON = (3, 4)


# The compute capability of the GPUs on which they were timed.
HOPPER = 9


def precision_of(dtype: torch.dtype) -> str:
    """How PyTorch multiplies float32; of other dtypes there is but one way."""
    if dtype != torch.float32:
        return ""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # told by the newer switch, which the older one does not know
        return torch.backends.cuda.matmul.fp32_precision


def refusal(x: torch.Tensor) -> str | None:
    """Why tensors like `x` cannot be served, in a sentence."""
    if not kernel.installed("triton"):
        return "Triton is not installed; pip install 'kinfold[gpu]'."
    if x.is_meta or torch._C._are_functorch_transforms_active():
        return "they take tensors with values, outside the transforms of torch.func."
    if not (x.is_cuda or launch.interpreted()):
        return (
            f"the embeddings are on {x.device}, and they run on a CUDA device (elsewhere only in "
            "Triton's interpreter, for tests: TRITON_INTERPRET=1)."
        )
    if x.is_cuda and (torch.version.hip or torch.cuda.get_device_capability(x.device) < (8, 0)):
        return "they need an NVIDIA GPU of compute capability 8.0 or newer."
    return _of_triton()


def unmeasured(x: torch.Tensor) -> str | None:
    """Why the kernels must be asked for where `x` lies, in a sentence."""
    if not x.is_cuda or torch.cuda.get_device_capability(x.device)[0] == HOPPER:
        return None
    return "they were timed on Hopper GPUs alone; `with fused_kernels():` asks for them elsewhere."


def _of_triton() -> str | None:
    import triton

    major, minor = (int(part) for part in triton.__version__.split(".")[:2])
    if (major, minor) >= TRITON:
        return None
    return f"they need Triton {TRITON[0]}.{TRITON[1]} or newer. Received: {triton.__version__}."


@torch.compiler.disable
def on_trial(loss: Any, x: torch.Tensor, kernels: trial.Rows, dense: trial.Rows) -> bool:
    """Whether the kernels give on the device of `x` what the dense equation gives."""
    device, dtype = x.device, x.dtype

    @full_precision
    def evaluated(
        fn: trial.Rows, arrays: Sequence[np.ndarray], labels: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        with launch.on_device(x):
            sides = [torch.tensor(a, device=device, dtype=dtype).requires_grad_() for a in arrays]
            found = fn(sides, [torch.tensor(y, device=device) for y in labels])
            every = found, *torch.autograd.grad(found.sum(), sides)
            return [part.detach().double().cpu().numpy() for part in every]

    setting = device, precision_of(dtype)
    return trial.passes(loss, x, setting, evaluated, kernels, dense)


@torch.compiler.disable
@full_precision
def rows(
    loss: Any,
    x: torch.Tensor,
    r: torch.Tensor | None,
    labels: tuple[torch.Tensor, torch.Tensor | None],
    diagonal: bool,
    first: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and validity of each anchor; without `r` the anchors are the references.

    The reference at place `first` is the first anchor itself.
    """
    classes, ref_classes = classes_of(*labels)
    family = loss.family()
    setup = setup_of_classes(family, diagonal, classes, ref_classes, first)
    p, n, extra = _Statistics.apply(setup, x, r, None)
    valid = setup.counts.valid
    losses = family.combined(p, n, extra)
    return torch.where(valid, losses, 0.0).float(), valid


@torch.compiler.disable
@full_precision
def pairs(x: torch.Tensor, r: torch.Tensor, scale: torch.Tensor, both: bool) -> Any:
    """-log softmax of each pair among its row and, where `both`, among its column."""
    p, n, _, *of_columns = _Statistics.apply(setup_of_pairs(x, both), x, r, scale)
    sums = n, *of_columns[1:]
    if x.dtype == torch.float32:  # a pair's own product leads its gradient: not in TF32
        p = scale * torch.linalg.vecdot(x, r).double()
    return tuple(
        # An only pair has nothing to be told from.
        (torch.nn.functional.softplus(n - p, threshold=40.0) if len(x) > 1 else p * 0.0).float()
        for n in sums
    )


@torch.compiler.disable
@full_precision
def sigmoids(x: torch.Tensor, r: torch.Tensor, scale: Any, bias: Any, weights: Any) -> Any:
    """Loss of each pair [n] by its sigmoids; with weights [n], the sum times them."""
    from kinfold.streaming.fused.triton import sigmoid_road as sigmoid

    numbers = (torch.as_tensor(number, device=x.device) for number in (scale, bias))
    if weights is None:
        return sigmoid.Rows.apply(x, r, *numbers)
    return sigmoid.Total.apply(x, r, *numbers, weights, torch.is_grad_enabled())


class Setup(NamedTuple):
    """What does not change from the first kernel to the last."""

    family: Family
    diagonal: bool
    classes: torch.Tensor
    ref_classes: torch.Tensor | None
    counts: Counts
    in_order: bool = False  # whether the classes ascend as they are
    both: bool = False  # whether P and N of the references are wanted too
    first: int = 0  # where the first anchor lies among the references


def setup_of_classes(
    family: Family,
    diagonal: bool,
    classes: torch.Tensor,
    ref_classes: torch.Tensor | None,
    first: int = 0,
) -> Setup:
    own, other = classes, classes if ref_classes is None else ref_classes
    run = torch.sort(other)[0]
    start, stop = (torch.searchsorted(run, own, right=right) for right in (False, True))
    same = stop - start
    positives = same.clone()
    if not diagonal:
        itself = other[first : first + len(own)]
        positives[: len(itself)] -= (own[: len(itself)] == itself).to(same.dtype)
    valid = (positives > 0) & (same < len(other))
    counts = Counts(positives, valid)
    return Setup(family, diagonal, classes, ref_classes, counts, first=first)


def setup_of_pairs(x: torch.Tensor, both: bool) -> Setup:
    """A pair's own reference is its positive, and the logits are the dot products."""
    at = torch.arange(len(x), dtype=torch.int32, device=x.device)
    valid = torch.full_like(at, len(x) > 1, dtype=torch.bool)
    counts = Counts(torch.ones_like(at), valid)
    return Setup(kernel.PAIRS, True, at, at, counts, in_order=True, both=both)


class _Statistics(torch.autograd.Function):
    """P, N and the extra statistic of the anchors, and P and N of the references where `both`."""

    @staticmethod
    def forward(ctx: Any, setup: Setup, x: Any, r: Any, scale: Any) -> Any:
        chosen = tiles(x.shape[1], x.dtype, launch.shared_memory(x))
        same = setup.family.distance.name, chosen, setup.in_order
        ctx.anchors = side_of(x, setup.classes, *same, setup.first)
        ctx.references = ctx.anchors
        if r is not None:
            ctx.references = side_of(r, setup.ref_classes, *same)
        one = torch.ones(1, dtype=torch.float32, device=x.device)
        ctx.scale = one if scale is None else scale.detach().reshape(1).float()
        ctx.setup, family = setup, setup.family
        ctx.plan = Plan(family, setup.diagonal, scale is not None, chosen)
        sides = ctx.anchors, ctx.references
        ctx.stats = _statistics(ctx.plan, ctx.scale, *sides)
        how = setup.counts, family.extra, LN2
        outputs = values(torch, ctx.stats.double(), *how)
        if setup.both:
            ctx.ref_stats = _statistics(ctx.plan, ctx.scale, sides[1], sides[0])
            outputs += values(torch, ctx.ref_stats.double(), *how)[:2]
        ctx.save_for_backward(scale)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, gp: Any, gn: Any, ge: Any, *ref: Any) -> Any:
        refuse_again("the fused kernels; compute the loss within `fused_kernels(False)`")
        setup, (scale,) = ctx.setup, ctx.saved_tensors
        factor, (gp, gn, ge, *ref_g) = scaled(torch, (gp, gn, ge, *ref), setup.counts)
        symmetric = ctx.references is ctx.anchors
        how = setup.counts, setup.family.extra, LN2
        of_anchors = ref_terms = _terms(ctx.stats, how, (gp, gn, ge))
        if setup.both:
            ref_terms = _terms(ctx.ref_stats, how, (*ref_g, torch.zeros_like(ge)))
        sides, of = (ctx.anchors, ctx.references), (True, symmetric or setup.both)
        _, of_x, of_r, of_scale = ctx.needs_input_grad
        wanted = of_x or of_scale, of_r and not symmetric
        found = launch.gradients(ctx.plan, ctx.scale, sides, (of_anchors, ref_terms), of, wanted)
        dx, dr = (
            None if total is None else _unsorted(total, side, factor)
            for total, side in zip(found, sides, strict=True)
        )
        ds = None
        if of_scale and found[0] is not None:
            ds = launch.inner(found[0], ctx.anchors.x) / ctx.scale.double()
            ds = ds.reshape(scale.shape).to(scale.dtype)
        return None, dx if of_x else None, dr, ds


def _statistics(plan: Plan, scale: torch.Tensor, own: Side, other: Side) -> torch.Tensor:
    """What `statistics` wants of each anchor, float32 [6, n], in the caller's order."""
    sums = launch.forward(plan, scale, own, other)
    found = torch.cat([sums, launch.extras(plan, scale, own, other, sums)])
    return torch.empty_like(found).index_copy_(1, own.positions.long(), found)


def _unsorted(total: torch.Tensor, side: Side, factor: torch.Tensor) -> torch.Tensor:
    """A gradient times `factor`, in the caller's order and in the dtype of the embeddings."""
    total.mul_(factor)
    out = side.x.new_empty(len(side.x), side.width)
    for at in cuts(len(side.x), 2**16):
        out[side.positions[at].long()] = total[at, : side.width].to(out.dtype)
    return out


def _terms(stats: torch.Tensor, how: tuple[Counts, str, float], gradients: Any) -> torch.Tensor:
    return torch.stack(terms(torch, stats.double(), *how, gradients)).float()
