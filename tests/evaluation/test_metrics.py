"""Metrics against values worked by hand, and against torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_sensitivity_at_specificity,
)

from data.image_sets import ImageSet, sample_evenly
from evaluation.metrics import (
    best_threshold,
    binary_metrics,
    equal_error_rate,
    expected_calibration_error,
    mean_metrics,
)
from evaluation.resampling import ResampledScores

LABELS = np.array([0, 0, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.7, 0.6, 0.9])
LABELLED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)), min_size=2, max_size=60)
"""Labels, and scores in fiftieths: with ties, also at 0.5."""


def arrays(pairs: list[tuple[int, int]]) -> tuple[NDArray, NDArray]:
    labels, scores = np.array(pairs).T
    return labels, scores / 50


def test_by_hand() -> None:
    metrics = binary_metrics(LABELS, SCORES, threshold=0.65)
    assert metrics.to_dict() == pytest.approx({
        "n_real": 3, "n_fake": 2, "acc": 4 / 5, "real_acc": 2 / 3, "fake_acc": 1,
        "balanced_acc": (2 / 3 + 1) / 2,
        "auc": 5 / 6,  # of 3 x 2 pairs, one is in the wrong order
        "ap": 0.5 * 1 + 0.5 * 2 / 3,  # recall steps at ranks 1 and 3
        # falling scores 1 0 1 0 0: the curve is (0, .5), (1/3, .5), (1/3, 1); fpr = 1 - tpr on the
        # vertical step
        "eer": 1 / 3,
        "tpr_at_fpr1": 0.5, "tpr_at_fpr5": 0.5,
        "ece": (0.1 + 0.4 + 0.7 + 0.4 + 0.1) / 5,  # each score has its own of the 15 bins
        "brier": (0.1**2 + 0.4**2 + 0.7**2 + 0.4**2 + 0.1**2) / 5,
        "threshold": 0.65, "acc_at_threshold": 3 / 5,
    })  # fmt: skip
    # a score at a threshold predicts real
    at_threshold = binary_metrics(np.array([0, 1]), np.array([0.5, 0.7]), 0.7)
    assert (at_threshold.acc, at_threshold.acc_at_threshold) == (1, 0.5)


def test_rate_of_false_alarms_includes_its_limit() -> None:
    labels = np.array([0] * 20 + [1] * 4)
    scores = np.array([0.8] + [0.1] * 19 + [0.9, 0.7, 0.6, 0.05])
    metrics = binary_metrics(labels, scores)  # one false alarm of 20 is exactly 5 %
    assert (metrics.tpr_at_fpr1, metrics.tpr_at_fpr5) == (0.25, 0.75)
    once = np.ones((24, 1))
    assert ResampledScores(labels, scores).metrics(once)["tpr_at_fpr5"].tolist() == [0.75]


@pytest.mark.parametrize(
    ("fpr", "tpr", "rate"),
    # (0, 0.5), then one step to (0.5, 1): fpr = 1 - tpr at (0.25, 0.75)
    [([0, 0, 0.5, 1], [0, 0.5, 1, 1], 0.25), ([0, 0, 1], [0, 1, 1], 0), ([0, 1, 1], [0, 0, 1], 1)],
)
def test_equal_error_rate_is_interpolated(fpr: list, tpr: list, rate: float) -> None:
    assert equal_error_rate(np.array(fpr), np.array(tpr)) == pytest.approx(rate)


@settings(max_examples=50)
@given(LABELLED)
def test_metrics_are_those_of_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    labels, scores = arrays(pairs)
    metrics = binary_metrics(labels, scores)
    predictions, targets = torch.tensor(scores), torch.tensor(labels)
    if not np.isclose(scores * 15, np.round(scores * 15)).any():  # on an edge, either bin is right
        ece = binary_calibration_error(predictions, targets, n_bins=15, norm="l1")
        assert metrics.ece == pytest.approx(float(ece), abs=1e-6)
    if metrics.auc is None:
        return
    rate, _ = binary_sensitivity_at_specificity(predictions, targets, 0.95)
    assert metrics.tpr_at_fpr5 == pytest.approx(float(rate), abs=1e-6)
    assert metrics.auc == pytest.approx(float(binary_auroc(predictions, targets)), abs=1e-6)
    precision = float(binary_average_precision(predictions, targets))
    assert metrics.ap == pytest.approx(precision, abs=1e-6)
    real, fake = scores[labels == 0], scores[labels == 1]
    errors = [(np.mean(real > t), np.mean(fake <= t)) for t in [-1.0, *scores.tolist()]]
    assert min(map(max, errors)) + 1e-9 >= metrics.eer >= min(map(min, errors))


@given(LABELLED)
def test_threshold_has_the_best_balanced_accuracy(pairs: list[tuple[int, int]]) -> None:
    labels, scores = arrays(pairs)
    threshold = best_threshold(labels, scores)
    if len(set(labels.tolist())) < 2:
        assert threshold is None
        return

    def balanced(t: float) -> float:
        return (np.mean(scores[labels == 1] > t) + np.mean(scores[labels == 0] <= t)) / 2

    assert balanced(threshold) == pytest.approx(max(balanced(t) for t in [-1.0, *scores.tolist()]))


def test_calibration_error_of_weighted_images_is_that_of_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    labels, scores, weights = rng.integers(0, 2, 30), rng.random(30), rng.integers(0, 4, (30, 5))
    errors = expected_calibration_error(labels, scores, weights)
    for column, error in zip(weights.T, errors, strict=True):
        repeated = expected_calibration_error(np.repeat(labels, column), np.repeat(scores, column))
        assert error == pytest.approx(repeated)
        assert expected_calibration_error(labels, scores, column) == pytest.approx(repeated)


def test_one_class_or_no_image_has_only_what_is_defined() -> None:
    metrics = binary_metrics(np.zeros(4), np.array([0.1, 0.2, 0.6, 0.3])).values()
    defined = {name: value for name, value in metrics.items() if value is not None}
    assert defined == pytest.approx({"acc": 0.75, "real_acc": 0.75, "ece": 0.3, "brier": 0.125})
    empty = binary_metrics(np.zeros(0), np.zeros(0), 0.5)
    assert (empty.n_real, empty.n_fake) == (0, 0) and set(empty.values().values()) == {None}


def test_mean_is_over_the_sets_where_a_metric_is_defined() -> None:
    rows = [binary_metrics(LABELS, SCORES), binary_metrics(np.zeros(2), np.array([0.1, 0.9]))]
    mean = mean_metrics([rows[0], *rows])
    assert mean["acc"] == pytest.approx((0.8 + 0.8 + 0.5) / 3)
    assert mean["auc"] == pytest.approx(5 / 6)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 50), st.integers(0, 3))
def test_samples_are_even(real: int, fake: int, count: int, seed: int) -> None:
    paths, labels = tuple(map(str, range(real + fake))), (0,) * real + (1,) * fake
    images = ImageSet("s", "g", paths, labels)
    sampled = sample_evenly(images, count, seed)
    n_real, n_fake = sampled.labels.count(0), sampled.labels.count(1)
    assert n_real + n_fake == min(count, real + fake) == len(set(sampled.paths))
    assert min(real, fake) < count or abs(n_real - n_fake) <= 1
    assert sampled == sample_evenly(images, count, seed)
