"""What attention weights say: per scale and generator, how sure that is, and whether generators differ.

Generated images alone stand for a generator where generators are compared: real images are often shared between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import spearmanr

from evaluation.attention_differences import PERMUTATIONS, differences, js_divergence, overall_test, sample
from evaluation.bootstrap import CONFIDENCE, RESAMPLES
from networks.npr import scale_keys

NEARLY_ALL = 0.9
"""A scale with at least this weight takes nearly everything."""
FEWEST = 4
"""Correlations of fewer values are not computed."""
BLOCK = 200_000
"""Images times resamples at a time: bounds the memory of the bootstrap."""
POOLED = "all generators"


@dataclass(frozen=True)
class Attended:
    """Attention of one model on the N images of one generator.

    Args:
        name: generator. family: suite. labels: [N], 0 real, 1 generated. scores: [N] in [0, 1]. weights: [N, S], rows sum to 1.
        branch_logits: [N, S], each branch's logit without bias, or None.
        images: N names; an image that comes in several sets (real ones that generators share) counts once in what is said of all
            images. None: all are taken as different.
    """

    name: str
    family: str
    labels: NDArray
    scores: NDArray
    weights: NDArray
    branch_logits: NDArray | None = None
    images: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.family}/{self.name}"


def first_of_each(sets: Sequence[Attended]) -> NDArray:
    """Which of the images of all sets, in their order, come for the first time: [all images], bool."""
    named = [(s.images or [(index, row) for row in range(len(s.labels))]) for index, s in enumerate(sets)]
    seen: set[Any] = set()
    return np.array([not (name in seen or seen.add(name)) for names in named for name in names], dtype=bool)  # type: ignore[func-returns-value]


def attention_statistics(
    sets: Sequence[Attended],
    scales: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """All statistics as plain values for JSON, None where undefined; the same input and seed give the same.

    Args:
        sets: at least one image in all. scales: S, the columns of the weights.
        resamples: of the bootstrap, 0 for no intervals. permutations: of each test.

    Returns:
        scales; keys (text of each scale, by which everything below is named); count, seed, resamples, permutations, confidence.
        generators: list of name, family, count, accuracy (at 0.5), groups, with_score.
        pooled: the same over all images, each once, and within_std: std per scale within generator and class, None where no
            two images share both.
        groups: {all, real, fake, correct, wrong (at 0.5): see `group_statistics`, or None without images}.
        with_score: {real, fake: {key: `correlation` of weight and score}}.
        between: of ('fake'), generators (how many have generated images), overall (`overall_test`, None for fewer than two),
            note (why None), pairs (see `differences`).
        classes: distance (Jensen-Shannon, base 2, of the mean attention of real and generated images) and their `overall_test`, or
            None without one of them.
        with_accuracy: {key: `correlation` over generators of mean weight and accuracy}.

    Raises:
        ValueError: no image, or weights of another number of scales.
    """
    if not any(len(one.labels) for one in sets):
        raise ValueError("no image to take statistics of")
    if any(one.weights.shape != (len(one.labels), len(scales)) for one in sets):
        raise ValueError(f"weights are not of {len(scales)} scales")
    keys = scale_keys(tuple(scales))
    sets = [one for one in sets if len(one.labels)]
    generators = [{"name": one.name, "family": one.family, **_of_images(one, keys, resamples, seed)} for one in sets]
    once = first_of_each(sets)
    weights, labels, scores = (
        np.concatenate([np.asarray(getattr(one, name), dtype=float) for one in sets])[once]
        for name in ("weights", "labels", "scores")
    )
    pooled = _of_images(Attended(POOLED, "", labels, scores, weights), keys, resamples, seed)
    pooled["within_std"] = _within_std(sets, once, keys)
    by_generator: dict[str, list[NDArray]] = {}
    for one in sets:
        if (one.labels == 1).any():
            by_generator.setdefault(one.key, []).append(np.asarray(one.weights, dtype=float)[one.labels == 1])
    fakes = {key: np.concatenate(parts) for key, parts in by_generator.items()}
    overall, pairs = differences(fakes, permutations, seed)
    note = (
        None
        if overall
        else f"{len(fakes)} generator{'s' * (len(fakes) != 1)} with generated images: nothing to compare"
    )
    means, accuracy = np.array([one.weights.mean(axis=0) for one in sets]), [one["accuracy"] for one in generators]
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
        "between": {"of": "fake", "generators": len(fakes), "overall": overall, "note": note, "pairs": pairs},
        "classes": _between_classes(weights, labels, permutations, seed),
        "with_accuracy": {key: correlation(means[:, column], accuracy) for column, key in enumerate(keys)},
    }


def _of_images(one: Attended, keys: list[str], resamples: int, seed: int) -> dict[str, Any]:
    weights, labels, scores = (np.asarray(part, dtype=float) for part in (one.weights, one.labels, one.scores))
    correct = (scores > 0.5) == (labels == 1)
    groups = {"all": labels >= 0, "real": labels == 0, "fake": labels == 1, "correct": correct, "wrong": ~correct}
    return {
        "count": len(labels),
        "accuracy": float(correct.mean()),
        "groups": {
            name: group_statistics(weights[rows], keys, resamples, seed) if rows.any() else None
            for name, rows in groups.items()
        },
        "with_score": {
            name: {key: correlation(weights[rows, column], scores[rows]) for column, key in enumerate(keys)}
            for name, rows in (("real", groups["real"]), ("fake", groups["fake"]))
        },
    }


def group_statistics(
    weights: NDArray, keys: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Statistics of the weights [N, S] of N >= 1 images.

    Returns:
        count. scales: {key: mean, std (population), median, low and high (95 % percentile bootstrap of the mean over images, None
        for one image), top (share of images whose largest weight is this scale's, ties divided), nearly_all (share of images
        that give it at least `NEARLY_ALL`)}.
        entropy (nats, of an image's weights): mean, std, of_mean (entropy of the mean weights), and relative_mean,
        relative_low, relative_high (95 %), relative_of_mean in [0, 1], divided by ln S (None for one scale).
        mutual_information: between image and scale, of_mean - mean (nats; Bridle et al., NIPS 1991).
    """
    entropy = entr(weights).sum(axis=1)
    low, high = _mean_interval(np.column_stack([weights, entropy]), resamples, seed)
    top = weights == weights.max(axis=1, keepdims=True)
    share = (top / top.sum(axis=1, keepdims=True)).mean(axis=0)
    mean, of_mean = weights.mean(axis=0), float(entr(weights.mean(axis=0)).sum())
    columns = zip(keys, mean, weights.std(axis=0), np.median(weights, axis=0), share, strict=True)
    uniform = np.log(len(keys))
    nearly_all = (weights >= NEARLY_ALL).mean(axis=0)
    return {
        "count": len(weights),
        "scales": {
            key: {"mean": float(m), "std": float(s), "median": float(middle), "low": low[i], "high": high[i],
                  "top": float(first), "nearly_all": float(nearly_all[i])}
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


def _mean_interval(values: NDArray, resamples: int, seed: int) -> tuple[list[float | None], list[float | None]]:
    """Low and high end per column of values [N, C]."""
    if len(values) < 2 or not resamples:
        return [None] * values.shape[1], [None] * values.shape[1]
    rng, count = np.random.default_rng(seed), len(values)
    means = []
    for rows in np.array_split(np.arange(resamples), -(-resamples * count // BLOCK)):  # a resample is a count per image
        drawn = (
            rng.integers(0, count, (len(rows), count), dtype=np.int32)
            + np.arange(len(rows), dtype=np.int32)[:, None] * count
        )
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(counts.astype(float) @ values / count)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low.tolist(), high.tolist()


def correlation(one: Any, other: Any) -> dict[str, Any] | None:
    """Spearman's rho, its p and n; None for fewer than `FEWEST` pairs or where one side is constant."""
    if len(one) < FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    rho, p = spearmanr(one, other)
    return {"rho": float(rho), "p": float(p), "n": len(one)}


def _within_std(sets: Sequence[Attended], once: NDArray, keys: list[str]) -> dict[str, float] | None:
    cells: list[NDArray] = []
    for one, chosen in zip(sets, np.split(once, np.cumsum([len(one.labels) for one in sets])[:-1]), strict=True):
        cells += [np.asarray(one.weights, dtype=float)[chosen & (one.labels == label)] for label in (0, 1)]
    cells = [cell for cell in cells if len(cell)]
    degrees = sum(len(cell) - 1 for cell in cells)
    if not degrees:
        return None
    squares = sum(((cell - cell.mean(axis=0)) ** 2).sum(axis=0) for cell in cells)
    return dict(zip(keys, np.sqrt(squares / degrees).tolist(), strict=True))


def _between_classes(weights: NDArray, labels: NDArray, permutations: int, seed: int) -> dict[str, float] | None:
    real, fake = weights[labels == 0], weights[labels == 1]
    if not len(real) or not len(fake):
        return None
    rng = np.random.default_rng(seed)
    distance = float(js_divergence(real.mean(axis=0), fake.mean(axis=0)) ** 0.5)
    return {"distance": distance, **overall_test([sample(real, rng), sample(fake, rng)], permutations, seed)}


def statistics_rows(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups of `attention_statistics` as rows for a CSV file: one per generator (`POOLED` last), group and scale."""
    rows = []
    for one in [*statistics["generators"], {"name": POOLED, "family": "", **statistics["pooled"]}]:
        for group, found in one["groups"].items():
            if found is None:
                continue
            about = {"generator": one["name"], "family": one["family"], "group": group, "count": found["count"]}
            entropy = {f"entropy_{name}": value for name, value in found["entropy"].items()}
            for key, of_scale in found["scales"].items():
                more = {"mutual_information": found["mutual_information"]}
                rows.append(about | {"scale": key} | of_scale | entropy | more)
    return rows
