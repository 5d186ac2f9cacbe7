"""Procedural photographs: dead leaves seen through a lens and recorded by a noisy sensor.

The dead-leaves model (Matheron 1968; Lee, Mumford and Huang, IJCV 2001) lets opaque shapes with
power-law radii fall on top of each other. Occlusion and the density r^-3 give its images two
statistics of photographs at all scales: steep power spectra and heavy-tailed differences between
neighbouring pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Appearance of one content class.

    Lengths are in pixels, contrasts in natural-log units of linear light, hues in turns of the
    colour circle.
    """

    name: str
    shape: Literal["ellipse", "polygon"]
    hue: float
    hue_spread: float
    smallest_radius: float = 2.5
    largest_radius: float = 45.0
    tone_contrast: float = 0.55  # between leaves
    texture_contrast: float = 0.18  # within a leaf


SCENES = (
    Scene("leaves", "ellipse", hue=0.24, hue_spread=0.08),
    Scene(
        "stones", "polygon", hue=0.08, hue_spread=0.08, smallest_radius=3.5, texture_contrast=0.26
    ),
)
LENS_BLUR = (0.85, 1.15)
"""Range of the standard deviation in pixels.

With less blur, decoding at half resolution loses so much of the sharp outlines that file sizes
separate the classes, whatever noise is added.
"""
COVERAGE = 4.0  # summed leaf area over image area; a share exp(-4) of the background stays visible


def power_law_radii(rng: np.random.Generator, count: int, smallest: float, largest: float) -> Array:
    """Draw radii [count] in pixels with density proportional to r^-3 between the limits."""
    # inverse of the cumulative distribution
    u = rng.random(count)
    return (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5


@lru_cache(maxsize=4)
def texture_tile(side: int) -> Array:
    """Return a periodic field [side, side] of 1/f noise with mean 0 and variance 1.

    The texture of a leaf is a random part of it.
    """
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequencies[0, 0] = np.inf
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal((side, side))) / frequencies
    field = np.fft.irfft2(spectrum, (side, side))
    return field / field.std()


def signed_distance(
    shape: str, dx: Array, dy: Array, radius: float, rng: np.random.Generator
) -> Array:
    """Return the distance to the outline of a random shape around the origin, positive inside.

    Args:
        shape: "ellipse" or "polygon".
        dx: [1, W], offsets from the centre in pixels.
        dy: [H, 1], likewise.
        radius: largest radius in pixels.
        rng: draws orientation and proportions.

    Returns:
        [H, W], in pixels.
    """
    if shape == "ellipse":
        angle, elongation = rng.uniform(0, np.pi), rng.uniform(1.2, 2.5)
        along = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / (radius / elongation)
        level = np.hypot(along, across)
        # level / slope: first-order distance of an implicit curve
        slope = np.hypot(along, across * elongation) / radius
        return (1 - level) * level / np.maximum(slope, 1e-9)
    sides = int(rng.integers(5, 9))
    angles = (np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) * (2 * np.pi / sides) + rng.uniform(
        0, 2 * np.pi
    )
    faces = radius * rng.uniform(0.65, 0.95, sides)
    # [sides, H, W]
    toward = dx * np.cos(angles)[:, None, None] + dy * np.sin(angles)[:, None, None]
    return np.min(faces[:, None, None] - toward, axis=0)


def leaf_colours(rng: np.random.Generator, count: int, scene: Scene) -> Array:
    """Draw reflectances [count, 3, 1, 1] in linear light: random tones, hues around one mean."""
    hue = scene.hue + 0.06 * rng.standard_normal()
    turns = hue + scene.hue_spread * rng.standard_normal((count, 1)) - np.array([0.0, 1 / 3, 2 / 3])
    tint = rng.uniform(0.1, 0.45, (count, 1)) * np.cos(2 * np.pi * turns)
    tone = scene.tone_contrast * rng.standard_normal((count, 1))
    return np.exp(tone + tint)[:, :, None, None]


def dead_leaves(rng: np.random.Generator, size: int, scene: Scene) -> Array:
    """Return linear light [3, size, size] in front of the lens, with mean 1.

    Outlines are anti-aliased by area.
    """
    tile = texture_tile(2 * size)
    light_x, light_y = np.array([np.cos(t := rng.uniform(0, 2 * np.pi)), np.sin(t)])
    mean_area = (
        2 * np.pi * scene.smallest_radius**2 * np.log(scene.largest_radius / scene.smallest_radius)
    )
    reach = min(scene.largest_radius, size / 2)
    count = int(COVERAGE * (size + reach) ** 2 / mean_area)
    radii = power_law_radii(rng, count, scene.smallest_radius, scene.largest_radius)
    centres = rng.uniform(-reach / 2, size + reach / 2, (count, 2))
    background, *colours = leaf_colours(rng, count + 1, scene)
    canvas = background * np.exp(scene.texture_contrast * tile[:size, :size])
    for radius, (cx, cy), colour in zip(radii, centres, colours, strict=True):
        x0, x1 = max(int(cx - radius) - 1, 0), min(int(cx + radius) + 2, size)
        y0, y1 = max(int(cy - radius) - 1, 0), min(int(cy + radius) + 2, size)
        if x0 >= x1 or y0 >= y1:
            continue
        dx, dy = np.arange(x0, x1)[None, :] - cx, np.arange(y0, y1)[:, None] - cy
        cover = np.clip(signed_distance(scene.shape, dx, dy, radius, rng) + 0.5, 0, 1)
        left, top = rng.integers(0, 2 * size - (x1 - x0)), rng.integers(0, 2 * size - (y1 - y0))
        texture = (
            scene.texture_contrast
            * rng.uniform(0.2, 1.6)
            * tile[top : top + y1 - y0, left : left + x1 - x0]
        )
        shading = rng.uniform(0.0, 0.5) / radius * (light_x * dx + light_y * dy)
        patch = canvas[:, y0:y1, x0:x1]
        patch += cover * (colour * np.exp(texture + shading) - patch)
    return canvas / canvas.mean()


def srgb_encode(linear: Array) -> Array:
    """Convert linear light in [0, 1] to display values in [0, 1] (IEC 61966-2-1)."""
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def photograph(seed: tuple[int, ...], size: int, scene: Scene) -> Array:
    """Return one procedural photograph; all random numbers follow from `seed`.

    The lens blurs (`LENS_BLUR`) and vignettes. The sensor adds noise of variance
    gain * light + read_noise^2 in linear light (Foi et al., IEEE TIP 2008), independent per colour.
    Then values are encoded as sRGB.

    Returns:
        [3, size, size], display values in [0, 1], before quantisation.
    """
    rng = np.random.default_rng(seed)
    light = gaussian_filter(
        dead_leaves(rng, size, scene), (0, *2 * (rng.uniform(*LENS_BLUR),)), mode="nearest"
    )
    position = np.linspace(-1, 1, size)
    light *= 1 - rng.uniform(0, 0.15) * (
        position[None, :, None] ** 2 + position[None, None, :] ** 2
    )
    light *= 0.2 * np.exp(0.25 * rng.standard_normal())
    gain, read_noise = np.exp(rng.uniform(np.log(1e-4), np.log(6e-4))), rng.uniform(0.001, 0.003)
    light += np.sqrt(gain * light + read_noise**2) * rng.standard_normal(light.shape)
    return srgb_encode(np.clip(light, 0, 1))
