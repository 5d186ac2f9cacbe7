"""Statistics of attention weights by scale and generator, with confidence intervals and tests.

Comparisons between generators use fake images only, because generators often share real images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from scipy.stats import beta, rankdata
from scipy.stats import t as student

from evaluation.attention.differences import PERMUTATIONS, class_test, differences
from evaluation.resampling import CONFIDENCE, RESAMPLES, mean_interval
from evaluation.scores import Scores, first_of_each, pool, set_of_each, sharing
from networks.npr import scale_keys

NEARLY_ALL = 0.9  # a scale with at least this weight takes nearly everything
MIN_PAIRS_FOR_CORRELATION = 4  # below this, a rank correlation is noise
MIN_IMAGES_FOR_VERDICT = 10  # below this, statistics are noise
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
        generators: list of name, family, count, accuracy (at 0.5), groups, with_score.
        pooled: the same over all images, each once, so that large sets count more. In addition:
            within_std: std per scale within generator and class;
            within_spread: value, low, high (95 %) of its root mean square over the scales.
            Both are None where no two images share generator and class.
        groups: {all, real, fake, correct, wrong (at 0.5), real_correct, real_wrong, fake_correct,
            fake_wrong: see `group_statistics`; None without images}.
        with_score: {real, fake: {key: `correlation` of weight and score}}; in pooled, within
            generators.
        between: of ('fake'), generators (number of those with two fake images), note (the reason if
            nothing can be compared, else None), and `differences` between them.
        between_real: the same for the real images of generators that have
            `MIN_IMAGES_FOR_VERDICT` of their own.
        classes: `class_test` of real and fake images within sets; sets that share images are one
            stratum.
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
        {
            "name": scored.generator,
            "family": scored.suite,
            **_of_images(scored, keys, resamples, seed),
        }
        for scored in sets
    ]
    all_images, of_set = pool(sets), set_of_each(sets)[first_of_each(sets)]
    weights, labels = all_images.weights, all_images.labels
    pooled = _of_images(all_images, keys, resamples, seed, of_set)
    pooled |= _within(weights, 2 * of_set + labels, keys, resamples, seed)
    stratum = np.array(sharing(sets))[of_set]
    classes = [
        (weights[(stratum == s) & (labels == 0)], weights[(stratum == s) & (labels == 1)])
        for s in np.unique(stratum)
    ]
    of_key = np.array([scored.key for scored in sets])[of_set]
    fakes = _by_generator(weights[labels == 1], of_key[labels == 1], 2)
    reals = _by_generator(weights[labels == 0], of_key[labels == 0], MIN_IMAGES_FOR_VERDICT)
    real_note = f"of the sets with {MIN_IMAGES_FOR_VERDICT} real images of their own"
    means = np.array([scored.weights.mean(axis=0) for scored in sets])
    accuracy = [generator["accuracy"] for generator in generators]
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
        "between": _between("fake", fakes, "generators with 2 fake images", permutations, seed),
        "between_real": _between("real", reals, real_note, permutations, seed),
        "classes": class_test(classes, permutations, seed),
        "with_accuracy": {
            key: correlation(mean, accuracy) for key, mean in zip(keys, means.T, strict=True)
        },
    }


def _of_images(
    scored: Scores, keys: list[str], resamples: int, seed: int, strata: NDArray | None = None
) -> dict[str, Any]:
    """Return count, accuracy, groups and with_score of `attention_statistics`.

    Args:
        scored: N images.
        keys: text of each scale.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        strata: [N], the generator of each image; None: all are one.
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


def group_statistics(
    weights: NDArray, keys: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return statistics of the attention of one group of images.

    Args:
        weights: [N, S], N >= 1.
        keys: text of each scale.
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        count: N.
        scales: a dict per key of
            mean, std (population), median;
            low, high: 95 % percentile bootstrap of the mean over images; None for one image;
            top: share of images whose largest weight is this scale's, ties divided;
            nearly_all: share of images that give it at least `NEARLY_ALL`;
            nearly_all_low: lower end of its 95 % interval (Clopper and Pearson, Biometrika 1934).
        entropy: of an image's weights, in nats:
            mean, std;
            of_mean: entropy of the mean weights;
            relative_mean, relative_low, relative_high (95 %), relative_of_mean: divided by ln S, in
                [0, 1]; None for one scale.
        mutual_information: between image and scale, of_mean - mean (nats; Bridle et al., NIPS
            1991).
    """
    weights = np.asarray(weights, dtype=float)
    entropy = entr(weights).sum(axis=1)
    low, high = mean_interval(np.column_stack([weights, entropy]), resamples, seed)
    top = weights == weights.max(axis=1, keepdims=True)
    nearly_all = (weights >= NEARLY_ALL).sum(axis=0)
    tail = (1 - CONFIDENCE) / 2
    columns = {
        "mean": weights.mean(axis=0).tolist(),
        "std": weights.std(axis=0).tolist(),
        "median": np.median(weights, axis=0).tolist(),
        "low": low[:-1],
        "high": high[:-1],
        "top": (top / top.sum(axis=1, keepdims=True)).mean(axis=0).tolist(),
        "nearly_all": (nearly_all / len(weights)).tolist(),
        "nearly_all_low": np.nan_to_num(
            beta.ppf(tail, nearly_all, len(weights) - nearly_all + 1)
        ).tolist(),
    }
    mean, of_mean = float(entropy.mean()), float(entr(weights.mean(axis=0)).sum())
    relative = {"mean": mean, "low": low[-1], "high": high[-1], "of_mean": of_mean}
    if len(keys) > 1:
        largest = float(np.log(len(keys)))
        relative = {k: None if v is None else v / largest for k, v in relative.items()}
    else:
        relative = dict.fromkeys(relative)
    return {
        "count": len(weights),
        "scales": {
            key: dict(zip(columns, values, strict=True))
            for key, *values in zip(keys, *columns.values(), strict=True)
        },
        "entropy": {
            "mean": mean,
            "std": float(entropy.std()),
            "of_mean": of_mean,
            **{f"relative_{name}": value for name, value in relative.items()},
        },
        "mutual_information": max(0.0, of_mean - mean),
    }


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


def _within(
    weights: NDArray, cells: NDArray, keys: list[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Return within_std and within_spread of `attention_statistics`.

    Args:
        weights: [N, S].
        cells: [N], a number for each generator and class.
        keys: text of each scale.
        resamples: of the bootstrap.
        seed: of the bootstrap.
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


def _by_generator(weights: NDArray, keys: NDArray, fewest: int) -> dict[str, NDArray]:
    """Return {key: weights} of the generators with at least `fewest` images, in their order."""
    groups = {key: weights[keys == key] for key in dict.fromkeys(keys.tolist())}
    return {key: group for key, group in groups.items() if len(group) >= fewest}


def _between(
    kind: str, groups: dict[str, NDArray], what: str, permutations: int, seed: int
) -> dict[str, Any]:
    note = None if len(groups) > 1 else f"{len(groups)} {what}: nothing to compare"
    header = {"of": kind, "generators": len(groups), "note": note}
    return header | differences(groups, permutations, seed)
