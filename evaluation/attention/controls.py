"""Controls for attention: logits and AUC with other attention weights, without a forward pass.

The classifier is linear and the fusion is a weighted sum. So an image's logit is b + sum_s a_s z_s
(+ mean_s z_s with the residual fusion), where z_s is the logit of branch s alone. Other weights in
this sum give exactly the logits that the network would compute with them.
"""

from collections.abc import Iterator, Sequence
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
    """Return the change of logits and AUC under each condition, as plain values for JSON.

    Undefined values are None. The conditions are:
        - 'uniform': the same weight for every scale.
        - 'mean': the mean attention over all images, each counted once.
        - 'shuffled_within' and 'shuffled_across' generators: means over the shuffles.
        - 'without_<key>': the branch removed, also from the residual's mean, and the other weights
          renormalised.
        - 'only_<key>': that branch alone.
    The last two need two scales or more.

    Args:
        sets: with branch logits.
        scales: S of them.
        bias: of the fusion (`fusion` in metrics.json).
        residual: of the fusion.
        seed: of shuffles and bootstrap.
        resamples: of the bootstrap, 0 for none.
        shuffles: their number.

    Returns:
        keys, seed, resamples, shuffles, confidence, bias, residual.
        generators: number of generators that have both classes; means are over these.
        auc, low, high: mean AUC of the unchanged scores, with the interval of metrics.json.
        conditions: a list of
            name; label (name for people);
            logit_change: mean absolute change over all images;
            logit_change_real, logit_change_fake: mean signed change; None without such images;
            auc; change; low, high: the change's 95 % interval. Images are resampled within each
                class of each generator, identically for all conditions; see also `UNSEEN`;
            matters, sentence: see `what_matters`;
            by_generator: list of name, family, and the same numbers from logit_change to high.
        attention, sentence: `matters` and sentence of uniform weights.
        per_image: `matters` of the choice per image, from 'mean' and 'shuffled_within', see
            `choice_per_image`.
        per_generator: change, low, high, matters, sentence of 'shuffled_across' against
            'shuffled_within', the effect of differences between generators; None for fewer than two
            generators.

    Raises:
        ValueError: a set has no branch logits, or there is no image.
    """
    sets = [scored for scored in sets if len(scored.labels)]
    if not sets or any(scored.branch_logits is None for scored in sets):
        raise ValueError("controls need images with branch logits")
    keys = scale_keys(tuple(scales))
    conditions = list(_conditions(sets, keys, bias, residual, seed, shuffles))
    # the unchanged scores come last: branch logits reproduce them only up to rounding
    all_logits = [
        *(condition.logits for condition in conditions),
        np.concatenate([scored.scores for scored in sets])[None],
    ]
    counts = list(map(len, all_logits))
    of_set = set_of_each(sets)
    stacked = np.concatenate(all_logits)
    aucs = [
        generator_aucs(scored, stacked[:, of_set == index], counts, resamples, seed)
        for index, scored in enumerate(sets)
    ]
    macro = macro_aucs(sets, aucs)
    changes = [condition.logits - conditions[0].logits for condition in conditions]
    described = [
        _described(condition, position, sets, changes[position], aucs, macro)
        for position, condition in enumerate(conditions)
    ]
    described = described[1:]
    auc = None if macro is None else float(macro.plain[-1])
    low, high = (None, None) if macro is None or macro.drawn is None else interval(macro.drawn[-1])
    by_name = {condition["name"]: condition for condition in described}
    mean, within = by_name["mean"]["matters"], by_name["shuffled_within"]["matters"]
    defined = sum(of_generator is not None for of_generator in aucs)
    per_generator = None
    if defined > 1:
        names = [condition.name for condition in conditions]
        per_generator = choice_per_generator(names, changes, macro)
    return {
        "keys": keys, "seed": seed, "resamples": resamples, "shuffles": shuffles,
        "confidence": CONFIDENCE, "bias": bias, "residual": residual, "generators": defined,
        "auc": auc, "low": low, "high": high,
        "attention": by_name["uniform"]["matters"], "sentence": by_name["uniform"]["sentence"],
        "per_image": choice_per_image(mean, within), "per_generator": per_generator,
        "conditions": described,
    }  # fmt: skip


def _conditions(
    sets: Sequence[Scores], keys: list[str], bias: float, residual: bool, seed: int, shuffles: int
) -> Iterator[_Condition]:
    weights = np.concatenate([scored.weights for scored in sets])
    branches = np.concatenate([np.asarray(scored.branch_logits, dtype=float) for scored in sets])
    generator = set_of_each(sets)
    rng = np.random.default_rng(seed)

    def fused(*attention: NDArray) -> NDArray:
        return np.stack([fused_logits(rows, branches, bias, residual) for rows in attention])

    # random order within each group; the groups stay where they are
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


def _described(
    condition: _Condition,
    position: int,
    sets: Sequence[Scores],
    changes: NDArray,
    aucs: list[Aucs | None],
    macro: Aucs | None,
) -> dict[str, Any]:
    labels = np.concatenate([np.asarray(scored.labels) for scored in sets])
    of_set = set_of_each(sets)
    numbers = condition_numbers(macro, position, changes, labels)
    return {
        "name": condition.name,
        "label": condition.label,
        **numbers,
        **relevance(condition.text, condition.subject, numbers, macro),
        "by_generator": [
            {"name": scored.generator, "family": scored.suite}
            | condition_numbers(
                of_one, position, changes[:, of_set == index], np.asarray(scored.labels)
            )
            for index, (scored, of_one) in enumerate(zip(sets, aucs, strict=True))
        ],
    }
