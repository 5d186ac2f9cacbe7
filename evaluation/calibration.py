"""Fit a `Calibration` to the logits of labelled images, and measure one on such images.

Both classes have the same weight, however many images each has: in the fit, in the calibration
error and in the shares of wrong verdicts.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from evaluation.metrics import best_threshold, expected_calibration_error, false_alarm_threshold
from evaluation.reliability import (
    Reliability,
    Share,
    balanced_share,
    class_weights,
    reliability,
    share_of_label,
)
from networks.calibration import GENERATED, REAL, UNSURE, Calibration

MIN_IMAGES_PER_CLASS = 5  # below this, a temperature is noise
NEVER_REAL, NEVER_GENERATED = -1.0, 2.0  # ends of the band that no probability reaches


class NotCalibratable(ValueError):
    """No temperature fits these logits."""


def fit_temperature(labels: NDArray, logits: NDArray) -> float:
    """Fit T > 0 of sigmoid(logit / T) by maximum likelihood (Guo et al., ICML 2017).

    The targets are not 0 and 1 but 1 / (N0 + 2) and (N1 + 1) / (N1 + 2) for N0 real and N1 fake
    images (Platt, Advances in Large Margin Classifiers, 1999). So T stays above 0 where no image is
    on the wrong side, and no probability is more extreme than the number of images supports.

    Args:
        labels: [N] integers, 0 real, 1 generated, both present.
        logits: [N].

    Raises:
        NotCalibratable: generated images do not have higher logits than real ones.
    """
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    targets = np.where(labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    weights = class_weights(labels)
    # the slope of the likelihood at infinite T
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
        threshold: probability in [0, 1] that the band includes.
        target_error: largest share of real images among images with probability >= upper, and of
            generated images among images with probability <= lower.

    Returns:
        lower and upper; `NEVER_REAL` or `NEVER_GENERATED` for an end that no image allows.
    """
    upper = _lowest_cut(probabilities, labels, 0, threshold, target_error)
    lower = _lowest_cut(-probabilities, labels, 1, -threshold, target_error)
    return NEVER_REAL if lower is None else -lower, NEVER_GENERATED if upper is None else upper


def _lowest_cut(
    scores: NDArray, labels: NDArray, wrong: int, start: float, target_error: float
) -> float | None:
    """Return the lowest cut >= start from which at most `target_error` of the images are wrong.

    The cut lies midway to the next lower score, as in `best_threshold`.

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
        target_error: see `Calibration`, also for the last three.
        groups: [N] integers, the set of each image; None: all images are one set.
        max_false_alarms: largest share of false alarms among the real images of each set, [0, 1].
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
        ece_before=float(expected_calibration_error(labels, expit(logits), weights=weights)),
        ece_after=float(expected_calibration_error(labels, probabilities, weights=weights)),
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
        calibration: the calibration itself.
        before: reliability of sigmoid(logit).
        after: reliability of the probability.
        verdicts: {`GENERATED`, `REAL`: share of wrong verdicts; `UNSURE`: its share among all
            images, without an interval}.
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
                "before": [bin_.to_dict() for bin_ in self.before.bins],
                "after": [bin_.to_dict() for bin_ in self.after.bins],
            },
        }


def measure(calibration: Calibration, labels: NDArray, logits: NDArray) -> Measured:
    """Measure a calibration on images: those of its fit, or others.

    Args:
        calibration: to measure.
        labels: [N] integers, 0 real, 1 generated, both present.
        logits: [N].
    """
    probabilities = calibration.probabilities(logits)
    verdicts = np.array([calibration.verdict(probability) for probability in probabilities])
    n_real, n_fake = (int(count) for count in np.bincount(labels, minlength=2))
    shares = {}
    for verdict, wrong in ((GENERATED, 0), (REAL, 1)):
        of_verdict = labels[verdicts == verdict]
        errors = int((of_verdict == wrong).sum())
        shares[verdict] = share_of_label(errors, len(of_verdict), wrong, n_real, n_fake)
    unsure = verdicts == UNSURE
    weight = float(class_weights(labels)[unsure].sum())
    shares[UNSURE] = Share(int(unsure.sum()), len(labels), weight)
    before = reliability(labels, expit(logits.astype(np.float64)))
    return Measured(calibration, before, reliability(labels, probabilities), shares)
