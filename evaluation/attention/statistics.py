"""What attention weights say: per scale and generator, how sure that is, and whether generators
differ.

Generated images alone stand for a generator where generators are compared: real images are often
shared between them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import beta, rankdata
from scipy.stats import t as student

from evaluation.attention.differences import PERMUTATIONS, class_test, differences
from evaluation.resampling import CONFIDENCE, RESAMPLES, mean_interval
from evaluation.scores import Scores, first_of_each, pool, set_of_each, sharing
from networks.npr import scale_keys

NEARLY_ALL = 0.9
"""A scale with at least this weight takes nearly everything."""
FEWEST = 4
"""Correlations of fewer values are not computed."""
FEWEST_IMAGES = 10
"""Of fewer images nothing is said in words."""
POOLED = "all generators"


def attention_statistics(
    sets: Sequence[Scores],
    scales: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """All statistics as plain values for JSON, None where undefined; the same input and seed give
    the same.

    Args:
        sets: at least one image in all. scales: S, the columns of the weights.
        resamples: of the bootstrap, 0 for no intervals. permutations: of each test.

    Returns:
        scales; keys (text of each scale, by which everything below is named); count, seed,
        resamples, permutations, confidence.
        generators: list of name, family, count, accuracy (at 0.5), groups, with_score.
        pooled: the same over all images, each once, so that large sets count more; within_std: std
            per scale within generator and class; within_spread: value, low, high (95 %) of its root
            mean square over the scales. Both None where no two images share generator and class.
        groups: {all, real, fake, correct, wrong (at 0.5), real_correct, real_wrong, fake_correct,
            fake_wrong: see `group_statistics`, or None without images}.
        with_score: {real, fake: {key: `correlation` of weight and score, in pooled within
            generators}}.
        between: of ('fake'), generators (how many have generated images), note (why there is
            nothing to compare, or None), and `differences` between them.
        between_real: the same of the real images of generators that have `FEWEST_IMAGES` of their
            own, without pairs.
        classes: `class_test` of real and generated images within sets (sets that share images are
            one), None without such.
        with_accuracy: {key: `correlation` over generators of mean weight and accuracy}.

    Raises:
        ValueError: no image, or weights of another number of scales.
    """
    if not any(len(one.labels) for one in sets):
        raise ValueError("no image to take statistics of")
    if any(_attention(one).shape != (len(one.labels), len(scales)) for one in sets):
        raise ValueError(f"weights are not of {len(scales)} scales")
    keys = scale_keys(tuple(scales))
    sets = [one for one in sets if len(one.labels)]
    generators = [
        {"name": one.generator, "family": one.suite, **_of_images(one, keys, resamples, seed)}
        for one in sets
    ]
    together = pool(sets)
    weights, labels = _attention(together), together.labels
    of_set = set_of_each(sets)[first_of_each(sets)]
    pooled = _of_images(together, keys, resamples, seed, of_set)
    pooled |= _within(weights, 2 * of_set + labels, keys, resamples, seed)
    of_key = np.array([one.key for one in sets])[of_set]
    stratum = np.array(sharing(sets))[of_set]
    means, accuracy = (
        np.array([_attention(one).mean(axis=0) for one in sets]),
        [one["accuracy"] for one in generators],
    )
    return {
        "scales": [float(scale) for scale in scales],
        "keys": keys,
        "count": len(labels),
        "seed": seed,
        "resamples": resamples,
        "permutations": permutations,
        "confidence": CONFIDENCE,
        "generators": generators,
        "pooled": pooled,
        "between": _between(sets, permutations, seed),
        "between_real": _between_real(
            weights[labels == 0], of_key[labels == 0], permutations, seed
        ),
        "classes": class_test(
            [
                tuple(weights[(stratum == s) & (labels == label)] for label in (0, 1))
                for s in np.unique(stratum)
            ],
            permutations,
            seed,
        ),
        "with_accuracy": {
            key: correlation(means[:, column], accuracy) for column, key in enumerate(keys)
        },
    }


def _attention(one: Scores) -> NDArray:
    return np.asarray(one.attention, dtype=float)


def _of_images(
    one: Scores, keys: list[str], resamples: int, seed: int, strata: NDArray | None = None
) -> dict[str, Any]:
    weights, labels, scores = (
        np.asarray(part, dtype=float) for part in (one.attention, one.labels, one.scores)
    )
    correct, real = (scores > 0.5) == (labels == 1), labels == 0
    groups = {
        "all": labels >= 0, "real": real, "fake": ~real, "correct": correct, "wrong": ~correct,
        "real_correct": real & correct, "real_wrong": real & ~correct,
        "fake_correct": ~real & correct, "fake_wrong": ~real & ~correct,
    }  # fmt: skip
    strata = np.zeros(len(labels)) if strata is None else strata
    return {
        "count": len(labels),
        "accuracy": float(correct.mean()),
        "groups": {
            name: group_statistics(weights[rows], keys, resamples, seed) if rows.any() else None
            for name, rows in groups.items()
        },
        "with_score": {
            name: {
                key: correlation(column[rows], scores[rows], strata[rows])
                for key, column in zip(keys, weights.T, strict=True)
            }
            for name, rows in (("real", real), ("fake", ~real))
        },
    }


def group_statistics(
    weights: NDArray, keys: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Statistics of the weights [N, S] of N >= 1 images.

    Returns:
        count. scales: {key: mean, std (population), median, low and high (95 % percentile bootstrap
        of the mean over images, None for one image), top (share of images whose largest weight is
        this scale's, ties divided), nearly_all (share of images that give it at least
        `NEARLY_ALL`), nearly_all_low (lower end of its 95 % interval, Clopper and Pearson,
        Biometrika 1934)}. entropy (nats, of an image's weights): mean, std, of_mean (entropy of the
        mean weights), and relative_mean, relative_low, relative_high (95 %), relative_of_mean in
        [0, 1], divided by ln S (None for one scale).
        mutual_information: between image and scale, of_mean - mean (nats; Bridle et al., NIPS
            1991).
    """
    entropy = entr(weights).sum(axis=1)
    low, high = mean_interval(np.column_stack([weights, entropy]), resamples, seed)
    top = weights == weights.max(axis=1, keepdims=True)
    share = (top / top.sum(axis=1, keepdims=True)).mean(axis=0)
    mean, of_mean = weights.mean(axis=0), float(entr(weights.mean(axis=0)).sum())
    columns = zip(keys, mean, weights.std(axis=0), np.median(weights, axis=0), share, strict=True)
    uniform = np.log(len(keys))
    nearly_all = (weights >= NEARLY_ALL).sum(axis=0)
    surely = np.nan_to_num(
        beta.ppf((1 - CONFIDENCE) / 2, nearly_all, len(weights) - nearly_all + 1)
    )
    return {
        "count": len(weights),
        "scales": {
            key: {"mean": float(m), "std": float(s), "median": float(middle), "low": low[i], "high": high[i],
                  "top": float(first), "nearly_all": float(nearly_all[i] / len(weights)), "nearly_all_low": float(surely[i])}
            for i, (key, m, s, middle, first) in enumerate(columns)
        },
        "entropy": {
            "mean": float(entropy.mean()),
            "std": float(entropy.std()),
            "of_mean": of_mean,
            **{
                f"relative_{name}": float(value / uniform) if uniform and value is not None else None
                for name, value in (("mean", entropy.mean()), ("low", low[-1]), ("high", high[-1]), ("of_mean", of_mean))
            },
        },
        "mutual_information": max(0.0, of_mean - float(entropy.mean())),
    }  # fmt: skip


def correlation(one: Any, other: Any, strata: Any = None) -> dict[str, Any] | None:
    """Spearman's rho of N pairs, its p and n; None for fewer than `FEWEST`, or where one side is
    constant.

    Of several strata (each asks for one pair more), ranks are taken within each, as a share of its
    size and from its mean rank: what strata differ by does not count. p is that of Student's t with
    N - strata - 1 degrees of freedom.

    Args:
        one, other: [N]. strata: [N], a number for each pair; None: all are one.
    """
    values = np.array([one, other], dtype=float)
    found, stratum = np.unique(
        np.zeros(values.shape[1]) if strata is None else strata, return_inverse=True
    )
    degrees = values.shape[1] - len(found) - 1
    if degrees < FEWEST - 2:
        return None
    ranks = np.zeros(values.shape)
    for index in range(len(found)):
        rows = stratum == index
        ranked = rankdata(values[:, rows], axis=1)
        ranks[:, rows] = (ranked - ranked.mean(axis=1, keepdims=True)) / rows.sum()
    squares = (ranks**2).sum(axis=1)
    if not squares.all():
        return None
    rho = float(np.clip(ranks[0] @ ranks[1] / np.sqrt(squares.prod()), -1, 1))
    with np.errstate(divide="ignore"):
        statistic = abs(rho) * np.sqrt(degrees / np.float64(1 - rho**2))
    return {"rho": rho, "p": float(2 * student.sf(statistic, degrees)), "n": values.shape[1]}


def _within(
    weights: NDArray, cells: NDArray, keys: list[str], resamples: int, seed: int
) -> dict[str, Any]:
    """within_std and within_spread of `attention_statistics`. cells: [N], a number for each
    generator and class."""
    _, cell = np.unique(cells, return_inverse=True)
    counts = np.bincount(cell)
    degrees = len(weights) - len(counts)
    if not degrees:
        return {"within_std": None, "within_spread": None}
    means = np.stack([np.bincount(cell, column) for column in weights.T], axis=1) / counts[:, None]
    squares = (weights - means[cell]) ** 2 * (len(weights) / degrees)  # their mean is the variance
    spread = squares.mean(axis=1)
    (low,), (high,) = mean_interval(spread[:, None], resamples, seed)
    ends = {
        name: None if end is None else float(end**0.5)
        for name, end in (("low", low), ("high", high))
    }
    return {
        "within_std": dict(zip(keys, np.sqrt(squares.mean(axis=0)).tolist(), strict=True)),
        "within_spread": {"value": float(spread.mean() ** 0.5), **ends},
    }


def _between(sets: Sequence[Scores], permutations: int, seed: int) -> dict[str, Any]:
    by_generator: dict[str, list[NDArray]] = {}
    for one in sets:
        if (one.labels == 1).any():
            by_generator.setdefault(one.key, []).append(_attention(one)[one.labels == 1])
    fakes = {key: np.concatenate(parts) for key, parts in by_generator.items()}
    note = (
        f"{len(fakes)} generator{'s' * (len(fakes) != 1)} with generated images: nothing to compare"
    )
    about = {"of": "fake", "generators": len(fakes), "note": None if len(fakes) > 1 else note}
    return about | differences(fakes, permutations, seed)


def _between_real(weights: NDArray, keys: NDArray, permutations: int, seed: int) -> dict[str, Any]:
    groups = {key: weights[keys == key] for key in dict.fromkeys(keys.tolist())}
    reals = {key: group for key, group in groups.items() if len(group) >= FEWEST_IMAGES}
    note = f"{len(reals)} of the sets with {FEWEST_IMAGES} real images of their own: nothing to compare"
    about = {"of": "real", "generators": len(reals), "note": None if len(reals) > 1 else note}
    return about | differences(reals, permutations, seed, pairwise=False)
