"""Differences of attention against permutations one at a time, all divisions of a few images, and
rates of false alarms."""

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, kstest, permutation_test

from evaluation.attention import differences as attention_differences
from evaluation.attention.differences import class_test, differences, holm, js_divergence


def test_divergence_is_zero_to_one_and_scipys() -> None:
    assert js_divergence(np.array([1, 0, 0]), np.array([0, 0.5, 0.5])) == pytest.approx(1)
    assert js_divergence(np.array([2, 1, 1]), np.array([0.5, 0.25, 0.25])) == 0
    one, other = np.random.default_rng(0).dirichlet((1, 1), (2, 5))
    assert np.allclose(js_divergence(one, other), jensenshannon(one, other, base=2, axis=1) ** 2)


def distance(one: NDArray, other: NDArray) -> float:
    return float(jensenshannon(one.mean(axis=0), other.mean(axis=0), base=2))


def between(*groups: NDArray, permutations: int = 1000, seed: int = 0) -> dict:
    """Differences of groups that are named by their position."""
    return differences({str(i): group for i, group in enumerate(groups)}, permutations, seed)


def from_rest(*groups: NDArray, permutations: int = 1000, seed: int = 0) -> float:
    """P-value of the first group against the rest."""
    return float(between(*groups, permutations=permutations, seed=seed)["from_rest"][0]["p"])


@pytest.mark.parametrize(("n", "m"), [(12, 30), (30, 12), (25, 25)])
def test_the_p_value_of_a_group_against_the_rest_is_that_of_permuting_these_two(
    n: int, m: int
) -> None:
    """Though all images are permuted over all groups, here three."""
    rng = np.random.default_rng(n)
    one, other = rng.dirichlet((1.4, 1, 1), n), rng.dirichlet((1, 1, 1), m)
    theirs = permutation_test(
        (np.arange(n), np.arange(n, n + m)),
        lambda a, b: distance(np.concatenate([one, other])[a], np.concatenate([one, other])[b]),
        n_resamples=3000, alternative="greater", rng=0, vectorized=False,
    ).pvalue  # fmt: skip
    assert 0.02 < theirs < 0.9
    ours = from_rest(one, other[:7], other[7:], permutations=3000)
    assert ours == pytest.approx(theirs, abs=4 * np.sqrt(theirs * (1 - theirs) / 1500))


def test_the_overall_tests_p_value_is_that_of_permutations_one_at_a_time() -> None:
    rng = np.random.default_rng(3)
    groups = [
        rng.dirichlet(alpha, n)
        for alpha, n in (((1, 1, 1), 10), ((1.4, 1, 1), 25), ((1, 1, 1), 30))
    ]

    def statistic(parts: list[NDArray]) -> float:
        overall = np.concatenate(parts).mean(axis=0)
        return float(
            np.mean([jensenshannon(part.mean(axis=0), overall, base=2) ** 2 for part in parts])
        )

    pooled, values = np.concatenate(groups), []
    for _ in range(2000):
        rng.shuffle(pooled, axis=0)
        values.append(statistic(np.split(pooled, [10, 35])))
    p = np.mean(np.array(values) >= statistic(groups))
    found = between(*groups, permutations=2000)["overall"]
    assert 0.03 < p < 0.9 and found["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 1000))
    assert found["statistic"] == pytest.approx(statistic(groups))
    assert found["expected"] == pytest.approx(np.mean(values), rel=0.1)


def test_five_percent_of_false_alarms_stay_five_percent() -> None:
    """Groups of the same attention: p-values are uniform, of one against the rest and of all."""
    p_rest, p_overall = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = [rng.dirichlet((4, 2, 1), n) for n in (20, 33, 50)]
        found = between(*groups, permutations=199, seed=seed)
        p_rest.append(found["from_rest"][0]["p"])
        p_overall.append(found["overall"]["p"])
    for p in (p_rest, p_overall):
        assert kstest(p, "uniform").pvalue > 0.001
        assert binomtest(int(np.sum(np.array(p) < 0.05)), len(p), 0.05).pvalue > 0.001


def test_equal_attention_does_not_differ() -> None:
    same = np.full((30, 3), 1 / 3)
    found = differences({"a": same, "b": same.copy(), "c": same[:7]}, 100)
    assert found["overall"]["p"] == 1
    assert all(one["p_holm"] == 1 for one in found["from_rest"])
    for one in (*found["pairs"], *found["from_rest"]):
        assert one["distance"] == pytest.approx(0, abs=1e-6)
    assert differences({"a": same}) == {"overall": None, "from_rest": [], "pairs": []}


def test_holms_correction_worked_by_hand() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def test_large_groups_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_differences, "LIMIT", 50)
    rng = np.random.default_rng(0)
    groups = {"a": rng.dirichlet((1, 1, 1), 300), "b": rng.dirichlet((1, 1, 4), 20)}
    found = differences(groups, 100)
    (pair,), one = found["pairs"], found["from_rest"][0]
    apart = distance(groups["a"], groups["b"])
    assert (pair["a"], pair["b"], pair["distance"]) == ("a", "b", pytest.approx(apart))
    assert one["distance"] == pytest.approx(apart) and one["p"] < 0.01


def exactly(one: NDArray, other: NDArray) -> float:
    """The p-value of two groups from all divisions of their images."""
    pooled, observed = np.concatenate([one, other]), distance(one, other)
    chosen = [
        np.isin(np.arange(len(pooled)), rows) for rows in combinations(range(len(pooled)), len(one))
    ]
    return float(
        np.mean([distance(pooled[first], pooled[~first]) >= observed - 1e-12 for first in chosen])
    )


@pytest.mark.parametrize(
    ("n", "m", "smallest"),
    [(2, 2, 1 / 3), (2, 3, 0.1), (3, 3, 0.1), (2, 30, 2 / (32 * 31)), (4, 5, 1 / 126)],
)
def test_few_images_have_no_smaller_p_value_than_their_divisions_give(
    n: int, m: int, smallest: float
) -> None:
    """Groups that lie as far apart as can be, in single precision as files hold them."""
    rng = np.random.default_rng(n + m)
    one, other = (
        rng.dirichlet((50, 1, 1), n).astype(np.float32),
        rng.dirichlet((1, 1, 50), m).astype(np.float32),
    )
    assert exactly(one.astype(float), other.astype(float)) == pytest.approx(smallest)
    # so few divisions are all tried
    assert from_rest(one, other) == between(one, other)["overall"]["p"] == pytest.approx(smallest)
    by_class = class_test([(one, other)])
    assert by_class is not None
    assert by_class["p"] == pytest.approx(smallest, abs=4 * np.sqrt(smallest / 1000) + 0.002)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 6), (4, 4), (2, 9)])
def test_p_values_of_few_images_are_those_of_all_divisions(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        one, other = rng.dirichlet((1, 1, 1), n), rng.dirichlet((1, 1, 1), m)
        assert from_rest(one, other) == pytest.approx(exactly(one, other))


def test_alike_generators_of_two_images_are_not_apart() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = differences({str(i): rng.dirichlet((1, 1, 1), 2) for i in range(10)}, seed=seed)
        assert all(one["p_holm"] > 0.05 for one in found["from_rest"])


def outlier(count: int, images: int, rng: np.random.Generator) -> dict[str, NDArray]:
    """Attention that varies from image to image, and of the first of `count` generators leans
    elsewhere."""
    return {str(i): rng.dirichlet((6, 2, 2) if i == 0 else (2, 2, 2), images) for i in range(count)}


def test_one_generator_of_many_is_found_by_its_distance_from_the_rest() -> None:
    groups = outlier(38, 50, np.random.default_rng(0))
    found = differences(groups)
    first, *others = found["from_rest"]
    rest = np.concatenate(list(groups.values())[1:])
    assert first["generator"] == "0" and first["distance"] == pytest.approx(
        distance(groups["0"], rest)
    )
    assert first["p_holm"] < 0.05 and sum(one["p_holm"] < 0.05 for one in others) <= 1
    overall = found["overall"]
    assert overall["p"] < 0.001
    pairs = [(pair["a"], pair["b"]) for pair in found["pairs"]]
    assert pairs == list(combinations(groups, 2))
    assert overall["largest"] == pytest.approx(first["distance"] ** 2)
    assert overall["largest"] > 5 * overall["largest_expected"]
    assert overall["statistic"] - overall["expected"] < 0.1 * overall["largest"]  # a mean hides it


def test_the_largest_divergence_by_chance_is_that_of_permutations_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.dirichlet((1, 1, 1), n) for n in (10, 25, 30)]

    def largest(parts: Sequence[NDArray]) -> float:
        rests = [np.concatenate([other for other in parts if other is not part]) for part in parts]
        return max(distance(part, rest) ** 2 for part, rest in zip(parts, rests, strict=True))

    found, pooled = between(*groups)["overall"], np.concatenate(groups)
    assert found["largest"] == pytest.approx(largest(groups))
    values = [largest(np.split(rng.permutation(pooled), [10, 35])) for _ in range(1000)]
    assert found["largest_expected"] == pytest.approx(np.mean(values), rel=0.15)


def test_classes_are_compared_within_strata() -> None:
    """Two sets of other attention, one mostly real and one mostly generated: nothing differs by
    class (Simpson)."""
    rng, alarms, unstratified = np.random.default_rng(0), [], []
    for seed in range(200):
        strata = [
            (rng.dirichlet(mean, n), rng.dirichlet(mean, m))
            for mean, n, m in (((6, 2, 2), 45, 5), ((2, 2, 6), 5, 45))
        ]
        alarms.append(class_test(strata, 200, seed)["p"])
        pooled = tuple(np.concatenate([pair[c] for pair in strata]) for c in (0, 1))
        unstratified.append(class_test([pooled], 200, seed)["p"])
    assert max(unstratified) < 0.05
    assert (
        kstest(alarms, "uniform").pvalue > 0.001
        and binomtest(int(np.sum(np.array(alarms) < 0.05)), 200, 0.05).pvalue > 0.001
    )


def test_a_class_test_worked_by_hand() -> None:
    """One stratum is two groups; of two, all ways to divide both are few enough to list."""
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet((2, 1, 1), 20), rng.dirichlet((1, 1, 1), 30)
    found = class_test([(one, other), (one[:0], other)])  # a stratum of one class tells nothing
    assert (
        found["distance"]
        == pytest.approx(distance(one, other))
        == pytest.approx(found["statistic"] ** 0.5)
    )
    assert found["p"] == pytest.approx(from_rest(one, other), rel=0.5)
    strata = [
        (rng.dirichlet((3, 1, 1), 2), rng.dirichlet((1, 1, 3), 3)),
        (rng.dirichlet((3, 1, 1), 3), rng.dirichlet((1, 1, 3), 1)),
    ]
    shares = np.array([6 / 5, 3 / 4]) / (6 / 5 + 3 / 4)

    def divergence(divided: Sequence[tuple[NDArray, NDArray]]) -> float:
        means = [
            sum(s * pair[c].mean(axis=0) for s, pair in zip(shares, divided, strict=True))
            for c in (0, 1)
        ]
        return float(jensenshannon(*means, base=2) ** 2)

    divided = []
    for real, fake in strata:
        pooled = np.concatenate([real, fake])
        rows = [list(chosen) for chosen in combinations(range(len(pooled)), len(real))]
        divided.append([(pooled[chosen], np.delete(pooled, chosen, axis=0)) for chosen in rows])
    values = np.array([divergence(division) for division in product(*divided)])
    found, p = class_test(strata, 4000), np.mean(values >= divergence(strata) - 1e-12)
    assert found["statistic"] == pytest.approx(divergence(strata)) and found[
        "expected"
    ] == pytest.approx(values.mean(), rel=0.05)
    assert found["p"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000))
    assert class_test([(one[:0], other)]) is None and class_test([]) is None
