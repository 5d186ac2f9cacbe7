"""Resampled figures against scikit-learn on the resampled images themselves, and intervals against
theory."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from evaluation.metrics import LABELS, binary_metrics
from evaluation.resampling import (
    Distribution,
    ResampledScores,
    interval,
    mean_distribution,
    resample,
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
