"""Controls for attention: logits and AUC with other attention weights, without a forward pass.

The classifier is linear and the fusion is a weighted sum. So an image's logit is b + sum_s a_s z_s
(+ mean_s z_s with the residual fusion), where z_s is the logit of branch s alone. Other weights in
this sum give exactly the logits that the network would compute with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.attention.relevance import (
    MEANINGS,
    Aucs,
    choice_per_generator,
    choice_per_image,
    condition_numbers,
    generator_aucs,
    macro_aucs,
    relevance,
)
from evaluation.resampling import CONFIDENCE, RESAMPLES, interval
from evaluation.scores import Scores, first_of_each, set_of_each
from networks.npr import scale_keys, scale_label

SHUFFLES = 5  # their AUCs are averaged
# these keep all branches and replace the attention weights
ATTENTION_CONDITIONS = ("uniform", "mean", "shuffled_within", "shuffled_across")


def fused_logits(weights: NDArray, branch_logits: NDArray, bias: float, residual: bool) -> NDArray:
    """Return the logits [..., N]: b + sum_s a_s z_s, and + mean_s z_s with the residual fusion.

    Args:
        weights: attention a, [..., S].
        branch_logits: z, [N, S].
        bias: b, of the classifier.
        residual: True for the residual fusion.
    """
    fused = bias + (np.asarray(weights, dtype=float) * branch_logits).sum(axis=-1)
    return fused + np.mean(branch_logits, axis=-1) if residual else fused


def without_scale(weights: NDArray, scale: int) -> NDArray:
    """Return the weights of the other scales, renormalised: a_t / (1 - a_s).

    Args:
        weights: attention, [N, S].
        scale: position s of the scale to remove.

    Returns:
        [N, S - 1]; uniform where a_s is 1.
    """
    others = np.delete(np.asarray(weights, dtype=float), scale, axis=1)
    total = others.sum(axis=1, keepdims=True)
    return np.where(total > 0, others / np.where(total > 0, total, 1), 1 / max(1, others.shape[1]))


@dataclass(frozen=True)
class _Condition:
    """Logits under other attention.

    Args:
        name: as in attention.json.
        text: phrase for the intervention.
        subject: phrase for the property that it tests.
        logits: [K, N of all images] of K shuffles; K = 1 without shuffles.
    """

    name: str
    text: str
    subject: str
    logits: NDArray

    @property
    def label(self) -> str:
        kind, _, key = self.name.partition("_")
        return f"{kind} {scale_label(key) if kind in ('without', 'only') else key}".strip()


def attention_controls(
    sets: Sequence[Scores],
    scales: Sequence[float],
    bias: float,
    residual: bool,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Return the change of logits and AUC under each condition, as plain values for JSON.

    Args:
        sets: with branch logits.
        scales: S of them.
        bias: of the fusion (`fusion` in metrics.json).
        residual: of the fusion.
        seed: of shuffles and bootstrap.
        resamples: of the bootstrap, 0 for none.

    Returns:
        Undefined values are None.
        keys, seed, resamples, shuffles, confidence, bias, residual.
        generators: number of generators that have both classes; means are over these.
        auc, low, high: mean AUC of the unchanged scores, with the interval of metrics.json.
        attention, sentence: `matters` and sentence of uniform weights.
        per_image: `matters` of the choice per image, from 'mean' and 'shuffled_within', see
            `choice_per_image`.
        per_generator: see `choice_per_generator`; None for fewer than two generators.
        conditions: what `_described` returns, for each of `_conditions`.

    Raises:
        ValueError: a set has no branch logits, or there is no image.
    """
    sets = [scored for scored in sets if len(scored.labels)]
    if not sets or any(scored.branch_logits is None for scored in sets):
        raise ValueError("controls need images with branch logits")
    keys = scale_keys(tuple(scales))
    as_trained, *conditions = _conditions(sets, keys, bias, residual, seed)
    logits = [condition.logits for condition in (as_trained, *conditions)]
    # the unchanged scores come last: branch logits reproduce them only up to rounding
    logits.append(np.concatenate([scored.scores for scored in sets])[None])
    counts, stacked, of_set = list(map(len, logits)), np.concatenate(logits), set_of_each(sets)
    aucs = [
        generator_aucs(scored, stacked[:, of_set == index], counts, resamples, seed)
        for index, scored in enumerate(sets)
    ]
    macro = macro_aucs(sets, aucs)
    auc = None if macro is None else float(macro.plain[-1])
    low, high = (None, None) if macro is None or macro.drawn is None else interval(macro.drawn[-1])
    changes = {condition.name: condition.logits - as_trained.logits for condition in conditions}
    described = [
        _described(condition, position, changes[condition.name], sets, aucs, macro)
        for position, condition in enumerate(conditions, 1)
    ]
    by_name = {condition["name"]: condition for condition in described}
    mean, within = by_name["mean"]["matters"], by_name["shuffled_within"]["matters"]
    defined = sum(of_generator is not None for of_generator in aucs)
    return {
        "keys": keys, "seed": seed, "resamples": resamples, "shuffles": SHUFFLES,
        "confidence": CONFIDENCE, "bias": bias, "residual": residual, "generators": defined,
        "auc": auc, "low": low, "high": high,
        "attention": by_name["uniform"]["matters"], "sentence": by_name["uniform"]["sentence"],
        "per_image": choice_per_image(mean, within),
        "per_generator": choice_per_generator(changes, macro) if defined > 1 else None,
        "conditions": described,
    }  # fmt: skip


def _conditions(
    sets: Sequence[Scores], keys: list[str], bias: float, residual: bool, seed: int
) -> list[_Condition]:
    """Return the attention as trained and, after it, what replaces it.

    These are:
        - 'uniform': the same weight for every scale.
        - 'mean': the mean attention over all images, each counted once.
        - 'shuffled_within' and 'shuffled_across' generators: `SHUFFLES` times.
        - 'without_<key>': the branch removed, also from the residual's mean, and the other weights
          renormalised.
        - 'only_<key>': that branch alone.
    The last two need two scales or more.
    """
    weights = np.concatenate([scored.weights for scored in sets])
    branches = np.concatenate([np.asarray(scored.branch_logits, dtype=float) for scored in sets])
    rng = np.random.default_rng(seed)

    # random order within each group; the groups stay where they are
    def shuffled(groups: NDArray) -> list[NDArray]:
        orders = (np.lexsort((rng.random(len(weights)), groups)) for _ in range(SHUFFLES))
        return [weights[order] for order in orders]

    replaced = {
        "uniform": [np.full(len(keys), 1 / len(keys))],
        "mean": [weights[first_of_each(sets)].mean(axis=0)],
        "shuffled_within": shuffled(set_of_each(sets)),
        "shuffled_across": shuffled(np.zeros(len(weights))),
    }
    conditions = [
        _Condition("as_trained", "", "", fused_logits(weights, branches, bias, residual)[None])
    ]
    for name, attention in replaced.items():
        logits = [fused_logits(rows, branches, bias, residual) for rows in attention]
        conditions.append(_Condition(name, *MEANINGS[name], np.stack(logits)))
    without, only = [], []
    for position, key in enumerate(keys if len(keys) > 1 else ()):
        name, others = f"scale {scale_label(key)}", np.delete(branches, position, axis=1)
        removed = fused_logits(without_scale(weights, position), others, bias, residual)
        text = f"taking {name} away"
        without.append(_Condition(f"without_{key}", text, name, removed[None]))
        alone = bias + branches[:, position] * (2 if residual else 1)
        text = f"leaving {name} alone"
        only.append(_Condition(f"only_{key}", text, "what the other scales add", alone[None]))
    return [*conditions, *without, *only]


def _described(
    condition: _Condition,
    position: int,
    changes: NDArray,
    sets: Sequence[Scores],
    aucs: list[Aucs | None],
    macro: Aucs | None,
) -> dict[str, Any]:
    """Return the effect of a condition.

    Args:
        condition: the condition.
        position: of the condition in `aucs`.
        changes: [K, N], differences of its logits from the trained ones.
        sets: of the N images.
        aucs: of each generator.
        macro: their means.

    Returns:
        name; label (name for people); `condition_numbers`; matters, sentence: see `what_matters`;
        by_generator: list of name, family, and `condition_numbers`.
    """
    labels, of_set = np.concatenate([scored.labels for scored in sets]), set_of_each(sets)
    numbers = condition_numbers(macro, position, changes, labels)
    return {
        "name": condition.name,
        "label": condition.label,
        **numbers,
        **relevance(condition.text, condition.subject, numbers, macro),
        "by_generator": [
            {"name": scored.generator, "family": scored.suite}
            | condition_numbers(of_one, position, changes[:, of_set == index], scored.labels)
            for index, (scored, of_one) in enumerate(zip(sets, aucs, strict=True))
        ],
    }
