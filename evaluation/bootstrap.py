"""How sure figures are: stratified bootstrap of the images of a set, all figures of all resamples at once.

A resample is a count per image. With the images sorted by score, every figure follows from cumulative sums of the counts,
so that thousands of resamples are a few array operations (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from evaluation.metrics import ECE_BINS, LABELS

RESAMPLES = 1000
CONFIDENCE = 0.95
BATCH_ELEMENTS = 2_000_000  # counts per step: bounds the memory

Distribution = dict[str, NDArray]
"""{figure: values [R] in R resamples}; a figure that is undefined is left out."""
Interval = tuple[float, float]


class ResampledScores:
    """Scores of one set, ready to be counted.

    Args:
        labels: [N], 0 real, 1 generated. scores: [N] in [0, 1]. threshold: chosen on validation data, or None.
    """

    def __init__(self, labels: NDArray, scores: NDArray, threshold: float | None = None) -> None:
        labels, scores = np.asarray(labels, dtype=int), np.asarray(scores, dtype=float)
        levels, level = np.unique(-scores, return_inverse=True)
        self.levels = -levels  # [U] distinct scores, falling
        self.level = [level[labels == label] for label in (0, 1)]  # of each real and each generated image
        self.threshold = threshold
        bins = np.digitize(self.levels, np.linspace(0, 1, ECE_BINS + 1)[1:-1])
        self.in_bin = np.zeros((len(levels), ECE_BINS))
        self.in_bin[np.arange(len(levels)), bins] = 1

    def counts(self, label: int, chosen: NDArray) -> NDArray:
        """How often each level comes among `chosen` [R, n], which index the images of a class: [R, U]."""
        rows, width = len(chosen), len(self.levels)
        flat = self.level[label][chosen] + width * np.arange(rows)[:, None]
        return np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width).astype(float)

    def metrics(self, real: NDArray, fake: NDArray) -> Distribution:
        """Figures of R resamples, given how often each level comes among real and generated images, [R, U] each."""
        n_real, n_fake = float(real[0].sum()), float(fake[0].sum())
        false_positives, true_positives = real.cumsum(axis=1), fake.cumsum(axis=1)
        rejected, hits = self._above(0.5, false_positives, true_positives)
        found: Distribution = {"acc": (hits + n_real - rejected) / (n_real + n_fake)}
        if self.threshold is not None:
            of_threshold = self._above(self.threshold, false_positives, true_positives)
            found["acc_at_threshold"] = (of_threshold[1] + n_real - of_threshold[0]) / (n_real + n_fake)
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
            below = n_real - false_positives + real / 2  # real images that a generated one outranks, ties half
            found["auc"] = (fake * below).sum(axis=1) / (n_real * n_fake)
            ranks = np.maximum(true_positives + false_positives, 1)
            found["ap"] = (fake * (true_positives / ranks)).sum(axis=1) / n_fake
            fpr, tpr = false_positives / n_real, true_positives / n_fake
            found["eer"] = _equal_error_rates(fpr, tpr)
            found |= {f"tpr_at_fpr{percent}": _rates_at(fpr, tpr, percent / 100) for percent in (1, 5)}
        return {name: found[name] for name in LABELS if name in found}

    def _above(self, threshold: float, *cumulative: NDArray) -> list[NDArray]:
        """How many images score above a threshold in each resample, from counts [R, U] summed from the highest score down."""
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


def resample(several: Sequence[ResampledScores], resamples: int = RESAMPLES, seed: int = 0) -> list[Distribution]:
    """Figures of models that scored the *same images in the same order*, in the same resamples (paired).

    Real and generated images are drawn apart, with replacement, as many as there are (stratified).

    Returns:
        One distribution per model; empty ones where a class has a single image, which tells nothing about the spread.
    """
    first = several[0]
    sizes = [len(level) for level in first.level]
    present = [label for label in (0, 1) if sizes[label]]
    if not present or any(sizes[label] < 2 for label in present):
        return [{} for _ in several]
    names: list[list[str]] = [[] for _ in several]

    def statistic(*chosen: NDArray, axis: int) -> NDArray:
        drawn = dict(zip(present, (np.atleast_2d(indices) for indices in chosen), strict=True))
        rows = len(drawn[present[0]])
        values = []
        for number, scores in enumerate(several):
            counts = [
                scores.counts(label, drawn[label]) if label in drawn else np.zeros((rows, len(scores.levels)))
                for label in (0, 1)
            ]
            found = scores.metrics(*counts)
            names[number] = list(found)
            values += list(found.values())
        return np.stack(values) if chosen[0].ndim > 1 else np.stack(values)[:, 0]

    done = bootstrap(
        [np.arange(sizes[label]) for label in present],
        statistic,
        n_resamples=resamples,
        batch=max(1, BATCH_ELEMENTS // sum(sizes)),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    rows = iter(done.bootstrap_distribution)
    return [{name: next(rows) for name in of_model} for of_model in names]


def interval(values: NDArray, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of values [R]."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mean_distribution(distributions: Sequence[Distribution]) -> Distribution:
    """Distribution of each figure's macro mean over sets that were resampled independently, where it is defined."""
    return {
        name: np.mean([one[name] for one in distributions if name in one], axis=0)
        for name in LABELS
        if any(name in one for one in distributions)
    }
