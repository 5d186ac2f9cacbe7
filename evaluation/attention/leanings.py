"""Leanings: the leading scale of each generator's attention, and its usual interpretation."""

from collections.abc import Sequence
from typing import Any

from evaluation.attention.statistics import MIN_IMAGES_FOR_VERDICT

LEADS = 0.1
"""A scale leads for a generator if its interval lies above that of every other, and its mean weight
has come this share of the way from 1/S to 1."""
# the middle comes first, so that 0.375 and 0.625 belong to it
READINGS = {
    0.5: ("middle", "the scale of the single-scale detector"),
    0.25: ("coarse", "coarse artifacts, common for GANs with progressive growing"),
    0.75: ("fine", "fine artifacts of subtle up-sampling"),
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
