"""Resampled figures against scikit-learn on the resampled images themselves, and intervals against
theory."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from evaluation.metrics import LABELS, binary_metrics
from evaluation.resampling import (
    Distribution,
    ResampledScores,
    draws,
    interval,
    mean_distribution,
    mean_interval,
    resample,
    resampled_aucs,
)

LABELLED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=1, max_size=40)


def overlapping(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [n // 2, n - n // 2])
    return labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)


@settings(deadline=None)
@given(LABELLED, st.one_of(st.none(), st.sampled_from([0.0, 0.3, 0.5, 1.0])), st.integers(0, 9))
def test_counting_equals_computing_on_the_drawn_images(
    pairs: list[tuple[int, int]], threshold: float | None, seed: int
) -> None:
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]) / 30
    (counts,) = draws(labels, None, 3, seed)
    found = ResampledScores(labels, scores, threshold).metrics(counts)
    images = np.repeat(np.arange(len(labels)), counts[:, 1].astype(int))
    assert np.bincount(labels[images], minlength=2).tolist() == [sum(labels == 0), sum(labels == 1)]
    expected = binary_metrics(labels[images], scores[images], threshold).values()
    assert list(found) == [name for name in LABELS if expected[name] is not None]
    for name, values in found.items():
        assert values[1] == pytest.approx(expected[name], abs=1e-9), name


def drawn(
    labels: np.ndarray, scores: np.ndarray, resamples: int = 100, seed: int = 0, prefix: str = ""
) -> Distribution:
    names = [f"{prefix}{label}/{number}" for number, label in enumerate(labels)]
    return resample(labels, scores, names, None, resamples, seed)


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    labels, scores = np.zeros(400, dtype=int), np.repeat([0.1, 0.9], [320, 80])
    low, high = interval(drawn(labels, scores, 4000)["acc"])
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == (
        pytest.approx(0.8 - half, abs=0.006),
        pytest.approx(0.8 + half, abs=0.006),
    )


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
    scores = rng.normal(labels, 1, (3, 33))
    scores = scores.round() if ties else scores
    names = [f"{number}.png" for number in range(33)]
    aucs = resampled_aucs(labels, scores, names, 7, seed=1)
    (counts,) = draws(labels, names, 7, seed=1)
    assert aucs.shape == (3, 7)
    for column in range(7):
        images = np.repeat(np.arange(33), counts[:, column].astype(int))
        for condition in range(3):
            expected = roc_auc_score(labels[images], scores[condition, images])
            assert aucs[condition, column] == pytest.approx(expected)


def test_one_class_is_drawn_alike_in_two_sets_and_blocks_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.array([0, 0, 0, 1, 1])
    (one,) = draws(labels, ("a", "b", "c", "d", "e"), 50, 0)
    (other,) = draws(labels[::-1], ("x", "y", "c", "a", "b"), 50, 0)
    assert np.array_equal(one[[0, 1, 2]], other[[3, 4, 2]])
    assert not np.array_equal(one[3:], other[:2])
    monkeypatch.setattr("evaluation.resampling.CELLS", 100)
    blocks = list(draws(labels, ("a", "b", "c", "d", "e"), 50, 0))
    assert [block.shape[1] for block in blocks] == [20, 20, 10]
    assert np.array_equal(np.concatenate(blocks, axis=1), one)


def test_classes_are_resampled_apart() -> None:
    labels, scores = np.array([0] * 3 + [1] * 50), np.r_[np.zeros(3), np.ones(50)]
    found = drawn(labels, scores)
    assert [np.ptp(found[name]) for name in ("real_acc", "fake_acc", "acc")] == [0, 0, 0]


def test_seed_and_names_decide_and_order_does_not() -> None:
    labels, scores = overlapping(60)
    first, again, other = (drawn(labels, scores, seed=seed)["auc"] for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()
    assert not (drawn(labels, scores, seed=1, prefix="elsewhere/")["auc"] == first).all()
    names, order = (
        [f"{label}/{number}" for number, label in enumerate(labels)],
        np.random.default_rng(0).permutation(60),
    )
    shuffled = resample(
        labels[order], scores[order], [names[index] for index in order], None, 100, 1
    )
    assert (shuffled["auc"] == first).all()


def test_more_resamples_begin_with_the_same() -> None:
    labels, scores = overlapping(40)
    assert (drawn(labels, scores, 200)["ap"][:100] == drawn(labels, scores, 100)["ap"]).all()


def test_models_that_scored_the_same_pictures_are_paired() -> None:
    labels, scores = overlapping(200)
    better, worse = drawn(labels, scores + 0.2 * labels, 300), drawn(labels, scores, 300)
    apart = drawn(labels, scores, 300, seed=5)
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
    mean = mean_distribution(sets, [list(one) for one in sets])
    assert np.std(mean["real_acc"]) == pytest.approx(np.std(sets[0]["real_acc"]))
    assert np.std(mean["fake_acc"]) == pytest.approx(
        np.std(sets[0]["fake_acc"]) / np.sqrt(7), rel=0.2
    )


@pytest.mark.parametrize("labels", ([0], [1], [0, 1], [0, 0, 0, 1]))
def test_a_single_image_of_a_class_has_no_interval(labels: list[int]) -> None:
    assert drawn(np.array(labels), np.full(len(labels), 0.3)) == {}


def test_one_class_has_what_is_defined() -> None:
    found = drawn(np.zeros(9, dtype=int), np.linspace(0, 1, 9))
    assert list(found) == ["acc", "real_acc", "ece", "brier"]


def test_macro_mean_has_a_spread_only_if_all_its_sets_have_one() -> None:
    first, second = (
        {"acc": np.array([0.0, 1.0])},
        {"acc": np.array([1.0, 1.0]), "auc": np.array([0.5, 0.7])},
    )
    mean = mean_distribution([first, second], [["acc"], ["acc", "auc"]])
    assert {name: values.tolist() for name, values in mean.items()} == {
        "acc": [0.5, 1.0],
        "auc": [0.5, 0.7],
    }
    assert list(mean_distribution([first, second], [["acc", "auc"], ["acc", "auc"]])) == ["acc"]
    assert mean_distribution([{}, second], [["acc"], ["acc"]]) == {}


def test_a_thousand_resamples_of_ten_thousand_images_take_seconds() -> None:
    labels, scores = overlapping(10_000)
    started = time.process_time()
    found = drawn(labels, scores, 1000)
    assert time.process_time() - started < 5
    assert {len(values) for values in found.values()} == {1000}
