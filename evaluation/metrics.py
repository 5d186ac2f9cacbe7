"""Metrics of a binary detector: scikit-learn and SciPy compute them; undefined cases give None."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
    roc_curve,
)

ECE_BINS = 15  # of equal width, as in Guo et al., ICML 2017
LABELS = {
    "acc": "acc",
    "real_acc": "real acc",
    "fake_acc": "fake acc",
    "balanced_acc": "bal. acc",
    "ap": "AP",
    "auc": "AUC",
    "eer": "EER",
    "tpr_at_fpr1": "TPR@1%",
    "tpr_at_fpr5": "TPR@5%",
    "ece": "ECE",
    "brier": "Brier",
    "acc_at_threshold": "acc@val",
}
"""{metric: column heading}, in the order of every table."""
LOWER_IS_BETTER = ("eer", "ece", "brier")


@dataclass(frozen=True)
class Metrics:
    """Metrics in [0, 1]; None where they are undefined.

    A score above the threshold predicts fake.

    Args:
        n_real: number of real images.
        n_fake: number of fake images.
        acc: accuracy at 0.5 over all images.
        real_acc: accuracy at 0.5 over real images.
        fake_acc: accuracy at 0.5 over fake images.
        balanced_acc: mean of real_acc and fake_acc.
        ap: average precision of fake.
        auc: area under the ROC curve.
        eer: equal error rate, where the false-positive rate equals the false-negative rate;
            interpolated between two thresholds.
        tpr_at_fpr1: true-positive rate at a false-positive rate of at most 1 %.
        tpr_at_fpr5: the same at 5 %.
        ece: expected calibration error of the score as probability, see
            `expected_calibration_error`.
        brier: mean squared difference of score and label (Brier, 1950).
        threshold: chosen on validation data; None without.
        acc_at_threshold: accuracy at that threshold.
    """

    n_real: int
    n_fake: int
    acc: float | None
    real_acc: float | None
    fake_acc: float | None
    balanced_acc: float | None
    ap: float | None
    auc: float | None
    eer: float | None
    tpr_at_fpr1: float | None
    tpr_at_fpr5: float | None
    ece: float | None
    brier: float | None
    threshold: float | None = None
    acc_at_threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def values(self) -> dict[str, float | None]:
        """Return {name: metric} of all `LABELS`."""
        return {name: getattr(self, name) for name in LABELS}


def binary_metrics(labels: NDArray, scores: NDArray, threshold: float | None = None) -> Metrics:
    """Compute the `Metrics` of scores against labels.

    With one class, metrics that compare the classes are None. Without images, all are.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1], high for fake.
        threshold: chosen on validation data; None without.
    """
    labels, scores = np.asarray(labels, dtype=int), np.asarray(scores, dtype=float)
    real, fake = labels == 0, labels == 1
    metrics: dict[str, float | None] = dict.fromkeys(LABELS)
    if len(labels):
        metrics |= {
            "acc": accuracy_score(labels, scores > 0.5),
            "ece": expected_calibration_error(labels, scores),
        }
        metrics["brier"] = brier_score_loss(labels, scores, pos_label=1)
        metrics["acc_at_threshold"] = (
            None if threshold is None else accuracy_score(labels, scores > threshold)
        )
    if real.any():
        metrics["real_acc"] = np.mean(scores[real] <= 0.5)
    if fake.any():
        metrics["fake_acc"] = np.mean(scores[fake] > 0.5)
    if real.any() and fake.any():
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        metrics |= {
            "balanced_acc": balanced_accuracy_score(labels, scores > 0.5),
            "ap": average_precision_score(labels, scores),
            "auc": roc_auc_score(labels, scores),
            "eer": equal_error_rate(fpr, tpr),
            "tpr_at_fpr1": tpr[fpr <= 0.01].max(),
            "tpr_at_fpr5": tpr[fpr <= 0.05].max(),
        }
    plain = {name: None if value is None else float(value) for name, value in metrics.items()}
    return Metrics(int(real.sum()), int(fake.sum()), threshold=threshold, **plain)


def equal_error_rate(fpr: NDArray, tpr: NDArray) -> float:
    """Return the false-positive rate where a ROC curve, piecewise linear, meets fpr = 1 - tpr.

    Args:
        fpr: [K], false-positive rates of the curve, from 0 to 1.
        tpr: [K], true-positive rates, from 0 to 1.
    """
    # from -1 to 1, never falling; so `after` is not the first
    excess = fpr + tpr - 1
    after = int(np.argmax(excess >= 0))
    part = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(fpr[after - 1] + part * (fpr[after] - fpr[after - 1]))


def expected_calibration_error(
    labels: NDArray, scores: NDArray, weights: NDArray | None = None, bins: int = ECE_BINS
) -> Any:
    """Return the expected calibration error in [0, 1] of scores as probabilities of fake.

    It is the mean over images of |mean score - share of fakes| of the image's bin. Bins have equal
    width (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    Args:
        labels: [N], 0 real, 1 fake, N >= 1.
        scores: [N] in [0, 1].
        weights: [N] or [N, R], weight of each image; None: all are equal.
        bins: their number.

    Returns:
        A number; R of them for weights [N, R].
    """
    weights = np.ones(len(scores)) if weights is None else weights
    in_bin = np.digitize(scores, np.linspace(0, 1, bins + 1)[1:-1])
    entries = scores - labels, (in_bin, np.arange(len(scores)))
    gaps = csr_array(entries, shape=(bins, len(scores))) @ weights
    return np.abs(gaps).sum(axis=0) / weights.sum(axis=0)


def best_threshold(labels: NDArray, scores: NDArray, lowest: float = 0.0) -> float | None:
    """Return the threshold with the highest balanced accuracy (Youden's J); None with one class.

    It lies midway between two scores, unless `lowest` is above that. A score above the threshold
    predicts fake.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1].
        lowest: smallest threshold allowed.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if len(np.unique(labels)) < 2:
        return None
    false_positive_rate, true_positive_rate, thresholds = roc_curve(
        labels, scores, drop_intermediate=False
    )
    # the first threshold is infinite, so one is always allowed
    allowed = thresholds > lowest
    best = thresholds[allowed][int(np.argmax((true_positive_rate - false_positive_rate)[allowed]))]
    # nothing is predicted fake
    if not np.isfinite(best):
        return float(min(1.0, max(scores.max() + 1e-6, lowest)))
    lower = scores[scores < best]
    return max(lowest, float((best + lower.max()) / 2 if len(lower) else best / 2))


def false_alarm_threshold(real_scores: NDArray, share: float) -> float:
    """Return the lowest threshold with at most this share of false alarms; 0 if all are allowed.

    It is one of the scores.

    Args:
        real_scores: [N] of real images, N >= 1.
        share: largest share of real images above the threshold, in [0, 1].
    """
    allowed = math.floor(share * len(real_scores) + 1e-9)
    return 0.0 if allowed >= len(real_scores) else float(np.sort(real_scores)[::-1][allowed])


def mean_metrics(rows: Sequence[Metrics]) -> dict[str, float | None]:
    """Return the mean of each metric over the sets where it is defined (macro mean)."""

    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    return {name: mean(name) for name in LABELS}
