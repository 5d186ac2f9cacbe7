"""Verdicts on attention whose nature is known, for several numbers of scales and images, over
several seeds."""

import json
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.attention.leanings import leanings, reading, scale_role
from evaluation.attention.statistics import attention_statistics
from evaluation.attention.verdict import KINDS, Evidence, Verdict, attention_verdicts
from evaluation.scores import Scores
from tests.helpers.attended_sets import (
    Weights,
    dirichlet,
    favouring,
    make_scores,
    scales_of,
    sets_of,
)


def kinds_of(weights: Weights, images: int, scales: int, generators: int, seed: int) -> list[str]:
    sets = sets_of(weights, images, scales, generators, seed)
    statistics = attention_statistics(sets, scales_of(scales), resamples=100, permutations=100)
    verdicts = attention_verdicts(statistics)
    assert all(evidence.holds for verdict in verdicts for evidence in verdict.evidence)
    assert [verdict.kind for verdict in verdicts] == sorted(
        (v.kind for v in verdicts), key=KINDS.index
    )
    json.dumps([verdict.to_dict() for verdict in verdicts], allow_nan=False)
    return [verdict.kind for verdict in verdicts]


QUICK = ((2, 2000, 1), (3, 20, 1), (3, 2000, 4), (4, 2000, 1), (8, 20, 4))
SIZES = list(product((2, 3, 4, 8), (20, 2000), (1, 4)))


@pytest.mark.parametrize(
    ("scales", "images", "generators"),
    [pytest.param(*size, marks=() if size in QUICK else pytest.mark.slow) for size in SIZES],
)
def test_attention_of_one_nature(scales: int, images: int, generators: int) -> None:
    even = np.full(scales, 1 / scales)
    surely_collapsed = (
        "collapsed" if images > 35 else "one scale dominates"
    )  # 20 do not tell that nearly all others are alike
    cases: dict[str, tuple[Weights, list[str]]] = {
        "exactly uniform": (
            lambda rng, g, labels, s: np.full((len(labels), s), 1 / s),
            ["uniform"],
        ),
        "nearly uniform": (dirichlet(even, 60 * scales), ["uniform"]),
        "collapsed": (dirichlet(favouring(scales - 1, scales, 0.97), 1000), [surely_collapsed]),
        "dominated": (dirichlet(favouring(1, scales, 0.75), 400), ["one scale dominates"]),
        "dominated, varying": (
            dirichlet(favouring(0, scales, 0.8), 3),
            ["one scale dominates", "varies by image"],
        ),
        "by image": (dirichlet(even, 1), ["varies by image"]),
        "fixed": (
            dirichlet(favouring(0, scales, 1 / scales + 0.17 * (1 - 1 / scales)), 400),
            ["fixed"],
        ),
    }
    for name, (weights, expected) in cases.items():
        seeds = 6 if images < 100 else 3
        found = [kinds_of(weights, images, scales, generators, seed) for seed in range(seeds)]
        # one in twenty, where the difference is large besides
        chance = {"varies by generator", "varies by class"}
        right = [[kind for kind in kinds if kind not in chance] == expected for kinds in found]
        unsure = name == "dominated, varying" and images < 100  # few images do not always tell
        assert sum(right) >= (2 if unsure else seeds), (name, found)
        assert sum(bool(chance & set(kinds)) for kinds in found) <= 2, (name, found)


@pytest.mark.parametrize("scales", (2, 3, 4, 8))
@pytest.mark.parametrize("images", (80, 2000))
@pytest.mark.parametrize("precise", (False, True))
def test_attention_that_depends_on_the_generator(scales: int, images: int, precise: bool) -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        mean = favouring(index % 2, count, 0.7)
        return rng.dirichlet(mean * (400 if precise else 3), len(labels))

    for seed in range(3):
        found = kinds_of(weights, images, scales, 4, seed)
        assert "varies by generator" in found and ("varies by image" in found) == (not precise)
        assert "uniform" not in found and "fixed" not in found


@pytest.mark.parametrize("scales", (2, 3, 4, 8))
@pytest.mark.parametrize("images", (20, 2000))
def test_attention_that_depends_on_real_or_generated_alone(scales: int, images: int) -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        means = np.stack([favouring(0, count, 0.7), favouring(1, count, 0.7)])
        return np.stack([rng.dirichlet(mean * 200) for mean in means[labels]])

    for generators in (1, 2):
        found = [kinds_of(weights, images, scales, generators, seed) for seed in range(3)]
        assert all(kinds == ["varies by class"] for kinds in found), found


@pytest.mark.slow
def test_false_alarms_of_generators_and_classes_stay_rare() -> None:
    """Attention that varies by image only: what chance does to the tests comes in one of twenty,
    and is large enough less often."""
    p_values, alarms = [], 0
    for seed in range(150):
        sets = sets_of(dirichlet(np.full(3, 1 / 3), 3), 120, 3, 3, seed)
        found = attention_statistics(sets, scales_of(3), resamples=0, permutations=99)
        p_values += [found["between"]["overall"]["p"], found["classes"]["p"]]
        alarms += len(
            {"varies by generator", "varies by class"} & {v.kind for v in attention_verdicts(found)}
        )
    rejected = int((np.array(p_values) < 0.05).sum())
    assert binomtest(rejected, len(p_values), 0.05).pvalue > 0.001
    assert alarms <= rejected


def test_a_significant_difference_too_small_to_matter_is_no_verdict() -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        return rng.dirichlet(
            np.array([0.5 + 0.01 * index, 0.3 - 0.01 * index, 0.2]) * 2000, len(labels)
        )

    sets = sets_of(weights, 4000, 3, 2, 0)
    found = attention_statistics(sets, scales_of(3), resamples=50)
    assert found["between"]["overall"]["p"] < 0.001
    assert [verdict.kind for verdict in attention_verdicts(found)] in (
        ["fixed"],
        ["one scale dominates"],
    )


def test_numbers_in_the_sentence_and_flags_that_exist() -> None:
    sets = sets_of(dirichlet(np.array([0.7, 0.2, 0.1]), 400), 400, 3, 2, 0)
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=200)
    (verdict,) = attention_verdicts(statistics)
    assert verdict.kind == "one scale dominates"
    assert verdict.sentence == (
        "scale 0.25x dominates (coarse, the coarsest of 3: coarse artifacts, common for GANs with progressive growing): "
        "mean weights 0.70 at 0.25x, 0.20 at 0.5x, 0.10 at 0.75x"
    )
    evidence, lead = verdict.evidence
    assert lead.value == pytest.approx(0.5, abs=0.02)
    assert (
        evidence.threshold == 0.5
        and evidence.value == statistics["pooled"]["groups"]["all"]["scales"]["0.25"]["low"]
    )
    assert verdict.to_dict()["advice"] == [
        {"flags": "--npr_scales 0.5,0.5,0.5", "why": verdict.advice[0][1]}
    ]


def of_means(
    means: list[tuple[float, ...]], precision: float, images: int = 60, real: int | None = None
) -> list[Scores]:
    """Generators whose images all have these mean weights, or whose real images have those of
    generator `real`."""
    sets = []
    for index, mean in enumerate(means):
        rng, labels = np.random.default_rng(index), np.arange(images) % 2
        weights = rng.dirichlet(np.array(mean) * precision, images)
        if real is not None:
            weights[labels == 0] = rng.dirichlet(np.array(means[real]) * precision, images // 2)
        sets.append(make_scores(f"g{index}", "s", labels, np.full(images, 0.5), weights))
    return sets


def verdicts_of(sets: list[Scores], **more: int) -> dict[str, Verdict]:
    statistics = attention_statistics(
        sets, (0.25, 0.5, 0.75), **{"resamples": 50, "permutations": 200} | more
    )
    return {verdict.kind: verdict for verdict in attention_verdicts(statistics)}


EVEN = (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize(
    ("one", "others", "count", "kind"),
    [
        ((0.75, 0.15, 0.1), EVEN, 37, "uniform"),
        ((0.01, 0.02, 0.97), (0.97, 0.02, 0.01), 37, "collapsed"),
        ((0.2, 0.2, 0.6), (0.45, 0.3, 0.25), 37, None),
        ((0.48, 0.27, 0.25), EVEN, 37, "uniform"),
    ],
)
def test_one_generator_of_38_that_differs_is_named(
    one: tuple[float, ...], others: tuple[float, ...], count: int, kind: str | None
) -> None:
    found = verdicts_of(of_means([one] + [others] * count, 400))
    assert "farthest from the rest: g0" in found["varies by generator"].sentence
    assert "fixed" not in found and (kind is None or kind in found)
    assert list(found) == ([kind] if kind else []) + ["varies by generator"]


def test_38_alike_generators_do_not_differ() -> None:
    for precision, kind in ((400, "uniform"), (3, "varies by image")):
        found = verdicts_of(of_means([EVEN] * 38, precision))
        assert list(found) == [kind]


def test_uniform_on_the_whole_and_different_by_generator() -> None:
    found = verdicts_of(
        of_means([(0.42, 0.29, 0.29), (0.29, 0.42, 0.29), (0.29, 0.29, 0.42)], 4000)
    )
    assert list(found) == ["uniform", "varies by generator"]
    assert (
        "0.25x leads for g0; 0.5x leads for g1; 0.75x leads for g2"
        in found["varies by generator"].sentence
    )


def test_real_images_are_the_control_of_a_difference_between_generators() -> None:
    means = [(0.6, 0.2, 0.2), (0.2, 0.2, 0.6)]
    as_much = verdicts_of(of_means(means, 20, 200))["varies by generator"].sentence
    assert "real images differ as much" in as_much and "not the generators" in as_much
    alike = verdicts_of(of_means(means, 20, 200, real=0))["varies by generator"].sentence
    assert alike.endswith("the sets' real images do not differ")
    less = of_means(means, 20, 400)
    for one in less:
        one.attention[one.labels == 0] = 0.5 * one.attention[one.labels == 0] + 0.5 / 3
    assert "real images differ, too, but less" in verdicts_of(less)["varies by generator"].sentence
    fakes = [one.take(one.labels == 1) for one in less]
    assert "real images" not in verdicts_of(fakes)["varies by generator"].sentence


def test_a_class_that_goes_with_the_generator_is_not_taken_for_the_class() -> None:
    """A has 180 real and 20 generated images, B the other way round, and their attention differs
    (Simpson)."""
    rng = np.random.default_rng(0)
    sets = [
        make_scores(
            name,
            "s",
            np.repeat([0, 1], (real, 200 - real)),
            np.full(200, 0.5),
            rng.dirichlet(mean, 200),
        )
        for name, real, mean in (("A", 180, (30, 10, 10)), ("B", 20, (10, 10, 30)))
    ]
    found = verdicts_of(sets)
    assert "varies by generator" in found and "varies by class" not in found


@pytest.mark.parametrize("images", [1, 2, 9])
def test_a_handful_of_images_gets_no_verdict(images: int) -> None:
    rng, labels = np.random.default_rng(0), np.ones(images, dtype=int)
    for weights in (
        np.full((images, 3), 1 / 3),
        np.tile([0.95, 0.03, 0.02], (images, 1)),
        rng.dirichlet((1, 1, 1), images),
    ):
        one = make_scores("g", "s", labels, labels, weights)
        statistics = attention_statistics([one], scales_of(3))
        (verdict,) = attention_verdicts(statistics)
        assert verdict.kind == "too few images" and verdict.sentence.startswith(
            f"{images} image{'s' * (images > 1)}:"
        )
        assert leanings(statistics)[0]["key"] is None


def test_intervals_are_read_at_their_cautious_end() -> None:
    """Shares and deviations that lie above the threshold, but not surely."""
    weights = np.tile([0.95, 0.03, 0.02], (40, 1))
    weights[:3] = (0.2, 0.5, 0.3)
    labels = np.arange(40) % 2
    found = verdicts_of([make_scores("g", "s", labels, labels, weights)])  # 92 % of the images
    assert "collapsed" not in found and "one scale dominates" in found
    assert "collapsed" in verdicts_of(
        [make_scores("g", "s", np.tile(labels, 50), np.tile(labels, 50), np.tile(weights, (50, 1)))]
    )
    varied = np.tile([0.45, 0.3, 0.25], (24, 1))
    varied[:3] += (0.4, -0.2, -0.2)
    labels = np.arange(24) % 2
    one = make_scores("g", "s", labels, labels, varied)
    spread = attention_statistics([one], (0.25, 0.5, 0.75))["pooled"]["within_spread"]
    assert spread["low"] < 0.0943 < spread["value"] < spread["high"]
    found = verdicts_of([one])
    assert (
        list(found) == ["too few images"]
        and "may be fixed or vary" in found["too few images"].sentence
    )


def test_who_leans_where() -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        mean = [favouring(0, 3, 0.6), favouring(2, 3, 0.6), np.full(3, 1 / 3)][min(index, 2)]
        return rng.dirichlet(mean * 20, len(labels))

    statistics = attention_statistics(
        sets_of(weights, 600, 3, 3, 0), (0.25, 0.5, 0.75), resamples=200
    )
    found = leanings(statistics)
    assert [(one["generator"], one["key"]) for one in found] == [
        ("g0", "0.25"),
        ("g1", "0.75"),
        ("g2", None),
    ]
    assert found[1]["reading"] == "fine, the finest of 3: fine artifacts of subtle up-sampling"
    (sentence,) = (
        v.sentence for v in attention_verdicts(statistics) if v.kind == "varies by generator"
    )
    assert "0.25x leads for g0; 0.75x leads for g1" in sentence and "pairs apart" in sentence


def test_roles_of_scales() -> None:
    assert [scale_role(scale, (0.25, 0.5, 0.75)) for scale in (0.25, 0.5, 0.75)] == [
        "coarse, the coarsest of 3", "middle", "fine, the finest of 3",
    ]  # fmt: skip
    assert (
        scale_role(0.3, (0.1, 0.2, 0.3)) == "coarse, the finest of 3"
        and scale_role(0.2, (0.1, 0.2, 0.3)) == "coarse"
    )
    assert (
        scale_role(0.5, (0.5, 0.75)) == "middle, the coarsest of 2"
        and scale_role(0.625, (0.625,)) == "middle"
    )
    assert reading(0.5, (0.5, 0.5, 0.5)) == "one of 3 equal scales: it sees what the others see"


def test_one_scale_and_too_few_images() -> None:
    single = sets_of(lambda rng, g, labels, s: np.ones((len(labels), 1)), 20, 1, 1, 0)
    with pytest.raises(ValueError, match="says nothing"):
        attention_verdicts(attention_statistics(single, (0.5,), resamples=10, permutations=10))
    labels = np.ones(1, dtype=int)
    apart = [
        make_scores(f"g{i}", "s", labels, labels, np.array([[0.45, 0.3, 0.25]])) for i in range(12)
    ]
    (verdict,) = attention_verdicts(attention_statistics(apart, scales_of(3)))
    assert (
        verdict.kind == "too few images"
        and "no generator has two images of a class" in verdict.sentence
    )
    assert not Evidence("x", None, 0.5, ">=").holds and Evidence("x", 1.0).holds
