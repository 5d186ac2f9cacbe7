"""Neighboring Pixel Relationships (NPR): an image minus its down- and up-sampled version.

Source: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024, arXiv 2312.10461.
"""

import math
from fractions import Fraction

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

RESIDUAL_GAIN = 2.0 / 3.0  # the published network's factor before its first convolution
MAX_PERIOD = 100  # pixels; scales with a longer grid period get no padding


def reduced_size(size: int, scale: float) -> int:
    """Return the side in pixels of `size` pixels after down-sampling by `scale` in (0, 1).

    It is floor(size * scale). The factor below absorbs the product's rounding error, so that
    98 * (1/49) gives 2.
    """
    return math.floor(size * scale * (1 + 1e-12))


def grid_period(scale: float) -> int:
    """Return the period in pixels of the grid that down-sampling by a scale p / q keeps.

    It is q, or 1 where q exceeds `MAX_PERIOD`. It holds to the rounding of PyTorch's operator: far
    from the corner, single precision moves a few pixels of scales such as 3/7.
    """
    fraction = Fraction(scale).limit_denominator(MAX_PERIOD)
    return fraction.denominator if abs(fraction - Fraction(scale)) < 1e-9 else 1


def npr_residual(images: Tensor, scale: float) -> Tensor:
    """Return NPR(x, s) = x - up(down(x, s)).

    Both steps use the nearest neighbour, and `up` returns to the exact input size. The published
    formula up-samples by 1/s, which reaches the input size for some sizes only. For these sizes,
    both formulas agree bit for bit. At s = 0.5 one pixel in four (the one that `down` keeps) is
    zero in the result.

    The grid of pixels that `down` keeps does not depend on the image's size. With s = p/q, an image
    whose sides are not multiples of q is padded on the right and at the bottom to multiples of q,
    and the padding's residual is cut off. Scaling the image's own sides instead would stretch the
    grid, and a trace of period 1/s would fall out of step with it.

    Args:
        images: [B, C, H, W], any value range.
        scale: down-sampling factor in (0, 1).

    Returns:
        [B, C, H, W], same dtype; linear in `images` and zero for a constant image.

    Raises:
        ValueError: the scale is outside (0, 1), or leaves no pixel of this size.
    """
    if not 0.0 < scale < 1.0:
        raise ValueError(f"NPR scale {scale} is not between 0 and 1")
    height, width = images.shape[-2:]
    if min(reduced_size(height, scale), reduced_size(width, scale)) < 1:
        raise ValueError(
            f"NPR scale {scale} leaves no pixel of a {height}x{width} image;"
            " use a larger scale or image"
        )
    period = grid_period(scale)
    bottom, right = -height % period, -width % period
    # no pixel of the result comes from the padding
    padded = pad(images, (0, right, 0, bottom)) if bottom or right else images
    size = height + bottom, width + right
    down = interpolate(
        padded, size=(reduced_size(size[0], scale), reduced_size(size[1], scale)), mode="nearest"
    )
    return images - interpolate(down, size=size, mode="nearest")[..., :height, :width]


class NPRExtractor(nn.Module):
    """Module that returns `npr_residual` at one scale: [B, C, H, W] -> [B, C, H, W].

    It has no parameters and no buffers.
    """

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
    """Return one distinct text per scale: (0.25, 0.5, 0.5) -> ['0.25', '0.5', '0.5_2'].

    A repeated scale gets a suffix. Texts have six digits, or all digits where different scales
    would look alike: (1/3, 0.33333333) -> ['0.3333333333333333', '0.33333333'].
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
    """Return a key of `scale_keys` as a label: '0.25' -> '0.25x', '0.5_2' -> '0.5x #2'."""
    scale, _, number = key.partition("_")
    return f"{scale}x #{number}" if number else f"{scale}x"


def residual_maps(images: Tensor, scales: list[float] | tuple[float, ...]) -> dict[str, Tensor]:
    """Return the residuals at every scale, without gain, as {'npr_0.5': [B, C, H, W], ...}.

    Args:
        images: [B, C, H, W], any value range.
        scales: numbers in (0, 1).
    """
    return {
        f"npr_{key}": npr_residual(images, scale)
        for key, scale in zip(scale_keys(scales), scales, strict=True)
    }
