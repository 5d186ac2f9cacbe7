"""Verdicts on attention whose nature is known, for several numbers of scales and images, over
several seeds."""

import json
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.attention.controls import attention_controls
from evaluation.attention.groups import leanings, reading
from evaluation.attention.kinds import KINDS, Evidence, Verdict
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


def test_numbers_in_the_sentence() -> None:
    sets = sets_of(dirichlet(np.array([0.7, 0.2, 0.1]), 400), 400, 3, 2, 0)
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=200)
    (verdict,) = attention_verdicts(statistics)
    assert verdict.kind == "one scale dominates"
    assert verdict.sentence == (
        "scale 0.25x (coarse: coarse artifacts, common for GANs with progressive growing) dominates: "
        "mean weights 0.70 at 0.25x, 0.20 at 0.5x, 0.10 at 0.75x"
    )
    evidence, lead = verdict.evidence
    assert lead.value == pytest.approx(0.5, abs=0.02)
    assert (
        evidence.threshold == 0.5
        and evidence.value == statistics["pooled"]["groups"]["all"]["scales"]["0.25"]["low"]
    )
    assert verdict.to_dict()["evidence"][1] == {
        "name": lead.name,
        "value": lead.value,
        "threshold": 0.0,
        "side": ">=",
    }


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
    found = verdicts_of(of_means([one] + [others] * count, 400), permutations=999)
    assert "farthest: g0" in found["varies by generator"].sentence
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
        one.weights[one.labels == 0] = 0.5 * one.weights[one.labels == 0] + 0.5 / 3
    assert "real images differ, too, but less" in verdicts_of(less)["varies by generator"].sentence
    fakes = [make_scores(one.generator, "s", one.labels[one.labels == 1], one.scores[one.labels == 1], one.weights[one.labels == 1])
             for one in less]  # fmt: skip
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
    assert found[1]["reading"] == "fine: fine artifacts of subtle up-sampling"
    (sentence,) = (
        v.sentence for v in attention_verdicts(statistics) if v.kind == "varies by generator"
    )
    assert (
        "0.25x leads for g0; 0.75x leads for g1" in sentence
        and "3 of 3 apart from the rest" in sentence
    )


def test_readings_of_scales() -> None:
    roles = [reading(scale, (0.1, scale)).split(":")[0] for scale in (0.2, 0.375, 0.5, 0.625, 0.7)]
    assert roles == ["coarse", "middle", "middle", "middle", "fine"]
    assert reading(0.5, (0.5, 0.5, 0.5)) == "one of 3 equal scales: it sees what the others see"
    sets = sets_of(dirichlet(np.array([0.01, 0.98, 0.01]), 1000), 100, 3, 1, 0)
    (verdict,) = attention_verdicts(attention_statistics(sets, (0.5, 0.5, 0.5), resamples=50))
    assert verdict.kind == "collapsed"
    assert "scale 0.5x #2 (one of 3 equal scales" in verdict.sentence


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


@pytest.mark.parametrize(("side", "expected"), [(">=", [False, True]), ("<", [True, False])])
def test_evidence_holds_on_its_side(side: str, expected: list[bool]) -> None:
    assert [Evidence("x", value, 0.5, side).holds for value in (0.49, 0.5)] == expected


def scored(branches: Callable[[np.random.Generator, NDArray], NDArray]) -> tuple[dict, dict]:
    """Statistics and controls of nearly uniform attention over branches that say this."""
    sets = []
    for one in sets_of(dirichlet(np.full(3, 1 / 3), 600), 1200, 3, 2, 0):
        rng = np.random.default_rng(1)
        said = branches(rng, one.labels)
        sets.append(
            make_scores(one.generator, one.suite, one.labels, one.scores, one.weights, said)
        )
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50)
    return statistics, attention_controls(sets, (0.25, 0.5, 0.75), 0, False, resamples=200)


def test_uniform_is_right_where_the_scales_are_equally_good_and_wrong_where_one_is_better() -> None:
    def equal(rng: np.random.Generator, labels: NDArray) -> NDArray:
        return 2 * labels[:, None] - 1 + rng.normal(0, 1, (len(labels), 3))

    def one_good(rng: np.random.Generator, labels: NDArray) -> NDArray:
        return (2 * labels[:, None] - 1) * np.array([1, 0, 0]) + rng.normal(0, 1, (len(labels), 3))

    (right,) = attention_verdicts(*scored(equal))
    assert right.kind == "uniform" and right.sentence.endswith("uniform is right")
    (wrong,) = attention_verdicts(*scored(one_good))
    assert "yet taking scale 0.5x away" in wrong.sentence
    (unknown,) = attention_verdicts(scored(equal)[0])
    assert unknown.kind == "uniform" and "right" not in unknown.sentence


def test_uniform_is_not_called_right_by_a_few_perfectly_ranked_images() -> None:
    rng = np.random.default_rng(0)
    for images in (12, 38, 200):
        labels = np.arange(images) % 2
        branches = 10 * labels[:, None] - 5 + rng.normal(0, 1, (images, 3))
        one = make_scores(
            "g", "s", labels, labels, rng.dirichlet((300, 300, 300), images), branches
        )
        statistics = attention_statistics([one], (0.25, 0.5, 0.75), resamples=50)
        controls = attention_controls([one], (0.25, 0.5, 0.75), 0, False, resamples=200)
        verdicts = attention_verdicts(statistics, controls)
        assert verdicts[0].kind == "uniform" and "right" not in verdicts[0].sentence


def test_controls_say_what_variation_is_worth() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 2
    branches = rng.normal(0, 1, (800, 3))
    branches[:, 0] += 4 * labels - 2
    weights = rng.dirichlet((6, 1, 1), 800)
    one = make_scores("g", "s", labels, labels, weights, branches)
    statistics = attention_statistics([one], (0.25, 0.5, 0.75), resamples=100)
    controls = attention_controls([one], (0.25, 0.5, 0.75), 0, False, resamples=200)
    dominated, varying = attention_verdicts(statistics, controls)
    assert dominated.kind == "one scale dominates"
    assert varying.kind == "varies by image" and "; that " in varying.sentence


def test_variation_that_is_worse_than_its_mean_is_not_said_to_help() -> None:
    """A preference for the better branch helps; weights that vary around it without reason harm."""
    rng, labels = np.random.default_rng(1), np.arange(2000) % 2
    branches = rng.normal(0, 2, (2000, 3))
    branches[:, 0] = rng.normal(0, 1, 2000) + 3 * labels - 1.5
    one = make_scores("g", "s", labels, labels, rng.dirichlet((3.5, 1, 1), 2000), branches)
    statistics = attention_statistics([one], (0.25, 0.5, 0.75), resamples=100)
    controls = attention_controls([one], (0.25, 0.5, 0.75), 0, False, resamples=200)
    assert controls["attention"] == "helps"
    verdicts = {verdict.kind: verdict for verdict in attention_verdicts(statistics, controls)}
    assert verdicts["varies by image"].sentence.endswith("; that harms")


def test_variation_by_generator_is_judged_by_shuffling_across_generators() -> None:
    """Each generator is told by one branch, to which its attention goes; around that it varies
    without use."""
    sets = []
    for index in range(3):
        rng, labels = np.random.default_rng(index), np.arange(600) % 2
        branches = rng.normal(0, 2, (600, 3))
        branches[:, index] += 4 * labels - 2
        weights = rng.dirichlet(np.where(np.arange(3) == index, 8, 1), 600)
        sets.append(make_scores(f"g{index}", "s", labels, labels, weights, branches))
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=100)
    controls = attention_controls(sets, (0.25, 0.5, 0.75), 0, False, resamples=200)
    found = {verdict.kind: verdict.sentence for verdict in attention_verdicts(statistics, controls)}
    assert (
        "; that helps;" in found["varies by generator"]
        and "; that helps" not in found["varies by image"]
    )
