"""Resampled figures against scikit-learn on the resampled images themselves, and intervals against theory."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from evaluation.bootstrap import ResampledScores, interval, mean_distribution, resample
from evaluation.metrics import LABELS, binary_metrics

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
    resampled = ResampledScores(labels, scores, threshold)
    rng = np.random.default_rng(seed)
    drawn, images = [], []
    for label in (0, 1):
        of_class = np.flatnonzero(labels == label)
        chosen = rng.integers(0, max(len(of_class), 1), (1, len(of_class)))
        drawn.append(resampled.counts(label, chosen))
        images.append(of_class[chosen[0]])
    found = resampled.metrics(*drawn)
    chosen_images = np.concatenate(images)
    expected = binary_metrics(labels[chosen_images], scores[chosen_images], threshold).values()
    assert list(found) == [name for name in LABELS if expected[name] is not None]
    for name, values in found.items():
        assert values[0] == pytest.approx(expected[name], abs=1e-9), name


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    labels, scores = np.zeros(400, dtype=int), np.repeat([0.1, 0.9], [320, 80])
    low, high = interval(resample([ResampledScores(labels, scores)], resamples=4000)[0]["acc"])
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.006), pytest.approx(0.8 + half, abs=0.006))


def test_classes_are_resampled_apart() -> None:
    labels, scores = np.array([0] * 3 + [1] * 50), np.r_[np.zeros(3), np.ones(50)]
    found = resample([ResampledScores(labels, scores)])[0]
    assert {name: np.ptp(found[name]) for name in ("real_acc", "fake_acc", "acc")} == dict.fromkeys(
        ("real_acc", "fake_acc", "acc"), 0.0
    )


def test_seed_decides() -> None:
    scores = ResampledScores(*overlapping(60))
    first, again, other = (resample([scores], 50, seed)[0]["auc"] for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()


def test_models_are_paired() -> None:
    labels, scores = overlapping(200)
    one, same = resample([ResampledScores(labels, scores), ResampledScores(labels, scores)], 100)
    assert all((one[name] == same[name]).all() for name in one)
    better, worse = resample([ResampledScores(labels, scores + 0.2 * labels), ResampledScores(labels, scores)], 300)
    apart = resample([ResampledScores(labels, scores)], 300, seed=5)[0]
    assert np.std(better["auc"] - worse["auc"]) < np.std(better["auc"] - apart["auc"])


@pytest.mark.parametrize("labels", ([0], [1], [0, 1], [0, 0, 0, 1]))
def test_a_single_image_of_a_class_has_no_interval(labels: list[int]) -> None:
    assert resample([ResampledScores(np.array(labels), np.full(len(labels), 0.3))]) == [{}]


def test_one_class_has_what_is_defined() -> None:
    found = resample([ResampledScores(np.zeros(9, dtype=int), np.linspace(0, 1, 9))], 20)[0]
    assert list(found) == ["acc", "real_acc", "ece", "brier"]


def test_macro_mean_is_over_the_sets_that_define_it() -> None:
    mean = mean_distribution(
        [{"acc": np.array([0.0, 1.0])}, {"acc": np.array([1.0, 1.0]), "auc": np.array([0.5, 0.7])}]
    )
    assert {name: values.tolist() for name, values in mean.items()} == {"acc": [0.5, 1.0], "auc": [0.5, 0.7]}


def test_a_thousand_resamples_of_ten_thousand_images_take_seconds() -> None:
    scores = ResampledScores(*overlapping(10_000), threshold=0.4)
    started = time.process_time()
    found = resample([scores], 1000)[0]
    assert time.process_time() - started < 5
    assert {len(values) for values in found.values()} == {1000}
