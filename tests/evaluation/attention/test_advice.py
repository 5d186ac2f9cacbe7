"""What is advised and said to matter: flags that exist, and controls that are read for what they
replace."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.attention.controls import attention_controls
from evaluation.attention.statistics import attention_statistics
from evaluation.attention.verdict import attention_verdicts
from networks.npr import scale_keys, scale_label
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions
from tests.helpers.attended_sets import dirichlet, make_scores, sets_of


def parsed(flags: str, dataroot: Path) -> object:
    """What the flags set, with the options of the script that they are for."""
    script, *rest = (
        flags.split()
        if flags.startswith("visualize_attention.py")
        else ("train.py", *flags.split())
    )
    flag, *value = rest
    given = ["--dataroot", str(dataroot), flag, *value]
    if script == "train.py":
        assert value, f"{flag} without a value"
        options: object = TrainOptions().parse(["--model_type", "multiscale_attention", *given])
    else:
        options = VisualizeOptions().parse([*given, "--model_path", "a.pth"])
    return getattr(options, flag.removeprefix("--"))


def test_advice_is_of_flags_that_exist_and_never_to_reward_entropy(dataroot: Path) -> None:
    for weights in (np.full(3, 1 / 3), np.array([0.98, 0.01, 0.01]), np.array([0.45, 0.3, 0.25])):
        for scales in ((0.25, 0.5, 0.75), (0.5, 0.5, 0.5), (0.5, 0.25, 0.5)):
            sets = sets_of(dirichlet(weights, 3000), 100, 3, 1, 0)
            (verdict,) = attention_verdicts(attention_statistics(sets, scales, resamples=50))
            assert verdict.advice
            for flags, _ in verdict.advice:
                assert "entropy" not in flags
                assert parsed(flags, dataroot)


def test_the_advice_for_uniform_attention_is_the_guides_and_says_what_was_measured() -> None:
    statistics = attention_statistics(
        sets_of(dirichlet(np.full(3, 1 / 3), 3000), 100, 3, 1, 0), (0.25, 0.5, 0.75)
    )
    (verdict,) = attention_verdicts(statistics)
    flags = [flags.split()[0 if flags.startswith("--") else 1] for flags, _ in verdict.advice]
    assert flags == ["--attention_diversity_weight", "--feature_dim", "--attention_reduction", "--niter", "--seed", "--init_type",
                     "--save_npr_maps", "--npr_scales"]  # fmt: skip
    assert "2.3 points below" in verdict.advice[0][1] and "[-5.3, +0.7]" in verdict.advice[0][1]


def test_repeated_scales_have_labels_in_words_and_values_in_flags() -> None:
    sets = sets_of(dirichlet(np.array([0.01, 0.98, 0.01]), 1000), 100, 3, 1, 0)
    (verdict,) = attention_verdicts(attention_statistics(sets, (0.5, 0.5, 0.5), resamples=50))
    assert (
        verdict.kind == "collapsed" and "scale 0.5x #2 (one of 3 equal scales" in verdict.sentence
    )
    assert [flags for flags, _ in verdict.advice if "npr_scales" in flags] == [
        "--npr_scales 0.5"
    ]  # not the control: it is one
    (verdict,) = attention_verdicts(attention_statistics(sets, (0.5, 1 / 3, 0.5), resamples=50))
    flags = [flags for flags, _ in verdict.advice if "npr_scales" in flags]
    assert flags == ["--npr_scales 0.3333333333333333", "--npr_scales 0.5,0.5,0.5"]


def test_keys_of_scales_are_distinct_and_their_labels_those_of_pictures() -> None:
    assert scale_keys((1 / 3, 2 / 3, 1 / 3)) == ["0.333333", "0.666667", "0.333333_2"]
    assert scale_keys((1 / 3, 0.33333333, 1 / 3)) == [
        "0.3333333333333333",
        "0.33333333",
        "0.3333333333333333_2",
    ]
    pytest.importorskip("matplotlib")
    from reports.plots.style import scale_labels

    for scales in ((0.25, 0.5, 0.75), (0.5, 0.5, 0.25, 0.5)):
        assert list(map(scale_label, scale_keys(scales))) == scale_labels(scales)


def scored(branches: Callable[[np.random.Generator, NDArray], NDArray]) -> tuple[dict, dict]:
    """Statistics and controls of nearly uniform attention over branches that say this."""
    sets = []
    for one in sets_of(dirichlet(np.full(3, 1 / 3), 600), 1200, 3, 2, 0):
        rng = np.random.default_rng(1)
        said = branches(rng, one.labels)
        sets.append(
            make_scores(one.generator, one.suite, one.labels, one.scores, one.attention, said)
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
    assert [flags.split()[0] for flags, _ in right.advice] == [
        "visualize_attention.py",
        "--npr_scales",
    ]
    (wrong,) = attention_verdicts(*scored(one_good))
    assert "yet" in wrong.sentence and wrong.advice[0][0] == "--attention_diversity_weight 0.1"
    (unknown,) = attention_verdicts(scored(equal)[0])
    assert len(unknown.advice) == 8 and "right" not in unknown.sentence


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


def test_controls_say_what_variation_and_dominance_are_worth() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 2
    branches = rng.normal(0, 1, (800, 3))
    branches[:, 0] += 4 * labels - 2
    weights = rng.dirichlet((6, 1, 1), 800)
    one = make_scores("g", "s", labels, labels, weights, branches)
    statistics = attention_statistics([one], (0.25, 0.5, 0.75), resamples=100)
    controls = attention_controls([one], (0.25, 0.5, 0.75), 0, False, resamples=200)
    dominated, varying = attention_verdicts(statistics, controls)
    assert dominated.advice[0][0] == "--npr_scales 0.25"
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
