"""Resampled metrics against scikit-learn on the resampled images themselves, and intervals against
theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from evaluation.metrics import LABELS, binary_metrics
from evaluation.resampling import (
    Distribution,
    ResampledScores,
    draws,
    interval,
    mean_interval,
    resample,
    resampled_aucs,
)
from evaluation.summary import mean_distribution

LABELLED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(LABELLED, st.sampled_from([None, 0.0, 0.3, 0.5, 1.0]), st.integers(0, 9))
def test_counting_equals_computing_on_the_drawn_images(
    pairs: list[tuple[int, int]], threshold: float | None, seed: int
) -> None:
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]) / 30
    (counts,) = draws(labels, None, 3, seed)
    metrics = ResampledScores(labels, scores, threshold).metrics(counts)
    images = np.repeat(np.arange(len(labels)), counts[:, 1].astype(int))
    assert np.bincount(labels[images], minlength=2).tolist() == [sum(labels == 0), sum(labels == 1)]
    expected = binary_metrics(labels[images], scores[images], threshold).values()
    assert list(metrics) == [name for name in LABELS if expected[name] is not None]
    for name, values in metrics.items():
        assert values[1] == pytest.approx(expected[name], abs=1e-9), name


def drawn(
    labels: NDArray, scores: NDArray, resamples: int = 100, seed: int = 0, prefix: str = ""
) -> Distribution:
    names = [f"{prefix}{label}/{number}" for number, label in enumerate(labels)]
    return resample(labels, scores, names, None, resamples, seed)


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    labels, scores = np.zeros(400, dtype=int), np.repeat([0.1, 0.9], [320, 80])
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 400)
    ends = interval(drawn(labels, scores, 4000)["acc"])
    assert ends == pytest.approx((0.8 - half, 0.8 + half), abs=0.006)


def test_intervals_cover_the_true_auc_and_mean_as_often_as_they_promise() -> None:
    """95 % of 400 intervals of 60 images per class, up to what chance and the percentile method's
    own error (about a point at this size) allow."""
    rng, true_auc, covered = np.random.default_rng(0), norm.cdf(1 / np.sqrt(2)), np.zeros(2)
    labels, trials = np.repeat([0, 1], 60), 400
    for trial in range(trials):
        scores = rng.normal(labels, 1)
        low, high = interval(resampled_aucs(labels, scores[None], None, 300, seed=trial)[0])
        covered[0] += low <= true_auc <= high
        (low,), (high,) = mean_interval(scores[:60, None], 300, seed=trial)
        covered[1] += low <= 0 <= high
    assert covered / trials == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("ties", [False, True])
def test_aucs_of_many_scores_are_scikit_learns_of_the_drawn_images(ties: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [13, 20]))
    scores = rng.normal(labels, 1, (3, 33)).round(0 if ties else 9)
    names = [f"{number}.png" for number in range(33)]
    (counts,) = draws(labels, names, 7, seed=1)
    images = [np.repeat(np.arange(33), column) for column in counts.T.astype(int)]
    expected = [[roc_auc_score(labels[rows], of_one[rows]) for rows in images] for of_one in scores]
    np.testing.assert_allclose(resampled_aucs(labels, scores, names, 7, seed=1), expected)


def test_seed_and_names_decide_the_draws_and_order_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each class by itself; the first of many resamples are those of a few."""
    labels, names = np.array([0, 0, 0, 1, 1]), ("a", "b", "c", "d", "e")
    (counts,) = draws(labels, names, 50, 0)
    assert (counts[:3].sum(axis=0) == 3).all() and (counts[3:].sum(axis=0) == 2).all()
    (other,) = draws(labels[::-1], ("x", "y", "c", "a", "b"), 50, 0)
    assert np.array_equal(counts[:3], other[[3, 4, 2]])
    assert not np.array_equal(counts[3:], other[:2])
    assert not np.array_equal(counts, next(draws(labels, names, 50, 1)))
    monkeypatch.setattr("evaluation.resampling.CELLS", 100)
    blocks = list(draws(labels, names, 70, 0))
    assert [block.shape[1] for block in blocks] == [20, 20, 20, 10]
    assert np.array_equal(np.concatenate(blocks, axis=1)[:, :50], counts)


def test_models_that_scored_the_same_images_are_paired() -> None:
    labels = np.repeat([0, 1], 100)
    scores = np.random.default_rng(0).normal(0.4 + 0.2 * labels, 0.2)
    better, worse = drawn(labels, scores + 0.2 * labels, 300), drawn(labels, scores, 300)
    apart = drawn(labels, scores, 300, prefix="elsewhere/")
    assert np.std(better["auc"] - worse["auc"]) < np.std(better["auc"] - apart["auc"])


def test_sets_that_share_their_real_images_share_their_resamples() -> None:
    """The mean over seven sets with the same 100 real images is no surer of them than one set is."""
    rng = np.random.default_rng(0)
    real = rng.uniform(0, 1, 100)
    real_names, sets = [f"real/{number}" for number in range(100)], []
    for generator in range(7):
        labels, scores = np.repeat([0, 1], 100), np.r_[real, rng.uniform(0, 1, 100)]
        names = [*real_names, *(f"{generator}/{number}" for number in range(100))]
        sets.append(resample(labels, scores, names, None, 500))
    mean, first = mean_distribution(sets, sets), sets[0]
    assert np.std(mean["real_acc"]) == pytest.approx(np.std(first["real_acc"]))
    of_mean = np.std(first["fake_acc"]) / np.sqrt(7)
    assert np.std(mean["fake_acc"]) == pytest.approx(of_mean, rel=0.2)


def test_a_single_image_of_a_class_has_no_interval() -> None:
    for labels in ([0], [1], [0, 1], [0, 0, 0, 1]):
        assert drawn(np.array(labels), np.full(len(labels), 0.3)) == {}
    one_class = drawn(np.zeros(9, dtype=int), np.linspace(0, 1, 9))
    assert list(one_class) == ["acc", "real_acc", "ece", "brier"]


def test_macro_mean_has_a_spread_only_if_all_its_sets_have_one() -> None:
    first = {"acc": np.array([0.0, 1.0])}
    second = {"acc": np.array([1.0, 1.0]), "auc": np.array([0.5, 0.7])}
    mean = mean_distribution([first, second], [["acc"], ["acc", "auc"]])
    assert mean["acc"].tolist() == [0.5, 1.0] and mean["auc"].tolist() == [0.5, 0.7]
    assert list(mean_distribution([first, second], [["acc", "auc"], ["acc", "auc"]])) == ["acc"]
    assert mean_distribution([{}, second], [["acc"], ["acc"]]) == {}
