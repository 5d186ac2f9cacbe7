"""Do groups of images get different attention? Jensen-Shannon distances between mean attentions, with permutation tests.

Under the hypothesis that two groups of images get the same attention, which image belongs to which is arbitrary: the distance of
many random divisions tells what chance gives (Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005).
"""

from collections.abc import Sequence
from itertools import combinations, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import gamma

PERMUTATIONS = 1000
LIMIT = 500
"""Images of a group that tests permute, drawn at random from larger groups: more of them resolve differences nobody asks for."""
RARE = 10
"""With fewer permutations than this beyond the observed value, the tail of a fitted distribution gives the p-value."""
SMALLEST = 1e-6
"""Further out, the fit says nothing."""
TIE = 1e-10
"""Divergences that differ by less are equal: sums in another order differ so much."""


def js_divergence(one: NDArray, other: NDArray) -> NDArray:
    """Jensen-Shannon divergence in bits, in [0, 1], of rows [..., S] that are normalised here: [...]; the square of the distance.

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991.
    """
    with np.errstate(invalid="ignore"):  # the root of -1e-17
        return np.nan_to_num(jensenshannon(one, other, base=2, axis=-1)) ** 2


def p_value(observed: float, permuted: NDArray) -> float:
    """Probability of a divergence at least as large as the observed one by chance, from those of P permutations [P].

    (1 + permutations that reach it) / (1 + P) (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010) is at least 1 / (1 + P),
    too much to survive a correction for hundreds of tests. Where fewer than `RARE` reach it, it is the tail of the gamma
    distribution with the permutations' mean and variance instead, if that is smaller: the divergence of two sample
    means is nearly a sum of weighted squares of normal variables (Satterthwaite, Biometrics Bulletin 2, 1946). It is never below
    `SMALLEST`.
    """
    reached = int((permuted >= observed - TIE).sum())
    counted = (1 + reached) / (1 + len(permuted))
    mean, variance = float(permuted.mean()), float(permuted.var())
    if reached >= RARE or variance == 0:
        return counted
    return min(counted, max(SMALLEST, float(gamma.sf(observed, mean**2 / variance, scale=variance / mean))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order (Holm, Scand. J. Stat. 6, 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return raised[order.argsort()].tolist()


def sample(weights: NDArray, rng: np.random.Generator) -> NDArray:
    """At most `LIMIT` rows."""
    return weights if len(weights) <= LIMIT else weights[rng.choice(len(weights), LIMIT, replace=False)]


def pair_tests(
    pairs: Sequence[tuple[NDArray, NDArray]], permutations: int = PERMUTATIONS, seed: int = 0
) -> list[float]:
    """P-value for each pair of attentions [n, S] and [m, S]: images permuted between the two; see `p_value`.

    Pairs of the same sizes share their permutations; each p-value is right for itself, and `holm` asks for no independence.
    """
    pairs = [tuple(sorted(pair, key=len)) for pair in pairs]  # type: ignore[misc] # the distance is symmetric
    sizes = [(len(one), len(other)) for one, other in pairs]
    keys = np.random.default_rng(seed).random((permutations, max(map(sum, sizes), default=0)), dtype=np.float32)
    found = [1.0] * len(pairs)
    for (n, m), group in groupby(sorted(range(len(pairs)), key=lambda index: sizes[index]), key=lambda i: sizes[i]):
        of_size = list(group)
        drawn = keys[:, : n + m]
        chosen = (drawn <= np.partition(drawn, n - 1, axis=1)[:, n - 1 : n]).astype(
            np.float32
        )  # [P, n + m], n of each row
        pooled = np.stack([np.concatenate(pairs[index]) for index in of_size], axis=1).astype(
            np.float32
        )  # [n + m, K, S]
        sums = (chosen @ pooled.reshape(n + m, -1)).reshape(permutations, *pooled.shape[1:])  # [P, K, S]
        rest = np.maximum(pooled.sum(axis=0) - sums, 0)
        permuted = js_divergence(sums.astype(float), rest.astype(float))  # [P, K]
        for column, index in enumerate(of_size):
            one, other = pairs[index]
            found[index] = p_value(float(js_divergence(one.mean(axis=0), other.mean(axis=0))), permuted[:, column])
    return found


def overall_test(groups: Sequence[NDArray], permutations: int = PERMUTATIONS, seed: int = 0) -> dict[str, float]:
    """Do any of G >= 2 groups of attentions [n_g, S] differ?

    Returns:
        statistic: mean over the groups of the divergence (bits) between a group's mean and that of all images. expected: its mean
        over permutations of the images over the groups, which is what chance gives. p: see `p_value`.
    """
    rng = np.random.default_rng(seed)
    pooled = np.concatenate(groups)
    starts = np.cumsum([0, *map(len, groups[:-1])])
    sums = np.stack([np.add.reduceat(pooled[rng.permutation(len(pooled))], starts) for _ in range(permutations)])
    permuted = js_divergence(sums, pooled.mean(axis=0)).mean(axis=1)
    observed = float(js_divergence(np.add.reduceat(pooled, starts), pooled.mean(axis=0)).mean())
    return {"statistic": observed, "expected": float(permuted.mean()), "p": p_value(observed, permuted)}


def differences(
    groups: dict[str, NDArray], permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[dict[str, float] | None, list[dict[str, Any]]]:
    """`overall_test` of named groups of attentions [n_g, S], None for fewer than two, and all pairs.

    Each pair: a, b (names), distance (Jensen-Shannon, base 2, in [0, 1], of the means over all images), p, p_holm. Tests take
    `sample` of each group.
    """
    rng = np.random.default_rng(seed)
    sampled = {name: sample(weights, rng) for name, weights in groups.items()}
    if len(groups) < 2:
        return None, []
    names = list(combinations(groups, 2))
    p_values = pair_tests([(sampled[a], sampled[b]) for a, b in names], permutations, seed)
    means = {name: weights.mean(axis=0) for name, weights in groups.items()}
    pairs = [
        {"a": a, "b": b, "distance": float(js_divergence(means[a], means[b]) ** 0.5), "p": p, "p_holm": corrected}
        for (a, b), p, corrected in zip(names, p_values, holm(p_values), strict=True)
    ]
    return overall_test(list(sampled.values()), permutations, seed), pairs
