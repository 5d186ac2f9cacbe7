"""Fitting a `Calibration` to the logits of validation images, and how well it fits.

Classes are weighted: whatever their numbers, a share `prior` of the images counts as generated
(half, unless told otherwise), in the fit, in the calibration error and in the shares of wrong
verdicts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from scipy.stats import beta, binomtest
from sklearn.model_selection import StratifiedKFold

from evaluation.metrics import ECE_BINS, best_threshold, false_alarm_threshold
from networks.calibration import GENERATED, REAL, UNSURE, Calibration

FOLDS = 5
SEED = 0
NEVER_REAL, NEVER_GENERATED = -1.0, 2.0
"""Ends of the band that no probability reaches."""
DRAWS = 400


class NotCalibratable(ValueError):
    """Logits from which no temperature follows."""


@dataclass(frozen=True)
class Mix:
    """Images of two classes that stand for a population of which the share `prior` is generated."""

    n_real: int
    n_fake: int
    prior: float = 0.5

    def weights(self, labels: NDArray) -> NDArray:
        """[N], what an image of each label counts; over the images of both classes together 1."""
        return np.where(labels == 1, self.prior / self.n_fake, (1 - self.prior) / self.n_real)

    def share(self, share: Any, label: int) -> Any:
        """Of images among which a share has this label here, the share that has it in the
        population; in [0, 1], NaN stays."""
        weight = ((1 - self.prior) / self.n_real, self.prior / self.n_fake)
        these, others = share * weight[label], (1 - share) * weight[1 - label]
        return these / (these + others)


@dataclass(frozen=True)
class Share:
    """`count` of `total` images, which in the population are the share `value`, and its 95 %
    interval (None of no image)."""

    count: int
    total: int
    value: float | None
    low: float | None
    high: float | None


def share_of_label(count: int, total: int, mix: Mix, label: int) -> Share:
    """Share of a label among `total` images, `count` of which have it, with the interval of Clopper
    and Pearson (1934)."""
    if not total:
        return Share(count, total, None, None, None)
    ends = binomtest(count, total).proportion_ci(0.95, "exact")
    value, low, high = (
        float(mix.share(part, label)) for part in (count / total, ends.low, ends.high)
    )
    return Share(count, total, value, low, high)


@dataclass(frozen=True)
class Reliability:
    """What was said and what was so, in bins of equal width of the probability.

    Args:
        edges: [K + 1]. weight: [K] of the images in each bin, of 1. mean: [K] probability;
            generated: [K] share of generated images (NaN in empty bins). n_real, n_fake: [K]
            images.
    """

    edges: NDArray
    weight: NDArray
    mean: NDArray
    generated: NDArray
    n_real: NDArray
    n_fake: NDArray

    @property
    def ece(self) -> float:
        """Expected calibration error in [0, 1], of the probability of generated (Naeini et al.,
        AAAI 2015; Guo et al., 2017)."""
        return float(np.nansum(self.weight * np.abs(self.mean - self.generated)))


def reliability(
    labels: NDArray, probabilities: NDArray, mix: Mix, bins: int = ECE_BINS
) -> Reliability:
    """Bins of probabilities [N] in [0, 1] against labels [N] (0 real, 1 generated), weighted by the
    mix."""
    place, weights = _bin(probabilities, bins), mix.weights(labels)
    values = (weights, weights * probabilities, weights * labels, labels == 0, labels == 1)
    weight, said, so, n_real, n_fake = (np.bincount(place, value, bins) for value in values)
    with np.errstate(invalid="ignore"):
        mean, generated = said / weight, so / weight
    return Reliability(
        np.linspace(0, 1, bins + 1), weight, mean, generated, n_real.astype(int), n_fake.astype(int)
    )


def _bin(probabilities: NDArray, bins: int) -> NDArray:
    return np.digitize(probabilities, np.linspace(0, 1, bins + 1)[1:-1])


def chance_ece(probabilities: NDArray, mix: Mix, draws: int = DRAWS) -> tuple[float, float]:
    """Mean and 95 % quantile of the ECE that these probabilities would have if they were right,
    with so many images.

    A few images never agree exactly with any probability: labels are drawn from the probabilities
    themselves (Bröcker and Smith, Weather and Forecasting 2007).
    """
    rng = np.random.default_rng(SEED)
    here = expit(logit(probabilities) - logit(mix.prior) + math.log(mix.n_fake / mix.n_real))
    place, (of_real, of_fake) = _bin(probabilities, ECE_BINS), mix.weights(np.array([0, 1]))
    errors = []
    for _ in range(draws):
        fake = rng.random(len(here)) < here
        gaps = np.bincount(
            place, np.where(fake, of_fake * (probabilities - 1), of_real * probabilities), ECE_BINS
        )
        errors.append(np.abs(gaps).sum() / np.where(fake, of_fake, of_real).sum())
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def fit_temperature(labels: NDArray, logits: NDArray) -> float:
    """T > 0 that minimises the negative log-likelihood of sigmoid(logit / T), classes weighted
    alike (Guo et al., ICML 2017).

    The targets are not 0 and 1 but 1 / (N0 + 2) and (N1 + 1) / (N1 + 2) of N0 real and N1 generated
    images (Platt, Advances in Large Margin Classifiers, 1999): T stays above 0 where no image is on
    the wrong side, and no probability says more than so many images can show.

    Raises:
        NotCalibratable: generated images do not have higher logits than real ones, so that no T > 0
            beats a coin.
    """
    counts = np.bincount(labels, minlength=2)
    targets = np.where(labels == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    weights = Mix(int(counts[0]), int(counts[1])).weights(labels)
    # the slope of the likelihood where T is infinite
    if (weights * (targets - 0.5) * logits).sum() <= 0:
        raise NotCalibratable("generated images do not score higher than real ones")
    size = float((weights * np.abs(logits)).sum())

    def loss(log_temperature: float) -> float:
        scaled = logits / (size * math.exp(log_temperature))
        return -float(
            (weights * (targets * log_expit(scaled) + (1 - targets) * log_expit(-scaled))).sum()
        )

    found = minimize_scalar(
        loss, bounds=(math.log(1e-4), math.log(1e4)), method="bounded", options={"xatol": 1e-7}
    )
    return size * math.exp(found.x)


def decision_band(
    labels: NDArray,
    probabilities: NDArray,
    threshold: float,
    mix: Mix,
    target_error: float,
    confidence: float = 0.0,
) -> tuple[float, float]:
    """The narrowest band [lower, upper] around the threshold outside of which few verdicts are
    wrong.

    Of the images with probability >= upper the share of real ones is at most `target_error`, of
    those with probability <= lower that of generated ones; with `confidence` the one-sided upper
    bound of that share (Clopper and Pearson, 1934). An end that no image allows is `NEVER_REAL` or
    `NEVER_GENERATED`.
    """

    def few_wrong(label: int, count: NDArray, total: NDArray) -> NDArray:
        share = count / total
        if confidence:  # beta's second parameter may not be 0: all wrong, and the bound is 1
            share = np.where(
                count < total, beta.ppf(confidence, count + 1, np.maximum(total - count, 1)), 1.0
            )
        return mix.share(share, label) <= target_error

    upper = _lowest_cut(probabilities, labels == 0, threshold, partial(few_wrong, 0))
    lower = _lowest_cut(-probabilities, labels == 1, -threshold, partial(few_wrong, 1))
    return NEVER_REAL if lower is None else -lower, NEVER_GENERATED if upper is None else upper


def _lowest_cut(
    scores: NDArray, wrong: NDArray, start: float, allowed: Callable[[NDArray, NDArray], NDArray]
) -> float | None:
    """The lowest cut >= start for which `allowed`(wrong images, images), both [L], of the scores >=
    the cut; None if there is none.

    It lies midway to the next lower score, like `best_threshold`.
    """
    inside = scores >= start
    levels, level = np.unique(scores[inside], return_inverse=True)
    if not len(levels):
        return None
    total, errors = (
        np.bincount(level, part)[::-1].cumsum()[::-1] for part in (None, wrong[inside])
    )
    passed = np.flatnonzero(allowed(errors, total))
    if not len(passed):
        return None
    if (first := passed[0]) == 0:
        return start
    middle = float(levels[first - 1] + levels[first]) / 2
    return middle if middle > levels[first - 1] else float(levels[first])


def fit_calibration(labels: NDArray, logits: NDArray, target_error: float, prior: float = 0.5, confidence: float = 0.0,
                    data: str = "", protocol: str = "", groups: NDArray | None = None,
                    max_false_alarms: float = 1.0) -> Calibration:  # fmt: skip
    """A calibration whose `ece_after` is that of the images it was fitted on.

    Args:
        labels: [N] integers, 0 real, 1 generated, both there. logits: [N]. groups: [N] integers,
            the set of each image; of each set's real images at most `max_false_alarms` lie above
            the threshold. The others: see `Calibration`.

    Raises:
        NotCalibratable: see `fit_temperature`.
    """
    logits = logits.astype(np.float64)
    counts = np.bincount(labels, minlength=2)
    mix = Mix(int(counts[0]), int(counts[1]), prior)
    made = Calibration(fit_temperature(labels, logits), 0.5, 0.0, 1.0, target_error, 0.0, 0.0, mix.n_real, mix.n_fake,
                       data, protocol, prior, confidence, max_false_alarms)  # fmt: skip
    probabilities = made.probabilities(logits)
    groups = np.zeros(len(labels), int) if groups is None else groups
    of_sets = [
        probabilities[(groups == one) & (labels == 0)] for one in np.unique(groups[labels == 0])
    ]
    lowest = max((false_alarm_threshold(real, max_false_alarms) for real in of_sets), default=0.0)
    threshold = best_threshold(labels, probabilities, lowest)
    if threshold is None:
        raise ValueError("one class only")
    lower, upper = decision_band(labels, probabilities, threshold, mix, target_error, confidence)
    before, after = (reliability(labels, p, mix).ece for p in (expit(logits), probabilities))
    return replace(
        made, threshold=threshold, lower=lower, upper=upper, ece_before=before, ece_after=after
    )


def cross_fitted(
    labels: NDArray, logits: NDArray, calibration: Calibration, groups: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """Probabilities [N] and verdicts [N] of each image, by a calibration fitted alike on the images
    of the other folds."""
    probabilities, verdicts = np.zeros(len(labels)), np.full(len(labels), UNSURE, dtype=object)
    for fit, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(
        logits, labels
    ):
        of_fold = fit_calibration(labels[fit], logits[fit], calibration.target_error, calibration.prior,
                                  calibration.confidence, groups=None if groups is None else groups[fit],
                                  max_false_alarms=calibration.max_false_alarms)  # fmt: skip
        probabilities[held_out] = of_fold.probabilities(logits[held_out])
        verdicts[held_out] = [of_fold.verdict(p) for p in probabilities[held_out]]
    return probabilities, verdicts


def verdict_shares(labels: NDArray, verdicts: NDArray, mix: Mix) -> dict[str, Share]:
    """Shares of wrong verdicts among those `GENERATED` and those `REAL`, and of `UNSURE` among all
    images (without interval)."""
    found = {}
    for verdict, other in ((GENERATED, 0), (REAL, 1)):
        given = verdicts == verdict
        found[verdict] = share_of_label(
            int((labels[given] == other).sum()), int(given.sum()), mix, other
        )
    unsure = verdicts == UNSURE
    weight = float(mix.weights(labels)[unsure].sum())
    return found | {UNSURE: Share(int(unsure.sum()), len(labels), weight, None, None)}
