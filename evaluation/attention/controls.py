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

from evaluation.attention.relevance import (
    MEANINGS,
    Aucs,
    auc_change,
    choice_per_generator,
    choice_per_image,
    generator_aucs,
    macro_aucs,
    relevance,
)
from evaluation.resampling import CONFIDENCE, RESAMPLES, interval
from evaluation.scores import Scores, first_of_each, set_of_each
from networks.npr import scale_keys, scale_label

SHUFFLES = 5  # their AUCs are averaged
# these keep all branches and replace what attention decides
ATTENTION_CONDITIONS = ("uniform", "mean", "shuffled_within", "shuffled_across")


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
            'shuffled_within', see `choice_per_image`.
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
        generator_aucs(
            one, stacked[:, of_set == index], list(map(len, everything)), resamples, seed
        )
        for index, one in enumerate(sets)
    ]
    macro = macro_aucs(sets, found)
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
        "per_image": choice_per_image(by_name["mean"]["matters"], by_name["shuffled_within"]["matters"]),
        "per_generator": choice_per_generator([one.name for one in conditions], moved, macro) if defined > 1 else None,
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


def _numbers(
    found: Aucs | None, position: int, moved: NDArray, labels: NDArray
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
        **auc_change(found, position, moved),
    }


def _described(
    condition: _Condition,
    position: int,
    sets: Sequence[Scores],
    moved: NDArray,
    found: list[Aucs | None],
    macro: Aucs | None,
) -> dict[str, Any]:
    labels, of_set = np.concatenate([np.asarray(one.labels) for one in sets]), set_of_each(sets)
    numbers = _numbers(macro, position, moved, labels)
    return {
        "name": condition.name,
        "label": condition.label,
        **numbers,
        **relevance(condition.text, condition.subject, numbers, macro),
        "by_generator": [
            {"name": one.generator, "family": one.suite}
            | _numbers(aucs, position, moved[:, of_set == index], np.asarray(one.labels))
            for index, (one, aucs) in enumerate(zip(sets, found, strict=True))
        ],
    }
