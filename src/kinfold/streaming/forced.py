"""Which road a block of code has been told to take, and which to leave alone."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from kinfold.core import checks

NAMES = ("fused", "symmetric", "one_block", "blocks")


class _Told(NamedTuple):
    only: str | None = None
    without: str | None = None


# What blocks of code have told, in the order in which they began. The last rules, and each takes
# its own away, so that blocks of several threads may overlap.
_told = [_Told()]


@contextlib.contextmanager
def _telling(told: _Told) -> Iterator[None]:
    _told.append(told)
    try:
        yield
    finally:
        del _told[next(i for i, one in enumerate(_told) if one is told)]


def road(name: str) -> Any:
    """Make every loss in a block of code take one road, for tests and to compare roads.

    Left alone, a loss takes the first road that suits it; see `kinfold.streaming.explain`. All
    roads give the same values. For all threads of the process, and for what is traced in the block
    where a graph is compiled.

    Args:
        name: "fused" (kernels on a GPU), "symmetric" (tiles of a batch with itself), "one_block"
            (all pairs at once) or "blocks" (some anchors at a time).

    Raises:
        ValueError: there is no such road.
        RuntimeError: within the block, from a loss that cannot take it; the message says why.

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import CircleLoss
    >>> from kinfold.streaming import road
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    >>> with road("blocks"):
    ...     print(f"{float(CircleLoss(gamma=1.0)(y, x)):.3f}")
    1.599
    """
    return _telling(_Told(only=checks.choice(name, "name", NAMES)))


def fused_kernels(wanted: bool = True) -> Any:
    """Ask for the fused kernels in a block of code, or go without them.

    Left alone, a loss chooses them on a GPU wherever they serve, once a small batch has shown that
    they give there what its equation gives. `fused_kernels()` is `road("fused")`;
    `fused_kernels(False)` leaves the choice between all other roads.

    Args:
        wanted: whether every loss must take them (one that cannot raises), or none may.

    Raises:
        RuntimeError: within the block, from a loss that the kernels cannot serve as asked; the
            message says why.

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import CircleLoss
    >>> from kinfold.streaming import fused_kernels
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    >>> with fused_kernels(False):
    ...     print(f"{float(CircleLoss(gamma=1.0)(y, x)):.3f}")
    1.599
    """
    if wanted:
        return road("fused")
    return _telling(_Told(only=None if only() == "fused" else only(), without="fused"))


def only() -> str | None:
    """The road that must be taken; None where a loss may choose."""
    return _told[-1].only


def without(name: str) -> bool:
    """Whether a road may not be chosen."""
    return _told[-1].without == name


def one_block() -> bool | None:
    """Whether one block must be taken, or several; None where neither is told."""
    return {"one_block": True, "blocks": False}.get(only() or "")


def refused(loss: Any, why: str) -> str:
    """The message of a road that was forced and cannot serve a loss."""
    return f"The road {only()!r} was asked for and cannot serve {type(loss).__name__}: {why}"


def refuse_roads_of_pair_losses(loss: Any, *names: str) -> None:
    """Raise where a road was forced that a loss of another form does not have."""
    if only() in names:
        why = "it is no function of an anchor's distances and labels."
        raise RuntimeError(refused(loss, why))
