"""Relevance of attention: changes of AUC, the thresholds of what matters, and the sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.resampling import ResampledAuc, interval, resampled_aucs
from evaluation.scores import Scores, first_of_each

RELEVANT = 0.005  # a change of AUC whose whole interval is within this does not matter
FEWEST_OF_CLASS = 20  # with fewer real or fake images, resamples say nothing about other images
UNSEEN = 3.0
"""Rule of three (Hanley and Lippman-Hand, JAMA 249, 1983): an event that n images do not show may
still happen to a share of 3 / n of other images (upper end of its 95 % interval). Where the AUC is
the same in all resamples, the interval of the change extends by 3 / n on either side."""
SAME = 1e-4  # logits that differ by less are the same
# {condition: (phrase for the intervention, phrase for the property that it tests)}
MEANINGS = {
    "uniform": (
        "replacing attention by uniform weights",
        "the attention",
    ),
    "mean": (
        "replacing attention by its mean over all images",
        "that attention differs between images",
    ),
    "shuffled_within": (
        "shuffling attention between the images of each generator",
        "the choice per image within generators",
    ),
    "shuffled_across": (
        "shuffling attention between all images",
        "which image gets which attention",
    ),
}
PER_GENERATOR = (
    "shuffling attention between generators, too, and not only within them,",
    "that attention differs between generators",
)


@dataclass(frozen=True)
class Aucs:
    """AUCs of C conditions.

    Args:
        plain: [C], over all images.
        drawn: [C, R], in R resamples; None without them.
        images: number of images of the smaller class.
    """

    plain: NDArray
    drawn: NDArray | None
    images: int


def generator_aucs(
    scored: Scores, logits: NDArray, counts: list[int], resamples: int, seed: int
) -> Aucs | None:
    """Return the AUCs of one generator; None for one class.

    Args:
        scored: the generator, n images.
        logits: [sum of counts, n].
        counts: rows per condition, whose AUCs are averaged.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    labels = scored.labels
    if labels.min() == labels.max():
        return None
    starts, once = np.cumsum([0, *counts[:-1]]), np.ones((len(labels), 1))
    plain = np.array([ResampledAuc(labels, row)(once)[0] for row in logits])
    fewest, drawn = int(np.bincount(labels).min()), None
    if resamples and fewest > 1:
        aucs = resampled_aucs(labels, logits, scored.names, resamples, seed)
        drawn = np.add.reduceat(aucs, starts) / np.array(counts)[:, None]
    return Aucs(np.add.reduceat(plain, starts) / counts, drawn, fewest)


def macro_aucs(sets: Sequence[Scores], aucs: list[Aucs | None]) -> Aucs | None:
    """Return the means over the generators that have both classes; None if none has.

    An image of several generators counts once in the number of images.
    """
    defined = [of_one for of_one in aucs if of_one is not None]
    if not defined:
        return None
    both = [scored for scored, of_one in zip(sets, aucs, strict=True) if of_one is not None]
    labels = np.concatenate([scored.labels for scored in both])[first_of_each(both)]
    drawn = [of_one.drawn for of_one in defined if of_one.drawn is not None]
    return Aucs(
        np.mean([of_one.plain for of_one in defined], axis=0),
        np.mean(drawn, axis=0) if len(drawn) == len(defined) else None,
        int(min((labels == label).sum() for label in (0, 1))),
    )


def auc_change(
    aucs: Aucs | None, position: int, changes: NDArray, base: int = 0
) -> dict[str, float | None]:
    """Return the change of the AUC between two conditions, with the ends of its interval.

    Args:
        aucs: of the conditions; None where they are undefined.
        position: of the condition in `aucs`.
        changes: [K, N], differences of its logits from those of the base.
        base: position of the condition to compare with.
    """
    if aucs is None:
        return dict.fromkeys(("change", "low", "high"))
    low = high = None
    if aucs.drawn is not None:
        low, high = interval(aucs.drawn[position] - aucs.drawn[base])
        if low == high and np.abs(changes).max() > SAME:
            unseen = UNSEEN / aucs.images
            low, high = max(-1.0, low - unseen), min(1.0, high + unseen)
    return {"change": float(aucs.plain[position] - aucs.plain[base]), "low": low, "high": high}


def condition_numbers(
    aucs: Aucs | None, position: int, changes: NDArray, labels: NDArray
) -> dict[str, float | None]:
    """Return the numbers of one condition.

    Args:
        aucs: of the conditions.
        position: of the condition in `aucs`.
        changes: [K, N], added to the logits by the condition.
        labels: [N].

    Returns:
        logit_change: mean absolute change over all images.
        logit_change_real, logit_change_fake: mean signed change; None without such images.
        auc; change; low, high: the change's 95 % interval. Images are resampled within each class
            of each generator, identically for all conditions; see also `UNSEEN`.
    """
    mean = changes.mean(axis=0)
    real, fake = (
        float(mean[labels == label].mean()) if (labels == label).any() else None for label in (0, 1)
    )
    return {
        "logit_change": float(np.abs(changes).mean()),
        "logit_change_real": real,
        "logit_change_fake": fake,
        "auc": None if aucs is None else float(aucs.plain[position]),
        **auc_change(aucs, position, changes),
    }


def choice_per_image(mean: str | None, within: str | None) -> str | None:
    """Return whether the choice per image matters, in the words of `what_matters`.

    It harms if either control says so. It does not matter if constant weights do as well. It helps
    only if both controls say so.

    Args:
        mean: result for constant mean weights.
        within: result for weights shuffled within generators.
    """
    if "harms" in (mean, within):
        return "harms"
    if mean in (None, "no"):
        return mean
    return within if mean == "helps" else "unclear"


def choice_per_generator(changes: dict[str, NDArray], macro: Aucs | None) -> dict[str, Any]:
    """Return the effect of attention that differs by generator.

    Args:
        changes: {condition: differences [K, N] of its logits from the trained ones}.
        macro: AUCs of the trained attention and, after it, of these conditions.

    Returns:
        change, low, high, matters, sentence of 'shuffled_across' against 'shuffled_within'.
    """
    names = ("shuffled_across", "shuffled_within")
    across, within = (list(changes).index(name) + 1 for name in names)
    added = changes["shuffled_across"] - changes["shuffled_within"]
    change = auc_change(macro, across, added, within)
    return change | relevance(*PER_GENERATOR, change, macro)


def what_matters(low: float | None, high: float | None, images: int) -> str | None:
    """Return whether the replaced part matters, from the interval of the change of AUC.

    Args:
        low: lower end of the interval.
        high: upper end of the interval.
        images: number of images of the smaller class.

    Returns:
        'no': the interval lies within +- `RELEVANT`.
        'helps', 'harms': the replaced part raises or lowers the AUC beyond chance.
        'unclear': none of these, or fewer than `FEWEST_OF_CLASS` images.
        None: no interval.
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


def relevance(
    text: str, subject: str, change: dict[str, float | None], aucs: Aucs | None
) -> dict[str, str | None]:
    """Return `what_matters` and a sentence about it.

    Args:
        text: phrase for the intervention.
        subject: phrase for the property that it tests.
        change: change, low, high of `auc_change`.
        aucs: from which the change follows.
    """
    if aucs is None or change["change"] is None:
        sentence = f"{text}: no generator has images of both classes, so there is no AUC"
        return {"matters": None, "sentence": sentence}
    low, high = change["low"], change["high"]
    matters = what_matters(low, high, aucs.images)
    effect = f"{text} changes the mean AUC by {100 * change['change']:+.1f} points"
    if low is None or high is None:
        sentence = f"{effect}: too few images to say whether {subject} matters"
        return {"matters": matters, "sentence": sentence}
    few = f" (fewer than {FEWEST_OF_CLASS} of a class)" * (aucs.images < FEWEST_OF_CLASS)
    conclusion = {
        "no": f"{subject} does not matter here",
        "helps": f"{subject} helps",
        "harms": f"{subject} harms",
        "unclear": f"these images do not tell whether {subject} matters{few}",
    }[str(matters)]
    ends = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    return {"matters": matters, "sentence": f"{effect} {ends}: {conclusion}"}
