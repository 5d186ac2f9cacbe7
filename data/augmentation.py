"""Random changes of training images, drawn alike for real and fake ones.

`augmented` is the blur and JPEG of Wang et al. (CVPR 2020, arXiv 1912.11035).

`matched` are the degradations of --degrade. Photographs usually arrive shrunk and compressed,
generated images often neither. A detector that learns this difference fails on the next dataset
(Rajan et al., ICLR 2025, arXiv 2410.11835). Each image is shrunk, resized, blurred and compressed,
each step at random, and cut down to what the crop needs. An image that is hardly larger than the
crop can hardly be shrunk. So where the classes differ in size, their augmentation differs, too.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from data.degradations import JPEG_ROUND_TRIP, gaussian_blur, pil_jpeg

# factor of both sides: a shrunk photograph has lost the traces of its first compression
SHRINK = (0.7, 1.0)
RESIZE = (0.75, 1.25)  # factor of both sides, after shrinking
BLUR = (0.2, 1.5)  # standard deviation in pixels
QUALITY = (60, 98)  # of JPEG, both included
RARER = 0.5  # probability of resizing and blur, as a share of that of shrinking and compression
INTERPOLATIONS = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
MARGIN = 7  # pixels around the crop, so that it meets the grid of JPEG in any of its phases


@dataclass(frozen=True)
class Augmentation:
    """Random changes in training; a crop at a random place is implied.

    Args:
        flip: mirror left-right with probability 1/2.
        blur_prob: probability in [0, 1] of a Gaussian blur.
        blur_sigma: its standard deviation in pixels, one value or the ends of a range.
        jpeg_prob: probability in [0, 1] of a JPEG round trip.
        jpeg_quality: 1..100, one value or the ends of a range, both included.
        jpeg_methods: 'pil', 'cv2' or both; one is drawn per image.
        degrade: probability in [0, 1] of the steps of `matched`, before the crop; needs a crop.
    """

    flip: bool = True
    blur_prob: float = 0.0
    blur_sigma: tuple[float, ...] = (0.5,)
    jpeg_prob: float = 0.0
    jpeg_quality: tuple[int, ...] = (75,)
    jpeg_methods: tuple[str, ...] = ("pil",)
    degrade: float = 0.0


def augmented(pixels: Tensor, augment: Augmentation, rng: np.random.Generator) -> Tensor:
    """Return uint8 pixels [3, H, W] after random blur, then random JPEG (Wang et al., CVPR 2020).

    The draws do not depend on the probabilities.
    """
    blur_draw, sigma_draw, jpeg_draw, quality_draw, method_draw = rng.random(5)
    blurs, compresses = blur_draw < augment.blur_prob, jpeg_draw < augment.jpeg_prob
    if not (blurs or compresses):
        return pixels
    image = TF.to_pil_image(pixels)
    if blurs:
        low, high = augment.blur_sigma[0], augment.blur_sigma[-1]
        image = gaussian_blur(image, low + sigma_draw * (high - low))
    if compresses:
        qualities = range(augment.jpeg_quality[0], augment.jpeg_quality[-1] + 1)
        method = augment.jpeg_methods[int(method_draw * len(augment.jpeg_methods))]
        image = JPEG_ROUND_TRIP[method](image, qualities[int(quality_draw * len(qualities))])
    return TF.pil_to_tensor(image)


def matched(pixels: Tensor, rng: np.random.Generator, degrade: float, side: int) -> Tensor:
    """Return a part of an image after random degradations.

    Args:
        pixels: uint8 [3, H, W] with both sides >= `side`.
        rng: draws the degradations.
        degrade: probability in [0, 1] of shrinking, and of compression.
        side: smallest side of the result in pixels.
    """
    happens = rng.random(4) < degrade * np.array([1, RARER, RARER, 1])
    shrink, resize, sigma = rng.uniform(*np.array([SHRINK, RESIZE, BLUR]).T)
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    modes = [INTERPOLATIONS[int(i)] for i in rng.integers(len(INTERPOLATIONS), size=2)]
    smallest = side / min(pixels.shape[1:])
    shrink = max(shrink, smallest) if happens[0] else 1.0
    resize = max(resize, smallest / shrink) if happens[1] else 1.0
    pixels = cut(pixels, rng, math.ceil((side + MARGIN) / (shrink * resize)))
    pixels = resized(pixels, shrink, modes[0])
    pixels = resized(pixels, max(resize, side / min(pixels.shape[1:])), modes[1])
    pixels = cut(pixels, rng, side + MARGIN)
    if not (happens[2] or happens[3]):
        return pixels
    image = TF.to_pil_image(pixels)
    if happens[2]:
        image = gaussian_blur(image, sigma)
    if happens[3]:
        image = pil_jpeg(image, quality)
    return TF.pil_to_tensor(image)


def cut(pixels: Tensor, rng: np.random.Generator, side: int) -> Tensor:
    """Return a random part with both sides of `side` pixels, or less where there are no more."""
    height, width = (min(side, size) for size in pixels.shape[1:])
    top, left = (
        int(rng.integers(size - part + 1))
        for size, part in zip(pixels.shape[1:], (height, width), strict=True)
    )
    return pixels[:, top : top + height, left : left + width]


def resized(pixels: Tensor, factor: float, mode: InterpolationMode) -> Tensor:
    """Return the image with both sides times the factor, rounded up, antialiased."""
    if factor == 1:
        return pixels
    return TF.resize(pixels, [math.ceil(side * factor) for side in pixels.shape[1:]], mode)
