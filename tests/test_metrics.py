"""Figures against values worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.layouts import ImageSet
from evaluation.attention import sample_evenly, statistics_text, summarize
from evaluation.metrics import best_threshold, binary_metrics, mean_metrics

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


def test_one_class_has_accuracy_only() -> None:
    figures = binary_metrics(np.zeros(4), np.array([0.1, 0.2, 0.6, 0.3]))
    assert (figures.acc, figures.real_acc) == (0.75, 0.75)
    assert (figures.fake_acc, figures.ap, figures.auc) == (None, None, None)


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


def test_attention_statistics_by_hand() -> None:
    weights = np.array([[0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
    summary = summarize(weights[:2])
    assert summary.mean.tolist() == pytest.approx([0.3, 0.7])
    assert summary.std.tolist() == pytest.approx([0.1, 0.1])
    text = statistics_text("x", weights, np.array([0, 0, 1]), (0.5, 0.5))
    assert "real (2 images)" in text and "fake (1 images)" in text
    assert "Scale 0.5x: 0.3000 ± 0.1000" in text and "Scale 0.5_2x: 0.7000 ± 0.1000" in text
