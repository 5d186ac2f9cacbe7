"""Sets of images with attention of a given nature."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.attention.sets import Attended

Weights = Callable[[np.random.Generator, int, NDArray, int], NDArray]
"""(random numbers, generator, labels, S) -> [N, S]"""


def scales_of(count: int) -> tuple[float, ...]:
    return tuple((np.arange(count) + 1) / (count + 1))


def sets_of(
    weights: Weights, images: int, scales: int, generators: int, seed: int
) -> list[Attended]:
    """`images` images in all, half of them generated."""
    sets = []
    for index in range(generators):
        rng = np.random.default_rng([seed, index])
        labels = np.arange(images // generators) % 2
        scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0, 1)
        sets.append(Attended(f"g{index}", "s", labels, scores, weights(rng, index, labels, scales)))
    return sets


def dirichlet(mean: NDArray, precision: float) -> Weights:
    return lambda rng, _, labels, scales: rng.dirichlet(
        np.maximum(mean, 1e-3) * precision, len(labels)
    )


def favouring(scale: int, scales: int, weight: float) -> NDArray:
    """Mean weights of which one is `weight`."""
    return np.where(np.arange(scales) == scale, weight, (1 - weight) / (scales - 1))
