"""Random histories of pictures in training, the same for photographs and generated ones, so that none of it tells them apart.

Photographs reach us shrunk and compressed, generated pictures often neither; a detector that learns this fails on the next set
(Rajan et al., ICLR 2025, arXiv 2410.11835; Wang et al., CVPR 2020). Each picture is shrunk, passed through an up-sampler if it
is to be self-made, resized, blurred and compressed, each step at random.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from data.filters import gaussian_blur, pil_jpeg

SHRINK = (0.7, 1.0)
"""Factors of both sides, before: a shrunk photograph has lost the traces of its first compression."""
RESIZE = (0.75, 1.25)
"""The same, after."""
BLUR = (0.2, 1.5)
"""Standard deviations in pixels."""
QUALITY = (60, 98)
"""Of JPEG."""
RARER = 0.5
"""Resizing and blur come with this share of the probability of shrinking and compression."""
INTERPOLATIONS = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
MARGIN = 8
"""Pixels around the crop, so that it meets the grid of JPEG in any of its phases."""


def matched(
    pixels: Tensor, rng: np.random.Generator, degrade: float, side: int, make: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """uint8 [3, H, W] with both sides >= `side` -> a part of it with both sides >= `side`, with a random history.

    Args:
        degrade: probability in [0, 1] of shrinking, and of compression.
        make: an up-sampler, between the two; None leaves the picture as it is.
    """
    happens = rng.random(4) < degrade * np.array([1, RARER, RARER, 1])
    shrink, resize, sigma, quality = rng.uniform(*np.array([SHRINK, RESIZE, BLUR, QUALITY]).T)
    modes = [INTERPOLATIONS[int(i)] for i in rng.integers(len(INTERPOLATIONS), size=2)]
    smallest = side / min(pixels.shape[1:])
    shrink = max(shrink, smallest) if happens[0] else 1.0
    resize = max(resize, smallest / shrink) if happens[1] else 1.0
    pixels = cut(pixels, rng, round((side + MARGIN) / (shrink * resize)))
    pixels = resized(pixels, shrink, modes[0])
    if make is not None:
        pixels = make(pixels)
    pixels = resized(pixels, max(resize, side / min(pixels.shape[1:])), modes[1])
    if not (happens[2] or happens[3]):
        return pixels
    image = TF.to_pil_image(pixels)
    if happens[2]:
        image = gaussian_blur(image, sigma)
    if happens[3]:
        image = pil_jpeg(image, int(quality))
    return TF.pil_to_tensor(image)


def cut(pixels: Tensor, rng: np.random.Generator, side: int) -> Tensor:
    """A random part with both sides of `side` pixels, or less where there are no more."""
    height, width = (min(side, size) for size in pixels.shape[1:])
    top, left = (
        int(rng.integers(size - part + 1)) for size, part in zip(pixels.shape[1:], (height, width), strict=True)
    )
    return pixels[:, top : top + height, left : left + width]


def resized(pixels: Tensor, factor: float, mode: InterpolationMode) -> Tensor:
    """Both sides times the factor, rounded up; antialiased."""
    if factor == 1:
        return pixels
    return TF.resize(pixels, [int(np.ceil(side * factor)) for side in pixels.shape[1:]], mode)
