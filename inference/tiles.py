"""Pictures too large for one pass, in parts that a network sees as it would see them in the whole."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

TILE = 1024
"""Pixels of a tile's side, about."""
WHOLE = 2 * TILE**2
"""Pixels up to which a picture is not cut: a pass needs up to about 1 KiB of memory for each."""
COARSEST = 64


class Box(NamedTuple):
    """First row and column, height and width of a part, in pixels."""

    top: int
    left: int
    height: int
    width: int


def grid_of(scales: Sequence[float], stride: int = 8) -> int:
    """Pixels after which the grids of all scales and the network's stride begin anew, at most
    `COARSEST`.

    Down-sampling by p / q picks the same pixels in every block of q. Scales with other denominators
    are left out.
    """
    grid = stride
    for scale in scales:
        common = math.lcm(grid, Fraction(scale).limit_denominator(1000).denominator)
        grid = common if common <= COARSEST else grid
    return grid


def tile_boxes(height: int, width: int, grid: int, tile: int | None = None) -> list[Box]:
    """Parts that cover a picture once; one part if it has no more than `WHOLE` pixels (with `tile`,
    2 * tile**2).

    Sides are between about half of `tile`, left out `TILE`, and that + `grid`, and first rows and
    columns are multiples of `grid`, so that a part's residual is the whole's.
    """
    if height * width <= (2 * tile**2 if tile else WHOLE):
        return [Box(0, 0, height, width)]
    rows, columns = _cuts(height, grid, tile or TILE), _cuts(width, grid, tile or TILE)
    return [
        Box(top, left, bottom - top, right - left)
        for top, bottom in zip(rows, rows[1:], strict=False)
        for left, right in zip(columns, columns[1:], strict=False)
    ]


def _cuts(length: int, grid: int, tile: int) -> list[int]:
    parts = math.ceil(length / tile)
    return [round(part * length / parts / grid) * grid for part in range(parts)] + [length]
