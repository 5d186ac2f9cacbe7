"""Fit a `Calibration` to the logits of labelled images, and measure one on such images.

Both classes weigh alike, however many images each has: in the fit, in the calibration error and in
the shares of wrong verdicts.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit
from scipy.stats import binomtest

from evaluation.metrics import (
    ECE_BINS,
    best_threshold,
    calibration_error,
    false_alarm_threshold,
)
from networks.calibration import GENERATED, REAL, UNSURE, Calibration

MIN_IMAGES_PER_CLASS = 5  # below this, a temperature is noise
NEVER_REAL, NEVER_GENERATED = -1.0, 2.0  # ends of the band that no probability reaches


class NotCalibratable(ValueError):
    """No temperature fits these logits."""


def class_weights(labels: NDArray) -> NDArray:
    """Return the weight [N] of each image: each class has one half, all images together 1."""
    return 0.5 / np.bincount(labels, minlength=2)[labels]


def balanced_share(share: Any, label: int, n_real: int, n_fake: int) -> Any:
    """Convert a share of images with a label to the one with equally frequent classes.

    Args:
        share: number or array in [0, 1].
        label: 0 real, 1 generated.
        n_real: real images in the whole sample.
        n_fake: generated images in the whole sample.
    """
    weight = (1 / n_real, 1 / n_fake)
    these, others = share * weight[label], (1 - share) * weight[1 - label]
    return these / (these + others)


@dataclass(frozen=True)
class Share:
    """A share of images, were both classes equally frequent.

    Args:
        count: images with the property.
        total: images among which they were counted.
        value: the share in [0, 1]; None without images.
        low: lower end of its 95 % confidence interval; None where it is not computed.
        high: upper end.
    """

    count: int
    total: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


def share_of_label(count: int, total: int, label: int, n_real: int, n_fake: int) -> Share:
    """Return the share of a label with the interval of Clopper and Pearson (1934).

    Args:
        count: images with the label among `total`.
        total: images counted.
        label: see `balanced_share`, as the next two.
        n_real: real images in the whole sample.
        n_fake: generated images in the whole sample.
    """
    if not total:
        return Share(count, total)
    ends = binomtest(count, total).proportion_ci(0.95, "exact")
    shares = balanced_share(np.array([count / total, ends.low, ends.high]), label, n_real, n_fake)
    return Share(count, total, *map(float, shares))


@dataclass(frozen=True)
class Bin:
    """The images with probabilities in one bin of a reliability diagram.

    Args:
        start: lowest probability of the bin.
        end: start of the next bin.
        n_real: real images.
        n_fake: generated images.
        mean: mean probability; None without images.
        generated: share of generated images.
    """

    start: float
    end: float
    n_real: int
    n_fake: int
    mean: float | None
    generated: Share

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "from": self.start,
            "to": self.end,
            "n_real": self.n_real,
            "n_fake": self.n_fake,
            "mean_probability": self.mean,
            "share_generated": self.generated.value,
        }


@dataclass(frozen=True)
class Reliability:
    """Probabilities against the share of generated images, in `ECE_BINS` bins of equal width.

    Args:
        ece: expected calibration error in [0, 1].
        bins: in the order of the probability.
    """

    ece: float
    bins: tuple[Bin, ...]


def reliability(labels: NDArray, probabilities: NDArray) -> Reliability:
    """Compare probabilities with labels, classes weighted alike.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        probabilities: [N] of "generated", in [0, 1].
    """
    weights = class_weights(labels)
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    edges = np.linspace(0, 1, ECE_BINS + 1)
    index = np.digitize(probabilities, edges[1:-1])
    bins = []
    for k in range(ECE_BINS):
        inside = index == k
        total, fake = int(inside.sum()), int(labels[inside].sum())
        mean = float(np.average(probabilities[inside], weights=weights[inside])) if total else None
        share = share_of_label(fake, total, 1, n_real, n_fake)
        bins.append(Bin(float(edges[k]), float(edges[k + 1]), total - fake, fake, mean, share))
    return Reliability(calibration_error(labels, probabilities, weights=weights), tuple(bins))


def fit_temperature(labels: NDArray, logits: NDArray) -> float:
    """Fit the temperature T > 0 of sigmoid(logit / T) by maximum likelihood (Guo et al., ICML 2017).

    The targets are not 0 and 1 but 1 / (N0 + 2) and (N1 + 1) / (N1 + 2) for N0 real and N1 generated
    images (Platt, Advances in Large Margin Classifiers, 1999). So T stays above 0 where no image is
    on the wrong side, and no probability claims more than so many images can show.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        logits: [N].

    Raises:
        NotCalibratable: generated images do not have higher logits than real ones.
    """
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    targets = np.where(labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    weights = class_weights(labels)
    # this is the slope of the likelihood where T is infinite
    if (weights * (targets - 0.5) * logits).sum() <= 0:
        raise NotCalibratable("generated images do not score higher than real ones")
    size = float((weights * np.abs(logits)).sum())

    def loss(log_temperature: float) -> float:
        scaled = logits / (size * math.exp(log_temperature))
        likelihood = targets * log_expit(scaled) + (1 - targets) * log_expit(-scaled)
        return -float((weights * likelihood).sum())

    bounds = (math.log(1e-4), math.log(1e4))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return size * math.exp(best.x)


def decision_band(
    labels: NDArray, probabilities: NDArray, threshold: float, target_error: float
) -> tuple[float, float]:
    """Return the narrowest band (lower, upper) around the threshold with few errors outside it.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        probabilities: [N] of "generated".
        threshold: probability that the band includes.
        target_error: largest share of real images among those with probability >= upper, and of
            generated images among those with probability <= lower.

    Returns:
        `NEVER_REAL` and `NEVER_GENERATED` are ends that no image allows.
    """
    upper = _lowest_cut(probabilities, labels, 0, threshold, target_error)
    lower = _lowest_cut(-probabilities, labels, 1, -threshold, target_error)
    return NEVER_REAL if lower is None else -lower, NEVER_GENERATED if upper is None else upper


def _lowest_cut(
    scores: NDArray, labels: NDArray, wrong: int, start: float, target_error: float
) -> float | None:
    """Return the lowest cut >= start from which at most `target_error` of the images are wrong.

    The cut lies midway to the next lower score, as that of `best_threshold`.

    Args:
        scores: [N].
        labels: [N].
        wrong: label of the wrong images.
        start: lowest cut allowed.
        target_error: share of wrong images among those with scores >= cut.

    Returns:
        None where no cut is good enough.
    """
    inside = scores >= start
    levels, level = np.unique(scores[inside], return_inverse=True)
    if not len(levels):
        return None
    total = np.bincount(level)[::-1].cumsum()[::-1]
    errors = np.bincount(level, labels[inside] == wrong)[::-1].cumsum()[::-1]
    shares = balanced_share(errors / total, wrong, *np.bincount(labels, minlength=2))
    allowed = np.flatnonzero(shares <= target_error)
    if not len(allowed):
        return None
    if (first := allowed[0]) == 0:
        return start
    middle = float(levels[first - 1] + levels[first]) / 2
    return middle if middle > levels[first - 1] else float(levels[first])


def fit_calibration(
    labels: NDArray,
    logits: NDArray,
    target_error: float,
    *,
    groups: NDArray | None = None,
    max_false_alarms: float = 1.0,
    data: str = "",
    protocol: str = "",
) -> Calibration:
    """Fit temperature, threshold and band.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        logits: [N].
        target_error: see `Calibration`, as the last three.
        groups: [N] integers, the set of each image; all images are one set without it.
        max_false_alarms: holds for the real images of each set.
        data: name of the images.
        protocol: name and version of their preprocessing.

    Raises:
        NotCalibratable: see `fit_temperature`.
    """
    logits = logits.astype(np.float64)
    temperature = fit_temperature(labels, logits)
    probabilities = expit(logits / temperature)
    weights = class_weights(labels)
    groups = np.zeros_like(labels) if groups is None else groups
    real = labels == 0
    limits = [
        false_alarm_threshold(probabilities[real & (groups == group)], max_false_alarms)
        for group in np.unique(groups[real])
    ]
    threshold = best_threshold(labels, probabilities, max(limits))
    assert threshold is not None  # both classes are present
    lower, upper = decision_band(labels, probabilities, threshold, target_error)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        lower=lower,
        upper=upper,
        target_error=target_error,
        ece_before=calibration_error(labels, expit(logits), weights=weights),
        ece_after=calibration_error(labels, probabilities, weights=weights),
        n_real=int(real.sum()),
        n_fake=int((~real).sum()),
        data=data,
        protocol=protocol,
        max_false_alarms=max_false_alarms,
    )


@dataclass(frozen=True)
class Measured:
    """A calibration measured on labelled images.

    Args:
        calibration: the one measured.
        before: reliability of sigmoid(logit).
        after: reliability of the probability.
        verdicts: share of wrong verdicts among `GENERATED` and among `REAL`, and the share of
            `UNSURE` among all images (without an interval).
    """

    calibration: Calibration
    before: Reliability
    after: Reliability
    verdicts: dict[str, Share]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; None for what is undefined."""
        return {
            "calibration": self.calibration.to_dict(),
            "verdicts": {"fitted": {name: asdict(share) for name, share in self.verdicts.items()}},
            "reliability": {
                "before": [one.to_dict() for one in self.before.bins],
                "after": [one.to_dict() for one in self.after.bins],
            },
        }


def measure(calibration: Calibration, labels: NDArray, logits: NDArray) -> Measured:
    """Measure a calibration on images: those of its fit, or others.

    Args:
        calibration: the one to measure.
        labels: [N] integers, 0 real, 1 generated, both present.
        logits: [N].
    """
    probabilities = calibration.probabilities(logits)
    verdicts = np.array([calibration.verdict(probability) for probability in probabilities])
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    shares = {}
    for verdict, wrong in ((GENERATED, 0), (REAL, 1)):
        given = labels[verdicts == verdict]
        errors = int((given == wrong).sum())
        shares[verdict] = share_of_label(errors, len(given), wrong, n_real, n_fake)
    unsure = verdicts == UNSURE
    weight = float(class_weights(labels)[unsure].sum())
    shares[UNSURE] = Share(int(unsure.sum()), len(labels), weight)
    before = reliability(labels, expit(logits.astype(np.float64)))
    return Measured(calibration, before, reliability(labels, probabilities), shares)
