"""Squared distances in PyTorch: the few pairs that are too near are gathered."""

from typing import Any

import torch

from kinfold.core.numerics import by_hand, square_root
from kinfold.core.squares import NEAR
from kinfold.core.torch_numerics import full_precision

# Rows, or columns of a block, whose products are held at once.
ROWS = 8192

# Columns of a block whose smallest is looked at first.
RUN = 64

# Of more pairs than one in so many, and than `PAIRS`, the whole block is taken from differences.
FEW = 16

# Pairs whose differences are held at once.
PAIRS = 2**14


@torch.compiler.disable
@full_precision
def squared(x: torch.Tensor, r: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    if torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return _by_column(x, r)  # what is computed may not depend on values
    return Squared.apply(x, r, known)


def distance(x: torch.Tensor, r: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    square = squared(x, r, known)
    return Root.apply(square) if by_hand() else square_root(square)


def known(r: torch.Tensor) -> torch.Tensor:
    """||r||^2 of every row [m]; by some rows at a time, as `vecdot` holds all products."""
    return torch.cat([torch.linalg.vecdot(rows, rows) for rows in r.split(ROWS)])


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, r: torch.Tensor, squares: Any) -> torch.Tensor:
        ctx.save_for_backward(x, r)
        ours, theirs = known(x), known(r) if squares is None else squares
        square = torch.addmm(theirs, x, r.T, alpha=-2).add_(ours[:, None])
        ctx.cancels = not x.is_meta and _mend(square, x, r, ours, theirs)
        return square

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        x, r = ctx.saved_tensors
        return (
            _pull(x, r, g, ctx.cancels) if ctx.needs_input_grad[0] else None,
            _pull(r, x, g.T, ctx.cancels) if ctx.needs_input_grad[1] else None,
            None,
        )


class Root(torch.autograd.Function):
    """sqrt of numbers that are not negative, with gradient 0 at 0."""

    @staticmethod
    def forward(ctx: Any, square: torch.Tensor) -> torch.Tensor:
        root = square.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (root,) = ctx.saved_tensors
        none = root == 0
        if torch.is_grad_enabled():  # to be differentiated once more
            return (0.5 * g / root.masked_fill(none, 1.0)).masked_fill(none, 0.0)
        return torch.div(g, root).mul_(0.5).masked_fill_(none, 0.0)


def _pull(a: torch.Tensor, b: torch.Tensor, g: torch.Tensor, cancels: bool) -> torch.Tensor:
    """2 sum_j g_ij (a_i - b_j), in float64 where rows are near each other."""
    wide = torch.float64 if cancels and a.device.type != "mps" else a.dtype
    if torch.is_grad_enabled():  # to be differentiated once more
        aw, bw, gw = a.to(wide), b.to(wide), g.to(wide)
        return (2.0 * (aw * gw.sum(1)[:, None] - gw @ bw)).to(a.dtype)
    if wide == a.dtype:
        return torch.addmm(a * g.sum(1)[:, None], g, b, beta=2, alpha=-2)
    total = torch.zeros_like(a, dtype=wide)
    for at, part in zip(b.split(ROWS), g.split(ROWS, dim=1), strict=True):
        part = part.to(wide)
        total.addcmul_(a, part.sum(1)[:, None]).addmm_(part, at.to(wide), alpha=-1)
    return total.mul_(2.0).to(a.dtype)


def _mend(square: Any, x: Any, r: Any, ours: Any, theirs: Any) -> bool:
    """Compute near pairs from their differences; return whether they are of different rows."""
    rows, columns = _near(square, ours, theirs)
    if len(rows) > max(square.numel() // FEW, PAIRS):
        square.copy_(torch.cdist(x, r, compute_mode="donot_use_mm_for_euclid_dist").square_())
        return True
    different = False
    for i, j in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True):
        apart = x[i].sub_(r[j])
        value = torch.linalg.vecdot(apart, apart)
        square[i, j] = value
        different = different or bool(value.any())
    return different


def _near(square: Any, ours: Any, theirs: Any) -> Any:
    """Rows and columns of the pairs below `NEAR` of the sum of their squared norms."""
    near = NEAR[str(square.dtype).removeprefix("torch.")]
    t, runs = len(square), square.shape[1] // RUN
    within = runs * RUN
    minima = square[:, :within].unflatten(1, (runs, RUN)).amin(2)
    bound = near * (ours[:, None] + theirs[:within].view(runs, RUN).amax(1))
    i, k = torch.nonzero(~(minima >= bound), as_tuple=True)  # a run with NaN too
    if len(i) * FEW > t * runs:
        return torch.nonzero(square < near * (ours[:, None] + theirs), as_tuple=True)
    columns = k[:, None] * RUN + torch.arange(RUN, device=square.device)
    found = square[i[:, None], columns] < near * (ours[i, None] + theirs[columns])
    a, b = torch.nonzero(found, as_tuple=True)
    tail = square[:, within:] < near * (ours[:, None] + theirs[within:])
    tail_rows, tail_columns = torch.nonzero(tail, as_tuple=True)
    return torch.cat([i[a], tail_rows]), torch.cat([columns[a, b], tail_columns + within])


def _by_column(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """From differences, one column of the embeddings after the other."""
    square = torch.zeros_like(x[:, :1] - r[:, 0])
    for a, b in zip(x.unbind(1), r.unbind(1), strict=True):
        square = square + (a[:, None] - b).square()
    return square
