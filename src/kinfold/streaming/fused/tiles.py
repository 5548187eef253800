"""The sizes of the fused kernels' tiles, by the width of a row and the precision."""

from typing import Any, NamedTuple


class Tile(NamedTuple):
    """What one program works on."""

    rows: int  # anchors
    columns: int  # references at a time
    depth: int  # numbers of a row that a product takes at a time
    warps: int
    stages: int  # tiles on their way from memory


class Tiles(NamedTuple):
    width: int  # numbers of a row, with padding
    given: bool  # whether a matrix library takes the products
    block: int  # rows of a block of derivatives, which is in memory, and columns
    forward: Tile
    extras: Tile
    backward: Tile


HOPPER = 227 * 1024  # bytes of shared memory that a program may have


# As many programs as keep all of a large GPU at work.
PROGRAMS = 264


def parts(programs: int, columns: int) -> int:
    """How many programs share the references of some anchors, where anchors are few.

    Args:
        programs: that the anchors are for.
        columns: tiles of references.
    """
    return max(1, min(-(-PROGRAMS // programs), columns // 4))


def tiles(d: int, dtype: Any, shared: int = HOPPER) -> Tiles:
    """Tiles for rows of `d` numbers.

    Args:
        dtype: that of the rows, by its name or as PyTorch has it.
        shared: bytes of shared memory that the GPU gives a program; less than a Hopper's gets
            tiles that fit into 99 KB.
    """
    width = width_of(d)
    small = Tile(64, 64, min(width, 32), 4, 3)
    if str(dtype).endswith("float32"):
        passed = Tile(32, 128, min(width, 32), 4, 2)
        return Tiles(width, True, 4096, passed, Tile(32, 32, min(width, 32), 4, 2), passed)
    if shared < HOPPER:
        return Tiles(width, False, 8192, small, small, small)
    depth = min(width, 64)
    forward = Tile(64, 128, width, 4, 2) if width <= 128 else Tile(128, 256, depth, 8, 3)
    return Tiles(width, False, 8192, forward, small, Tile(128, 128, depth, 8, 3))


def width_of(d: int) -> int:
    """Padded to a power of two, or to a multiple of 64."""
    return max(16, 1 << (d - 1).bit_length()) if d <= 64 else -(-d // 64) * 64
