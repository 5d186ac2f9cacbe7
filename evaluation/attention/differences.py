"""Do groups of images get different attention? Jensen-Shannon distances between mean attentions,
with permutation tests.

Under the hypothesis that two groups of images get the same attention, which image belongs to which
is arbitrary: the distance of many random divisions tells what chance gives (Good, Permutation,
Parametric and Bootstrap Tests of Hypotheses, 2005).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import gammaln
from scipy.stats import gamma

PERMUTATIONS = 1000
LIMIT = 500
"""Images of a group that tests permute, drawn at random from larger groups: more of them resolve
differences nobody asks for."""
RARE = 10
"""With fewer permutations than this beyond the observed value, the tail of a fitted distribution
gives the p-value."""
SMALLEST = 1e-6
"""Further out, the fit says nothing."""
TIE = 1e-10
"""Divergences that differ by less are equal: sums in another order differ so much."""
PAIRS = 64
"""Pairs of groups that are permuted at a time: bounds the memory."""


def js_divergence(one: NDArray, other: NDArray) -> NDArray:
    """Jensen-Shannon divergence in bits, in [0, 1], of rows [..., S] that are normalised here:
    [...]; the square of the distance.

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991.
    """
    with np.errstate(invalid="ignore"):  # the root of -1e-17
        return np.nan_to_num(jensenshannon(one, other, base=2, axis=-1)) ** 2


def p_value(observed: float, permuted: NDArray, attainable: float = 0.0) -> float:
    """Probability of a divergence at least as large as the observed one by chance, from those of P
    permutations [P].

    (1 + permutations that reach it) / (1 + P) (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9,
    2010) is at least 1 / (1 + P), too much to survive a correction for hundreds of tests. Where
    fewer than `RARE` reach it, it is the tail of the gamma distribution with the permutations' mean
    and variance instead, if that is smaller: the divergence of two sample means is nearly a sum of
    weighted squares of normal variables (Satterthwaite, Biometrics Bulletin 2, 1946).

    Args:
        attainable: see `smallest_p`. The result is below neither this nor `SMALLEST`.
    """
    reached = int((permuted >= observed - TIE).sum())
    counted = (1 + reached) / (1 + len(permuted))
    mean, variance = float(permuted.mean()), float(permuted.var())
    if reached < RARE and variance > 0:
        counted = min(
            counted,
            max(SMALLEST, float(gamma.sf(observed, mean**2 / variance, scale=variance / mean))),
        )
    return max(counted, attainable)


def smallest_p(*strata: Sequence[int]) -> float:
    """One in how many ways to divide the images, of which the observed one is the most extreme: no
    permutation test can go below.

    Groups that are equally large (in every stratum) may change places, and divide the images alike:
    two and two images can be divided in three ways.

    Args:
        strata: sizes of the groups, one such list for each stratum within which images are
            permuted.
    """
    divisions = sum(gammaln(1 + sum(sizes)) - sum(gammaln(1 + np.array(sizes))) for sizes in strata)
    alike = Counter(zip(*strata, strict=True)).values()
    return float(np.exp(min(0.0, sum(gammaln(1 + np.array(list(alike)))) - divisions)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order (Holm, Scand. J. Stat. 6, 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return raised[order.argsort()].tolist()


def sample(weights: NDArray, rng: np.random.Generator) -> NDArray:
    """At most `LIMIT` rows."""
    return (
        weights
        if len(weights) <= LIMIT
        else weights[rng.choice(len(weights), LIMIT, replace=False)]
    )


def _first_sums(keys: NDArray, pooled: NDArray, first: int) -> NDArray:
    """Sums [P, ...] over the `first` of the images [N, ...] that have the smallest random numbers
    in each row of keys [P, N]."""
    chosen = keys <= np.partition(keys, first - 1, axis=1)[:, first - 1 : first]
    return np.tensordot(chosen.astype(float), pooled, axes=1)


def pair_tests(
    pairs: Sequence[tuple[NDArray, NDArray]], permutations: int = PERMUTATIONS, seed: int = 0
) -> list[float]:
    """P-value for each pair of attentions [n, S] and [m, S]: images permuted between the two; see
    `p_value`.

    Pairs of the same sizes share their permutations; each p-value is right for itself, and `holm`
    asks for no independence.
    """
    pairs = [tuple(sorted(pair, key=len)) for pair in pairs]  # type: ignore[misc] # the distance is symmetric
    sizes = [(len(one), len(other)) for one, other in pairs]
    keys = np.random.default_rng(seed).random((permutations, max(map(sum, sizes), default=0)))
    found = [1.0] * len(pairs)
    for (n, m), group in groupby(
        sorted(range(len(pairs)), key=lambda index: sizes[index]), key=lambda i: sizes[i]
    ):
        of_size, attainable = list(group), smallest_p((n, m))
        for start in range(0, len(of_size), PAIRS):
            block = of_size[start : start + PAIRS]
            # [n + m, K, S]
            pooled = np.stack([np.concatenate(pairs[index]) for index in block], axis=1).astype(
                float
            )
            sums = _first_sums(keys[:, : n + m], pooled, n)  # [P, K, S]
            permuted = js_divergence(sums, np.maximum(pooled.sum(axis=0) - sums, 0))  # [P, K]
            observed = js_divergence(pooled[:n].sum(axis=0), pooled[n:].sum(axis=0))  # [K]
            for column, index in enumerate(block):
                found[index] = p_value(float(observed[column]), permuted[:, column], attainable)
    return found


def overall_test(
    groups: Sequence[NDArray], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float]:
    """Do any of G >= 2 groups of attentions [n_g, S] differ?

    Returns:
        statistic: mean over the groups of the divergence (bits) between a group's mean and that of
        all images. expected: its mean over permutations of the images over the groups, which is
        what chance gives. p: see `p_value`. largest, largest_expected: the same of the largest
        divergence between a group's mean and that of the other groups' images: one group that
        differs from many hardly moves a mean over the groups.
    """
    rng = np.random.default_rng(seed)
    pooled = np.concatenate(groups).astype(float)
    starts = np.cumsum([0, *map(len, groups[:-1])])
    orders = (np.arange(len(pooled)), *(rng.permutation(len(pooled)) for _ in range(permutations)))
    sums = np.stack([np.add.reduceat(pooled[order], starts) for order in orders])  # [1 + P, G, S]
    total = pooled.sum(axis=0)
    mean = js_divergence(sums, total).mean(axis=1)
    largest = js_divergence(sums, np.maximum(total - sums, 0)).max(axis=1)
    return {
        "statistic": float(mean[0]), "expected": float(mean[1:].mean()),
        "p": p_value(float(mean[0]), mean[1:], smallest_p([len(one) for one in groups])),
        "largest": float(largest[0]), "largest_expected": float(largest[1:].mean()),
    }  # fmt: skip


def class_test(
    strata: Sequence[tuple[NDArray, NDArray]], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float] | None:
    """Do two classes differ within strata? Attentions [n, S] and [m, S] for each; None where no
    stratum has both.

    What strata differ by does not count, however the classes are spread over them (Simpson, J. R.
    Stat. Soc. B 13, 1951): each stratum has the same share in the means of both classes, in
    proportion to n m / (n + m) (Cochran, Biometrics 10, 1954), and images are permuted within it.
    Tests take `sample` of each class of each stratum.

    Returns:
        distance: Jensen-Shannon, base 2, between these two means. statistic: the divergence (bits)
        of the sampled ones; expected: its mean over the permutations. p: see `p_value`.
    """
    strata = [pair for pair in strata if len(pair[0]) and len(pair[1])]
    if not strata:
        return None
    rng = np.random.default_rng(seed)
    sampled = [(sample(one, rng), sample(other, rng)) for one, other in strata]
    permuted = np.zeros((2, permutations, strata[0][0].shape[1]))
    for share, (one, other) in zip(_shares(sampled), sampled, strict=True):
        pooled = np.concatenate([one, other]).astype(float)
        sums = _first_sums(rng.random((permutations, len(pooled))), pooled, len(one))
        permuted += share * np.stack([sums / len(one), (pooled.sum(axis=0) - sums) / len(other)])
    chance = js_divergence(*np.maximum(permuted, 0))
    observed = float(js_divergence(*_means(sampled)))
    attainable = smallest_p(*((len(one), len(other)) for one, other in sampled))
    return {
        "distance": float(js_divergence(*_means(strata)) ** 0.5),
        "statistic": observed, "expected": float(chance.mean()), "p": p_value(observed, chance, attainable),
    }  # fmt: skip


def _shares(strata: Sequence[tuple[NDArray, NDArray]]) -> NDArray:
    shares = np.array([len(one) * len(other) / (len(one) + len(other)) for one, other in strata])
    return shares / shares.sum()


def _means(strata: Sequence[tuple[NDArray, NDArray]]) -> NDArray:
    """Mean attention of both classes, [2, S]."""
    # [strata, 2, S]
    means = np.array([[of_class.mean(axis=0) for of_class in classes] for classes in strata])
    return np.tensordot(_shares(strata), means, axes=1)


def differences(
    groups: dict[str, NDArray],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    pairwise: bool = True,
) -> dict[str, Any]:
    """How named groups of attentions [n_g, S] differ. Tests take `sample` of each group, distances
    all of its images.

    Returns:
        overall: `overall_test`, None for fewer than two groups. from_rest: for each group generator
        (its name), distance (Jensen-Shannon, base 2, in [0, 1], between its mean and that of the
        other groups' images), p and p_holm (corrected for the number of groups). pairs: for each
        pair a, b (names), distance of their means, p, p_holm; empty without `pairwise`.
    """
    if len(groups) < 2:
        return {"overall": None, "from_rest": [], "pairs": []}
    rng = np.random.default_rng(seed)
    sampled = {name: sample(weights, rng) for name, weights in groups.items()}
    means = {name: weights.mean(axis=0) for name, weights in groups.items()}
    against, apart = [], []
    for name in groups:
        rest = np.concatenate([weights for other, weights in groups.items() if other != name])
        against.append((sampled[name], sample(rest, rng)))
        apart.append(js_divergence(means[name], rest.mean(axis=0)) ** 0.5)
    from_rest = [
        {"generator": name, "distance": float(distance)} | tested
        for name, distance, tested in zip(
            groups, apart, _tested(against, permutations, seed), strict=True
        )
    ]
    names = list(combinations(groups, 2)) if pairwise else []
    tests = _tested([(sampled[a], sampled[b]) for a, b in names], permutations, seed)
    pairs = [
        {"a": a, "b": b, "distance": float(js_divergence(means[a], means[b]) ** 0.5)} | tested
        for (a, b), tested in zip(names, tests, strict=True)
    ]
    return {
        "overall": overall_test(list(sampled.values()), permutations, seed),
        "from_rest": from_rest,
        "pairs": pairs,
    }


def _tested(
    pairs: Sequence[tuple[NDArray, NDArray]], permutations: int, seed: int
) -> list[dict[str, float]]:
    p_values = pair_tests(pairs, permutations, seed)
    return [
        {"p": p, "p_holm": corrected} for p, corrected in zip(p_values, holm(p_values), strict=True)
    ]
