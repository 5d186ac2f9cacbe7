"""How sure figures are: stratified bootstrap of the images of a set, all figures of all resamples
at once.

A resample is a count per image. With the images sorted by score, every figure follows from
cumulative sums of the counts, so that thousands of resamples are a few array operations (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993).
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import ECE_BINS, LABELS

RESAMPLES = 1000
CONFIDENCE = 0.95
BLOCK = 20
"""Resamples computed at a time: bounds the memory, and is part of what a seed gives."""

Distribution = dict[str, NDArray]
"""{figure: values [R] in R resamples}; a figure that is undefined is left out."""
Interval = tuple[float, float]


class ResampledScores:
    """Scores of one set, ready to be counted.

    Args:
        labels: [N], 0 real, 1 generated. scores: [N] in [0, 1]. threshold: chosen on validation
            data, or None.
    """

    def __init__(self, labels: NDArray, scores: NDArray, threshold: float | None = None) -> None:
        labels, scores = np.asarray(labels, dtype=int), np.asarray(scores, dtype=float)
        levels, level = np.unique(-scores, return_inverse=True)
        self.levels = -levels  # [U] distinct scores, falling
        # of each real and each generated image
        self.level = [level[labels == label] for label in (0, 1)]
        self.threshold = threshold
        bins = np.digitize(self.levels, np.linspace(0, 1, ECE_BINS + 1)[1:-1])
        self.in_bin = np.zeros((len(levels), ECE_BINS))
        self.in_bin[np.arange(len(levels)), bins] = 1

    def counts(self, label: int, chosen: NDArray) -> NDArray:
        """How often each level comes among `chosen` [R, n], which index the images of a class: [R,
        U]."""
        rows, width = len(chosen), len(self.levels)
        flat = self.level[label][chosen] + width * np.arange(rows)[:, None]
        return np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width).astype(float)

    def metrics(self, real: NDArray, fake: NDArray) -> Distribution:
        """Figures of R resamples, given how often each level comes among real and generated images,
        [R, U] each."""
        n_real, n_fake = float(real[0].sum()), float(fake[0].sum())
        false_positives, true_positives = real.cumsum(axis=1), fake.cumsum(axis=1)
        rejected, hits = self._above(0.5, false_positives, true_positives)
        found: Distribution = {"acc": (hits + n_real - rejected) / (n_real + n_fake)}
        if self.threshold is not None:
            of_threshold = self._above(self.threshold, false_positives, true_positives)
            found["acc_at_threshold"] = (of_threshold[1] + n_real - of_threshold[0]) / (
                n_real + n_fake
            )
        if n_real:
            found["real_acc"] = 1 - rejected / n_real
        if n_fake:
            found["fake_acc"] = hits / n_fake
        squares = real @ self.levels**2 + fake @ (1 - self.levels) ** 2
        gaps = (real + fake) @ (self.in_bin * self.levels[:, None]) - fake @ self.in_bin
        total = n_real + n_fake
        found |= {"brier": squares / total, "ece": np.abs(gaps).sum(axis=1) / total}
        if n_real and n_fake:
            found["balanced_acc"] = (found["real_acc"] + found["fake_acc"]) / 2
            # real images that a generated one outranks, ties half
            below = n_real - false_positives + real / 2
            found["auc"] = (fake * below).sum(axis=1) / (n_real * n_fake)
            ranks = np.maximum(true_positives + false_positives, 1)
            found["ap"] = (fake * (true_positives / ranks)).sum(axis=1) / n_fake
            fpr, tpr = false_positives / n_real, true_positives / n_fake
            found["eer"] = _equal_error_rates(fpr, tpr)
            found |= {
                f"tpr_at_fpr{percent}": _rates_at(fpr, tpr, percent / 100) for percent in (1, 5)
            }
        return {name: found[name] for name in LABELS if name in found}

    def _above(self, threshold: float, *cumulative: NDArray) -> list[NDArray]:
        """How many images score above a threshold in each resample, from counts [R, U] summed from
        the highest score down."""
        levels = int(np.searchsorted(-self.levels, -threshold, side="left"))
        return [counts[:, levels - 1] if levels else np.zeros(len(counts)) for counts in cumulative]


def _equal_error_rates(fpr: NDArray, tpr: NDArray) -> NDArray:
    """`equal_error_rate` of R curves [R, U] without their first point, (0, 0)."""
    rows = np.arange(len(fpr))
    after = np.argmax(fpr + tpr - 1 >= -1e-12, axis=1)  # the last point is (1, 1), up to rounding
    fpr, tpr = (np.pad(rate, ((0, 0), (1, 0))) for rate in (fpr, tpr))
    x0, x1, y0, y1 = fpr[rows, after], fpr[rows, after + 1], tpr[rows, after], tpr[rows, after + 1]
    return x0 + (1 - x0 - y0) / (x1 + y1 - x0 - y0) * (x1 - x0)


def _rates_at(fpr: NDArray, tpr: NDArray, limit: float) -> NDArray:
    """The highest true-positive rate [R] with a false-positive rate of at most `limit`."""
    within = (fpr <= limit).sum(axis=1)
    return np.where(within > 0, tpr[np.arange(len(tpr)), np.maximum(within - 1, 0)], 0.0)


def resample(
    labels: NDArray,
    scores: NDArray,
    pictures: Sequence[str],
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Distribution:
    """Figures of one set in resamples of its images: real and generated ones are drawn apart, as
    many as there are (stratified).

    What is drawn of a class follows from the seed and the names of its pictures, not from their
    order. So models that scored the same pictures are resampled alike (paired), and so are sets
    that share their real images.

    Args:
        labels, scores: [N]. pictures: N distinct names. threshold: chosen on validation data, or
            None.

    Returns:
        Empty where a class has a single image, which tells nothing about the spread.
    """
    order = (
        np.argsort(np.asarray(pictures, dtype=object), kind="stable")
        if len(labels)
        else np.zeros(0, dtype=int)
    )
    labels, scores = np.asarray(labels, dtype=int)[order], np.asarray(scores, dtype=float)[order]
    sizes = np.bincount(labels, minlength=2)
    if resamples == 0 or not sizes.any() or 1 in sizes:
        return {}
    names = [[pictures[index] for index in order[labels == label]] for label in (0, 1)]
    seeds = [_digest(of_class) for of_class in names]
    resampled = ResampledScores(labels, scores, threshold)
    blocks = []
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        counts = []
        for label in (0, 1):
            rng = np.random.default_rng([seed, start, seeds[label]])
            drawn = rng.integers(0, max(sizes[label], 1), (rows, sizes[label]))
            counts.append(resampled.counts(label, drawn))
        blocks.append(resampled.metrics(*counts))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _digest(names: Sequence[str]) -> int:
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def interval(values: NDArray, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of values [R]."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mean_distribution(
    distributions: Sequence[Distribution], defined: Sequence[Collection[str]]
) -> Distribution:
    """Distribution of each figure's macro mean over sets.

    Args:
        defined: names of the figures that each set has. A figure gets no distribution unless all
            sets that have it do: the spread of some of them is not that of the mean.
    """
    found = {}
    for name in LABELS:
        of_sets = [one for one, names in zip(distributions, defined, strict=True) if name in names]
        if of_sets and all(name in one for one in of_sets):
            found[name] = np.mean([one[name] for one in of_sets], axis=0)
    return found
