"""Launches the fused kernels of Triton, and multiplies what they write."""

import contextlib
import functools
import math
import os
from typing import Any, NamedTuple

import torch

from kinfold.streaming.family import Family
from kinfold.streaming.fused.statistics import merged
from kinfold.streaming.fused.tiles import HOPPER, Tile, Tiles
from kinfold.streaming.fused.tiles import parts as parts_of
from kinfold.streaming.fused.triton.sides import Side, cuts

LN2 = math.log(2.0)


class Plan(NamedTuple):
    """What every launch of a loss has in common."""

    family: Family
    diagonal: bool  # whether the reference at an anchor's own position may be its positive
    scaled: bool
    tiles: Tiles


def forward(plan: Plan, scale: torch.Tensor, anchors: Side, references: Side) -> torch.Tensor:
    """Largest and total of each anchor's positives and negatives, float32 [4, n], in their order.

    Products of float32 are taken by PyTorch, in the precision that it is told.
    """
    from kinfold.streaming.fused.triton import forward as kernels

    tile, (functions, numbers, _) = plan.tiles.forward, _functions(plan.family)

    def launched(own: Side, other: Side, bands: torch.Tensor, dots: torch.Tensor) -> torch.Tensor:
        n, m = len(own.x), len(other.x)
        programs = -(-n // tile.rows)
        parts = parts_of(programs, m // tile.columns)
        out = torch.empty(parts, 4, n, dtype=torch.float32, device=own.x.device)
        with on_device(own.x):
            kernels.sums[(programs, parts)](
                *_sides(own, other),
                bands,
                scale,
                dots,
                out,
                *(n, m, *numbers),
                P=functions.positive_logit,
                N=functions.negative_logit,
                **_constants(plan, tile),
                GIVEN=plan.tiles.given,
            )
        return merged(torch, out, torch.exp2)

    if not plan.tiles.given:
        bands = anchors.bands(references, tile.rows, tile.columns)
        return launched(anchors, references, bands, scale)
    found = []
    for i in cuts(len(anchors.x), plan.tiles.block):
        own, every = anchors.cut(i), []
        for j in cuts(len(references.x), plan.tiles.block):
            other = references.cut(j)
            # All of it may hold positives: what a mask costs is little beside such a product.
            programs = -(-len(own.x) // tile.rows)
            bands = torch.zeros(programs, 2, dtype=torch.int32, device=own.x.device)
            bands[:, 1] = len(other.x) // tile.columns
            every.append(launched(own, other, bands, torch.mm(own.x, other.x.T)))
        found.append(merged(torch, torch.stack(every), torch.exp2))
    return torch.cat(found, 1)


def programs_of(own: torch.Tensor, other: torch.Tensor, tile: Tile) -> tuple[int, int]:
    """The number of programs that write a block, along its rows and columns: one per tile."""
    return -(-len(own) // tile.rows), -(-len(other) // tile.columns)


def written(
    own: torch.Tensor, other: torch.Tensor, tile: Tile, given: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block of whole tiles for programs to write, and the part of it that is [n, m].

    Where products are `given`, they are in it.
    """
    rows, columns = programs_of(own, other, tile)
    whole = own.new_empty(rows * tile.rows, columns * tile.columns)
    block = whole[: len(own), : len(other)]
    if given:
        torch.mm(own, other.T, out=block)
    return whole, block


def extras(
    plan: Plan, scale: torch.Tensor, anchors: Side, references: Side, stats: torch.Tensor
) -> torch.Tensor:
    """The extra statistic and what it pulls at the negatives, float32 [2, n]."""
    from kinfold.streaming.fused.triton import forward as kernels

    tile, (functions, numbers, _) = plan.tiles.extras, _functions(plan.family)
    n, m = len(anchors.x), len(references.x)
    out = torch.zeros(2, n, dtype=torch.float32, device=anchors.x.device)
    if plan.family.extra != "none":
        with on_device(anchors.x):
            kernels.extras[(-(-n // tile.rows),)](
                *_sides(anchors, references),
                anchors.bands(references, tile.rows, tile.columns),
                scale,
                stats,
                out,
                *(n, m, *numbers[:2]),
                P=functions.positive_logit,
                **_constants(plan, tile),
                EXTRA=plan.family.extra,
            )
    return out


def gradients(
    plan: Plan,
    scale: torch.Tensor,
    sides: tuple[Side, Side],
    terms: tuple[torch.Tensor, torch.Tensor],
    of: tuple[bool, bool],
    wanted: tuple[bool, bool],
) -> list[torch.Tensor | None]:
    """Gradients with respect to anchors and references, float32 [n, D] each, in their order.

    Args:
        of: which sides are anchors of the loss.
        wanted: which gradients are.
    """
    anchors, references = sides
    symmetric = references is anchors
    totals = [
        torch.zeros_like(side.x, dtype=torch.float32) if w else None
        for side, w in zip(sides, wanted, strict=True)
    ]
    sorted_terms = [
        t[:, side.positions].contiguous() if is_anchor else scale[None]  # not looked at
        for t, side, is_anchor in zip(terms, sides, of, strict=True)
    ]
    distance = plan.family.distance.name
    for i in cuts(len(anchors.x), plan.tiles.block):
        for j in cuts(len(references.x), plan.tiles.block):
            if symmetric and j.start < i.start:
                continue
            block = _derivatives(plan, scale, sides, sorted_terms, of, (i, j))
            if wanted[0]:
                _add(totals[0], i, block, anchors.x, references.x[j], distance)
            if symmetric and j.start > i.start:
                _add(totals[0], j, block.T, anchors.x, anchors.x[i], distance)
            elif wanted[1] and not symmetric:
                _add(totals[1], j, block.T, references.x, anchors.x[i], distance)
    if plan.scaled:
        totals = [total if total is None else total.mul_(scale) for total in totals]
    return totals


def _derivatives(
    plan: Plan, scale: torch.Tensor, sides: Any, terms: Any, of: Any, at: tuple[slice, slice]
) -> torch.Tensor:
    """The derivatives with respect to the products of some anchors and references."""
    from kinfold.streaming.fused.triton import gradient as kernels

    tile, (functions, numbers, slopes) = plan.tiles.backward, _functions(plan.family)
    own, other = (side.cut(cut) for side, cut in zip(sides, at, strict=True))
    own_terms, other_terms = (t[:, cut] for t, cut in zip(terms, at, strict=True))
    n, m = len(own.x), len(other.x)
    whole, out = written(own.x, other.x, tile, plan.tiles.given)
    with on_device(own.x):
        kernels.derivatives[programs_of(own.x, other.x, tile)](
            *_sides(own, other),
            scale,
            own_terms,
            other_terms,
            out,
            *(n, m, whole.stride(0), terms[0].shape[1], terms[1].shape[1]),
            *(*numbers, *slopes),
            P=functions.positive_logit,
            N=functions.negative_logit,
            PS=functions.positive_slope,
            NS=functions.negative_slope,
            **_constants(plan, tile),
            GIVEN=plan.tiles.given,
            EXTRA=plan.family.extra,
            ROWS=of[0],
            COLUMNS=of[1],
        )
    return out


def _add(
    total: torch.Tensor,
    at: slice,
    block: torch.Tensor,
    x: torch.Tensor,
    r: torch.Tensor,
    distance: str,
) -> None:
    """Add to the gradient of some rows what a block of derivatives makes of the other side."""
    part = total[at]
    squared = "euclidean" in distance
    add_product(part, block, r, -2.0 if squared else 1.0)
    if squared:
        part += 2.0 * block.sum(1, keepdim=True, dtype=torch.float32) * x[at]


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, times: float) -> None:
    """Add times a @ b, summed in float32."""
    if a.dtype == torch.float32 or not a.is_cuda:
        total.addmm_(a.float(), b.float(), alpha=times)
    else:
        torch.addmm(total, a, b, out_dtype=torch.float32, alpha=times, out=total)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of the products of all their numbers, in float64 without a copy of all in it."""
    parts = zip(a.split(2**16), b.split(2**16), strict=True)
    return torch.stack([(x.double() * y.double()).sum() for x, y in parts]).sum()


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


@functools.cache
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
        **sizes(plan.tiles, tile),
    }


def sizes(tiles: Tiles, tile: Tile) -> dict[str, Any]:
    """What every kernel takes of its tile."""
    return {
        "D": tiles.width,
        "BM": tile.rows,
        "BN": tile.columns,
        "BK": tile.depth,
        "WIDEN": interpreted(),
        **({} if interpreted() else _options(tile)),
    }


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
