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

# torch.set_float32_matmul_precision says how float32 is multiplied, as for torch.matmul.
PRECISIONS = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}

# Older ones end the process on the kernels in float32, or take no functions as constants.
TRITON = (3, 4)


def precision_of(dtype: torch.dtype) -> str:
    """How products are taken, in Triton's words."""
    if dtype != torch.float32:
        return "ieee"
    try:
        return PRECISIONS[torch.get_float32_matmul_precision()]
    except RuntimeError:  # told by the newer switch, which the older one does not know
        switch = torch.backends.cuda.matmul.fp32_precision
        return "tf32" if switch == "tf32" else "ieee"


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
    classes, ref_classes = launch.classes_of(*labels)
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
        precision = precision_of(x.dtype)
        chosen = tiles(x.shape[1], x.dtype, precision, launch.shared_memory(x))
        same = setup.family.distance.name, chosen, setup.in_order
        ctx.anchors = launch.side_of(x, setup.classes, *same, setup.first)
        ctx.references = ctx.anchors
        if r is not None:
            ctx.references = launch.side_of(r, setup.ref_classes, *same)
        one = torch.ones(1, dtype=torch.float32, device=x.device)
        ctx.scale = one if scale is None else scale.detach().reshape(1).float()
        ctx.setup, family = setup, setup.family
        ctx.plan = Plan(family, setup.diagonal, scale is not None, chosen)
        sides = ctx.anchors, ctx.references
        ctx.stats = launch.forward(ctx.plan, ctx.scale, *sides, family.extra)
        how = setup.counts, family.extra, LN2
        outputs = values(ctx.stats.double(), *how)
        if setup.both:
            ctx.ref_stats = launch.forward(ctx.plan, ctx.scale, sides[1], sides[0], "none")
            outputs += values(ctx.ref_stats.double(), *how)[:2]
        ctx.save_for_backward(x, scale)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, gp: Any, gn: Any, ge: Any, *ref: Any) -> Any:
        refuse_again("the fused kernels; compute the loss within `fused_kernels(False)`")
        setup, (x, scale) = ctx.setup, ctx.saved_tensors
        factor, (gp, gn, ge, *ref_g) = scaled((gp, gn, ge, *ref), setup.counts)
        symmetric = ctx.references is ctx.anchors
        how = setup.counts, setup.family.extra, LN2
        of_anchors = ref_terms = _terms(ctx.stats, how, (gp, gn, ge))
        if setup.both:
            ref_terms = _terms(ctx.ref_stats, how, (*ref_g, torch.zeros_like(ge)))
        factor = factor.float().reshape(1)
        dx: Any = None
        dr = ds = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
            sides = ctx.anchors, ctx.references, of_anchors, ref_terms
            dx = launch.backward(ctx.plan, ctx.scale, *sides, True, symmetric or setup.both, factor)
        if ctx.needs_input_grad[2] and not symmetric:
            sides = ctx.references, ctx.anchors, ref_terms, of_anchors
            dr = launch.backward(ctx.plan, ctx.scale, *sides, setup.both, True, factor)
        if ctx.needs_input_grad[3]:
            parts = zip(dx.split(2**16), x.split(2**16), strict=True)
            ds = sum((a.double() * b.double()).sum() for a, b in parts) / ctx.scale.double()
            ds = ds.reshape(scale.shape).to(scale.dtype)
        return None, dx if ctx.needs_input_grad[1] else None, dr, ds


def _terms(stats: torch.Tensor, how: tuple[Counts, str, float], gradients: Any) -> torch.Tensor:
    return torch.stack(terms(stats.double(), *how, gradients)).float()
