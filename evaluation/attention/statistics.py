"""Statistics of attention weights by scale and generator, with confidence intervals and tests.

Comparisons between generators use fake images only, because generators often share real images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from evaluation.attention.differences import PERMUTATIONS, class_test, differences
from evaluation.attention.groups import group_statistics
from evaluation.attention.kinds import MIN_IMAGES_FOR_VERDICT
from evaluation.resampling import CONFIDENCE, RESAMPLES, mean_interval
from evaluation.scores import Scores, first_of_each, pool, set_of_each, sharing
from networks.npr import scale_keys

MIN_PAIRS_FOR_CORRELATION = 4  # below this, a rank correlation is noise
POOLED = "all generators"


def attention_statistics(
    sets: Sequence[Scores],
    scales: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """Return all statistics as plain values for JSON, None where undefined.

    Args:
        sets: scores with attention, at least one image in all.
        scales: S, the columns of the weights.
        seed: of bootstrap and permutations.
        resamples: of the bootstrap, 0 for no intervals.
        permutations: of each test.

    Returns:
        scales; keys: text of each scale, by which everything below is named.
        count, seed, resamples, permutations, confidence.
        generators: list of name, family, and what `_of_images` returns.
        pooled: of all images, each once, so that large sets count more: what `_of_images` and
            `_within` return.
        between, between_real, classes: see `_comparisons`.
        with_accuracy: {key: `correlation` over generators of mean weight and accuracy}.

    Raises:
        ValueError: no image, or weights of another number of scales.
    """
    sets = [scored for scored in sets if len(scored.labels)]
    if not sets:
        raise ValueError("no image: attention statistics need at least one")
    if any(scored.weights.shape != (len(scored.labels), len(scales)) for scored in sets):
        raise ValueError(
            f"attention weights do not have one column for each of {len(scales)} scales"
        )
    keys = scale_keys(tuple(scales))
    generators = [
        {"name": scored.generator, "family": scored.suite}
        | _of_images(scored, keys, resamples, seed)
        for scored in sets
    ]
    all_images, of_set = pool(sets), set_of_each(sets)[first_of_each(sets)]
    pooled = _of_images(all_images, keys, resamples, seed, of_set)
    pooled |= _within(all_images.weights, 2 * of_set + all_images.labels, keys, resamples, seed)
    means = np.array([scored.weights.mean(axis=0) for scored in sets])
    accuracy = [generator["accuracy"] for generator in generators]
    return {
        "scales": [float(scale) for scale in scales],
        "keys": keys,
        "count": len(all_images.labels),
        "seed": seed,
        "resamples": resamples,
        "permutations": permutations,
        "confidence": CONFIDENCE,
        "generators": generators,
        "pooled": pooled,
        **_comparisons(sets, all_images, of_set, permutations, seed),
        "with_accuracy": {
            key: correlation(mean, accuracy) for key, mean in zip(keys, means.T, strict=True)
        },
    }


def _of_images(
    scored: Scores, keys: list[str], resamples: int, seed: int, strata: NDArray | None = None
) -> dict[str, Any]:
    """Return the statistics of N images.

    Args:
        scored: N images.
        keys: text of each scale.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        strata: [N], the generator of each image; None: all are one.

    Returns:
        count; accuracy (at 0.5).
        groups: {all, real, fake, correct, wrong (at 0.5), real_correct, real_wrong, fake_correct,
            fake_wrong: see `group_statistics`; None without images}.
        with_score: {real, fake: {key: `correlation` of weight and score, within strata}}.
    """
    labels, scores = np.asarray(scored.labels), np.asarray(scored.scores, dtype=float)
    weights = scored.weights
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
                key: correlation(column[groups[name]], scores[groups[name]], strata[groups[name]])
                for key, column in zip(keys, weights.T, strict=True)
            }
            for name in ("real", "fake")
        },
    }


def _within(
    weights: NDArray, cells: NDArray, keys: list[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Return the spread of attention within generator and class.

    Args:
        weights: [N, S].
        cells: [N], a number for each generator and class.
        keys: text of each scale.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        within_std: standard deviation per scale.
        within_spread: value, low, high (95 %) of its root mean square over the scales.
        Both are None where no two images share a cell.
    """
    _, cell = np.unique(cells, return_inverse=True)
    counts = np.bincount(cell)
    degrees = len(weights) - len(counts)
    if not degrees:
        return {"within_std": None, "within_spread": None}
    means = np.stack([np.bincount(cell, column) for column in weights.T], axis=1) / counts[:, None]
    # scaled so that their mean is the unbiased variance
    squares = (weights - means[cell]) ** 2 * (len(weights) / degrees)
    spread = squares.mean(axis=1)
    (low,), (high,) = mean_interval(spread[:, None], resamples, seed)
    ends = {"value": float(spread.mean()), "low": low, "high": high}
    return {
        "within_std": dict(zip(keys, np.sqrt(squares.mean(axis=0)).tolist(), strict=True)),
        "within_spread": {k: None if end is None else end**0.5 for k, end in ends.items()},
    }


def _comparisons(
    sets: Sequence[Scores], all_images: Scores, of_set: NDArray, permutations: int, seed: int
) -> dict[str, Any]:
    """Compare generators with each other, and real with fake images.

    Args:
        sets: of the generators.
        all_images: of all sets, each of the N images once.
        of_set: [N], position of each image's set.
        permutations: of each test.
        seed: of the permutations.

    Returns:
        between: of ('fake'), generators (number of those with two fake images), note (the reason if
            nothing can be compared, else None), and `differences` between them.
        between_real: the same for the real images of generators that have
            `MIN_IMAGES_FOR_VERDICT` of their own.
        classes: `class_test` of real and fake images within sets; sets that share images are one
            stratum.
    """
    weights, labels = all_images.weights, all_images.labels
    stratum = np.array(sharing(sets))[of_set]
    classes = [
        (weights[(stratum == s) & (labels == 0)], weights[(stratum == s) & (labels == 1)])
        for s in np.unique(stratum)
    ]
    comparisons: dict[str, Any] = {}
    for name, kind, label, fewest, what in (
        ("between", "fake", 1, 2, "generators with 2 fake images"),
        ("between_real", "real", 0, MIN_IMAGES_FOR_VERDICT,
         f"of the sets with {MIN_IMAGES_FOR_VERDICT} real images of their own"),
    ):  # fmt: skip
        of_class = {
            scored.key: weights[(of_set == index) & (labels == label)]
            for index, scored in enumerate(sets)
        }
        groups = {key: group for key, group in of_class.items() if len(group) >= fewest}
        note = None if len(groups) > 1 else f"{len(groups)} {what}: nothing to compare"
        comparisons[name] = {"of": kind, "generators": len(groups), "note": note}
        comparisons[name] |= differences(groups, permutations, seed)
    return comparisons | {"classes": class_test(classes, permutations, seed)}


def correlation(
    one: ArrayLike, other: ArrayLike, strata: ArrayLike | None = None
) -> dict[str, Any] | None:
    """Return Spearman's rank correlation of N pairs.

    Ranks are taken within each stratum, centred on its mean rank and divided by its size, so that
    differences between strata do not count. p is from Student's t with N - strata - 1 degrees of
    freedom.

    Args:
        one: [N].
        other: [N].
        strata: [N], a number for each pair; None: all are one.

    Returns:
        rho, p, n; None for fewer than `MIN_PAIRS_FOR_CORRELATION` pairs (one more for each further
        stratum), or where one side is constant.
    """
    values = np.array([one, other], dtype=float)
    strata = np.zeros(values.shape[1]) if strata is None else strata
    unique, stratum = np.unique(strata, return_inverse=True)
    degrees = values.shape[1] - len(unique) - 1
    if degrees < MIN_PAIRS_FOR_CORRELATION - 2:
        return None
    ranks = np.zeros(values.shape)
    for index in range(len(unique)):
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
