"""Does attention matter? The same scores with other attention, without another pass through the network.

The classifier is linear and the fusion a weighted sum, so an image's logit is b + sum_s a_s z_s (+ mean_s z_s with the residual
fusion), where z_s is what branch s says alone. Other weights give the logits that the network would give with them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.attention_statistics import Attended, first_of_each
from evaluation.bootstrap import CONFIDENCE, RESAMPLES, interval
from evaluation.resampled_auc import Draws, draws_of_classes, resampled_aucs
from networks.npr import scale_keys

SHUFFLES = 5
RELEVANT = 0.005
"""A change of AUC that is smaller (with its whole interval) does not matter: half a point."""
ATTENTION_CONDITIONS = ("uniform", "mean", "shuffled_within", "shuffled_across")
"""Those that keep all branches and replace what attention decides."""
MEANINGS = {
    "uniform": ("replacing attention by uniform weights", "the attention"),
    "mean": ("replacing attention by its mean over all images", "the choice per image"),
    "shuffled_within": ("shuffling attention between the images of each generator", "the choice per image within generators"),
    "shuffled_across": ("shuffling attention between all images", "the choice per image"),
}  # fmt: skip


def fused_logits(weights: NDArray, branch_logits: NDArray, bias: float, residual: bool) -> NDArray:
    """b + sum_s a_s z_s, and + mean_s z_s with the residual fusion: [..., S] weights and branch logits [N, S] -> [..., N]."""
    fused = bias + (np.asarray(weights, dtype=float) * branch_logits).sum(axis=-1)
    return fused + np.mean(branch_logits, axis=-1) if residual else fused


def without_scale(weights: NDArray, scale: int) -> NDArray:
    """Weights [N, S] of the other scales, renormalised, [N, S - 1]: a_t / (1 - a_s); uniform where a_s is all."""
    others = np.delete(np.asarray(weights, dtype=float), scale, axis=1)
    total = others.sum(axis=1, keepdims=True)
    return np.where(total > 0, others / np.where(total > 0, total, 1), 1 / max(1, others.shape[1]))


@dataclass(frozen=True)
class _Condition:
    """Logits [K, N of all images] of K shuffles (K = 1 without), and what to say about them."""

    name: str
    text: str
    subject: str
    logits: NDArray


def attention_controls(
    sets: Sequence[Attended],
    scales: Sequence[float],
    bias: float,
    residual: bool,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shuffles: int = SHUFFLES,
) -> dict[str, Any]:
    """What becomes of the logits and the AUC when attention is replaced; plain values for JSON, None where undefined.

    Conditions: 'uniform', 'mean' (over all images, each once), 'shuffled_within' and 'shuffled_across' generators (means over
    the shuffles), 'without_<key>' (the branch taken away, also from the residual's mean, the other weights renormalised),
    'only_<key>' (that branch alone). The last two kinds need two scales.

    Args:
        sets: with branch logits. bias, residual: of the fusion (`fusion` in metrics.json). resamples: of the bootstrap, 0 for none.

    Returns:
        keys, seed, resamples, shuffles, confidence, bias, residual; generators: how many have both classes; means are over these.
        auc, low, high: mean AUC as it is. attention: what `matters` is over the first four conditions: 'helps' or 'harms' if it is
        for any of them, else 'unclear' if for any, else 'no'; None without intervals. sentence: about uniform weights.
        conditions: list of name, logit_change (mean absolute, over all images), auc, change, low, high (the change's 95 %
        interval; images are drawn anew within each class of each generator, the same for all conditions), matters ('no': the
        interval lies within +- `RELEVANT`; 'helps', 'harms': what is replaced raises or lowers the AUC beyond chance; 'unclear';
        None without interval), sentence, by_generator: list of name, family, logit_change, auc, change, low, high.

    Raises:
        ValueError: a set has no branch logits, or there is no image.
    """
    sets = [one for one in sets if len(one.labels)]
    if not sets or any(one.branch_logits is None for one in sets):
        raise ValueError("controls need images with branch logits")
    keys = scale_keys(tuple(scales))
    conditions = list(_conditions(sets, keys, bias, residual, seed, shuffles))
    everything = [condition.logits for condition in conditions]
    starts = np.cumsum([len(one.labels) for one in sets])[:-1]
    stacked = np.concatenate(everything)
    found = [
        _aucs(one, logits, list(map(len, everything)), resamples, seed, index)
        for index, (one, logits) in enumerate(zip(sets, np.split(stacked, starts, axis=1), strict=True))
    ]
    defined = [pair for pair in found if pair is not None]
    macro = None if not defined else _mean(defined)
    described = [
        _described(condition, position, sets, conditions[0].logits, found, macro)
        for position, condition in enumerate(conditions)
    ]
    base, described = described[0], described[1:]
    low, high = interval(macro[1][0]) if macro and macro[1] is not None else (None, None)
    said = [one["matters"] for one in described if one["name"] in ATTENTION_CONDITIONS]
    verdict = next((kind for kind in ("helps", "harms", "unclear", "no") if kind in said), None)
    return {
        "keys": keys, "seed": seed, "resamples": resamples, "shuffles": shuffles, "confidence": CONFIDENCE,
        "bias": bias, "residual": residual, "generators": len(defined),
        "auc": base["auc"], "low": low, "high": high, "attention": verdict,
        "sentence": next(one["sentence"] for one in described if one["name"] == "uniform"),
        "conditions": described,
    }  # fmt: skip


def _conditions(
    sets: Sequence[Attended], keys: list[str], bias: float, residual: bool, seed: int, shuffles: int
) -> Iterator[_Condition]:
    weights = np.concatenate([np.asarray(one.weights, dtype=float) for one in sets])
    branches = np.concatenate([np.asarray(one.branch_logits, dtype=float) for one in sets])
    generator = np.repeat(np.arange(len(sets)), [len(one.labels) for one in sets])
    rng = np.random.default_rng(seed)

    def fused(*attention: NDArray) -> NDArray:
        return np.stack([fused_logits(one, branches, bias, residual) for one in attention])

    def shuffled(groups: NDArray) -> NDArray:  # random order within each group, groups in the order in which they stand
        return weights[np.lexsort((rng.random(len(weights)), groups))]

    replaced = {
        "uniform": [np.full(len(keys), 1 / len(keys))],
        "mean": [weights[first_of_each(sets)].mean(axis=0)],
        "shuffled_within": [shuffled(generator) for _ in range(shuffles)],
        "shuffled_across": [shuffled(np.zeros(len(weights))) for _ in range(shuffles)],
    }
    yield _Condition("as_trained", "", "", fused(weights))
    for name, attention in replaced.items():
        yield _Condition(name, *MEANINGS[name], fused(*attention))
    for position, key in enumerate(keys if len(keys) > 1 else ()):
        others = np.delete(branches, position, axis=1)
        logits = fused_logits(without_scale(weights, position), others, bias, residual)
        yield _Condition(f"without_{key}", f"taking scale {key} away", f"scale {key}", logits[None])
    for position, key in enumerate(keys if len(keys) > 1 else ()):
        alone = bias + branches[:, position] * (2 if residual else 1)
        yield _Condition(f"only_{key}", f"leaving scale {key} alone", "what the other scales add", alone[None])


Aucs = tuple[NDArray, NDArray | None]
"""AUC per condition [C], and in the resamples [C, R] or None."""


def _aucs(one: Attended, logits: NDArray, counts: list[int], resamples: int, seed: int, index: int) -> Aucs | None:
    """Of one generator: logits [sum of counts, n], `counts` rows per condition, whose AUCs are averaged; None for one class."""
    labels = np.asarray(one.labels)
    if labels.min() == labels.max():
        return None
    starts = np.cumsum([0, *counts[:-1]])
    ones: Draws = [np.ones((1, (labels == label).sum())) for label in (0, 1)]
    plain, drawn = resampled_aucs(labels, logits, [ones]), None
    if resamples and min(len(count[0]) for count in ones) > 1:
        draws = draws_of_classes(labels, one.images, resamples, seed, index)
        drawn = np.add.reduceat(resampled_aucs(labels, logits, draws), starts) / np.array(counts)[:, None]
    return np.add.reduceat(plain[:, 0], starts) / counts, drawn


def _mean(found: list[Aucs]) -> Aucs:
    drawn = [resampled for _, resampled in found if resampled is not None]
    return np.mean([plain for plain, _ in found], axis=0), np.mean(drawn, axis=0) if len(drawn) == len(found) else None


def _change(found: Aucs | None, position: int) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys(("auc", "change", "low", "high"))
    plain, drawn = found
    low, high = (None, None) if drawn is None else interval(drawn[position] - drawn[0])
    return {"auc": float(plain[position]), "change": float(plain[position] - plain[0]), "low": low, "high": high}


def _described(
    condition: _Condition,
    position: int,
    sets: Sequence[Attended],
    before: NDArray,
    found: list[Aucs | None],
    macro: Aucs | None,
) -> dict[str, Any]:
    change, moved = _change(macro, position), np.abs(condition.logits - before).mean(axis=0)
    of_sets = np.split(moved, np.cumsum([len(one.labels) for one in sets])[:-1])
    matters = what_matters(change["low"], change["high"])
    return {
        "name": condition.name,
        "logit_change": float(moved.mean()),
        **change,
        "matters": matters,
        "sentence": _sentence(condition, change, matters),
        "by_generator": [
            {"name": one.name, "family": one.family, "logit_change": float(of_set.mean()), **_change(of_one, position)}
            for one, of_set, of_one in zip(sets, of_sets, found, strict=True)
        ],
    }


def what_matters(low: float | None, high: float | None) -> str | None:
    """What the interval of a change of AUC says about what was taken away: 'no', 'helps', 'harms', 'unclear', or None without."""
    if low is None or high is None:
        return None
    if low > -RELEVANT and high < RELEVANT:
        return "no"
    return "helps" if high < 0 else "harms" if low > 0 else "unclear"


def _sentence(condition: _Condition, change: dict[str, float | None], matters: str | None) -> str:
    if change["change"] is None:
        return f"{condition.text}: no generator has images of both classes, so there is no AUC"
    said = f"{condition.text} changes the mean AUC by {100 * change['change']:+.1f} points"
    if matters is None:
        return f"{said}: too few images to say whether {condition.subject} matters"
    assert change["low"] is not None and change["high"] is not None
    conclusion = {
        "no": f"{condition.subject} does not matter here",
        "helps": f"{condition.subject} helps",
        "harms": f"{condition.subject} harms",
        "unclear": f"these images do not tell whether {condition.subject} matters",
    }[matters]
    return f"{said} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]: {conclusion}"


def controls_rows(controls: dict[str, Any]) -> list[dict[str, Any]]:
    """`attention_controls` as rows for a CSV file: one per condition and generator, and the mean over generators first."""
    numbers = ("logit_change", "auc", "change", "low", "high")
    return [
        {"condition": one["name"], "generator": of_one["name"], "family": of_one["family"]}
        | {name: of_one[name] for name in numbers}
        for one in controls["conditions"]
        for of_one in [one | {"name": "mean", "family": ""}, *one["by_generator"]]
    ]
