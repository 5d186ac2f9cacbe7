"""Differences of attention against permutations one at a time, all divisions of a few images, and
rates of false alarms."""

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, kstest

from evaluation.attention import differences as attention_differences
from evaluation.attention.differences import class_test, differences, holm, js_divergence


def test_divergence_is_zero_to_one_and_scipys() -> None:
    assert js_divergence(np.array([1, 0, 0]), np.array([0, 0.5, 0.5])) == pytest.approx(1)
    assert js_divergence(np.array([2, 1, 1]), np.array([0.5, 0.25, 0.25])) == 0
    one, other = np.random.default_rng(0).dirichlet((1, 1), (2, 5))
    assert np.allclose(js_divergence(one, other), jensenshannon(one, other, base=2, axis=1) ** 2)


def test_holms_correction_worked_by_hand() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def distance(one: NDArray, other: NDArray) -> float:
    return float(jensenshannon(one.mean(axis=0), other.mean(axis=0), base=2))


def between(*groups: NDArray, permutations: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the differences of groups that are named by their position."""
    return differences({str(i): group for i, group in enumerate(groups)}, permutations, seed)


def from_all(groups: Sequence[NDArray]) -> float:
    together = np.concatenate(groups)
    return float(np.mean([distance(group, together) ** 2 for group in groups]))


def largest_from_rest(groups: Sequence[NDArray]) -> float:
    rests = [np.concatenate([*groups[:i], *groups[i + 1 :]]) for i in range(len(groups))]
    return max(distance(group, rest) ** 2 for group, rest in zip(groups, rests, strict=True))


@pytest.mark.parametrize(
    ("name", "chance", "statistic"),
    [("statistic", "expected", from_all), ("largest", "largest_expected", largest_from_rest)],
)
def test_overall_statistics_are_those_of_permutations_one_at_a_time(
    name: str, chance: str, statistic: Callable[[Sequence[NDArray]], float]
) -> None:
    rng = np.random.default_rng(3)
    sizes = ((1, 1, 1), 10), ((1.4, 1, 1), 25), ((1, 1, 1), 30)
    groups = [rng.dirichlet(alpha, n) for alpha, n in sizes]
    pooled, observed = np.concatenate(groups), statistic(groups)
    values = [statistic(np.split(rng.permutation(pooled), [10, 35])) for _ in range(1000)]
    overall, p = (
        between(*groups, permutations=2000)["overall"],
        np.mean(np.array(values) >= observed),
    )
    assert overall[name] == pytest.approx(observed)
    assert overall[chance] == pytest.approx(np.mean(values), rel=0.1)
    assert 0.03 < p < 0.9
    if name == "statistic":
        assert overall["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 700))


def exact_p(one: NDArray, other: NDArray) -> float:
    """Return the p-value of two groups from all divisions of their images."""
    pooled, observed = np.concatenate([one, other]), distance(one, other)
    divisions = combinations(range(len(pooled)), len(one))
    masks = [np.isin(np.arange(len(pooled)), rows) for rows in divisions]
    return float(
        np.mean([distance(pooled[mask], pooled[~mask]) >= observed - 1e-12 for mask in masks])
    )


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 6), (4, 4)])
def test_p_values_of_few_images_are_those_of_all_divisions(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(10):
        one, other = rng.dirichlet((1, 1, 1), n), rng.dirichlet((1, 1, 1), m)
        assert between(one, other)["from_rest"][0]["p"] == pytest.approx(exact_p(one, other))


def test_five_percent_of_false_alarms_stay_five_percent() -> None:
    """Groups of the same attention: p-values are uniform, of one against the rest and of all."""
    p_rest, p_overall = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = [rng.dirichlet((4, 2, 1), n) for n in (20, 33, 50)]
        result = between(*groups, permutations=199, seed=seed)
        p_rest.append(result["from_rest"][0]["p"])
        p_overall.append(result["overall"]["p"])
    for p_values in (p_rest, p_overall):
        assert kstest(p_values, "uniform").pvalue > 0.001
        alarms = int(np.sum(np.array(p_values) < 0.05))
        assert binomtest(alarms, len(p_values), 0.05).pvalue > 0.001


def test_equal_attention_does_not_differ() -> None:
    same = np.full((30, 3), 1 / 3)
    result = between(same, same.copy(), same[:7], permutations=100)
    assert result["overall"]["p"] == 1
    assert all(group["p_holm"] == 1 for group in result["from_rest"])
    distances = [row["distance"] for row in (*result["pairs"], *result["from_rest"])]
    assert distances == pytest.approx([0] * 6, abs=1e-6)
    assert between(same) == {"overall": None, "from_rest": [], "pairs": []}
    assert class_test([(same[:0], same)]) is class_test([]) is None


def test_one_generator_of_many_is_found_by_its_distance_from_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tests use a sample of large groups, and distances all images."""
    monkeypatch.setattr(attention_differences, "LIMIT", 50)
    rng = np.random.default_rng(0)
    groups = [rng.dirichlet((6, 2, 2) if i == 0 else (2, 2, 2), 70) for i in range(38)]
    result = between(*groups, permutations=1999)
    first, *others = result["from_rest"]
    apart = distance(groups[0], np.concatenate(groups[1:]))
    assert first["generator"] == "0" and first["distance"] == pytest.approx(apart)
    assert first["p_holm"] < 0.05 and sum(group["p_holm"] < 0.05 for group in others) <= 1
    pairs = [(pair["a"], pair["b"]) for pair in result["pairs"]]
    assert pairs == list(combinations(map(str, range(38)), 2))
    assert result["pairs"][0]["distance"] == pytest.approx(distance(groups[0], groups[1]))
    overall = result["overall"]
    assert overall["p"] < 0.001 and overall["largest"] > 5 * overall["largest_expected"]
    assert overall["statistic"] - overall["expected"] < 0.1 * overall["largest"]  # a mean hides it


def test_a_class_test_worked_by_hand() -> None:
    """All ways to divide both strata are few enough to list."""
    rng = np.random.default_rng(0)
    means = (3, 1, 1), (1, 1, 3)
    strata = [
        tuple(rng.dirichlet(mean, count) for mean, count in zip(means, counts, strict=True))
        for counts in ((2, 3), (3, 1))
    ]
    shares = np.array([6 / 5, 3 / 4]) / (6 / 5 + 3 / 4)

    def divergence(divided: Sequence[tuple[NDArray, ...]]) -> float:
        means = [[weights.mean(axis=0) for weights in classes] for classes in divided]
        return float(jensenshannon(*np.tensordot(shares, means, 1), base=2) ** 2)

    divisions = []
    for classes in strata:
        pooled = np.concatenate(classes)
        rows = [list(chosen) for chosen in combinations(range(len(pooled)), len(classes[0]))]
        divisions.append([(pooled[part], np.delete(pooled, part, axis=0)) for part in rows])
    values = np.array([divergence(divided) for divided in product(*divisions)])
    result, observed = class_test(strata, 4000), divergence(strata)
    assert result["statistic"] == pytest.approx(observed) == pytest.approx(result["distance"] ** 2)
    assert result["expected"] == pytest.approx(values.mean(), rel=0.05)
    p = np.mean(values >= observed - 1e-12)
    assert result["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000))
    # a stratum of one class tells nothing
    assert class_test([*strata, (strata[0][0], strata[0][1][:0])], 4000) == result
