"""Statistics of attention against scipy, numbers worked by hand, and permutations one at a time."""

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, entropy, kstest, permutation_test, spearmanr
from scipy.stats import bootstrap as scipy_bootstrap

from evaluation import attention_differences
from evaluation.attention_differences import differences, holm, js_divergence, overall_test, p_value, pair_tests
from evaluation.attention_statistics import (
    POOLED,
    Attended,
    attention_statistics,
    correlation,
    first_of_each,
    group_statistics,
    statistics_rows,
)

KEYS = ["0.25", "0.5", "0.75"]


def attended(name: str, seed: int, n: int = 40, alpha: tuple[float, ...] = (1, 1, 1), images: bool = False) -> Attended:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    scores = np.clip(rng.normal(0.3 + 0.4 * labels, 0.3), 0, 1)
    names = tuple(f"{'real' if not label else name}{row}" for row, label in enumerate(labels)) if images else None
    return Attended(name, "suite", labels, scores, rng.dirichlet(alpha, n), images=names)


def test_a_group_worked_by_hand() -> None:
    weights = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = group_statistics(weights, KEYS, 0)
    assert found["count"] == 4
    assert [found["scales"][key]["mean"] for key in KEYS] == [0.5, 0.1875, 0.3125]
    assert [found["scales"][key]["median"] for key in KEYS] == [0.5, 0.125, 0.125]
    assert found["scales"]["0.25"]["std"] == pytest.approx(np.sqrt(0.125))
    assert [found["scales"][key]["top"] for key in KEYS] == [0.625, 0.125, 0.25]  # the first image is divided
    assert [found["scales"][key]["nearly_all"] for key in KEYS] == [0.25, 0, 0.25]
    assert found["scales"]["0.5"]["low"] is found["scales"]["0.5"]["high"] is found["entropy"]["relative_low"] is None
    mean = (np.log(2) + 1.5 * np.log(2)) / 4
    assert found["entropy"]["mean"] == pytest.approx(mean)
    assert found["entropy"]["of_mean"] == pytest.approx(entropy([0.5, 0.1875, 0.3125]))
    assert found["entropy"]["relative_of_mean"] == pytest.approx(entropy([0.5, 0.1875, 0.3125], base=3))
    assert found["mutual_information"] == pytest.approx(entropy([0.5, 0.1875, 0.3125]) - mean)


def test_one_scale_one_image() -> None:
    found = group_statistics(np.ones((1, 1)), ["0.5"])
    assert found["entropy"] == {
        "mean": 0, "std": 0, "of_mean": 0,
        "relative_mean": None, "relative_low": None, "relative_high": None, "relative_of_mean": None,
    }  # fmt: skip
    assert found["scales"]["0.5"] == {
        "mean": 1, "std": 0, "median": 1, "low": None, "high": None, "top": 1, "nearly_all": 1,
    }  # fmt: skip


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    weights = np.random.default_rng(0).dirichlet((1, 2, 3), 60)
    found = group_statistics(weights, KEYS, 4000)
    theirs = scipy_bootstrap((weights,), np.mean, axis=0, n_resamples=4000, method="percentile", rng=1)
    for column, key in enumerate(KEYS):
        assert found["scales"][key]["low"] == pytest.approx(theirs.confidence_interval.low[column], abs=0.004)
        assert found["scales"][key]["high"] == pytest.approx(theirs.confidence_interval.high[column], abs=0.004)
    of_entropy = scipy_bootstrap(
        (entropy(weights, axis=1, base=3),), np.mean, n_resamples=4000, method="percentile", rng=1
    )
    assert found["entropy"]["relative_low"] == pytest.approx(of_entropy.confidence_interval.low, abs=0.004)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.1), min_size=1))
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


def test_divergence_is_zero_to_one_and_scipys() -> None:
    assert js_divergence(np.array([1, 0, 0]), np.array([0, 0.5, 0.5])) == pytest.approx(1)
    assert js_divergence(np.array([2, 1, 1]), np.array([0.5, 0.25, 0.25])) == 0
    one, other = np.random.default_rng(0).dirichlet((1, 1), (2, 5))
    assert np.allclose(js_divergence(one, other), jensenshannon(one, other, base=2, axis=1) ** 2)


def distance(one: NDArray, other: NDArray) -> float:
    return float(jensenshannon(one.mean(axis=0), other.mean(axis=0), base=2))


@pytest.mark.parametrize(("n", "m"), [(12, 30), (30, 12), (25, 25)])
def test_a_pairs_p_value_is_that_of_permutations_one_at_a_time(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    one, other = rng.dirichlet((1.4, 1, 1), n), rng.dirichlet((1, 1, 1), m)
    theirs = permutation_test(
        (np.arange(n), np.arange(n, n + m)),
        lambda a, b: distance(np.concatenate([one, other])[a], np.concatenate([one, other])[b]),
        n_resamples=3000, alternative="greater", rng=0, vectorized=False,
    ).pvalue  # fmt: skip
    assert 0.02 < theirs < 0.9
    ours = pair_tests([(one, other), (one, one[:5]), (other, one)], permutations=3000)
    assert ours[0] == pytest.approx(theirs, abs=4 * np.sqrt(theirs * (1 - theirs) / 1500))
    assert n == m or ours[0] == pytest.approx(ours[2])  # either order


def test_the_overall_tests_p_value_is_that_of_permutations_one_at_a_time() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.dirichlet(alpha, n) for alpha, n in (((1, 1, 1), 10), ((1.4, 1, 1), 25), ((1, 1, 1), 30))]

    def statistic(parts: list[NDArray]) -> float:
        overall = np.concatenate(parts).mean(axis=0)
        return float(np.mean([jensenshannon(part.mean(axis=0), overall, base=2) ** 2 for part in parts]))

    pooled, values = np.concatenate(groups), []
    for _ in range(2000):
        rng.shuffle(pooled, axis=0)
        values.append(statistic(np.split(pooled, [10, 35])))
    p = np.mean(np.array(values) >= statistic(groups))
    found = overall_test(groups, 2000)
    assert 0.03 < p < 0.9 and found["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 1000))
    assert found["statistic"] == pytest.approx(statistic(groups))
    assert found["expected"] == pytest.approx(np.mean(values), rel=0.1)


def test_five_percent_of_false_alarms_stay_five_percent() -> None:
    """Groups of the same attention: p-values are uniform, between two and between several groups."""
    p_pair, p_overall = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = [rng.dirichlet((4, 2, 1), n) for n in (20, 33, 50)]
        p_pair += pair_tests([(groups[0], groups[1])], 300, seed)
        p_overall.append(overall_test(groups, 300, seed)["p"])
    for p in (p_pair, p_overall):
        assert kstest(p, "uniform").pvalue > 0.001
        assert binomtest(int(np.sum(np.array(p) < 0.05)), len(p), 0.05).pvalue > 0.001


def test_small_p_values_are_about_right() -> None:
    """Beyond what permutations resolve: against a hundred times as many of them."""
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet((2, 1, 0.5), 200), rng.dirichlet((2.8, 1, 0.5), 200)
    (few,) = pair_tests([(one, other)], 1000)
    (many,) = pair_tests([(one, other)], 200_000)
    assert 1.5e-5 < many < 2e-3 and many / 4 < few < many * 4


def test_differences_of_many_pairs_survive_the_correction() -> None:
    """With 1,000 permutations alone, no p-value of 190 pairs could."""
    rng = np.random.default_rng(0)
    groups = {str(i): rng.dirichlet((9, 1, 1) if i == 0 else (1, 1, 9), 100) for i in range(20)}
    overall, pairs = differences(groups, 200)
    assert overall is not None and overall["p"] < 0.001
    assert [(pair["a"], pair["b"]) for pair in pairs] == list(combinations(groups, 2))
    of_first = [pair for pair in pairs if pair["a"] == "0"]
    assert all(1e-6 <= pair["p"] < 1e-5 and pair["p_holm"] < 1e-3 for pair in of_first)
    assert sum(pair["p_holm"] < 0.05 for pair in pairs if pair["a"] != "0") <= 1
    assert of_first[0]["distance"] == pytest.approx(distance(groups["0"], groups["1"]))


def test_equal_attention_does_not_differ() -> None:
    same = np.full((30, 3), 1 / 3)
    overall, pairs = differences({"a": same, "b": same.copy(), "c": same[:7]}, 100)
    assert overall is not None and overall["p"] == 1
    assert all(pair["p_holm"] == 1 and pair["distance"] == pytest.approx(0, abs=1e-6) for pair in pairs)
    assert p_value(0.5, np.zeros(99)) == 0.01


def test_holms_correction_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []


def test_large_groups_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_differences, "LIMIT", 50)
    rng = np.random.default_rng(0)
    groups = {"a": rng.dirichlet((1, 1, 1), 300), "b": rng.dirichlet((1, 1, 4), 20)}
    _, (pair,) = differences(groups, 100)
    assert pair["distance"] == pytest.approx(distance(groups["a"], groups["b"])) and pair["p"] < 0.01


def test_statistics_of_several_generators() -> None:
    sets = [attended(f"g{i}", i, 40 + 10 * i, (1 + i, 1, 1)) for i in range(4)]
    found = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50, permutations=50)
    json.dumps(found, allow_nan=False)
    assert found["count"] == sum(len(one.labels) for one in sets) == found["pooled"]["count"]
    one, said = sets[2], found["generators"][2]
    wrong = (one.scores > 0.5) != one.labels
    assert said["accuracy"] == pytest.approx(1 - wrong.mean()) and (said["name"], said["family"]) == ("g2", "suite")
    assert said["groups"]["wrong"] == group_statistics(one.weights[wrong], KEYS, 50)
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
    assert found["classes"]["distance"] == pytest.approx(distance(reals, np.concatenate(fakes)))
    cells = [s.weights[s.labels == label, 0] for s in sets for label in (0, 1)]
    squares = sum(((cell - cell.mean()) ** 2).sum() for cell in cells)
    assert found["pooled"]["within_std"]["0.25"] == pytest.approx(np.sqrt(squares / (found["count"] - 8)))
    again = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=50, permutations=50)
    assert again == found


def test_shared_images_count_once() -> None:
    sets = [attended("a", 0, images=True), attended("b", 1, images=True)]
    assert first_of_each(sets).tolist() == [True] * 40 + [False, True] * 20
    found = attention_statistics(sets, (0.25, 0.5, 0.75), resamples=10, permutations=10)
    assert found["pooled"]["groups"]["real"]["count"] == 20 and found["pooled"]["groups"]["fake"]["count"] == 40
    assert found["generators"][1]["groups"]["real"]["count"] == 20 and found["count"] == 60
    assert first_of_each([attended("a", 0), attended("a", 0)]).all()


def test_where_nothing_can_be_compared() -> None:
    one = attended("a", 0, 6)
    reals = Attended("b", "suite", np.zeros(3, dtype=int), np.zeros(3), one.weights[:3])
    empty = Attended("c", "suite", np.zeros(0, dtype=int), np.zeros(0), np.zeros((0, 3)))
    found = attention_statistics([one, reals, empty], (0.25, 0.5, 0.75), resamples=10, permutations=10)
    assert [said["name"] for said in found["generators"]] == ["a", "b"]
    assert found["between"]["overall"] is None and found["between"]["pairs"] == []
    assert found["between"]["note"] == "1 generator with generated images: nothing to compare"
    assert found["generators"][1]["groups"]["fake"] is None
    assert set(found["with_accuracy"].values()) == {None}
    assert attention_statistics([reals], (0.25, 0.5, 0.75), resamples=10)["classes"] is None
    with pytest.raises(ValueError, match="no image"):
        attention_statistics([empty], (0.25, 0.5, 0.75))
    with pytest.raises(ValueError, match="2 scales"):
        attention_statistics([one], (0.25, 0.5))
    assert correlation([1, 2, 3], [1, 2, 3]) is None and correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None


def test_rows_for_a_table() -> None:
    found = attention_statistics([attended("a", 0), attended("b", 1)], (0.25, 0.5, 0.75), resamples=10, permutations=10)
    rows = statistics_rows(found)
    groups = sum(
        group is not None for one in [*found["generators"], found["pooled"]] for group in one["groups"].values()
    )
    assert len(rows) == 3 * groups and len({tuple(row) for row in rows}) == 1
    assert rows[0]["generator"] == "a" and rows[-1]["generator"] == POOLED
    assert (
        rows[1]["scale"] == "0.5"
        and rows[1]["mean"] == found["generators"][0]["groups"]["all"]["scales"]["0.5"]["mean"]
    )
    assert all(isinstance(value, str | float | int) for row in rows for value in row.values())
