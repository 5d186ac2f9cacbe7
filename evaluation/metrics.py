"""Figures of a binary detector; scikit-learn computes them, here they meet the cases where they are undefined."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score, roc_curve


@dataclass(frozen=True)
class Metrics:
    """Figures in [0, 1]; None where a class is missing. A score above the threshold counts as generated.

    Args:
        n_real, n_fake: images. acc, real_acc, fake_acc: accuracy at 0.5 over all, real, generated images.
        ap: average precision for generated; auc: area under the ROC curve.
        threshold: chosen on validation data, None without; acc_at_threshold: accuracy there.
    """

    n_real: int
    n_fake: int
    acc: float | None
    real_acc: float | None
    fake_acc: float | None
    ap: float | None
    auc: float | None
    threshold: float | None = None
    acc_at_threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def binary_metrics(labels: NDArray, scores: NDArray, threshold: float | None = None) -> Metrics:
    """Metrics of scores [N] in [0, 1] against labels [N] (0 real, 1 generated); see `Metrics`."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    real, fake = labels == 0, labels == 1
    both = bool(real.any() and fake.any())
    return Metrics(
        n_real=int(real.sum()),
        n_fake=int(fake.sum()),
        acc=_accuracy(labels, scores, 0.5),
        real_acc=_accuracy(labels[real], scores[real], 0.5),
        fake_acc=_accuracy(labels[fake], scores[fake], 0.5),
        ap=float(average_precision_score(labels, scores)) if both else None,
        auc=float(roc_auc_score(labels, scores)) if both else None,
        threshold=threshold,
        acc_at_threshold=None if threshold is None else _accuracy(labels, scores, threshold),
    )


def _accuracy(labels: NDArray, scores: NDArray, threshold: float) -> float | None:
    return float(accuracy_score(labels, scores > threshold)) if len(labels) else None


def best_threshold(labels: NDArray, scores: NDArray) -> float | None:
    """The threshold with the highest balanced accuracy (Youden's J), midway to the next lower score; None with one class."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if len(np.unique(labels)) < 2:
        return None
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = thresholds[int(np.argmax(true_positive_rate - false_positive_rate))]
    if not np.isfinite(best):  # nothing is called generated
        return float(min(1.0, scores.max() + 1e-6))
    lower = scores[scores < best]
    return float((best + lower.max()) / 2 if len(lower) else best / 2)


def mean_metrics(rows: list[Metrics]) -> dict[str, float | None]:
    """Macro mean over sets of each figure, over the sets where it is defined."""

    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    return {name: mean(name) for name in ("acc", "real_acc", "fake_acc", "ap", "auc", "acc_at_threshold")}
