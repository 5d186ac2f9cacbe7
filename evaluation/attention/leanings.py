"""Which scale a generator's attention leans to, and what guides to attention take that for."""

from collections.abc import Sequence
from typing import Any

from evaluation.attention.statistics import FEWEST_IMAGES

LEADS = 0.1
"""A generator leans to a scale whose interval lies above that of every other, and that came this
share of the way from 1/S to 1."""
READINGS = {
    "coarse": "coarse artifacts, common for GANs with progressive growing",
    "middle": "the scale of the single-scale detector",
    "fine": "fine artifacts of subtle up-sampling",
}


def scale_role(scale: float, scales: Sequence[float]) -> str:
    """'coarse', 'middle' or 'fine': whichever of 0.25, 0.5, 0.75 is nearest (0.375 and 0.625 are
    middle), with the order among
    several: 'fine, the finest of 3'. 'one of 3 equal scales' where all are the same."""
    distinct = sorted(set(scales))
    if len(distinct) == 1 < len(scales):
        return f"one of {len(scales)} equal scales"
    role = "coarse" if scale < 0.375 else "middle" if scale <= 0.625 else "fine"
    if len(distinct) > 1 and scale in (distinct[0], distinct[-1]):
        return f"{role}, the {'coarsest' if scale == distinct[0] else 'finest'} of {len(distinct)}"
    return role


def reading(scale: float, scales: Sequence[float]) -> str:
    """`scale_role` and what guides take a high weight there for."""
    role = scale_role(scale, scales)
    meaning = READINGS.get(role.split(",")[0], "it sees what the others see")
    return f"{role}: {meaning}"


def leanings(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """To which scale each generator leans, by its generated images (all where it has none).

    Returns:
        generator, family, key (text of the scale; None if none leads, see `LEADS`, and for fewer
        than `FEWEST_IMAGES` images), reading, mean, low, high of the highest scale.
    """
    found = []
    for one in statistics["generators"]:
        group = one["groups"]["fake"] or one["groups"]["all"]
        of_scales = group["scales"]
        keys = statistics["keys"]
        first, *others = sorted(keys, key=lambda key: -of_scales[key]["mean"])
        top = of_scales[first]
        clear = top["low"] is not None and all(
            top["low"] > of_scales[key]["high"] for key in others
        )
        clear = (
            clear
            and group["count"] >= FEWEST_IMAGES
            and _share_of_the_way(top["mean"], len(keys)) >= LEADS
        )
        about = {"generator": one["name"], "family": one["family"], "key": first if clear else None}
        scale = statistics["scales"][keys.index(first)]
        about["reading"] = reading(scale, statistics["scales"]) if clear else None
        found.append(about | {name: top[name] for name in ("mean", "low", "high")})
    return found


def _share_of_the_way(mean: float, count: int) -> float:
    return (mean - 1 / count) / (1 - 1 / count) if count > 1 else 1.0
