"""Statistics of attention against scipy, and numbers worked by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, entropy, kstest, linregress, rankdata, spearmanr
from scipy.stats import bootstrap as scipy_bootstrap

from evaluation.attention.images import images_once, typical_and_surprising
from evaluation.attention.statistics import attention_statistics, correlation, group_statistics
from evaluation.scores import Scores, first_of_each, sharing
from tests.helpers.attended_sets import make_scores

KEYS = ["0.25", "0.5", "0.75"]


def attended(
    name: str, seed: int, n: int = 40, alpha: tuple[float, ...] = (1, 1, 1), images: bool = False
) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.3), 0, 1)
    names = (
        tuple(f"{'real' if not label else name}{row}" for row, label in enumerate(labels))
        if images
        else None
    )
    return make_scores(name, "suite", labels, scores, rng.dirichlet(alpha, n), paths=names)


def test_a_group_worked_by_hand() -> None:
    weights = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = group_statistics(weights, KEYS, 0)
    assert found["count"] == 4
    assert [found["scales"][key]["mean"] for key in KEYS] == [0.5, 0.1875, 0.3125]
    assert [found["scales"][key]["median"] for key in KEYS] == [0.5, 0.125, 0.125]
    assert found["scales"]["0.25"]["std"] == pytest.approx(np.sqrt(0.125))
    # the first image is divided
    assert [found["scales"][key]["top"] for key in KEYS] == [0.625, 0.125, 0.25]
    assert [found["scales"][key]["nearly_all"] for key in KEYS] == [0.25, 0, 0.25]
    assert (
        found["scales"]["0.5"]["low"]
        is found["scales"]["0.5"]["high"]
        is found["entropy"]["relative_low"]
        is None
    )
    mean = (np.log(2) + 1.5 * np.log(2)) / 4
    assert found["entropy"]["mean"] == pytest.approx(mean)
    assert found["entropy"]["of_mean"] == pytest.approx(entropy([0.5, 0.1875, 0.3125]))
    assert found["entropy"]["relative_of_mean"] == pytest.approx(
        entropy([0.5, 0.1875, 0.3125], base=3)
    )
    assert found["mutual_information"] == pytest.approx(entropy([0.5, 0.1875, 0.3125]) - mean)


def test_one_scale_one_image() -> None:
    found = group_statistics(np.ones((1, 1)), ["0.5"])
    assert found["entropy"] == {
        "mean": 0, "std": 0, "of_mean": 0,
        "relative_mean": None, "relative_low": None, "relative_high": None, "relative_of_mean": None,
    }  # fmt: skip
    assert found["scales"]["0.5"] == {
        "mean": 1, "std": 0, "median": 1, "low": None, "high": None, "top": 1,
        "nearly_all": 1, "nearly_all_low": pytest.approx(0.025),
    }  # fmt: skip


def test_the_share_that_gives_nearly_all_has_the_exact_interval_of_a_binomial_share() -> None:
    weights = np.tile([[0.95, 0.05]], (40, 1))
    weights[:7] = 0.5
    found = group_statistics(weights, KEYS[:2], 0)["scales"]
    assert found["0.25"]["nearly_all"] == pytest.approx(33 / 40)
    assert found["0.25"]["nearly_all_low"] == pytest.approx(binomtest(33, 40).proportion_ci().low)
    assert found["0.5"]["nearly_all"] == found["0.5"]["nearly_all_low"] == 0


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    weights = np.random.default_rng(0).dirichlet((1, 2, 3), 60)
    found = group_statistics(weights, KEYS, 4000)
    theirs = scipy_bootstrap(
        (weights,), np.mean, axis=0, n_resamples=4000, method="percentile", rng=1
    )
    for column, key in enumerate(KEYS):
        assert found["scales"][key]["low"] == pytest.approx(
            theirs.confidence_interval.low[column], abs=0.004
        )
        assert found["scales"][key]["high"] == pytest.approx(
            theirs.confidence_interval.high[column], abs=0.004
        )
    of_entropy = scipy_bootstrap(
        (entropy(weights, axis=1, base=3),), np.mean, n_resamples=4000, method="percentile", rng=1
    )
    assert found["entropy"]["relative_low"] == pytest.approx(
        of_entropy.confidence_interval.low, abs=0.004
    )


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.1),
        min_size=1,
    )
)
def test_properties_of_any_weights(rows: list[list[float]]) -> None:
    weights = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    found = group_statistics(weights, KEYS, 20)
    scales = found["scales"].values()
    assert sum(one["mean"] for one in scales) == pytest.approx(1)
    assert sum(one["top"] for one in scales) == pytest.approx(1)
    assert 0 <= found["mutual_information"] <= np.log(3) + 1e-9
    assert found["entropy"]["mean"] == pytest.approx(entropy(weights, axis=1).mean(), abs=1e-9)
    assert all(one["low"] is None or one["low"] - 1e-9 <= one["high"] for one in scales)
    json.dumps(found, allow_nan=False)


def distance(one: NDArray, other: NDArray) -> float:
    return float(jensenshannon(one.mean(axis=0), other.mean(axis=0), base=2))


def test_statistics_of_several_generators() -> None:
    sets = [attended(f"g{i}", i, 40 + 10 * i, (1 + i, 1, 1)) for i in range(4)]
    found = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50, permutations=50)
    json.dumps(found, allow_nan=False)
    assert found["count"] == sum(len(one.labels) for one in sets) == found["pooled"]["count"]
    one, said = sets[2], found["generators"][2]
    wrong = (one.scores > 0.5) != one.labels
    assert said["accuracy"] == pytest.approx(1 - wrong.mean()) and (
        said["name"],
        said["family"],
    ) == ("g2", "suite")
    assert said["groups"]["wrong"] == group_statistics(one.weights[wrong], KEYS, 50)
    for name, rows in {"real_correct": ~wrong & (one.labels == 0), "real_wrong": wrong & (one.labels == 0),
                       "fake_correct": ~wrong & (one.labels == 1), "fake_wrong": wrong & (one.labels == 1)}.items():  # fmt: skip
        assert rows.any() and said["groups"][name] == group_statistics(
            one.weights[rows], KEYS, 50
        ), name
    rho, p = spearmanr(one.weights[one.labels == 1, 1], one.scores[one.labels == 1])
    assert said["with_score"]["fake"]["0.5"] == pytest.approx({"rho": rho, "p": p, "n": 30})
    means = [s.weights.mean(axis=0)[0] for s in sets]
    accuracies = [((s.scores > 0.5) == s.labels).mean() for s in sets]
    rho, p = spearmanr(means, accuracies)
    assert found["with_accuracy"]["0.25"] == pytest.approx({"rho": rho, "p": p, "n": 4})
    fakes = [s.weights[s.labels == 1] for s in sets]
    assert found["between"]["pairs"][0]["distance"] == pytest.approx(distance(fakes[0], fakes[1]))
    assert found["between"]["of"] == "fake" and found["between"]["note"] is None
    reals = np.concatenate([s.weights[s.labels == 0] for s in sets])
    assert found["between_real"]["of"] == "real" and found["between_real"]["generators"] == 4
    assert found["between_real"]["from_rest"][0]["distance"] == pytest.approx(
        distance(
            sets[0].weights[sets[0].labels == 0],
            np.concatenate([s.weights[s.labels == 0] for s in sets[1:]]),
        )
    )
    assert found["classes"]["distance"] == pytest.approx(distance(reals, np.concatenate(fakes)))
    cells = [s.weights[s.labels == label, 0] for s in sets for label in (0, 1)]
    squares = sum(((cell - cell.mean()) ** 2).sum() for cell in cells)
    assert found["pooled"]["within_std"]["0.25"] == pytest.approx(
        np.sqrt(squares / (found["count"] - 8))
    )
    spread = found["pooled"]["within_spread"]
    stds = np.array(list(found["pooled"]["within_std"].values()))
    assert spread["low"] < spread["value"] < spread["high"]
    assert spread["value"] == pytest.approx(np.sqrt((stds**2).mean()))
    again = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50, permutations=50)
    assert again == found


def test_shared_images_count_once() -> None:
    sets = [attended("a", 0, images=True), attended("b", 1, images=True)]
    assert first_of_each(sets).tolist() == [True] * 40 + [False, True] * 20
    found = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=10, permutations=10)
    assert (
        found["pooled"]["groups"]["real"]["count"] == 20
        and found["pooled"]["groups"]["fake"]["count"] == 40
    )
    assert found["generators"][1]["groups"]["real"]["count"] == 20 and found["count"] == 60
    assert first_of_each([attended("a", 0), attended("b", 0)]).all()
    assert found["between_real"]["overall"] is None and found["between_real"]["generators"] == 1
    assert (
        found["between_real"]["note"]
        == "1 of the sets with 10 real images of their own: nothing to compare"
    )


def test_images_once_worked_by_hand() -> None:
    weights = np.random.default_rng(0).dirichlet([1, 1], size=4)
    shared = make_scores("a", "s", np.array([0, 1]), np.zeros(2), weights[:2], None, ("real", "a"))
    other = make_scores("b", "s", np.array([1, 0]), np.ones(2), weights[2:], None, ("b", "real"))
    everything = images_once([shared, other])
    np.testing.assert_array_equal(everything.weights, weights[:3])
    assert everything.labels.tolist() == [0, 1, 1] and everything.scores.tolist() == [0, 0, 1]
    assert (everything.generator, images_once([shared]).generator) == ("all 2 generators", "a")


def test_sets_that_share_images_belong_together() -> None:
    def named(*images: str) -> Scores:
        return make_scores(
            "a",
            "s",
            np.zeros(len(images)),
            np.zeros(len(images)),
            np.ones((len(images), 1)),
            paths=images,
        )

    assert sharing([named("a"), named("b"), named("c", "d"), named("d", "b"), named("e")]) == [
        0,
        1,
        1,
        1,
        4,
    ]
    assert sharing([attended("a", 0), attended("b", 0)]) == [0, 1]


def confounded(seed: int, images: int = 200) -> list[Scores]:
    """Set A has other attention and lower scores than B, and mostly real images; within a set
    nothing depends on anything."""
    sets, rng = [], np.random.default_rng(seed)
    for name, mean, fakes, score in (
        ("A", (6, 2, 2), images // 10, 0.3),
        ("B", (2, 2, 6), images - images // 10, 0.7),
    ):
        labels = (np.arange(images) < fakes).astype(int)
        scores = np.clip(rng.normal(score, 0.1, images), 0, 1)
        sets.append(make_scores(name, "s", labels, scores, rng.dirichlet(mean, images)))
    return sets


def test_what_differs_between_generators_is_not_taken_for_class_or_score() -> None:
    of_class, of_score = [], []
    for seed in range(80):
        found = attention_statistics(
            confounded(seed), (0.25, 0.5, 0.75), resamples=0, permutations=99
        )
        of_class.append(found["classes"]["p"])
        of_score.append(found["pooled"]["with_score"]["fake"]["0.25"]["p"])
        assert found["between"]["overall"]["p"] == 1 / 100  # no permutation reaches it
    for p in (of_class, of_score):
        assert kstest(p, "uniform").pvalue > 0.001
        assert binomtest(int(np.sum(np.array(p) < 0.05)), len(p), 0.05).pvalue > 0.001


def test_real_images_that_sets_share_are_compared_with_the_generated_ones_of_all() -> None:
    """Set b has no real image of its own; its generated ones are compared with those that it shares
    with a."""
    sets = [attended("a", 0, images=True), attended("b", 1, images=True)]
    found = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=0, permutations=50)
    fakes = np.concatenate([one.weights[one.labels == 1] for one in sets])
    assert found["classes"]["distance"] == pytest.approx(
        distance(sets[0].weights[sets[0].labels == 0], fakes)
    )


def test_rank_correlation_is_spearmans_and_within_strata_a_regression_on_ranks() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 60)).round(1)
    theirs = spearmanr(one, other)
    assert correlation(one, other) == pytest.approx(
        {"rho": theirs.statistic, "p": theirs.pvalue, "n": 60}
    )
    assert correlation([1, 2, 3, 4], [2, 4, 6, 9]) == pytest.approx(
        {"rho": 1, "p": 0, "n": 4}, abs=1e-6
    )
    strata = np.repeat([0, 1, 2], 20)
    shifted = correlation(one + 5 * strata, other + 5 * strata, strata)
    ranks = [np.concatenate([rankdata(v[strata == s]) for s in range(3)]) for v in (one, other)]
    # strata of one size have the same mean rank
    assert shifted["rho"] == pytest.approx(linregress(*ranks).rvalue)
    assert (
        shifted["n"] == 60
        and 1 > shifted["p"] > spearmanr(one + 5 * strata, other + 5 * strata).pvalue
    )
    # one pair more for a second stratum
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4], [0, 0, 0, 1]) is None


def test_where_nothing_can_be_compared() -> None:
    one = attended("a", 0, 6)
    reals = make_scores("b", "suite", np.zeros(3, dtype=int), np.zeros(3), one.weights[:3])
    empty = make_scores("c", "suite", np.zeros(0, dtype=int), np.zeros(0), np.zeros((0, 3)))
    found = attention_statistics(
        [one, reals, empty], (0.25, 0.5, 0.75), resamples=10, permutations=10
    )
    assert [said["name"] for said in found["generators"]] == ["a", "b"]
    assert found["between"]["overall"] is None and found["between"]["pairs"] == []
    assert found["between"]["note"] == "1 generators with 2 fake images: nothing to compare"
    assert found["generators"][1]["groups"]["fake"] is None
    assert set(found["with_accuracy"].values()) == {None}
    assert attention_statistics([reals], (0.25, 0.5, 0.75), resamples=10)["classes"] is None
    with pytest.raises(ValueError, match="no image"):
        attention_statistics([empty], (0.25, 0.5, 0.75))
    with pytest.raises(ValueError, match="2 scales"):
        attention_statistics([one], (0.25, 0.5))
    assert (
        correlation([1, 2, 3], [1, 2, 3]) is None
        and correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None
    )


def js_distance(a: NDArray, b: NDArray) -> float:
    middle = (a + b) / 2
    parts = [(p[p > 0] * np.log(p[p > 0] / middle[p > 0])).sum() for p in (a, b)]
    return max(0.0, sum(parts) / 2) ** 0.5


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 12), st.integers(0, 100))
def test_typical_images_are_nearer_to_the_mean_than_all_others(
    images: int, scales: int, count: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(scales), size=images)
    typical, surprising = (list(found) for found in typical_and_surprising(weights, count))
    distances = [js_distance(w, weights.mean(axis=0)) for w in weights]
    assert len(typical) == min(count, (images + 1) // 2)
    assert len(surprising) == min(count, images - len(typical))
    assert len({*typical, *surprising}) == len(typical) + len(surprising)
    ordered = sorted(distances)
    np.testing.assert_allclose([distances[i] for i in typical], ordered[: len(typical)], atol=1e-7)
    farthest = ordered[::-1][: len(surprising)]
    np.testing.assert_allclose([distances[i] for i in surprising], farthest, atol=1e-7)


def test_equal_images_are_chosen_by_their_order() -> None:
    typical, surprising = typical_and_surprising(np.full((6, 3), 1 / 3), 2)
    assert typical.tolist() == [0, 1] and surprising.tolist() == [2, 3]
