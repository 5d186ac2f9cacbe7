"""Controls of whether attention matters: scores with other attention, without another pass through
the network.

The classifier is linear and the fusion a weighted sum, so an image's logit is b + sum_s a_s z_s (+
mean_s z_s with the residual fusion), where z_s is what branch s says alone. Other weights give the
logits that the network would give with them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.resampling import CONFIDENCE, RESAMPLES, ResampledAuc, interval, resampled_aucs
from evaluation.scores import Scores, first_of_each, set_of_each
from networks.npr import scale_keys, scale_label

SHUFFLES = 5  # their AUCs are averaged
RELEVANT = 0.005  # a change of AUC within this, with its whole interval, does not matter
FEWEST_OF_CLASS = 20  # with fewer real or fake images, resamples say nothing about other images
UNSEEN = 3.0
"""Where the AUC is the same in all resamples, what n images do not show may still happen to a share
of 3 / n of others (upper end of its 95 % interval; Hanley and Lippman-Hand, JAMA 249, 1983): the
interval of the change is so wide on either side."""
SAME = 1e-4  # logits that differ by less are the same
# these keep all branches and replace what attention decides
ATTENTION_CONDITIONS = ("uniform", "mean", "shuffled_within", "shuffled_across")
MEANINGS = {
    "uniform": ("replacing attention by uniform weights", "the attention"),
    "mean": ("replacing attention by its mean over all images", "that attention differs between images"),
    "shuffled_within": ("shuffling attention between the images of each generator", "the choice per image within generators"),
    "shuffled_across": ("shuffling attention between all images", "which image gets which attention"),
}  # fmt: skip
PER_GENERATOR = (
    "shuffling attention between generators, too, and not only within them,",
    "that attention differs between generators",
)


def fused_logits(weights: NDArray, branch_logits: NDArray, bias: float, residual: bool) -> NDArray:
    """Return b + sum_s a_s z_s, and + mean_s z_s with the residual fusion.

    Args:
        weights: a, [..., S].
        branch_logits: z, [N, S].
        bias: b.
        residual: whether the fusion is residual.

    Returns:
        [..., N].
    """
    fused = bias + (np.asarray(weights, dtype=float) * branch_logits).sum(axis=-1)
    return fused + np.mean(branch_logits, axis=-1) if residual else fused


def without_scale(weights: NDArray, scale: int) -> NDArray:
    """Return weights [N, S] of the other scales, renormalised, [N, S - 1]: a_t / (1 - a_s); uniform
    where a_s is all."""
    others = np.delete(np.asarray(weights, dtype=float), scale, axis=1)
    total = others.sum(axis=1, keepdims=True)
    return np.where(total > 0, others / np.where(total > 0, total, 1), 1 / max(1, others.shape[1]))


@dataclass(frozen=True)
class _Condition:
    """Logits [K, N of all images] of K shuffles (K = 1 without), and the words for them: what is
    done, and what that tells about."""

    name: str
    text: str
    subject: str
    logits: NDArray

    @property
    def label(self) -> str:
        kind, _, key = self.name.partition("_")
        return (
            f"{kind} {scale_label(key)}" if kind in ("without", "only") else f"{kind} {key}".strip()
        )


def attention_controls(
    sets: Sequence[Scores],
    scales: Sequence[float],
    bias: float,
    residual: bool,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shuffles: int = SHUFFLES,
) -> dict[str, Any]:
    """Return how logits and AUC change when attention is replaced, as plain values for JSON, None
    where undefined.

    Conditions: 'uniform', 'mean' (over all images, each once), 'shuffled_within' and
    'shuffled_across' generators (means over the shuffles), 'without_<key>' (the branch taken away,
    also from the residual's mean, the other weights renormalised), 'only_<key>' (that branch
    alone). The last two kinds need two scales.

    Args:
        sets: with branch logits.
        scales: S of them.
        bias: of the fusion (`fusion` in metrics.json).
        residual: of the fusion.
        seed: of shuffles and bootstrap.
        resamples: of the bootstrap, 0 for none.
        shuffles: their number.

    Returns:
        keys, seed, resamples, shuffles, confidence, bias, residual; generators: how many have both
        classes; means are over these.
        auc, low, high: mean AUC of the scores as they are, with the interval of metrics.json.
        conditions: list of name, label (name for people), logit_change (mean absolute, over all
            images), logit_change_real and logit_change_fake (mean with its sign, None without such
            images), auc, change, low, high (the change's 95 % interval; images are drawn anew
            within each class of each generator, the same for all conditions; see `UNSEEN`), matters
            and sentence (see `what_matters`), by_generator: list of name, family, and the same
            numbers from logit_change to high.
        attention, sentence: `matters` and sentence of uniform weights.
        per_image: whether it matters that attention is chosen per image, by 'mean' and
            'shuffled_within', see `_per_image`.
        per_generator: change, low, high, matters, sentence of 'shuffled_across' against
            'shuffled_within', whose difference is what generators differ by; None for fewer than
            two generators.

    Raises:
        ValueError: a set has no branch logits, or there is no image.
    """
    sets = [one for one in sets if len(one.labels)]
    if not sets or any(one.branch_logits is None for one in sets):
        raise ValueError("controls need images with branch logits")
    keys = scale_keys(tuple(scales))
    conditions = list(_conditions(sets, keys, bias, residual, seed, shuffles))
    # last, the scores as they are: branch logits give them only up to rounding
    everything = [
        *(condition.logits for condition in conditions),
        np.concatenate([one.scores for one in sets])[None],
    ]
    of_set = set_of_each(sets)
    stacked = np.concatenate(everything)
    found = [
        _aucs(one, stacked[:, of_set == index], list(map(len, everything)), resamples, seed)
        for index, one in enumerate(sets)
    ]
    macro = _macro(sets, found)
    moved = [condition.logits - conditions[0].logits for condition in conditions]
    described = [
        _described(condition, position, sets, moved[position], found, macro)
        for position, condition in enumerate(conditions)
    ]
    described = described[1:]
    auc = None if macro is None else float(macro.plain[-1])
    low, high = (None, None) if macro is None or macro.drawn is None else interval(macro.drawn[-1])
    by_name = {one["name"]: one for one in described}
    defined = sum(one is not None for one in found)
    return {
        "keys": keys, "seed": seed, "resamples": resamples, "shuffles": shuffles, "confidence": CONFIDENCE,
        "bias": bias, "residual": residual, "generators": defined, "auc": auc, "low": low, "high": high,
        "attention": by_name["uniform"]["matters"], "sentence": by_name["uniform"]["sentence"],
        "per_image": _per_image(by_name["mean"]["matters"], by_name["shuffled_within"]["matters"]),
        "per_generator": _per_generator([one.name for one in conditions], moved, macro) if defined > 1 else None,
        "conditions": described,
    }  # fmt: skip


def _conditions(
    sets: Sequence[Scores], keys: list[str], bias: float, residual: bool, seed: int, shuffles: int
) -> Iterator[_Condition]:
    weights = np.concatenate([one.weights for one in sets])
    branches = np.concatenate([np.asarray(one.branch_logits, dtype=float) for one in sets])
    generator = set_of_each(sets)
    rng = np.random.default_rng(seed)

    def fused(*attention: NDArray) -> NDArray:
        return np.stack([fused_logits(one, branches, bias, residual) for one in attention])

    # random order within each group, groups in the order in which they stand
    def shuffled(groups: NDArray) -> NDArray:
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
        label = scale_label(key)
        yield _Condition(
            f"without_{key}", f"taking scale {label} away", f"scale {label}", logits[None]
        )
    for position, key in enumerate(keys if len(keys) > 1 else ()):
        alone = bias + branches[:, position] * (2 if residual else 1)
        text = f"leaving scale {scale_label(key)} alone"
        yield _Condition(f"only_{key}", text, "what the other scales add", alone[None])


@dataclass(frozen=True)
class _Aucs:
    """AUC per condition [C], in the resamples [C, R] or None, and how many images the smaller class
    has."""

    plain: NDArray
    drawn: NDArray | None
    images: int


def _aucs(
    one: Scores, logits: NDArray, counts: list[int], resamples: int, seed: int
) -> _Aucs | None:
    """Return the AUCs of one generator; None for one class.

    Args:
        one: the generator, n images.
        logits: [sum of counts, n].
        counts: rows per condition, whose AUCs are averaged.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    labels = np.asarray(one.labels)
    if labels.min() == labels.max():
        return None
    starts = np.cumsum([0, *counts[:-1]])
    once = np.ones((len(labels), 1))
    plain = np.array([ResampledAuc(labels, row)(once)[0] for row in logits])
    fewest, drawn = int(np.bincount(labels).min()), None
    if resamples and fewest > 1:
        aucs = resampled_aucs(labels, logits, one.names, resamples, seed)
        drawn = np.add.reduceat(aucs, starts) / np.array(counts)[:, None]
    return _Aucs(np.add.reduceat(plain, starts) / counts, drawn, fewest)


def _macro(sets: Sequence[Scores], found: list[_Aucs | None]) -> _Aucs | None:
    """Return means over the generators that have both classes; an image of several of them counts
    once."""
    defined = [one for one in found if one is not None]
    if not defined:
        return None
    both = [one for one, aucs in zip(sets, found, strict=True) if aucs is not None]
    labels = np.concatenate([np.asarray(one.labels) for one in both])[first_of_each(both)]
    drawn = [one.drawn for one in defined if one.drawn is not None]
    return _Aucs(
        np.mean([one.plain for one in defined], axis=0),
        np.mean(drawn, axis=0) if len(drawn) == len(defined) else None,
        int(min((labels == label).sum() for label in (0, 1))),
    )


def _change(
    found: _Aucs | None, position: int, moved: NDArray, base: int = 0
) -> dict[str, float | None]:
    """Return how the AUC of a condition differs from that of another, whose logits differ by moved
    [K, N]."""
    if found is None:
        return dict.fromkeys(("change", "low", "high"))
    low = high = None
    if found.drawn is not None:
        low, high = interval(found.drawn[position] - found.drawn[base])
        if low == high and np.abs(moved).max() > SAME:
            low, high = (
                max(-1.0, low - UNSEEN / found.images),
                min(1.0, high + UNSEEN / found.images),
            )
    return {"change": float(found.plain[position] - found.plain[base]), "low": low, "high": high}


def _numbers(
    found: _Aucs | None, position: int, moved: NDArray, labels: NDArray
) -> dict[str, float | None]:
    """Return the numbers of a condition that adds moved, [K, N of these labels], to the logits."""
    mean = moved.mean(axis=0)
    signed = [
        float(mean[labels == label].mean()) if (labels == label).any() else None for label in (0, 1)
    ]
    return {
        "logit_change": float(np.abs(moved).mean()),
        "logit_change_real": signed[0],
        "logit_change_fake": signed[1],
        "auc": None if found is None else float(found.plain[position]),
        **_change(found, position, moved),
    }


def _described(
    condition: _Condition,
    position: int,
    sets: Sequence[Scores],
    moved: NDArray,
    found: list[_Aucs | None],
    macro: _Aucs | None,
) -> dict[str, Any]:
    labels, of_set = np.concatenate([np.asarray(one.labels) for one in sets]), set_of_each(sets)
    numbers = _numbers(macro, position, moved, labels)
    return {
        "name": condition.name,
        "label": condition.label,
        **numbers,
        **_in_words(condition.text, condition.subject, numbers, macro),
        "by_generator": [
            {"name": one.generator, "family": one.suite}
            | _numbers(aucs, position, moved[:, of_set == index], np.asarray(one.labels))
            for index, (one, aucs) in enumerate(zip(sets, found, strict=True))
        ],
    }


def _per_image(mean: str | None, within: str | None) -> str | None:
    """Return whether the choice per image matters.

    It harms if either control says so, does not matter if a constant does as well, and helps only
    if both say so.
    """
    if "harms" in (mean, within):
        return "harms"
    if mean in (None, "no"):
        return mean
    return within if mean == "helps" else "unclear"


def _per_generator(names: list[str], moved: list[NDArray], macro: _Aucs | None) -> dict[str, Any]:
    across, within = (names.index(name) for name in ("shuffled_across", "shuffled_within"))
    change = _change(macro, across, moved[across] - moved[within], within)
    return change | _in_words(*PER_GENERATOR, change, macro)


def what_matters(low: float | None, high: float | None, images: int) -> str | None:
    """Return what the interval of a change of AUC says about what was taken away.

    Args:
        low: end of the interval.
        high: end of the interval.
        images: how many the smaller class has.

    Returns:
        'no': the interval lies within +- `RELEVANT`; 'helps', 'harms': what is replaced raises or
        lowers the AUC beyond chance; 'unclear': neither, or fewer than `FEWEST_OF_CLASS` images;
        None without interval.
    """
    if low is None or high is None:
        return None
    if images < FEWEST_OF_CLASS:
        return "unclear"
    if low > -RELEVANT and high < RELEVANT:
        return "no"
    if high < 0:
        return "helps"
    return "harms" if low > 0 else "unclear"


def _in_words(
    text: str, subject: str, change: dict[str, float | None], found: _Aucs | None
) -> dict[str, str | None]:
    """Return `what_matters`, and a sentence with it."""
    if found is None or change["change"] is None:
        return {
            "matters": None,
            "sentence": f"{text}: no generator has images of both classes, so there is no AUC",
        }
    matters = what_matters(change["low"], change["high"], found.images)
    said = f"{text} changes the mean AUC by {100 * change['change']:+.1f} points"
    if change["low"] is None or change["high"] is None:
        return {
            "matters": matters,
            "sentence": f"{said}: too few images to say whether {subject} matters",
        }
    few = f" (fewer than {FEWEST_OF_CLASS} of a class)" * (found.images < FEWEST_OF_CLASS)
    conclusion = {
        "no": f"{subject} does not matter here",
        "helps": f"{subject} helps",
        "harms": f"{subject} harms",
        "unclear": f"these images do not tell whether {subject} matters{few}",
    }[str(matters)]
    return {
        "matters": matters,
        "sentence": f"{said} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]: {conclusion}",
    }
