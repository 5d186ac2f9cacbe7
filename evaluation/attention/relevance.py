"""Relevance of attention: thresholds and sentences on what a change of AUC says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.resampling import ResampledAuc, interval, resampled_aucs
from evaluation.scores import Scores, first_of_each

RELEVANT = 0.005  # a change of AUC within this, with its whole interval, does not matter
FEWEST_OF_CLASS = 20  # with fewer real or fake images, resamples say nothing about other images
UNSEEN = 3.0
"""Where the AUC is the same in all resamples, what n images do not show may still happen to a share
of 3 / n of others (upper end of its 95 % interval; Hanley and Lippman-Hand, JAMA 249, 1983): the
interval of the change is so wide on either side."""
SAME = 1e-4  # logits that differ by less are the same
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


@dataclass(frozen=True)
class Aucs:
    """AUC per condition [C], in the resamples [C, R] or None, and how many images the smaller class
    has."""

    plain: NDArray
    drawn: NDArray | None
    images: int


def generator_aucs(
    one: Scores, logits: NDArray, counts: list[int], resamples: int, seed: int
) -> Aucs | None:
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
    return Aucs(np.add.reduceat(plain, starts) / counts, drawn, fewest)


def macro_aucs(sets: Sequence[Scores], found: list[Aucs | None]) -> Aucs | None:
    """Return means over the generators that have both classes; an image of several of them counts
    once."""
    defined = [one for one in found if one is not None]
    if not defined:
        return None
    both = [one for one, aucs in zip(sets, found, strict=True) if aucs is not None]
    labels = np.concatenate([np.asarray(one.labels) for one in both])[first_of_each(both)]
    drawn = [one.drawn for one in defined if one.drawn is not None]
    return Aucs(
        np.mean([one.plain for one in defined], axis=0),
        np.mean(drawn, axis=0) if len(drawn) == len(defined) else None,
        int(min((labels == label).sum() for label in (0, 1))),
    )


def auc_change(
    found: Aucs | None, position: int, moved: NDArray, base: int = 0
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


def choice_per_image(mean: str | None, within: str | None) -> str | None:
    """Return whether the choice per image matters.

    It harms if either control says so, does not matter if a constant does as well, and helps only
    if both say so.
    """
    if "harms" in (mean, within):
        return "harms"
    if mean in (None, "no"):
        return mean
    return within if mean == "helps" else "unclear"


def choice_per_generator(
    names: list[str], moved: list[NDArray], macro: Aucs | None
) -> dict[str, Any]:
    across, within = (names.index(name) for name in ("shuffled_across", "shuffled_within"))
    change = auc_change(macro, across, moved[across] - moved[within], within)
    return change | relevance(*PER_GENERATOR, change, macro)


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


def relevance(
    text: str, subject: str, change: dict[str, float | None], found: Aucs | None
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
