"""Neighboring Pixel Relationships (NPR): the residual that up-sampling cannot explain.

Source: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024, arXiv 2312.10461.
"""

import math
from fractions import Fraction

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

RESIDUAL_GAIN = 2.0 / 3.0
"""The published network multiplies the residual by this before its first convolution."""


def reduced_size(size: int, scale: float) -> int:
    """Side length in pixels that `size` pixels have after down-sampling by `scale` in (0, 1).

    It is floor(size * scale), with the product's last-bit rounding error forgiven so that 98 *
    (1/49) is 2.
    """
    return math.floor(size * scale * (1 + 1e-12))


MOST_PERIOD = 100
"""Pixels: the longest period of a scale's grid that is kept in images whose sides are no multiples
of it."""


def grid_period(scale: float) -> int:
    """Pixels after which down-sampling by a scale p / q picks the same pixels again: q, or 1 where
    q would exceed `MOST_PERIOD`.

    To the rounding of PyTorch's operator, whose single precision moves a few pixels of scales such
    as 3/7 far from the corner.
    """
    fraction = Fraction(scale).limit_denominator(MOST_PERIOD)
    return fraction.denominator if abs(fraction - Fraction(scale)) < 1e-9 else 1


def npr_residual(images: Tensor, scale: float) -> Tensor:
    """NPR(x, s) = x - up(down(x, s)), nearest neighbour both ways, `up` back to the exact input
    size.

    The published two-step formula up-samples by 1/s and returns to the input size for some sizes
    only; there the two agree bit for bit. At s = 0.5 one pixel in four (the one that `down` keeps)
    is zero in the result.

    The grid of pixels that `down` keeps does not depend on the image's size: with s = p/q, an image
    whose sides are no multiples of q has the residual that it has as the upper left part of one
    whose sides are. Scaling its own sides instead would stretch the grid, so that a trace of period
    1/s falls out of step with it.

    Args:
        images: [B, C, H, W], any value range.
        scale: down-sampling factor in (0, 1).

    Returns:
        [B, C, H, W], same dtype; linear in `images` and zero for a constant image.

    Raises:
        ValueError: scale outside (0, 1), or so small that no pixel of this size is left.
    """
    if not 0.0 < scale < 1.0:
        raise ValueError(f"NPR scale {scale} is not between 0 and 1")
    height, width = images.shape[-2:]
    if min(reduced_size(height, scale), reduced_size(width, scale)) < 1:
        raise ValueError(
            f"NPR scale {scale} leaves no pixel of a {height}x{width} image; use a larger scale or image"
        )
    period = grid_period(scale)
    bottom, right = -height % period, -width % period
    # no pixel shown is one of the padding
    whole = pad(images, (0, right, 0, bottom)) if bottom or right else images
    size = height + bottom, width + right
    down = interpolate(
        whole, size=(reduced_size(size[0], scale), reduced_size(size[1], scale)), mode="nearest"
    )
    return images - interpolate(down, size=size, mode="nearest")[..., :height, :width]


class NPRExtractor(nn.Module):
    """`npr_residual` at one scale as a module: [B, C, H, W] -> [B, C, H, W]; it has no parameters
    or buffers."""

    def __init__(self, scale_factor: float = 0.5) -> None:
        super().__init__()
        if not 0.0 < scale_factor < 1.0:
            raise ValueError(f"NPR scale {scale_factor} is not between 0 and 1")
        self.scale_factor = scale_factor

    def forward(self, images: Tensor) -> Tensor:
        return npr_residual(images, self.scale_factor)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"


def scale_keys(scales: list[float] | tuple[float, ...]) -> list[str]:
    """One distinct text per scale: (0.25, 0.5, 0.5) -> ['0.25', '0.5', '0.5_2']; a repeated scale
    gets a suffix.

    Six digits, or all of them where different scales would look alike: (1/3, 0.33333333) ->
    ['0.3333333333333333', '0.33333333'].
    """
    keys: list[str] = []
    for position, scale in enumerate(scales):
        alike = any(scale != other and f"{scale:g}" == f"{other:g}" for other in scales)
        earlier = sum(scale == other for other in scales[:position])
        keys.append(
            (repr(float(scale)) if alike else f"{scale:g}") + (f"_{earlier + 1}" if earlier else "")
        )
    return keys


def scale_label(key: str) -> str:
    """A key of `scale_keys` as people read it: '0.25' -> '0.25x', '0.5_2' -> '0.5x #2'."""
    scale, _, number = key.partition("_")
    return f"{scale}x #{number}" if number else f"{scale}x"


def residual_maps(images: Tensor, scales: list[float] | tuple[float, ...]) -> dict[str, Tensor]:
    """The residuals of [B, C, H, W] images at every scale, as {'npr_0.5': [B, C, H, W], ...},
    without gain."""
    return {
        f"npr_{key}": npr_residual(images, scale)
        for key, scale in zip(scale_keys(scales), scales, strict=True)
    }
