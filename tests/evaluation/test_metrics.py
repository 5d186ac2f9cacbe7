"""Figures against values worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


def test_by_hand() -> None:
    figures = binary_metrics(LABELS, SCORES, threshold=0.65)
    assert (figures.n_real, figures.n_fake) == (3, 2)
    assert figures.acc == pytest.approx(4 / 5)
    assert figures.real_acc == pytest.approx(2 / 3)
    assert figures.fake_acc == 1.0
    assert figures.auc == pytest.approx(5 / 6)  # of 3 x 2 pairs, one is in the wrong order
    assert figures.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)  # recall steps at ranks 1 and 3
    assert figures.acc_at_threshold == pytest.approx(3 / 5)
    assert figures.balanced_acc == pytest.approx((2 / 3 + 1) / 2)
    assert figures.brier == pytest.approx((0.1**2 + 0.4**2 + 0.7**2 + 0.4**2 + 0.1**2) / 5)
    # each score has its own of the 15 bins
    assert figures.ece == pytest.approx((0.1 + 0.4 + 0.7 + 0.4 + 0.1) / 5)
    # falling scores 1 0 1 0 0: the curve is (0, .5), (1/3, .5), (1/3, 1); fpr = 1 - tpr on the
    # vertical step
    assert figures.eer == pytest.approx(1 / 3)
    assert (figures.tpr_at_fpr1, figures.tpr_at_fpr5) == (0.5, 0.5)


def test_rate_of_false_alarms_includes_its_limit() -> None:
    labels = np.array([0] * 20 + [1] * 4)
    scores = np.array([0.8] + [0.1] * 19 + [0.9, 0.7, 0.6, 0.05])
    figures = binary_metrics(labels, scores)  # one false alarm of 20 is exactly 5 %
    assert (figures.tpr_at_fpr1, figures.tpr_at_fpr5) == (0.25, 0.75)
    once = np.ones((24, 1))
    assert ResampledScores(labels, scores).metrics(once)["tpr_at_fpr5"].tolist() == [0.75]


def test_equal_error_rate_is_interpolated() -> None:
    # (0, 0.5), then one step to (0.5, 1): fpr = 1 - tpr at (0.25, 0.75)
    assert equal_error_rate(np.array([0, 0, 0.5, 1]), np.array([0, 0.5, 1, 1])) == pytest.approx(
        0.25
    )
    assert equal_error_rate(np.array([0, 0, 1]), np.array([0, 1, 1])) == 0
    assert equal_error_rate(np.array([0, 1, 1]), np.array([0, 0, 1])) == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=1, max_size=60))
def test_calibration_error_is_torchmetrics(pairs: list[tuple[int, float]]) -> None:
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    theirs = binary_calibration_error(
        torch.tensor(scores), torch.tensor(labels), n_bins=15, norm="l1"
    )
    on_an_edge = np.isclose(scores * 15, np.round(scores * 15), atol=1e-5)  # either bin is right
    if not on_an_edge.any():
        assert expected_calibration_error(labels, scores) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_of_weighted_images_is_that_of_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    labels, scores, weights = rng.integers(0, 2, 30), rng.random(30), rng.integers(0, 4, (30, 5))
    errors = expected_calibration_error(labels, scores, weights)
    for column, error in zip(weights.T, errors, strict=True):
        repeated = expected_calibration_error(np.repeat(labels, column), np.repeat(scores, column))
        assert error == pytest.approx(repeated)
        assert expected_calibration_error(labels, scores, column) == pytest.approx(repeated)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)), min_size=2, max_size=60))
def test_other_figures_are_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]) / 50
    figures = binary_metrics(labels, scores)
    said, truth = torch.tensor(scores), torch.tensor(labels)
    assert figures.brier == pytest.approx(float(((said - truth) ** 2).mean()))
    if figures.auc is None:
        return
    assert figures.auc == pytest.approx(float(binary_auroc(said, truth)), abs=1e-6)
    assert figures.ap == pytest.approx(float(binary_average_precision(said, truth)), abs=1e-6)
    assert figures.tpr_at_fpr5 == pytest.approx(
        float(binary_sensitivity_at_specificity(said, truth, 0.95)[0]), abs=1e-6
    )
    thresholds = [-1.0, *scores.tolist()]
    errors = [
        (np.mean(scores[labels == 0] > t), np.mean(scores[labels == 1] <= t)) for t in thresholds
    ]
    assert min(min(e) for e in errors) <= figures.eer <= min(max(e) for e in errors) + 1e-9


def test_one_class_has_accuracy_only() -> None:
    figures = binary_metrics(np.zeros(4), np.array([0.1, 0.2, 0.6, 0.3]))
    assert (figures.acc, figures.real_acc) == (0.75, 0.75)
    undefined = (
        "fake_acc",
        "balanced_acc",
        "ap",
        "auc",
        "eer",
        "tpr_at_fpr1",
        "tpr_at_fpr5",
        "acc_at_threshold",
    )
    assert [name for name, value in figures.values().items() if value is None] == list(undefined)
    assert figures.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.09) / 4)


def test_no_images_have_no_figures() -> None:
    figures = binary_metrics(np.zeros(0), np.zeros(0), 0.5)
    assert (figures.n_real, figures.n_fake) == (0, 0) and set(figures.values().values()) == {None}


def test_mean_is_over_the_sets_where_a_figure_is_defined() -> None:
    rows = [binary_metrics(LABELS, SCORES), binary_metrics(np.zeros(2), np.array([0.1, 0.9]))]
    mean = mean_metrics(rows)
    assert mean["acc"] == pytest.approx((0.8 + 0.5) / 2)
    assert mean["auc"] == pytest.approx(5 / 6)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=40))
def test_threshold_has_the_best_balanced_accuracy(pairs: list[tuple[int, int]]) -> None:
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]) / 20
    threshold = best_threshold(labels, scores)
    if len(set(labels.tolist())) < 2:
        assert threshold is None
        return

    def balanced(t: float) -> float:
        return (np.mean(scores[labels == 1] > t) + np.mean(scores[labels == 0] <= t)) / 2

    assert balanced(threshold) == pytest.approx(max(balanced(t) for t in [-1.0, *scores.tolist()]))


def image_set(real: int, fake: int) -> ImageSet:
    labels = (0,) * real + (1,) * fake
    return ImageSet("s", "g", tuple(str(i) for i in range(real + fake)), labels)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 50), st.integers(0, 3))
def test_samples_are_even(real: int, fake: int, count: int, seed: int) -> None:
    chosen = sample_evenly(image_set(real, fake), count, seed)
    n_real, n_fake = chosen.labels.count(0), chosen.labels.count(1)
    assert n_real + n_fake == min(count, real + fake)
    assert len(set(chosen.paths)) == len(chosen.paths)
    if min(real, fake) >= count:
        assert abs(n_real - n_fake) <= 1
    assert chosen == sample_evenly(image_set(real, fake), count, seed)
