"""Verdicts on attention whose nature is known, for several numbers of scales and images, over
several seeds."""

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.attention.controls import attention_controls
from evaluation.attention.groups import leanings, reading
from evaluation.attention.kinds import KINDS, Verdict
from evaluation.attention.statistics import attention_statistics
from evaluation.attention.verdict import attention_verdicts
from evaluation.scores import Scores
from tests.helpers.attended_sets import (
    Weights,
    dirichlet,
    favouring,
    make_scores,
    scales_of,
    sets_of,
)

SCALES = (0.25, 0.5, 0.75)
EVEN = (1 / 3, 1 / 3, 1 / 3)


def kinds_of(weights: Weights, images: int, scales: int, generators: int, seed: int) -> list[str]:
    sets = sets_of(weights, images, scales, generators, seed)
    statistics = attention_statistics(sets, scales_of(scales), resamples=100, permutations=100)
    verdicts = attention_verdicts(statistics)
    assert all(verdict.holds for verdict in verdicts)
    kinds = [verdict.kind for verdict in verdicts]
    assert kinds == sorted(kinds, key=KINDS.index)
    json.dumps([verdict.to_dict() for verdict in verdicts], allow_nan=False)
    return kinds


QUICK = ((2, 2000, 1), (3, 20, 1), (8, 20, 4))
SIZES = list(product((2, 3, 4, 8), (20, 2000), (1, 4)))


@pytest.mark.parametrize(
    ("scales", "images", "generators"),
    [pytest.param(*size, marks=() if size in QUICK else pytest.mark.slow) for size in SIZES],
)
def test_attention_of_one_nature(scales: int, images: int, generators: int) -> None:
    few, even = images < 100, np.full(scales, 1 / scales)
    # 20 images do not tell that nearly all others are alike
    collapsed = "one scale dominates" if few else "collapsed"
    slightly = favouring(0, scales, 1 / scales + 0.17 * (1 - 1 / scales))
    cases: tuple[tuple[Weights, list[str]], ...] = (
        (lambda rng, g, labels, s: np.full((len(labels), s), 1 / s), ["uniform"]),
        (dirichlet(even, 60 * scales), ["uniform"]),
        (dirichlet(favouring(scales - 1, scales, 0.97), 1000), [collapsed]),
        (dirichlet(favouring(1, scales, 0.75), 400), ["one scale dominates"]),
        (dirichlet(favouring(0, scales, 0.8), 3), ["one scale dominates", "varies by image"]),
        (dirichlet(even, 1), ["varies by image"]),
        (dirichlet(slightly, 400), ["fixed"]),
    )
    for weights, expected in cases:
        seeds = 6 if few else 2
        of_seeds = [kinds_of(weights, images, scales, generators, seed) for seed in range(seeds)]
        # one in twenty, where the difference is large besides
        chance = {"varies by generator", "varies by class"}
        right = [[kind for kind in kinds if kind not in chance] == expected for kinds in of_seeds]
        unsure = few and len(expected) == 2  # few images do not always tell
        assert sum(right) >= (2 if unsure else seeds), (expected, of_seeds)
        assert sum(bool(chance & set(kinds)) for kinds in of_seeds) <= 2, (expected, of_seeds)


@pytest.mark.parametrize(("scales", "images"), [(2, 80), (3, 2000), (8, 80)])
@pytest.mark.parametrize("precise", (False, True))
def test_attention_that_depends_on_the_generator(scales: int, images: int, precise: bool) -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        mean = favouring(index % 2, count, 0.7)
        return rng.dirichlet(mean * (400 if precise else 3), len(labels))

    for seed in range(3):
        kinds = kinds_of(weights, images, scales, 4, seed)
        assert "varies by generator" in kinds and ("varies by image" in kinds) == (not precise)
        assert not {"uniform", "fixed"} & set(kinds)


@pytest.mark.parametrize(("scales", "images"), [(2, 20), (3, 2000), (8, 20)])
@pytest.mark.parametrize("generators", (1, 2))
def test_attention_that_depends_on_the_class_alone(
    scales: int, images: int, generators: int
) -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        means = np.stack([favouring(0, count, 0.7), favouring(1, count, 0.7)])
        return np.stack([rng.dirichlet(mean * 200) for mean in means[labels]])

    for seed in range(3):
        assert kinds_of(weights, images, scales, generators, seed) == ["varies by class"]


@pytest.mark.slow
def test_false_alarms_of_generators_and_classes_stay_rare() -> None:
    """Attention that varies by image only: what chance does to the tests comes in one of twenty,
    and is large enough less often."""
    p_values, alarms = [], 0
    for seed in range(150):
        sets = sets_of(dirichlet(np.array(EVEN), 3), 120, 3, 3, seed)
        statistics = attention_statistics(sets, scales_of(3), resamples=0, permutations=99)
        p_values += [statistics["between"]["overall"]["p"], statistics["classes"]["p"]]
        kinds = {verdict.kind for verdict in attention_verdicts(statistics)}
        alarms += len({"varies by generator", "varies by class"} & kinds)
    rejected = int((np.array(p_values) < 0.05).sum())
    assert binomtest(rejected, len(p_values), 0.05).pvalue > 0.001
    assert alarms <= rejected


def verdicts_of(
    sets: Sequence[Scores], scales: tuple[float, ...] = SCALES, controlled: bool = False
) -> dict[str, Verdict]:
    """Return the verdicts by kind, in their order."""
    statistics = attention_statistics(sets, scales, resamples=50, permutations=999)
    controls = attention_controls(sets, scales, 0, False, resamples=200) if controlled else None
    return {verdict.kind: verdict for verdict in attention_verdicts(statistics, controls)}


def of_means(
    means: Sequence[tuple[float, ...]], precision: float, images: int = 60, real: Any = None
) -> list[Scores]:
    """Return generators of these mean weights; their real images have the mean `real`, if given."""
    sets = []
    for index, mean in enumerate(means):
        rng, labels = np.random.default_rng(index), np.arange(images) % 2
        weights = rng.dirichlet(np.array(mean) * precision, images)
        if real is not None:
            weights[labels == 0] = rng.dirichlet(np.array(real) * precision, images // 2)
        sets.append(make_scores(f"g{index}", "s", labels, np.full(images, 0.5), weights))
    return sets


def one_set(weights: NDArray, branches: NDArray | None = None, name: str = "g") -> Scores:
    """Return a set whose images are real and fake by turns."""
    labels = np.arange(len(weights)) % 2
    return make_scores(name, "s", labels, labels, weights, branches)


def test_a_significant_difference_too_small_to_matter_is_no_verdict() -> None:
    sets = of_means([(0.5, 0.3, 0.2), (0.51, 0.29, 0.2)], 2000, 2000)
    statistics = attention_statistics(sets, SCALES, resamples=50)
    assert statistics["between"]["overall"]["p"] < 0.001
    assert len(kinds := [v.kind for v in attention_verdicts(statistics)]) == 1
    assert kinds[0] in ("fixed", "one scale dominates")


def test_numbers_in_sentence_and_evidence() -> None:
    sets = sets_of(dirichlet(np.array([0.7, 0.2, 0.1]), 400), 400, 3, 2, 0)
    statistics = attention_statistics(sets, SCALES, resamples=200)
    (verdict,) = attention_verdicts(statistics)
    assert (verdict.kind, verdict.sentence) == (
        "one scale dominates",
        "scale 0.25x (coarse: coarse artifacts, common for GANs with progressive growing) "
        "dominates: mean weights 0.70 at 0.25x, 0.20 at 0.5x, 0.10 at 0.75x",
    )
    low = statistics["pooled"]["groups"]["all"]["scales"]["0.25"]["low"]
    weight, lead = verdict.to_dict()["evidence"]
    assert (weight["value"], weight["threshold"], weight["side"]) == (low, 0.5, ">=")
    assert lead["value"] == pytest.approx(0.5, abs=0.02) and lead["threshold"] == 0


@pytest.mark.parametrize(
    ("first", "others", "kinds"),
    [
        ((0.75, 0.15, 0.1), EVEN, ["uniform"]),
        ((0.48, 0.27, 0.25), EVEN, ["uniform"]),
        ((0.01, 0.02, 0.97), (0.97, 0.02, 0.01), ["collapsed"]),
        ((0.2, 0.2, 0.6), (0.45, 0.3, 0.25), []),
    ],
)
def test_one_generator_of_38_that_differs_is_named(
    first: tuple[float, ...], others: tuple[float, ...], kinds: list[str]
) -> None:
    verdicts = verdicts_of(of_means([first] + [others] * 37, 400))
    assert "farthest: g0" in verdicts["varies by generator"].sentence
    assert list(verdicts) == [*kinds, "varies by generator"]


def test_uniform_on_the_whole_and_different_by_generator() -> None:
    means = (0.42, 0.29, 0.29), (0.29, 0.42, 0.29), (0.29, 0.29, 0.42)
    verdicts = verdicts_of(of_means(means, 4000))
    assert list(verdicts) == ["uniform", "varies by generator"]
    sentence = verdicts["varies by generator"].sentence
    assert "0.25x leads for g0; 0.5x leads for g1; 0.75x leads for g2" in sentence


def test_real_images_are_the_control_of_a_difference_between_generators() -> None:
    means = [(0.6, 0.2, 0.2), (0.2, 0.2, 0.6)]

    def sentence_of(sets: list[Scores]) -> str:
        return verdicts_of(sets)["varies by generator"].sentence

    as_much = sentence_of(of_means(means, 20, 200))
    assert "real images differ as much" in as_much and "not the generators" in as_much
    alike = sentence_of(of_means(means, 20, 200, real=means[0]))
    assert alike.endswith("the sets' real images do not differ")
    less = of_means(means, 20, 400)
    for scored in less:
        scored.weights[scored.labels == 0] = 0.5 * scored.weights[scored.labels == 0] + 0.5 / 3
    assert "real images differ, too, but less" in sentence_of(less)
    fakes = [scored.take(scored.labels == 1) for scored in less]
    assert "real images" not in sentence_of(fakes)


@pytest.mark.parametrize("images", [1, 9])
def test_a_handful_of_images_gets_no_verdict(images: int) -> None:
    for mean in ((100, 100, 100), (95, 3, 2), (1, 1, 1)):
        weights = np.random.default_rng(0).dirichlet(mean, images)
        statistics = attention_statistics([one_set(weights)], SCALES)
        (verdict,) = attention_verdicts(statistics)
        assert verdict.kind == "too few images" and leanings(statistics)[0]["key"] is None
        assert verdict.sentence.startswith(f"{images} image{'s' * (images > 1)}:")


def test_intervals_are_read_at_their_cautious_end() -> None:
    """Shares and deviations that lie above the threshold, but not surely."""
    weights = np.tile([0.95, 0.03, 0.02], (40, 1))
    weights[:3] = (0.2, 0.5, 0.3)  # 92 % of the images are left
    assert list(verdicts_of([one_set(weights)]))[0] == "one scale dominates"
    assert list(verdicts_of([one_set(np.tile(weights, (50, 1)))]))[0] == "collapsed"
    varied = np.tile([0.45, 0.3, 0.25], (24, 1))
    varied[:3] += (0.4, -0.2, -0.2)
    statistics = attention_statistics([one_set(varied)], SCALES)
    spread = statistics["pooled"]["within_spread"]
    assert spread["low"] < 0.0943 < spread["value"] < spread["high"]
    (verdict,) = attention_verdicts(statistics)
    assert verdict.kind == "too few images" and "may be fixed or vary" in verdict.sentence


def test_where_each_generator_leans() -> None:
    means = [(0.6, 0.2, 0.2)] * 5 + [(0.2, 0.2, 0.6), EVEN]
    statistics = attention_statistics(of_means(means, 20, 200), SCALES, resamples=200)
    rows = leanings(statistics)
    assert [row["key"] for row in rows] == ["0.25"] * 5 + ["0.75", None]
    assert rows[5]["reading"] == "fine: fine artifacts of subtle up-sampling"
    sentences = {v.kind: v.sentence for v in attention_verdicts(statistics)}
    leading = "0.25x leads for g0, g1, g2 and 2 more; 0.75x leads for g5"
    assert leading in sentences["varies by generator"]
    roles = [reading(scale, (0.1, scale)).split(":")[0] for scale in (0.2, 0.375, 0.5, 0.625, 0.7)]
    assert roles == ["coarse", "middle", "middle", "middle", "fine"]


def test_repeated_scales_are_told_apart() -> None:
    sets = sets_of(dirichlet(np.array([0.01, 0.98, 0.01]), 1000), 100, 3, 1, 0)
    sentence = verdicts_of(sets, (0.5, 0.5, 0.5))["collapsed"].sentence
    assert "scale 0.5x #2 (one of 3 equal scales: it sees what the others see)" in sentence


def test_one_scale_or_one_image_of_each_class_says_nothing() -> None:
    with pytest.raises(ValueError, match="says nothing"):
        verdicts_of([one_set(np.ones((20, 1)))], (0.5,))
    apart = [one_set(np.array([[0.45, 0.3, 0.25]]), name=f"g{i}") for i in range(12)]
    verdict = verdicts_of(apart)["too few images"]
    assert "no generator has two images of a class" in verdict.sentence


@pytest.mark.parametrize(
    ("strengths", "images", "note"),
    [
        ((1, 1, 1), 2000, "uniform is right"),
        ((1, 0, 0), 2000, "yet taking scale 0.5x away"),
        # all are ranked perfectly, but they are few
        ((5, 5, 5), 200, None),
    ],
)
def test_uniform_is_right_where_the_scales_are_equally_good(
    strengths: tuple[float, ...], images: int, note: str | None
) -> None:
    rng, signs = np.random.default_rng(0), 2 * (np.arange(images) % 2) - 1
    branches = signs[:, None] * np.array(strengths) + rng.normal(0, 1, (images, 3))
    sets = [one_set(rng.dirichlet((200, 200, 200), images), branches)]
    sentence = verdicts_of(sets, controlled=True)["uniform"].sentence
    assert (note or "") in sentence and ("right" in sentence) == (note == "uniform is right")
    assert "right" not in verdicts_of(sets)["uniform"].sentence


def test_variation_that_is_worse_than_its_mean_harms() -> None:
    """A preference for the better branch helps; weights that vary around it without reason harm."""
    rng, labels = np.random.default_rng(1), np.arange(2000) % 2
    branches = rng.normal(0, 2, (2000, 3))
    branches[:, 0] = rng.normal(0, 1, 2000) + 3 * labels - 1.5
    sets = [one_set(rng.dirichlet((3.5, 1, 1), 2000), branches)]
    controls = attention_controls(sets, SCALES, 0, False, resamples=200)
    mean = next(c for c in controls["conditions"] if c["name"] == "mean")
    assert controls["attention"] == "helps" and controls["per_image"] == mean["matters"] == "harms"
    sentence = verdicts_of(sets, controlled=True)["varies by image"].sentence
    assert sentence.endswith("; that harms")


def test_shuffling_across_generators_tells_whether_their_differences_matter() -> None:
    """Each generator is told by one branch, to which its attention goes; around that it varies
    without use."""
    sets = []
    for index in range(3):
        rng, chosen = np.random.default_rng(index), np.arange(3) == index
        branches = rng.normal(0, 2, (600, 3)) + (4 * (np.arange(600) % 2) - 2)[:, None] * chosen
        sets.append(one_set(rng.dirichlet(np.where(chosen, 8, 1), 600), branches, f"g{index}"))
    verdicts = verdicts_of(sets, controlled=True)
    assert "; that helps;" in verdicts["varies by generator"].sentence
    assert "; that helps" not in verdicts["varies by image"].sentence
