"""Cut large images into tiles that the network sees as it would in the whole image."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

TILE = 1024  # pixels of a tile's side, about
WHOLE = 2 * TILE**2  # pixels up to which an image is not cut; a pass needs up to 1 KiB for each
MAX_GRID = 64  # pixels; sides of tiles exceed `TILE` by at most this


class Box(NamedTuple):
    """First row and column, height and width of a tile, in pixels."""

    top: int
    left: int
    height: int
    width: int


def grid_of(scales: Sequence[float], stride: int = 8) -> int:
    """Return the period, in pixels, of the grids of all scales and the network's stride.

    Down-sampling by p / q picks the same pixels in every block of q. Scales that would take the
    grid beyond `MAX_GRID` are ignored.
    """
    grid = stride
    for scale in scales:
        common = math.lcm(grid, Fraction(scale).limit_denominator(1000).denominator)
        grid = common if common <= MAX_GRID else grid
    return grid


def tile_boxes(height: int, width: int, grid: int, tile: int | None = None) -> list[Box]:
    """Return tiles that cover an image once; one tile if it has at most `WHOLE` pixels.

    First rows and columns are multiples of `grid`, so that the residual of a tile is that of the
    whole image.

    Args:
        height: pixels.
        width: pixels.
        grid: see `grid_of`.
        tile: pixels. Sides are between about tile / 2 and tile + grid, and images of at most
            2 * tile**2 pixels are not cut. None stands for `TILE` and `WHOLE`.
    """
    if height * width <= (2 * tile**2 if tile else WHOLE):
        return [Box(0, 0, height, width)]
    rows, columns = _cuts(height, grid, tile or TILE), _cuts(width, grid, tile or TILE)
    return [
        Box(top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def _cuts(length: int, grid: int, tile: int) -> list[int]:
    parts = math.ceil(length / tile)
    return [round(part * length / parts / grid) * grid for part in range(parts)] + [length]
