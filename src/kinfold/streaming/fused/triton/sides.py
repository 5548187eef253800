"""Anchors and references as the fused kernels of Triton take them: sorted by class and padded."""

from typing import Any, NamedTuple

import torch

from kinfold.streaming.fused.tiles import Tiles


class Side(NamedTuple):
    """Anchors or references, sorted by class and padded."""

    x: torch.Tensor  # [n, D]
    classes: torch.Tensor  # int32 [n]
    positions: torch.Tensor  # int32 [n]
    squares: torch.Tensor  # float32 [n]
    width: int  # numbers of a row without the padding
    first: int = 0  # where the first of them lies in the whole batch

    def cut(self, at: slice) -> "Side":
        """Some of the rows."""
        x, classes, positions, squares = (part[at] for part in self[:4])
        return Side(x, classes, positions, squares, self.width, self.first)

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


def cuts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


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
    out = padded(out, tiles.width)
    if "euclidean" in distance:
        squares = torch.cat([p.float().square().sum(1) for p in out.split(2**16)])
    else:
        squares = torch.zeros(n, dtype=torch.float32, device=x.device)
    return Side(out, ordered.int(), order.int(), squares, d, first)


def padded(x: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of `width` numbers, the last of which are zeros."""
    more = width - x.shape[1]
    return torch.nn.functional.pad(x, (0, more)) if more else x.contiguous()
