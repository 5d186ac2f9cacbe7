"""Leanings of a generator's attention to a scale, and their usual reading."""

from collections.abc import Sequence
from typing import Any

from evaluation.attention.statistics import MIN_IMAGES_FOR_VERDICT

LEADS = 0.1
"""A scale leads for a generator if its interval lies above that of every other, and its mean weight
has come this share of the way from 1/S to 1."""
# the middle first: 0.375 and 0.625 belong to it
READINGS = {
    0.5: ("middle", "the scale of the single-scale detector"),
    0.25: ("coarse", "coarse artifacts, common for GANs with progressive growing"),
    0.75: ("fine", "fine artifacts of subtle up-sampling"),
}


def reading(scale: float, scales: Sequence[float]) -> str:
    """Return what a high weight of a scale is usually taken for, 'coarse: ...'."""
    if len(set(scales)) == 1 < len(scales):
        return f"one of {len(scales)} equal scales: it sees what the others see"
    return ": ".join(READINGS[min(READINGS, key=lambda known: abs(known - scale))])


def leanings(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which scale leads for each generator, by its fake images (all where it has none).

    Returns:
        A dict per generator: generator, family, key (text of the scale; None if none leads, see
        `LEADS`, or with fewer than `MIN_IMAGES_FOR_VERDICT` images), reading, and mean, low, high
        of the highest scale.
    """
    keys, found = statistics["keys"], []
    for one in statistics["generators"]:
        group = one["groups"]["fake"] or one["groups"]["all"]
        first, *others = sorted(keys, key=lambda key: -group["scales"][key]["mean"])
        top = group["scales"][first]
        leads = (
            group["count"] >= MIN_IMAGES_FOR_VERDICT
            and top["low"] is not None
            and all(top["low"] > group["scales"][key]["high"] for key in others)
            and top["mean"] >= from_uniform(LEADS, len(keys))
        )
        about = {"generator": one["name"], "family": one["family"], "key": None, "reading": None}
        if leads:
            scale = statistics["scales"][keys.index(first)]
            about |= {"key": first, "reading": reading(scale, statistics["scales"])}
        found.append(about | {name: top[name] for name in ("mean", "low", "high")})
    return found


def from_uniform(share: float, scales: int) -> float:
    """Return the weight that is this share of the way from 1/S to 1."""
    return (1 + (scales - 1) * share) / scales
