"""The sizes of the fused kernels' tiles, by the width of a row and the precision.

Chosen for a Hopper GPU from what the compiler says of the kernels: in half precision no register is
spilled in the loop over clean tiles (but a handful), and a program's tiles fit the 227 KB of shared
memory that it may have. They were not measured on a GPU; see README.md.
"""

from typing import Any, NamedTuple


class Tile(NamedTuple):
    """What one program works on."""

    rows: int  # anchors
    columns: int  # references at a time
    depth: int  # numbers of a row that a product takes at a time
    warps: int
    stages: int  # tiles on their way from memory
    part: int = 0  # numbers of a row of the gradient
    split: bool = False  # whether rows are too few for a warp each 16


class Tiles(NamedTuple):
    width: int  # numbers of a row, with padding
    precision: str  # of float32 products, in Triton's words
    forward: Tile
    backward: Tile


HOPPER = 227 * 1024  # bytes of shared memory that a program may have


def tiles(d: int, dtype: Any, precision: str, shared: int = HOPPER) -> Tiles:
    """Tiles for rows of `d` numbers.

    Args:
        dtype: that of the rows, by its name or as PyTorch has it.
        precision: of products, in Triton's words; it counts for float32 alone.
        shared: bytes of shared memory that the GPU gives a program; less than a Hopper's gets
            tiles that fit into 99 KB.
    """
    width = width_of(d)
    if str(dtype).endswith("float32"):
        return Tiles(width, precision, *_float32(width, precision, shared >= HOPPER))
    return Tiles(width, "ieee", *(_half(width) if shared >= HOPPER else _small(width)))


def width_of(d: int) -> int:
    """Padded to a power of two, or to a multiple of 256."""
    if d > 512:
        return -(-d // 256) * 256
    return max(16, 1 << (d - 1).bit_length())


def _half(width: int) -> tuple[Tile, Tile]:
    if width <= 128:
        return Tile(64, 128, width, 4, 2), Tile(64, 64, width, 4, 3, width)
    if width == 256:
        return Tile(128, 128, 64, 8, 3), Tile(64, 64, 256, 4, 2, 256)
    if width == 512:
        return Tile(128, 256, 64, 8, 3), Tile(64, 64, 512, 8, 2, 512, split=True)
    part = 512 if width % 512 == 0 else 256
    return Tile(128, 256, 64, 8, 3), Tile(64, 64, 128, 8, 2, part, split=True)


def _small(width: int) -> tuple[Tile, Tile]:
    depth, part = min(width, 32), min(width, 128)
    return Tile(64, 64, depth, 4, 3), Tile(64, 64, depth, 4, 2, part)


def _float32(width: int, precision: str, large: bool) -> tuple[Tile, Tile]:
    depth = min(width, 32)
    if not large:
        return Tile(32, 64, depth, 4, 2), Tile(32, 32, depth, 4, 2, min(width, 128))
    if precision == "tf32":
        part = 512 if width % 512 == 0 else min(width, 256)
        return Tile(128, 128, depth, 8, 3), Tile(64, 64, depth, 8, 2, part, split=True)
    return Tile(64, 64, depth, 4, 3), Tile(64, 64, depth, 8, 2, min(width, 256), split=True)
