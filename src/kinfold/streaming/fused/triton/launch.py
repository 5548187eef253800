"""Launches the fused kernels of Triton, on anchors and references sorted by class and padded."""

import contextlib
import math
import os
from typing import Any, NamedTuple

import torch

from kinfold.streaming.family import Family
from kinfold.streaming.fused.tiles import HOPPER, Tile, Tiles

LN2 = math.log(2.0)


class Plan(NamedTuple):
    """What every launch of a loss has in common."""

    family: Family
    diagonal: bool  # whether the reference at an anchor's own position may be its positive
    scaled: bool
    tiles: Tiles


class Side(NamedTuple):
    """Anchors or references, sorted by class and padded."""

    x: torch.Tensor  # [n, D]
    classes: torch.Tensor  # int32 [n]
    positions: torch.Tensor  # int32 [n]
    squares: torch.Tensor  # float32 [n]
    width: int  # numbers of a row without the padding
    first: int = 0  # where the first of them lies in the whole batch

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


def classes_of(y: torch.Tensor, ref_y: torch.Tensor | None) -> Any:
    """Labels as int32, equal where they are; whatever integers they are, and without a sync."""
    every = y if ref_y is None else torch.cat([y.long(), ref_y.long()])
    values, order = torch.sort(every)
    ranks = torch.zeros(len(every), dtype=torch.int32, device=y.device)
    ranks[1:] = torch.cumsum(values[1:] != values[:-1], 0, dtype=torch.int32)
    classes = torch.empty_like(ranks)
    classes[order] = ranks
    return (classes, None) if ref_y is None else (classes[: len(y)], classes[len(y) :])


def side_of(
    x: torch.Tensor,
    classes: torch.Tensor,
    distance: str,
    tiles: Tiles,
    in_order: bool,
    first: int = 0,
) -> Side:
    """A side whose classes need to be sorted, unless they are `in_order`."""
    n, d = x.shape
    if in_order:
        ordered = order = classes
        out = x.contiguous()
    else:
        ordered, order = torch.sort(classes, stable=True)
        out = x.index_select(0, order)
    if tiles.precision == "tf32":  # rounded, where the matrix units would cut off
        bits = out.view(torch.int32) + 0x1000
        out = bits.bitwise_and_(-0x2000).view(torch.float32)
    if tiles.width > d:
        out = torch.nn.functional.pad(out, (0, tiles.width - d))
    if "euclidean" in distance:
        squares = torch.cat([p.float().square().sum(1) for p in out.split(2**16)])
    else:
        squares = torch.zeros(n, dtype=torch.float32, device=x.device)
    return Side(out, ordered.int(), order.int(), squares, d, first)


def forward(
    plan: Plan, scale: torch.Tensor, anchors: Side, references: Side, extra: str
) -> torch.Tensor:
    """Statistics of the anchors, float32 [6, n]: see the kernel."""
    from kinfold.streaming.fused.triton import forward as kernels

    tile, (functions, numbers, _) = plan.tiles.forward, _functions(plan.family)
    n, m = len(anchors.x), len(references.x)
    out = torch.zeros(6, n, dtype=torch.float32, device=anchors.x.device)
    with on_device(anchors.x):
        kernels.forward[(-(-n // tile.rows),)](
            *_sides(anchors, references),
            anchors.bands(references, tile.rows, tile.columns),
            scale,
            out,
            *(n, m, *numbers),
            P=functions.positive_logit,
            N=functions.negative_logit,
            **_constants(plan, tile),
            EXTRA=extra,
        )
    return out


def backward(
    plan: Plan,
    scale: torch.Tensor,
    side: Side,
    other: Side,
    terms: torch.Tensor,
    ref_terms: torch.Tensor,
    rows: bool,
    columns: bool,
    factor: torch.Tensor,
) -> torch.Tensor:
    """Gradient [n, d] with respect to a side; `rows` and `columns` say which are anchors."""
    from kinfold.streaming.fused.triton import gradient as kernels

    tile, (functions, numbers, slopes) = plan.tiles.backward, _functions(plan.family)
    n, m = len(side.x), len(other.x)
    out = side.x.new_empty(n, side.width)
    with on_device(side.x):
        kernels.backward[(-(-n // tile.rows), plan.tiles.width // tile.part)](
            *_sides(side, other),
            side.bands(other, tile.rows, tile.columns),
            scale,
            terms[:, side.positions].contiguous() if rows else scale,
            ref_terms[:, other.positions].contiguous() if columns else scale,
            factor,
            out,
            *(n, m, side.width, *numbers, *slopes),
            P=functions.positive_logit,
            N=functions.negative_logit,
            PS=functions.positive_slope,
            NS=functions.negative_slope,
            **_constants(plan, tile),
            EXTRA=plan.family.extra,
            ROWS=rows,
            COLUMNS=columns,
            BD=tile.part,
            SPLIT=tile.split and not interpreted(),
            DTYPE=_dtype(side.x),
        )
    return out


def _sides(anchors: Side, references: Side) -> tuple[torch.Tensor, ...]:
    """x, r and what else the kernels take of both."""
    if shift := references.first - anchors.first:  # positions are compared, to tell one's own row
        references = references._replace(positions=references.positions + shift)
    both = zip(anchors[:4], references[:4], strict=True)
    return tuple(part for pair in both for part in pair)


class Functions(NamedTuple):
    """A loss's logits and slopes in Triton, each of the distance and two numbers."""

    positive_logit: Any
    negative_logit: Any
    positive_slope: Any
    negative_slope: Any


def _functions(family: Family) -> tuple[Functions, tuple[float, ...], tuple[float, ...]]:
    """Logits and slopes, the numbers of the logits as exponents of 2, and those of the slopes."""
    logits = family.positive, family.negative
    values, slopes = zip(*(logit.in_triton() for logit in logits), strict=True)
    (p0, p1), (n0, n1) = (logit.numbers for logit in logits)  # type: ignore[misc]
    return Functions(*values, *slopes), (p0 / LN2, p1, n0 / LN2, n1), (p0, p1, n0, n1)


def _constants(plan: Plan, tile: Tile) -> dict[str, Any]:
    return {
        "DISTANCE": plan.family.distance.name,
        "SCALED": plan.scaled,
        "DIAGONAL": plan.diagonal,
        "D": plan.tiles.width,
        "BM": tile.rows,
        "BN": tile.columns,
        "BK": tile.depth,
        "PRECISION": plan.tiles.precision,
        "WIDEN": interpreted(),
        **({} if interpreted() else _options(tile)),
    }


def _dtype(x: torch.Tensor) -> Any:
    import triton.language as tl

    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[
        x.dtype
    ]


def on_device(x: torch.Tensor) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def shared_memory(x: torch.Tensor) -> int:
    """Bytes of shared memory that a program may have."""
    if not x.is_cuda:
        return HOPPER
    properties = torch.cuda.get_device_properties(x.device)
    return getattr(properties, "shared_memory_per_block_optin", 0)


def _options(tile: Tile) -> dict[str, Any]:
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
