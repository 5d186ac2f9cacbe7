"""Statistics of the attention of a group of images, and the scale that leads in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import beta

from evaluation.attention.kinds import LEADS, MIN_IMAGES_FOR_VERDICT, NEARLY_ALL
from evaluation.resampling import CONFIDENCE, RESAMPLES, mean_interval

# prefixes of attention metrics in the training log: of a fixed part of the val split, and of all
FIXED, VALIDATION = "attention", "attention_validation"
# the middle comes first, so that 0.375 and 0.625 belong to it
READINGS = {
    0.5: ("middle", "the scale of the single-scale detector"),
    0.25: ("coarse", "coarse artifacts, common for GANs with progressive growing"),
    0.75: ("fine", "fine artifacts of subtle up-sampling"),
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
        scales: see `_of_scales`.
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
    mean, of_mean = float(entropy.mean()), float(entr(weights.mean(axis=0)).sum())
    relative = {"mean": mean, "low": low[-1], "high": high[-1], "of_mean": of_mean}
    largest = float(np.log(len(keys)))  # 0 for one scale
    return {
        "count": len(weights),
        "scales": _of_scales(weights, keys, low[:-1], high[:-1]),
        "entropy": {
            "mean": mean,
            "std": float(entropy.std()),
            "of_mean": of_mean,
            **{
                f"relative_{name}": value / largest if largest and value is not None else None
                for name, value in relative.items()
            },
        },
        "mutual_information": max(0.0, of_mean - mean),
    }


def _of_scales(
    weights: NDArray, keys: Sequence[str], low: list[float | None], high: list[float | None]
) -> dict[str, dict[str, float | None]]:
    """Return a dict per key of
        mean, std (population), median;
        low, high: 95 % percentile bootstrap of the mean over images; None for one image;
        top: share of images whose largest weight is this scale's, ties divided;
        nearly_all: share of images that give it at least `NEARLY_ALL`;
        nearly_all_low: lower end of its 95 % interval (Clopper and Pearson, Biometrika 1934).

    Args:
        weights: [N, S].
        keys: text of each scale.
        low: S lower ends.
        high: S upper ends.
    """
    top = weights == weights.max(axis=1, keepdims=True)
    nearly_all, tail = (weights >= NEARLY_ALL).sum(axis=0), (1 - CONFIDENCE) / 2
    nearly_all_low = beta.ppf(tail, nearly_all, len(weights) - nearly_all + 1)
    columns = {
        "mean": weights.mean(axis=0).tolist(),
        "std": weights.std(axis=0).tolist(),
        "median": np.median(weights, axis=0).tolist(),
        "low": low,
        "high": high,
        "top": (top / top.sum(axis=1, keepdims=True)).mean(axis=0).tolist(),
        "nearly_all": (nearly_all / len(weights)).tolist(),
        "nearly_all_low": np.nan_to_num(nearly_all_low).tolist(),
    }
    return {
        key: dict(zip(columns, values, strict=True))
        for key, *values in zip(keys, *columns.values(), strict=True)
    }


def reading(scale: float, scales: Sequence[float]) -> str:
    """Return the usual interpretation of a high weight of a scale, such as 'coarse: ...'."""
    if len(set(scales)) == 1 < len(scales):
        return f"one of {len(scales)} equal scales: it sees what the others see"
    return ": ".join(READINGS[min(READINGS, key=lambda known: abs(known - scale))])


def leanings(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the leading scale of each generator, from its fake images (all where it has none).

    Args:
        statistics: of `attention_statistics`.

    Returns:
        A dict per generator:
            generator, family;
            key: text of the leading scale; None if no scale leads (see `LEADS`), or with fewer than
                `MIN_IMAGES_FOR_VERDICT` images;
            reading: its usual interpretation, or None;
            mean, low, high: of the highest scale.
    """
    keys, rows = statistics["keys"], []
    for generator in statistics["generators"]:
        group = generator["groups"]["fake"] or generator["groups"]["all"]
        first, *others = sorted(keys, key=lambda key: -group["scales"][key]["mean"])
        top = group["scales"][first]
        leads = (
            group["count"] >= MIN_IMAGES_FOR_VERDICT
            and top["low"] is not None
            and all(top["low"] > group["scales"][key]["high"] for key in others)
            and top["mean"] >= from_uniform(LEADS, len(keys))
        )
        row = {"generator": generator["name"], "family": generator["family"]}
        row |= {"key": None, "reading": None}
        if leads:
            scale = statistics["scales"][keys.index(first)]
            row |= {"key": first, "reading": reading(scale, statistics["scales"])}
        rows.append(row | {name: top[name] for name in ("mean", "low", "high")})
    return rows


def from_uniform(share: float, scales: int) -> float:
    """Return the weight that is this share of the way from 1/S to 1."""
    return (1 + (scales - 1) * share) / scales
