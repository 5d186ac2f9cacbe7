"""Permutation tests for differences of attention between groups of images.

If the groups get the same attention, the assignment of images to groups is arbitrary. So the
distances between random divisions of the images are the null distribution (Good, Permutation,
Parametric and Bootstrap Tests of Hypotheses, 2005).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import permutation_test

PERMUTATIONS = 1999  # p-values from 1/2000, which survive Holm's correction for up to 99 generators
# images of a group that a test permutes; more would find differences too small to matter
LIMIT = 500
CELLS = 2_000_000  # images times permutations at a time: bounds the memory
# divergences are rounded to this: sums in another order differ by less, and must tie
DIGITS = 10

Classes = tuple[NDArray, NDArray]
"""Attention weights [n, S] of real and [m, S] of fake images."""


def js_divergence(one: NDArray, other: NDArray) -> NDArray:
    """Return Jensen-Shannon divergences in bits, the squares of the distances.

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991.

    Args:
        one: [..., S], not negative; normalised here.
        other: the same.

    Returns:
        [...] in [0, 1].
    """
    # rounding may give the root of -1e-17
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(jensenshannon(one, other, base=2, axis=-1)) ** 2


def holm(p_values: NDArray) -> NDArray:
    """Return p-values [K] corrected for multiple tests (Holm, Scand. J. Stat. 6, 1979)."""
    order = p_values.argsort()
    raised = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1)
    return raised[order.argsort()]


def sample(weights: NDArray, rng: np.random.Generator) -> NDArray:
    """Return at most `LIMIT` rows in double precision, drawn at random."""
    if len(weights) > LIMIT:
        weights = weights[rng.choice(len(weights), LIMIT, replace=False)]
    return np.asarray(weights, dtype=float)


def differences(
    groups: Mapping[str, NDArray], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, Any]:
    """Compare the attention of named groups, such as generators.

    One set of permutations of all images over all groups serves every test.

    Args:
        groups: {name: weights [n, S], n >= 2}. Distances use all images, tests a `sample`.
        permutations: their largest number; fewer where fewer divisions of the images exist.
        seed: of the sample and the permutations.

    Returns:
        overall: None for fewer than two groups; else a dict of
            statistic: mean over the groups of the divergence in bits between the group's mean and
                the mean of all images;
            expected: its mean over the permutations;
            p: its p-value;
            largest, largest_expected: the same for the largest divergence between a group and the
                rest, because one group among many hardly changes a mean.
        from_rest: a dict per group of generator (its name), distance (Jensen-Shannon, in [0, 1],
            between its mean and that of the other groups' images), p, p_holm.
        pairs: a dict per pair of groups of a, b, distance.
    """
    if len(groups) < 2:
        return {"overall": None, "from_rest": [], "pairs": []}
    rng = np.random.default_rng(seed)
    sampled = [sample(weights, rng).T for weights in groups.values()]
    batch = max(1, CELLS // sum(part.shape[1] for part in sampled))
    test = permutation_test(
        sampled, _divergences, n_resamples=permutations, batch=batch, alternative="greater",
        vectorized=True, axis=-1, rng=rng,
    )  # fmt: skip
    mean, largest, *_ = test.statistic
    expected, largest_expected, *_ = test.null_distribution.mean(axis=0)
    overall = {"statistic": float(mean), "expected": float(expected), "p": float(test.pvalue[0])}
    overall |= {"largest": float(largest), "largest_expected": float(largest_expected)}

    all_weights = [np.asarray(weights, dtype=float).T for weights in groups.values()]
    distances = np.sqrt(_divergences(*all_weights)[2:])
    p_values = test.pvalue[2:]
    columns = zip(groups, distances, p_values, holm(p_values), strict=True)
    means = {name: weights.mean(axis=0) for name, weights in groups.items()}
    return {
        "overall": overall,
        "from_rest": [
            {"generator": name, "distance": float(distance), "p": float(p), "p_holm": float(p_holm)}
            for name, distance, p, p_holm in columns
        ],
        "pairs": [
            {"a": a, "b": b, "distance": float(js_divergence(means[a], means[b]) ** 0.5)}
            for a, b in combinations(groups, 2)
        ],
    }


def _divergences(*groups: NDArray, axis: int = -1) -> NDArray:
    """Return the divergences of G groups.

    Args:
        groups: weights [..., S, n] each.
        axis: of the images.

    Returns:
        [..., 2 + G]: the mean over the groups of the divergence from all images, the largest
        divergence from the rest, and the divergence of each group from the rest.
    """
    sums = np.stack([group.sum(axis=axis) for group in groups])
    total = sums.sum(axis=0)
    from_all = js_divergence(sums, total)
    from_rest = js_divergence(sums, np.maximum(total - sums, 0))
    rows = [from_all.mean(axis=0), from_rest.max(axis=0), *from_rest]
    return np.stack(rows, axis=-1).round(DIGITS)


def class_test(
    strata: Sequence[Classes], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float] | None:
    """Compare real and fake images within strata, such as generators.

    Differences between strata do not count, however the classes are spread over them (Simpson, J.
    R. Stat. Soc. B 13, 1951). Each stratum has the same share in the means of both classes, in
    proportion to n m / (n + m) (Cochran, Biometrics 10, 1954). Images are permuted within strata.

    Args:
        strata: the two classes of each. The distance uses all images, the test a `sample`.
        permutations: their number.
        seed: of the sample and the permutations.

    Returns:
        distance: Jensen-Shannon, in [0, 1].
        statistic: the divergence in bits, in the sample.
        expected: its mean over the permutations.
        p: (1 + permutations that reach it) / (1 + permutations) (Phipson and Smyth, 2010).
        None instead if no stratum has both classes.
    """
    strata = [classes for classes in strata if all(map(len, classes))]
    if not strata:
        return None
    rng = np.random.default_rng(seed)
    sampled = [(sample(real, rng), sample(fake, rng)) for real, fake in strata]
    permuted = np.zeros((2, permutations, strata[0][0].shape[1]))
    for share, (real, fake) in zip(_shares(sampled), sampled, strict=True):
        pooled = np.concatenate([real, fake])
        keys = rng.random((permutations, len(pooled)))
        drawn = pooled[keys.argpartition(len(real) - 1, axis=1)[:, : len(real)]].sum(axis=1)
        rest = np.maximum(pooled.sum(axis=0) - drawn, 0)
        permuted += share * np.stack([drawn / len(real), rest / len(fake)])
    chance = js_divergence(*permuted).round(DIGITS)
    observed = js_divergence(*_class_means(sampled)).round(DIGITS)
    return {
        "distance": float(js_divergence(*_class_means(strata)) ** 0.5),
        "statistic": float(observed),
        "expected": float(chance.mean()),
        "p": float((1 + (chance >= observed).sum()) / (1 + permutations)),
    }


def _shares(strata: Sequence[Classes]) -> NDArray:
    """Return the share of each stratum in the means, [strata]."""
    shares = np.array([len(r) * len(f) / (len(r) + len(f)) for r, f in strata])
    return shares / shares.sum()


def _class_means(strata: Sequence[Classes]) -> NDArray:
    """Return the mean attention of both classes, [2, S]."""
    # [strata, 2, S]
    means = np.array([[weights.mean(axis=0) for weights in classes] for classes in strata])
    return np.tensordot(_shares(strata), means, axes=1)
