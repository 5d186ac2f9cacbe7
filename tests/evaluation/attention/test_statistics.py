"""Statistics of attention against scipy, and numbers worked by hand."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, entropy, kstest, linregress, rankdata, spearmanr
from scipy.stats import bootstrap as scipy_bootstrap

from evaluation.attention.groups import group_statistics
from evaluation.attention.images import typical_and_surprising
from evaluation.attention.statistics import attention_statistics, correlation
from evaluation.scores import Scores, first_of_each, images_once, sharing
from tests.helpers.attended_sets import make_scores

SCALES = (0.25, 0.5, 0.75)
KEYS = ["0.25", "0.5", "0.75"]


def attended(
    name: str, seed: int, n: int = 40, alpha: tuple[float, ...] = (1, 1, 1), shared: bool = False
) -> Scores:
    """Return a set of n images, whose real ones other sets have, too, if they are `shared`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.3), 0, 1)
    paths = tuple(f"{name if label else 'real'}{row}" for row, label in enumerate(labels))
    weights = rng.dirichlet(alpha, n)
    return make_scores(name, "suite", labels, scores, weights, paths=paths if shared else None)


def statistics_of(sets: list[Scores], resamples: int = 0, permutations: int = 20) -> dict[str, Any]:
    return attention_statistics(sets, SCALES, 0, resamples, permutations)


def test_a_group_worked_by_hand() -> None:
    weights = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    group = group_statistics(weights, KEYS, 0)
    columns = {
        name: [group["scales"][key][name] for key in KEYS] for name in group["scales"]["0.5"]
    }
    assert group["count"] == 4
    assert columns["mean"] == [0.5, 0.1875, 0.3125] and columns["median"] == [0.5, 0.125, 0.125]
    assert columns["std"][0] == pytest.approx(np.sqrt(0.125))
    assert columns["top"] == [0.625, 0.125, 0.25]  # the first image is divided
    assert columns["nearly_all"] == [0.25, 0, 0.25]
    assert columns["low"] == columns["high"] == [None] * 3
    mean, of_mean = (np.log(2) + 1.5 * np.log(2)) / 4, entropy([0.5, 0.1875, 0.3125])
    expected = {"mean": mean, "of_mean": of_mean}
    relative = {f"relative_{name}": value / np.log(3) for name, value in expected.items()}
    std = np.std([np.log(2), 1.5 * np.log(2), 0, 0])
    none = {"relative_low": None, "relative_high": None}
    assert group["entropy"] == pytest.approx({"std": std} | expected | relative | none)
    assert group["mutual_information"] == pytest.approx(of_mean - mean)


def test_one_scale_one_image() -> None:
    group = group_statistics(np.ones((1, 1)), ["0.5"])
    assert group["entropy"] == {
        "mean": 0, "std": 0, "of_mean": 0, "relative_mean": None, "relative_low": None,
        "relative_high": None, "relative_of_mean": None,
    }  # fmt: skip
    assert group["scales"]["0.5"] == {
        "mean": 1, "std": 0, "median": 1, "low": None, "high": None, "top": 1,
        "nearly_all": 1, "nearly_all_low": pytest.approx(0.025),
    }  # fmt: skip


def test_intervals_are_those_of_scipy() -> None:
    """The percentile bootstrap of means, and the exact interval of a binomial share."""
    weights = np.random.default_rng(0).dirichlet((1, 2, 3), 60)
    group = group_statistics(weights, KEYS, 4000)
    values = np.c_[weights, entropy(weights, axis=1, base=3)]
    ends = scipy_bootstrap(
        (values,), np.mean, axis=0, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    for end in ("low", "high"):
        of_scales = [group["scales"][key][end] for key in KEYS]
        ours = [*of_scales, group["entropy"][f"relative_{end}"]]
        np.testing.assert_allclose(ours, getattr(ends, end), atol=0.004)
    weights = np.tile([[0.95, 0.05]], (40, 1))
    weights[:7] = 0.5
    first, second = group_statistics(weights, KEYS[:2], 0)["scales"].values()
    assert first["nearly_all"] == pytest.approx(33 / 40)
    assert first["nearly_all_low"] == pytest.approx(binomtest(33, 40).proportion_ci().low)
    assert second["nearly_all"] == second["nearly_all_low"] == 0


ROW = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.1)


@settings(deadline=None, max_examples=25)
@given(st.lists(ROW, min_size=1))
def test_properties_of_any_weights(rows: list[list[float]]) -> None:
    weights = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    group = group_statistics(weights, KEYS, 20)
    scales = group["scales"].values()
    assert sum(scale["mean"] for scale in scales) == pytest.approx(1)
    assert sum(scale["top"] for scale in scales) == pytest.approx(1)
    assert 0 <= group["mutual_information"] <= np.log(3) + 1e-9
    assert all(scale["low"] is None or scale["low"] <= scale["high"] + 1e-9 for scale in scales)
    json.dumps(group, allow_nan=False)


def distance(one: NDArray, other: NDArray) -> float:
    return float(jensenshannon(one.mean(axis=0), other.mean(axis=0), base=2))


def test_statistics_of_several_generators() -> None:
    sets = [attended(f"g{i}", i, 40 + 10 * i, (1 + i, 1, 1)) for i in range(4)]
    statistics = statistics_of(sets, resamples=50)
    assert statistics == statistics_of(sets, resamples=50)
    json.dumps(statistics, allow_nan=False)
    assert statistics["count"] == statistics["pooled"]["count"] == sum(len(s.labels) for s in sets)
    third, generator = sets[2], statistics["generators"][2]
    wrong, fake = (third.scores > 0.5) != third.labels, third.labels == 1
    assert generator["accuracy"] == pytest.approx(1 - wrong.mean())
    assert (generator["name"], generator["family"]) == ("g2", "suite")
    for name, rows in {"wrong": wrong, "real_correct": ~wrong & ~fake, "real_wrong": wrong & ~fake,
                       "fake_correct": ~wrong & fake, "fake_wrong": wrong & fake}.items():  # fmt: skip
        expected = group_statistics(third.weights[rows], KEYS, 50)
        assert rows.any() and generator["groups"][name] == expected, name
    rho, p = spearmanr(third.weights[fake, 1], third.scores[fake])
    assert generator["with_score"]["fake"]["0.5"] == pytest.approx({"rho": rho, "p": p, "n": 30})
    means = [s.weights.mean(axis=0)[0] for s in sets]
    rho, p = spearmanr(means, [((s.scores > 0.5) == s.labels).mean() for s in sets])
    assert statistics["with_accuracy"]["0.25"] == pytest.approx({"rho": rho, "p": p, "n": 4})


def test_comparisons_of_several_generators() -> None:
    sets = [attended(f"g{i}", i, 40 + 10 * i, (1 + i, 1, 1)) for i in range(4)]
    statistics = statistics_of(sets, resamples=50)
    reals, fakes = ([s.weights[s.labels == label] for s in sets] for label in (0, 1))
    for name, kind, groups in (("between", "fake", fakes), ("between_real", "real", reals)):
        between = statistics[name]
        assert (between["of"], between["generators"], between["note"]) == (kind, 4, None)
        assert between["pairs"][0]["distance"] == pytest.approx(distance(groups[0], groups[1]))
        apart = distance(groups[0], np.concatenate(groups[1:]))
        assert between["from_rest"][0]["distance"] == pytest.approx(apart)
    by_class = distance(np.concatenate(reals), np.concatenate(fakes))
    assert statistics["classes"]["distance"] == pytest.approx(by_class)
    squares = sum(((cell - cell.mean(axis=0)) ** 2).sum(axis=0) for cell in (*reals, *fakes))
    variances = squares / (statistics["count"] - 8)
    pooled = statistics["pooled"]
    assert list(pooled["within_std"].values()) == pytest.approx(np.sqrt(variances))
    spread = pooled["within_spread"]
    assert spread["low"] < spread["value"] == pytest.approx(np.sqrt(variances.mean()))
    assert spread["value"] < spread["high"]


def test_images_that_sets_share_count_once() -> None:
    """Set b has no real image of its own; its fake ones are compared with those that it shares
    with a."""
    sets = [attended("a", 0, shared=True), attended("b", 1, shared=True)]
    assert first_of_each(sets).tolist() == [True] * 40 + [False, True] * 20
    assert first_of_each([attended("a", 0), attended("b", 0)]).all()
    statistics = statistics_of(sets)
    groups = statistics["pooled"]["groups"]
    assert (groups["real"]["count"], groups["fake"]["count"], statistics["count"]) == (20, 40, 60)
    assert statistics["generators"][1]["groups"]["real"]["count"] == 20
    between = statistics["between_real"]
    assert between["overall"] is None
    assert between["note"] == "1 of the sets with 10 real images of their own: nothing to compare"
    fakes = np.concatenate([scored.weights[scored.labels == 1] for scored in sets])
    reals = sets[0].weights[sets[0].labels == 0]
    assert statistics["classes"]["distance"] == pytest.approx(distance(reals, fakes))
    together = images_once(sets)
    np.testing.assert_array_equal(together.weights[:40], sets[0].weights)
    np.testing.assert_array_equal(together.scores[40:], sets[1].scores[1::2])
    assert (together.generator, images_once(sets[:1]).generator) == ("all 2 generators", "a")


def test_sets_that_share_images_belong_together() -> None:
    def named(paths: str) -> Scores:
        zeros = np.zeros(len(paths))
        return make_scores("a", "s", zeros, zeros, np.ones((len(paths), 1)), paths=tuple(paths))

    assert sharing([named(paths) for paths in ("a", "b", "cd", "db", "e")]) == [0, 1, 1, 1, 4]


def test_what_differs_between_generators_is_not_taken_for_class_or_score() -> None:
    """Set A has other attention and lower scores than B, and mostly real images; within a set
    nothing depends on anything."""
    of_class, of_score = [], []
    for seed in range(40):
        rng, sets = np.random.default_rng(seed), []
        for name, mean, fakes, score in (("A", (6, 2, 2), 20, 0.3), ("B", (2, 2, 6), 180, 0.7)):
            labels = (np.arange(200) < fakes).astype(int)
            scores = np.clip(rng.normal(score, 0.1, 200), 0, 1)
            sets.append(make_scores(name, "s", labels, scores, rng.dirichlet(mean, 200)))
        statistics = statistics_of(sets, permutations=99)
        of_class.append(statistics["classes"]["p"])
        of_score.append(statistics["pooled"]["with_score"]["fake"]["0.25"]["p"])
        assert statistics["between"]["overall"]["p"] == 1 / 100  # no permutation reaches it
    for p in (of_class, of_score):
        assert kstest(p, "uniform").pvalue > 0.001
        assert binomtest(int(np.sum(np.array(p) < 0.05)), len(p), 0.05).pvalue > 0.001


def test_rank_correlation_is_spearmans_and_within_strata_a_regression_on_ranks() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 60)).round(1)
    rho, p = spearmanr(one, other)
    assert correlation(one, other) == pytest.approx({"rho": rho, "p": p, "n": 60})
    perfect = correlation([1, 2, 3, 4], [2, 4, 6, 9])
    assert perfect == pytest.approx({"rho": 1, "p": 0, "n": 4}, abs=1e-6)
    strata = np.repeat([0, 1, 2], 20)
    within = correlation(one + 5 * strata, other + 5 * strata, strata)
    ranks = [np.concatenate([rankdata(v[strata == s]) for s in range(3)]) for v in (one, other)]
    # strata of one size have the same mean rank
    assert within["rho"] == pytest.approx(linregress(*ranks).rvalue)
    assert 1 > within["p"] > spearmanr(one + 5 * strata, other + 5 * strata).pvalue
    # one pair more for a second stratum
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4], [0, 0, 0, 1]) is None
    assert correlation([1, 2, 3], [1, 2, 3]) is correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None


def test_where_nothing_can_be_compared() -> None:
    first = attended("a", 0, 6)
    reals = make_scores("b", "suite", np.zeros(3, dtype=int), np.zeros(3), first.weights[:3])
    empty = first.take(np.arange(0))
    statistics = statistics_of([first, reals, empty])
    assert [generator["name"] for generator in statistics["generators"]] == ["a", "b"]
    between = statistics["between"]
    assert between["overall"] is None and between["pairs"] == []
    assert between["note"] == "1 generators with 2 fake images: nothing to compare"
    assert statistics["generators"][1]["groups"]["fake"] is None
    assert set(statistics["with_accuracy"].values()) == {None}
    assert statistics_of([reals])["classes"] is None
    with pytest.raises(ValueError, match="no image"):
        statistics_of([empty])
    with pytest.raises(ValueError, match="2 scales"):
        attention_statistics([first], (0.25, 0.5))


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 12), st.integers(0, 100))
def test_typical_images_are_nearer_to_the_mean_than_all_others(
    images: int, scales: int, count: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(scales), size=images)
    typical, surprising = (list(rows) for rows in typical_and_surprising(weights, count))
    middle = (weights + weights.mean(axis=0)) / 2
    to_middle = entropy(weights, middle, axis=1) + entropy(
        np.broadcast_to(weights.mean(axis=0), weights.shape), middle, axis=1
    )
    distances = np.sqrt(np.maximum(0, to_middle / 2))
    assert len(typical) == min(count, (images + 1) // 2)
    assert len(surprising) == min(count, images - len(typical))
    assert len({*typical, *surprising}) == len(typical) + len(surprising)
    ordered = np.sort(distances)
    np.testing.assert_allclose(distances[typical], ordered[: len(typical)], atol=1e-7)
    farthest = ordered[::-1][: len(surprising)]
    np.testing.assert_allclose(distances[surprising], farthest, atol=1e-7)
