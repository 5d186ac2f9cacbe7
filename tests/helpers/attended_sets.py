"""Sets of images with attention of a given nature."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from evaluation.scores import Scores

Weights = Callable[[np.random.Generator, int, NDArray, int], NDArray]
"""(random numbers, generator, labels, S) -> [N, S]"""


def make_scores(
    generator: str,
    suite: str,
    labels: NDArray,
    scores: Any,
    attention: NDArray,
    branch_logits: NDArray | None = None,
    paths: tuple[str, ...] | None = None,
) -> Scores:
    """A set with these scores, in files of its own unless `paths` are given."""
    own = tuple(f"{suite}/{generator}/{number}.png" for number in range(len(labels)))
    with np.errstate(divide="ignore"):
        logits = logit(np.asarray(scores, dtype=float))
    return Scores(suite, generator, paths or own, labels, logits, attention, branch_logits)


def scales_of(count: int) -> tuple[float, ...]:
    return tuple((np.arange(count) + 1) / (count + 1))


def sets_of(weights: Weights, images: int, scales: int, generators: int, seed: int) -> list[Scores]:
    """`images` images in all, half of them generated."""
    sets = []
    for index in range(generators):
        rng = np.random.default_rng([seed, index])
        labels = np.arange(images // generators) % 2
        scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0, 1)
        sets.append(
            make_scores(f"g{index}", "s", labels, scores, weights(rng, index, labels, scales))
        )
    return sets


def dirichlet(mean: NDArray, precision: float) -> Weights:
    return lambda rng, _, labels, scales: rng.dirichlet(
        np.maximum(mean, 1e-3) * precision, len(labels)
    )


def favouring(scale: int, scales: int, weight: float) -> NDArray:
    """Mean weights of which one is `weight`."""
    return np.where(np.arange(scales) == scale, weight, (1 - weight) / (scales - 1))
