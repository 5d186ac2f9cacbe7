"""Verdicts on attention whose nature is known, for several numbers of scales and images, over several seeds."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.attention_controls import attention_controls
from evaluation.attention_leanings import leanings, reading, scale_role
from evaluation.attention_statistics import Attended, attention_statistics
from evaluation.attention_verdict import KINDS, Evidence, attention_verdicts
from options.train_options import TrainOptions

Weights = Callable[[np.random.Generator, int, NDArray, int], NDArray]
"""(random numbers, generator, labels, S) -> [N, S]"""


def scales_of(count: int) -> tuple[float, ...]:
    return tuple((np.arange(count) + 1) / (count + 1))


def sets_of(weights: Weights, images: int, scales: int, generators: int, seed: int) -> list[Attended]:
    """`images` images in all, half of them generated."""
    sets = []
    for index in range(generators):
        rng = np.random.default_rng([seed, index])
        labels = np.arange(images // generators) % 2
        scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0, 1)
        sets.append(Attended(f"g{index}", "s", labels, scores, weights(rng, index, labels, scales)))
    return sets


def kinds_of(weights: Weights, images: int, scales: int, generators: int, seed: int) -> list[str]:
    sets = sets_of(weights, images, scales, generators, seed)
    statistics = attention_statistics(sets, scales_of(scales), resamples=100, permutations=100)
    verdicts = attention_verdicts(statistics)
    assert all(evidence.holds for verdict in verdicts for evidence in verdict.evidence)
    assert [verdict.kind for verdict in verdicts] == sorted((v.kind for v in verdicts), key=KINDS.index)
    json.dumps([verdict.to_dict() for verdict in verdicts], allow_nan=False)
    return [verdict.kind for verdict in verdicts]


def dirichlet(mean: NDArray, precision: float) -> Weights:
    return lambda rng, _, labels, scales: rng.dirichlet(np.maximum(mean, 1e-3) * precision, len(labels))


def favouring(scale: int, scales: int, weight: float) -> NDArray:
    """Mean weights of which one is `weight`."""
    return np.where(np.arange(scales) == scale, weight, (1 - weight) / (scales - 1))


SIZES = [(count, images) for count in (2, 3, 4, 8) for images in (20, 2000)]


@pytest.mark.parametrize(("scales", "images"), SIZES)
@pytest.mark.parametrize("generators", [1, 4])
def test_attention_of_one_nature(scales: int, images: int, generators: int) -> None:
    even = np.full(scales, 1 / scales)
    cases: dict[str, tuple[Weights, list[str]]] = {
        "exactly uniform": (lambda rng, g, labels, s: np.full((len(labels), s), 1 / s), ["uniform"]),
        "nearly uniform": (dirichlet(even, 60 * scales), ["uniform"]),
        "collapsed": (dirichlet(favouring(scales - 1, scales, 0.97), 1000), ["collapsed"]),
        "dominated": (dirichlet(favouring(1, scales, 0.75), 400), ["one scale dominates"]),
        "dominated, varying": (dirichlet(favouring(0, scales, 0.8), 3), ["one scale dominates", "varies by image"]),
        "by image": (dirichlet(even, 1), ["varies by image"]),
        "fixed": (dirichlet(favouring(0, scales, 1 / scales + 0.17 * (1 - 1 / scales)), 400), ["fixed"]),
    }
    for name, (weights, expected) in cases.items():
        seeds = 6 if images < 100 else 3
        found = [kinds_of(weights, images, scales, generators, seed) for seed in range(seeds)]
        chance = {"varies by generator", "varies by class"}  # one in twenty, where the difference is large besides
        right = [[kind for kind in kinds if kind not in chance] == expected for kinds in found]
        assert sum(right) >= (seeds if name != "dominated, varying" or images > 100 else 4), (name, found)
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


def test_false_alarms_of_generators_and_classes_stay_rare() -> None:
    """Attention that varies by image only: what chance does to the tests comes in one of twenty, and is large enough less often."""
    p_values, alarms = [], 0
    for seed in range(200):
        sets = sets_of(dirichlet(np.full(3, 1 / 3), 3), 120, 3, 3, seed)
        found = attention_statistics(sets, scales_of(3), resamples=0, permutations=200)
        p_values += [found["between"]["overall"]["p"], found["classes"]["p"]]
        alarms += len({"varies by generator", "varies by class"} & {v.kind for v in attention_verdicts(found)})
    rejected = int((np.array(p_values) < 0.05).sum())
    assert binomtest(rejected, len(p_values), 0.05).pvalue > 0.001
    assert alarms <= rejected


def test_a_significant_difference_too_small_to_matter_is_no_verdict() -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        return rng.dirichlet(np.array([0.5 + 0.01 * index, 0.3 - 0.01 * index, 0.2]) * 2000, len(labels))

    sets = sets_of(weights, 4000, 3, 2, 0)
    found = attention_statistics(sets, scales_of(3), resamples=50)
    assert found["between"]["overall"]["p"] < 0.001
    assert [verdict.kind for verdict in attention_verdicts(found)] in (["fixed"], ["one scale dominates"])


def test_numbers_in_the_sentence_and_flags_that_exist() -> None:
    sets = sets_of(dirichlet(np.array([0.7, 0.2, 0.1]), 400), 400, 3, 2, 0)
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=200)
    (verdict,) = attention_verdicts(statistics)
    assert verdict.kind == "one scale dominates"
    assert verdict.sentence == (
        "scale 0.25 dominates (coarse, the coarsest of 3: coarse artifacts, common for GANs with progressive growing): "
        "mean weights 0.70 at 0.25, 0.20 at 0.5, 0.10 at 0.75"
    )
    evidence, lead = verdict.evidence
    assert lead.value == pytest.approx(0.5, abs=0.02)
    assert (
        evidence.threshold == 0.5 and evidence.value == statistics["pooled"]["groups"]["all"]["scales"]["0.25"]["low"]
    )
    assert verdict.to_dict()["advice"] == [{"flags": "--npr_scales 0.5,0.5,0.5", "why": verdict.advice[0][1]}]


def test_advice_is_of_flags_that_exist_and_never_to_reward_entropy(dataroot: Path) -> None:
    for weights in (np.full(3, 1 / 3), np.array([0.98, 0.01, 0.01]), np.array([0.45, 0.3, 0.25])):
        sets = sets_of(dirichlet(weights, 3000), 100, 3, 1, 0)
        (verdict,) = attention_verdicts(attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50))
        assert verdict.advice
        for flags, _ in verdict.advice:
            assert "entropy" not in flags
            flag, *value = flags.split()
            argv = ["--model_type", "multiscale_attention", "--dataroot", str(dataroot), flag, *(value or ["9"])]
            assert getattr(TrainOptions().parse(argv), flag.removeprefix("--"))


def scored(branches: Callable[[np.random.Generator, NDArray], NDArray]) -> tuple[dict, dict]:
    """Statistics and controls of nearly uniform attention over branches that say this."""
    sets = []
    for one in sets_of(dirichlet(np.full(3, 1 / 3), 600), 1200, 3, 2, 0):
        rng = np.random.default_rng(1)
        said = branches(rng, one.labels)
        sets.append(Attended(one.name, one.family, one.labels, one.scores, one.weights, said))
    statistics = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50)
    return statistics, attention_controls(sets, (0.25, 0.5, 0.75), 0, False, resamples=200)


def test_uniform_is_right_where_the_scales_are_equally_good_and_wrong_where_one_is_better() -> None:
    def equal(rng: np.random.Generator, labels: NDArray) -> NDArray:
        return 2 * labels[:, None] - 1 + rng.normal(0, 1, (len(labels), 3))

    def one_good(rng: np.random.Generator, labels: NDArray) -> NDArray:
        return (2 * labels[:, None] - 1) * np.array([1, 0, 0]) + rng.normal(0, 1, (len(labels), 3))

    (right,) = attention_verdicts(*scored(equal))
    assert right.kind == "uniform" and right.sentence.endswith("uniform is right") and len(right.advice) == 1
    (wrong,) = attention_verdicts(*scored(one_good))
    assert "yet" in wrong.sentence and wrong.advice[0][0] == "--attention_diversity_weight 0.1"
    (unknown,) = attention_verdicts(scored(equal)[0])
    assert len(unknown.advice) == 5 and "right" not in unknown.sentence


def test_controls_say_what_variation_and_dominance_are_worth() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 2
    branches = rng.normal(0, 1, (800, 3))
    branches[:, 0] += 4 * labels - 2
    weights = rng.dirichlet((6, 1, 1), 800)
    one = Attended("g", "s", labels, labels, weights, branches)
    statistics = attention_statistics([one], (0.25, 0.5, 0.75), resamples=100)
    controls = attention_controls([one], (0.25, 0.5, 0.75), 0, False, resamples=200)
    dominated, varying = attention_verdicts(statistics, controls)
    assert dominated.advice[0][0] == "--npr_scales 0.25"
    assert varying.kind == "varies by image" and "; that " in varying.sentence


def test_who_leans_where() -> None:
    def weights(rng: np.random.Generator, index: int, labels: NDArray, count: int) -> NDArray:
        mean = [favouring(0, 3, 0.6), favouring(2, 3, 0.6), np.full(3, 1 / 3)][min(index, 2)]
        return rng.dirichlet(mean * 20, len(labels))

    statistics = attention_statistics(sets_of(weights, 600, 3, 3, 0), (0.25, 0.5, 0.75), resamples=200)
    found = leanings(statistics)
    assert [(one["generator"], one["key"]) for one in found] == [("g0", "0.25"), ("g1", "0.75"), ("g2", None)]
    assert found[1]["reading"] == "fine, the finest of 3: fine artifacts of subtle up-sampling"
    (sentence,) = (v.sentence for v in attention_verdicts(statistics) if v.kind == "varies by generator")
    assert "0.25 leads for g0; 0.75 leads for g1" in sentence and "pairs apart" in sentence


def test_roles_of_scales() -> None:
    assert [scale_role(scale, (0.25, 0.5, 0.75)) for scale in (0.25, 0.5, 0.75)] == [
        "coarse, the coarsest of 3", "middle", "fine, the finest of 3",
    ]  # fmt: skip
    assert (
        scale_role(0.3, (0.1, 0.2, 0.3)) == "coarse, the finest of 3" and scale_role(0.2, (0.1, 0.2, 0.3)) == "coarse"
    )
    assert scale_role(0.5, (0.5, 0.75)) == "middle, the coarsest of 2" and scale_role(0.625, (0.625,)) == "middle"
    assert reading(0.5, (0.5, 0.5, 0.5)) == "one of 3 equal scales: it sees what the others see"


def test_one_scale_and_too_few_images() -> None:
    single = sets_of(lambda rng, g, labels, s: np.ones((len(labels), 1)), 20, 1, 1, 0)
    with pytest.raises(ValueError, match="says nothing"):
        attention_verdicts(attention_statistics(single, (0.5,), resamples=10, permutations=10))
    one = Attended("g", "s", np.array([1]), np.array([0.5]), np.array([[0.45, 0.3, 0.25]]))
    (verdict,) = attention_verdicts(attention_statistics([one], scales_of(3)))
    assert verdict.kind == "too few images" and "1 images" not in verdict.sentence
    assert not Evidence("x", None, 0.5, ">=").holds and Evidence("x", 1.0).holds
