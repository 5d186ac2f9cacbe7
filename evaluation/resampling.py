"""Bootstrap confidence intervals for all metrics.

A resample draws images with replacement, from each class as many as it has (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993). It is stored as a count per image, so that the metrics of
many resamples are a few array operations.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from evaluation.metrics import LABELS, expected_calibration_error

RESAMPLES = 1000
CONFIDENCE = 0.95
CELLS = 400_000  # images times resamples in a block: fits a processor's cache

Distribution = dict[str, NDArray]
"""{metric: values [R] in R resamples}; undefined metrics are missing."""
Interval = tuple[float, float]


def draws(
    strata: NDArray, names: Sequence[str] | None, resamples: int, seed: int
) -> Iterator[NDArray]:
    """Draw images with replacement, from each stratum as many as it has.

    The draws from a stratum depend on the seed and the names of its images, not on their order. So
    models that scored the same images get the same resamples (paired bootstrap), and so do sets
    that share their real images. A larger number of resamples starts with the same ones.

    Args:
        strata: [N], the class of each image.
        names: N distinct names; None: positions are the names.
        resamples: R, their number.
        seed: an integer of at least 0.

    Yields:
        Blocks [N, r] of the R resamples: the number of times that each image is drawn.
    """
    streams = []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        text = rows.tobytes()
        if names is not None:
            of_stratum = np.array([names[row] for row in rows.tolist()], dtype=object)
            order = of_stratum.argsort(kind="stable")
            rows = rows[order]
            text = "\0".join(of_stratum[order]).encode("utf-8", "surrogateescape")
        digest = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        streams.append((rows, np.random.default_rng([seed, digest])))
    step = max(1, CELLS // max(1, len(strata)))
    for start in range(0, resamples, step):
        width = min(step, resamples - start)
        counts = np.zeros((len(strata), width))
        for rows, rng in streams:
            drawn = rng.integers(0, len(rows), (width, len(rows)))
            cells = (drawn * width + np.arange(width)[:, None]).ravel()
            counts[rows] = np.bincount(cells, minlength=rows.size * width).reshape(-1, width)
        yield counts


class ResampledAuc:
    """Area under the ROC curve of one set in many resamples.

    It is the share of pairs of a real and a fake image in which the fake one scores higher; ties
    count half.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N].
    """

    def __init__(self, labels: NDArray, scores: NDArray) -> None:
        real, self.fake = (np.flatnonzero(labels == label) for label in (0, 1))
        self.real = real[scores[real].argsort()]
        self.below, up_to = (
            np.searchsorted(scores[self.real], scores[self.fake], side)
            for side in ("left", "right")
        )
        # without ties, one lookup per image is enough
        self.up_to = None if np.array_equal(self.below, up_to) else up_to

    def __call__(self, counts: NDArray) -> NDArray:
        """Return the AUC [R] in R resamples, from the counts [N, R] of `draws`."""
        outranked_by = np.zeros((len(self.real) + 1, counts.shape[1]))
        np.cumsum(counts[self.real], axis=0, out=outranked_by[1:])
        outranked = outranked_by[self.below]
        if self.up_to is not None:
            outranked = (outranked + outranked_by[self.up_to]) / 2
        pairs = np.einsum("fr,fr->r", outranked, counts[self.fake])
        return pairs / (len(self.real) * len(self.fake))


class ResampledScores:
    """Scores of one set, prepared for computing metrics of many resamples.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1].
        threshold: chosen on validation data, or None.
    """

    def __init__(self, labels: NDArray, scores: NDArray, threshold: float | None = None) -> None:
        self.labels, self.scores = np.asarray(labels, dtype=int), np.asarray(scores, dtype=float)
        self.threshold = threshold
        self.n_real, self.n_fake = (int((self.labels == label).sum()) for label in (0, 1))
        falling, level = np.unique(-self.scores, return_inverse=True)
        self.levels = -falling  # [U] distinct scores, falling
        shape = len(falling), len(self.labels)
        self.auc = ResampledAuc(self.labels, self.scores)
        self.images_of_level = [
            csr_array((np.ones(len(rows)), (level[rows], rows)), shape=shape)
            for rows in (np.flatnonzero(self.labels == label) for label in (0, 1))
        ]

    def metrics(self, counts: NDArray) -> Distribution:
        """Return all defined metrics in R resamples.

        Args:
            counts: [N, R], number of times that each image is drawn; each class as often as it has
                images.
        """
        n_real, n_fake, total = self.n_real, self.n_fake, self.n_real + self.n_fake
        real, fake = (images @ counts for images in self.images_of_level)
        false_positives, true_positives = real.cumsum(axis=0), fake.cumsum(axis=0)
        false_alarms, hits = self._above(0.5, false_positives, true_positives)
        metrics: Distribution = {"acc": (hits + n_real - false_alarms) / total}
        if self.threshold is not None:
            alarms, hits_there = self._above(self.threshold, false_positives, true_positives)
            metrics["acc_at_threshold"] = (hits_there + n_real - alarms) / total
        if n_real:
            metrics["real_acc"] = 1 - false_alarms / n_real
        if n_fake:
            metrics["fake_acc"] = hits / n_fake
        metrics["brier"] = (self.scores - self.labels) ** 2 @ counts / total
        metrics["ece"] = expected_calibration_error(self.labels, self.scores, counts)
        if n_real and n_fake:
            metrics["balanced_acc"] = (metrics["real_acc"] + metrics["fake_acc"]) / 2
            metrics["auc"] = self.auc(counts)
            ranks = np.maximum(true_positives + false_positives, 1)
            metrics["ap"] = np.einsum("ur,ur->r", fake, true_positives / ranks) / n_fake
            fpr, tpr = false_positives / n_real, true_positives / n_fake
            metrics["eer"] = _equal_error_rates(fpr, tpr)
            metrics["tpr_at_fpr1"] = _rates_at(fpr, tpr, 0.01)
            metrics["tpr_at_fpr5"] = _rates_at(fpr, tpr, 0.05)
        return {name: metrics[name] for name in LABELS if name in metrics}

    def _above(self, threshold: float, *cumulative: NDArray) -> list[NDArray]:
        """Return the images above a score, [R], for counts [U, R] summed from the highest score."""
        levels = int(np.searchsorted(-self.levels, -threshold, side="left"))
        return [sums[levels - 1] if levels else np.zeros(sums.shape[1]) for sums in cumulative]


def _equal_error_rates(fpr: NDArray, tpr: NDArray) -> NDArray:
    """Return the `equal_error_rate` [R] of R curves [U, R] without their first point, (0, 0)."""
    columns = np.arange(fpr.shape[1])
    # the last point is (1, 1) up to rounding, so one is always reached
    after = np.argmax(fpr + tpr - 1 >= -1e-12, axis=0)
    fpr, tpr = (np.pad(rate, ((1, 0), (0, 0))) for rate in (fpr, tpr))
    x0, x1 = fpr[after, columns], fpr[after + 1, columns]
    y0, y1 = tpr[after, columns], tpr[after + 1, columns]
    return x0 + (1 - x0 - y0) / (x1 + y1 - x0 - y0) * (x1 - x0)


def _rates_at(fpr: NDArray, tpr: NDArray, limit: float) -> NDArray:
    """Return the highest true-positive rate [R] with a false-positive rate of at most `limit`."""
    within = (fpr <= limit).sum(axis=0)
    return np.where(within > 0, tpr[np.maximum(within - 1, 0), np.arange(tpr.shape[1])], 0.0)


def resample(
    labels: NDArray,
    scores: NDArray,
    names: Sequence[str],
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Distribution:
    """Compute all metrics of one set in resamples of its images, see `draws`.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1].
        names: N distinct names.
        threshold: chosen on validation data, or None.
        resamples: R; 0 for none.
        seed: of the draws.

    Returns:
        Values [R] by metric; empty where a class has a single image, from which no spread follows.
    """
    labels = np.asarray(labels, dtype=int)
    sizes = np.bincount(labels, minlength=2)
    if resamples == 0 or not sizes.any() or 1 in sizes:
        return {}
    resampled = ResampledScores(labels, scores, threshold)
    blocks = [resampled.metrics(counts) for counts in draws(labels, names, resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def resampled_aucs(
    labels: NDArray, scores: NDArray, names: Sequence[str] | None, resamples: int, seed: int
) -> NDArray:
    """Return the AUCs [C, R] of C scores of the same images in the same R resamples.

    Args:
        labels: [N], both classes.
        scores: [C, N].
        names: N distinct names, see `draws`.
        resamples: R.
        seed: of the draws.
    """
    labels = np.asarray(labels, dtype=int)
    aucs = [ResampledAuc(labels, row) for row in np.asarray(scores, dtype=float)]
    blocks = draws(labels, names, resamples, seed)
    return np.concatenate([[auc(counts) for auc in aucs] for counts in blocks], axis=1)


def mean_interval(
    values: NDArray, resamples: int, seed: int
) -> tuple[list[float | None], list[float | None]]:
    """Return the lower and the upper ends of the 95 % intervals of the means of C columns.

    Args:
        values: [N, C]; all rows belong to one class.
        resamples: their number; 0 for none.
        seed: of the draws.

    Returns:
        C numbers each; None for a single row, and without resamples.
    """
    count, columns = values.shape
    if count < 2 or not resamples:
        return [None] * columns, [None] * columns
    blocks = draws(np.zeros(count), None, resamples, seed)
    means = np.concatenate([counts.T @ values / count for counts in blocks])
    ends = [interval(column) for column in means.T]
    return [low for low, _ in ends], [high for _, high in ends]


def interval(values: NDArray, confidence: float = CONFIDENCE) -> Interval:
    """Return the percentile interval of values [R]."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
