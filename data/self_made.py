"""Generated pictures made from photographs: each passes through an up-sampler of its own, so that only the trace differs.

What gives generators away are the traces of their up-sampling layers (Zhang et al., WIFS 2019, arXiv 1907.06515, who train an
auto-encoder on photographs for them; Tan et al., CVPR 2024). Here an auto-encoder is drawn and fitted in closed form for every
single picture, in milliseconds: no up-sampler is seen twice, and none has weights to store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.upsamplers import (
    OPERATORS,
    STRIDE,
    Decoder,
    Encoder,
    Operator,
    fit_decoder,
    fit_encoder,
    laplacian_covariance,
    single_threaded,
)

KERNEL_SIZES = {"nearest": (3,), "bilinear": (3,), "transposed": (3, 4), "pixel_shuffle": (1, 3)}
"""Of the convolution beside each operator; one is drawn."""
TWO_STAGES = 0.4
"""Probability of two stages, which up-sample by 4 and not by 2."""
CHANNELS, CHANNELS_OF_TWO = (8, 12), (9, 11)
"""Latent channels of the full-resolution stage, smallest and largest; twelve would hold a picture of three colours without loss."""
IMPERFECT, ERRORS = 0.5, (-3.0, -1.8)
"""Probability that a decoder's weights are not the fitted ones, and their relative error: powers of ten."""
TEXTURED, TEXTURE = 0.7, (0.5, 1.2)
"""Probability that the detail which the latent lost is made up for, and the share of the photograph's Laplacian energy aimed at."""
MOST_TEXTURE = 0.25
"""Standard deviation of the noise in units of the latent's detail at its place, at most."""
FIT_SQUARES, FIT_SIDE = 6, 32
"""Squares of the picture on which decoders are fitted, and their sides in pixels."""
SMALLEST = 8
"""Pixels of a side to which smaller pictures are continued: two stages need a patch of the encoder at each."""
RIDGE = 1e-5


@dataclass(frozen=True)
class Drawn:
    """What `draw` chose: an operator, latent channels of each stage, and how far from its best the decoder is."""

    operator: Operator
    channels: tuple[int, ...]
    error: float  # relative, of each weight
    texture: float  # share of the photograph's Laplacian energy; 0 = as decoded
    offset: tuple[int, int]  # pixels by which the decoder's grid is moved


def draw(rng: np.random.Generator, operators: Sequence[str] = tuple(OPERATORS)) -> Drawn:
    """An up-sampler with one of these operators."""
    name = operators[int(rng.integers(len(operators)))]
    sizes = KERNEL_SIZES[name]
    operator = replace(OPERATORS[name], kernel_size=sizes[int(rng.integers(len(sizes)))])
    if rng.random() < TWO_STAGES:
        first = int(rng.integers(CHANNELS_OF_TWO[0], CHANNELS_OF_TWO[1] + 1))
        channels: tuple[int, ...] = (first, int(rng.integers(3 * first, 4 * first + 1)))
    else:
        channels = (int(rng.integers(CHANNELS[0], CHANNELS[1] + 1)),)
    error = 10 ** rng.uniform(*ERRORS) if rng.random() < IMPERFECT else 0.0
    texture = rng.uniform(*TEXTURE) if rng.random() < TEXTURED else 0.0
    grid = STRIDE ** len(channels)
    return Drawn(operator, channels, error, texture, (int(rng.integers(grid)), int(rng.integers(grid))))


def self_made(pixels: Tensor, rng: np.random.Generator, operators: Sequence[str] = tuple(OPERATORS)) -> Tensor:
    """A photograph, uint8 [3, H, W], as an up-sampler drawn by `rng` gives it back: uint8 of the same shape.

    Args:
        operators: to draw from, of `data.upsamplers.OPERATORS`.
    """
    drawn = draw(rng, operators)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    height, width = pixels.shape[1:]
    grid = STRIDE ** len(drawn.channels)
    top, left = drawn.offset
    sides = [max(SMALLEST, -(-side // grid) * grid) for side in (top + height, left + width)]
    padding = (left, sides[1] - left - width, top, sides[0] - top - height)
    images = F.pad(pixels[None].float() / 255, padding, mode="replicate")
    with single_threaded():  # the same in a worker and in a process of many threads
        made = decoded(images, drawn, generator)[0, :, top : top + height, left : left + width]
    return (made.clamp(0, 1) * 255).round().to(torch.uint8)


def decoded(images: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
    """Images [1, 3, H, W] through the drawn up-sampler, fitted to parts of them; sides divide by 2 ** stages."""
    encoders, decoders, whole, parts = [], [], images, squares(images, generator)
    for channels in drawn.channels:
        encoders.append(fit_encoder(whole, channels))
        whole, latents = encoders[-1](whole), encoders[-1](parts)
        decoders.append(disturbed(fit_decoder(drawn.operator, latents, parts, RIDGE), drawn.error, generator))
        parts = latents
    return texture_and_all(images, encoders, decoders[::-1], drawn.texture, generator)


def texture_and_all(
    images: Tensor, encoders: Sequence[Encoder], decoders: Sequence[Decoder], texture: float, generator: torch.Generator
) -> Tensor:
    """Decoded images with the lost detail made up for by noise in the latent: it bears the decoder's trace as all else does.

    Decoding is linear, so that the noise's strength follows from the Laplacian energy of each part.
    """
    latents = images
    for encoder in encoders:
        latents = encoder(latents)
    plain = decode(latents, decoders)
    if texture == 0:
        return plain
    detail = latents - F.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False)
    noise = detail.abs() * torch.randn(latents.shape, generator=generator)  # texture where there is texture
    grain = decode(latents + noise, decoders) - plain
    missing = texture * laplacian_energy(images) - laplacian_energy(plain)
    return plain + grain * (missing / laplacian_energy(grain).clamp_min(1e-12)).clamp(0, MOST_TEXTURE**2).sqrt()


def decode(latents: Tensor, decoders: Sequence[Decoder]) -> Tensor:
    """Latents [1, D, h, w] through the decoders in this order."""
    for decoder in decoders:
        latents = decoder(latents)
    return latents


def laplacian_energy(images: Tensor) -> Tensor:
    """Mean variance over the colours of the Laplacian of images [1, C, H, W], a scalar."""
    return laplacian_covariance(images).diagonal(dim1=1, dim2=2).mean()


def squares(images: Tensor, generator: torch.Generator) -> Tensor:
    """Parts of images [1, C, H, W] at random places, [`FIT_SQUARES`, C, 32, 32]; all of smaller images, [1, C, H, W]."""
    spare = [side - FIT_SIDE for side in images.shape[2:]]
    if min(spare) < 0:
        return images
    places = [[int(torch.randint(s + 1, (), generator=generator)) for s in spare] for _ in range(FIT_SQUARES)]
    return torch.cat([images[..., top : top + FIT_SIDE, left : left + FIT_SIDE] for top, left in places])


def disturbed(decoder: Decoder, error: float, generator: torch.Generator) -> Decoder:
    """The decoder with an independent relative error, Gaussian, of each weight."""
    if error == 0:
        return decoder
    factors = 1 + error * torch.randn(decoder.kernel.shape, generator=generator)
    return replace(decoder, kernel=decoder.kernel * factors)
