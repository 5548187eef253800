"""The fused kernels in PyTorch: what they are given, and the gradient of what they return.

A kernel returns statistics of each anchor: the log-sum-exps P over its positives and N over its
negatives, and an extra one where a loss has it. A loss combines them in float64 [n], and autograd
hands back the derivative with respect to each, which is all that the second kernel needs.
"""

import contextlib
import math
import os
from typing import Any, NamedTuple

import torch

from kinfold.numerics_torch import full_precision
from kinfold.streaming import fused
from kinfold.streaming.fused_tiles import Tiles, tiles

LN2 = math.log(2.0)

# torch.set_float32_matmul_precision says how float32 is multiplied, as for torch.matmul.
PRECISIONS = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}


def refusal(x: torch.Tensor) -> str | None:
    """Why tensors like `x` cannot be served, in a sentence."""
    if not fused.installed("triton"):
        return "Triton is not installed; pip install 'kinfold[gpu]'."
    if x.is_meta or torch._C._are_functorch_transforms_active():
        return "they take tensors with values, outside the transforms of torch.func."
    if not (x.is_cuda or interpreted()):
        return (
            f"the embeddings are on {x.device}, and they run on a CUDA device (elsewhere only in "
            "Triton's interpreter, for tests: TRITON_INTERPRET=1)."
        )
    if x.is_cuda and (torch.version.hip or torch.cuda.get_device_capability(x.device) < (8, 0)):
        return "they need an NVIDIA GPU of compute capability 8.0 or newer."
    return None


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.disable
@full_precision
def rows(
    spec: fused.Fused,
    loss: Any,
    x: torch.Tensor,
    r: torch.Tensor | None,
    labels: tuple[torch.Tensor, torch.Tensor | None],
    diagonal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and validity of each anchor; without `r` the anchors are the references."""
    classes, ref_classes = _classes(*labels)
    problem = Problem(spec, loss.distance.name, diagonal, classes, ref_classes)
    p, n, extra = _Statistics.apply(problem, x, r, None)
    valid = problem.valid
    losses = spec.combine(p, n, extra)
    return torch.where(valid, losses, 0.0).float(), valid


@torch.compiler.disable
@full_precision
def pairs(x: torch.Tensor, r: torch.Tensor, scale: torch.Tensor, both: bool) -> Any:
    """-log softmax of each pair among its row and, where `both`, among its column."""
    at = torch.arange(len(x), dtype=torch.int32, device=x.device)
    problem = Problem(_PAIRS, "inner_product", True, at, at, both)
    p, n, _, *of_columns = _Statistics.apply(problem, x, r, scale)
    return tuple(
        # An only pair has nothing to be told from.
        (torch.nn.functional.softplus(n - p, threshold=40.0) if len(x) > 1 else p * 0.0).float()
        for p, n in ((p, n), of_columns)[: 1 + both]
    )


def _not_combined(*_: Any) -> Any:
    raise NotImplementedError


# A pair's own reference is its positive, and the logits are the dot products.
_PAIRS = fused.Fused((1.0, 0.0), (1.0, 0.0), _not_combined)


class Problem:
    """What does not change from the first kernel to the last."""

    def __init__(
        self,
        spec: fused.Fused,
        distance: str,
        diagonal: bool,
        classes: torch.Tensor,
        ref_classes: torch.Tensor | None,
        both: bool = False,
    ) -> None:
        self.spec, self.distance, self.diagonal, self.both = spec, distance, diagonal, both
        self.classes, self.ref_classes = classes, ref_classes
        own, other = classes, classes if ref_classes is None else ref_classes
        run = torch.sort(other)[0]
        first, last = (torch.searchsorted(run, own, right=right) for right in (False, True))
        same = last - first
        self.positives = same.clone()
        if not diagonal:
            shared = min(len(own), len(other))
            self.positives[:shared] -= (own[:shared] == other[:shared]).to(same.dtype)
        self.valid = (self.positives > 0) & (same < len(other))


class Side(NamedTuple):
    """Anchors or references, sorted by class and padded."""

    x: torch.Tensor  # [n, D]
    classes: torch.Tensor  # int32 [n]
    positions: torch.Tensor  # int32 [n]
    squares: torch.Tensor  # float32 [n]
    width: int  # numbers of a row without the padding

    def bands(self, other: "Side", rows: int, columns: int) -> torch.Tensor:
        """For each `rows` rows the whole tiles of `columns` that may hold their positives."""
        n, m = len(self.classes), len(other.classes)
        starts = torch.arange(0, n, rows, device=self.x.device)
        ends = (starts + rows - 1).clamp(max=n - 1)
        first = torch.searchsorted(other.classes, self.classes[starts])
        last = torch.searchsorted(other.classes, self.classes[ends], right=True)
        start = (first // columns).clamp(max=m // columns)
        stop = torch.minimum((last + columns - 1) // columns, torch.full_like(last, m // columns))
        return torch.stack([start, torch.maximum(start, stop)], 1).int().contiguous()


def _classes(y: torch.Tensor, ref_y: torch.Tensor | None) -> Any:
    """Labels as int32, equal where they are; whatever integers they are, and without a sync."""
    every = y if ref_y is None else torch.cat([y.long(), ref_y.long()])
    values, order = torch.sort(every)
    ranks = torch.zeros(len(every), dtype=torch.int32, device=y.device)
    ranks[1:] = torch.cumsum(values[1:] != values[:-1], 0, dtype=torch.int32)
    classes = torch.empty_like(ranks)
    classes[order] = ranks
    return (classes, None) if ref_y is None else (classes[: len(y)], classes[len(y) :])


def _side(x: torch.Tensor, classes: torch.Tensor, distance: str, width: int) -> Side:
    ordered, order = torch.sort(classes, stable=True)
    n, d = x.shape
    out = x.index_select(0, order)
    if width > d:
        out = torch.nn.functional.pad(out, (0, width - d))
    if "euclidean" in distance:
        squares = torch.cat([p.float().square().sum(1) for p in out.split(2**16)])
    else:
        squares = torch.zeros(n, dtype=torch.float32, device=x.device)
    return Side(out, ordered.int(), order.int(), squares, d)


class _Statistics(torch.autograd.Function):
    """P, N and the extra statistic of the anchors, and P and N of the references where `both`."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, x: Any, r: Any, scale: Any) -> Any:
        chosen = tiles(x.shape[1], x.dtype, PRECISIONS[torch.get_float32_matmul_precision()])
        ctx.anchors = _side(x, problem.classes, problem.distance, chosen.width)
        ctx.references = ctx.anchors
        if r is not None:
            ctx.references = _side(r, problem.ref_classes, problem.distance, chosen.width)
        one = torch.ones(1, dtype=torch.float32, device=x.device)
        ctx.scale = one if scale is None else scale.detach().reshape(1).float()
        ctx.problem, ctx.chosen, ctx.scaled = problem, chosen, scale is not None
        ctx.stats = _forward(ctx, ctx.anchors, ctx.references, problem.spec.extra)
        outputs = list(_values(ctx.stats, problem))
        if problem.both:
            ctx.ref_stats = _forward(ctx, ctx.references, ctx.anchors, "none")
            outputs += _values(ctx.ref_stats, problem)[:2]
        ctx.save_for_backward(x, scale)
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gp: Any, gn: Any, ge: Any, *ref: Any) -> Any:
        problem, (x, scale) = ctx.problem, ctx.saved_tensors
        valid = problem.valid
        gradients = [torch.where(valid, g, 0.0) for g in (gp, gn, ge)]
        every = gradients + [torch.where(valid, g, 0.0) for g in ref]
        # In half precision the second product's entries must neither overflow nor vanish.
        largest = torch.stack([g.abs().amax() for g in every]).amax()
        factor = torch.where(largest > 0, largest, 1.0)
        terms = _terms(ctx.stats, problem, *(g / factor for g in gradients))
        factor = factor.float().reshape(1)
        symmetric = ctx.references is ctx.anchors
        ref_terms = terms
        if problem.both:
            of_columns = (g / largest.clamp(min=1e-300) for g in every[3:])
            ref_terms = _terms(ctx.ref_stats, problem, *of_columns, torch.zeros_like(gp))
        dx = dr = ds = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
            sides = ctx.anchors, ctx.references, terms, ref_terms
            dx = _backward(ctx, *sides, True, symmetric or problem.both, factor)
        if ctx.needs_input_grad[2] and not symmetric:
            sides = ctx.references, ctx.anchors, ref_terms, terms
            dr = _backward(ctx, *sides, problem.both, True, factor)
        if ctx.needs_input_grad[3]:
            parts = zip(dx.split(2**16), x.split(2**16), strict=True)
            ds = sum((a.double() * b.double()).sum() for a, b in parts) / ctx.scale.double()
            ds = ds.reshape(scale.shape).to(scale.dtype)
        return None, dx if ctx.needs_input_grad[1] else None, dr, ds


def _values(stats: torch.Tensor, problem: Problem) -> tuple[torch.Tensor, ...]:
    """P, N and the extra, float64 [n]; 0 for an invalid anchor."""
    p_largest, p_total, n_largest, n_total, extra, _ = stats.double()
    p = LN2 * p_largest + torch.log(p_total)
    n = LN2 * n_largest + torch.log(n_total)
    if problem.spec.extra == "mean":
        extra = LN2 * (p_largest + extra / problem.positives)
    elif problem.spec.extra == "each":
        extra = extra / problem.positives
    return tuple(torch.where(problem.valid, value, 0.0) for value in (p, n, extra))


def _terms(stats: Any, problem: Problem, gp: Any, gn: Any, ge: Any) -> torch.Tensor:
    """What the second kernel takes of each anchor, float32 [6, n]: nothing of an invalid one."""
    p_largest, p_total, n_largest, n_total, _, pull = stats.double()
    each = ge / problem.positives
    if problem.spec.extra == "each":
        gn = gn + each * pull
    n = n_largest + torch.log2(n_total)
    parts = ((p_largest, torch.inf), (gp / p_total, 0.0), (n_largest, torch.inf))
    parts += ((gn / n_total, 0.0), (each, 0.0), (n, torch.inf))
    return torch.stack([torch.where(problem.valid, part, other) for part, other in parts]).float()


def _forward(ctx: Any, anchors: Side, references: Side, extra: str) -> torch.Tensor:
    from kinfold.streaming import fused_triton as kernels

    tile, (functions, numbers, _) = ctx.chosen.forward, _functions(ctx.problem.spec)
    n, m = len(anchors.x), len(references.x)
    out = torch.zeros(6, n, dtype=torch.float32, device=anchors.x.device)
    with _device(anchors.x):
        kernels.forward[(-(-n // tile.rows),)](
            *_sides(anchors, references),
            anchors.bands(references, tile.rows, tile.columns),
            ctx.scale,
            out,
            *(n, m, *numbers),
            P=functions.positive_logit,
            N=functions.negative_logit,
            **_constants(ctx, tile),
            EXTRA=extra,
        )
    return out


def _backward(
    ctx: Any,
    side: Side,
    other: Side,
    terms: torch.Tensor,
    ref_terms: torch.Tensor,
    rows: bool,
    columns: bool,
    factor: torch.Tensor,
) -> torch.Tensor:
    from kinfold.streaming import fused_triton_gradient as kernels

    tile, (functions, numbers, slopes) = ctx.chosen.backward, _functions(ctx.problem.spec)
    n, m = len(side.x), len(other.x)
    out = side.x.new_empty(n, side.width)
    with _device(side.x):
        kernels.backward[(-(-n // tile.rows), ctx.chosen.width // tile.part)](
            *_sides(side, other),
            side.bands(other, tile.rows, tile.columns),
            ctx.scale,
            terms[:, side.positions].contiguous() if rows else ctx.scale,
            ref_terms[:, other.positions].contiguous() if columns else ctx.scale,
            factor,
            out,
            *(n, m, side.width, *numbers, *slopes),
            P=functions.positive_logit,
            N=functions.negative_logit,
            PS=functions.positive_slope,
            NS=functions.negative_slope,
            **_constants(ctx, tile),
            EXTRA=ctx.problem.spec.extra,
            ROWS=rows,
            COLUMNS=columns,
            BD=tile.part,
            SPLIT=tile.split and not interpreted(),
            DTYPE=_dtype(side.x),
        )
    return out


def _sides(anchors: Side, references: Side) -> tuple[torch.Tensor, ...]:
    """x, r and what else the kernels take of both."""
    both = zip(anchors[:4], references[:4], strict=True)
    return tuple(part for pair in both for part in pair)


def _functions(spec: fused.Fused) -> tuple[fused.Functions, tuple[float, ...], tuple[float, ...]]:
    """Logits and slopes, the numbers of the logits as exponents of 2, and those of the slopes."""
    from kinfold.streaming import fused_triton as kernels

    straight = (kernels.straight_logit,) * 2 + (kernels.straight_slope,) * 2
    functions = fused.Functions(*straight) if spec.functions is None else spec.functions()
    (p0, p1), (n0, n1) = spec.positive, spec.negative
    return functions, (p0 / LN2, p1, n0 / LN2, n1), (p0, p1, n0, n1)


def _constants(ctx: Any, tile: Any) -> dict[str, Any]:
    chosen: Tiles = ctx.chosen
    return {
        "DISTANCE": ctx.problem.distance,
        "SCALED": ctx.scaled,
        "DIAGONAL": ctx.problem.diagonal,
        "D": chosen.width,
        "BM": tile.rows,
        "BN": tile.columns,
        "BK": tile.depth,
        "PRECISION": chosen.precision,
        "WIDEN": interpreted(),
        **({} if interpreted() else {"num_warps": tile.warps, "num_stages": tile.stages}),
    }


def _dtype(x: torch.Tensor) -> Any:
    import triton.language as tl

    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[
        x.dtype
    ]


def _device(x: torch.Tensor) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
