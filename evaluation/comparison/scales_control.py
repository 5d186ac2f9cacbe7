"""Gain of several scales beyond their capacity.

Recipes with scales are compared with the control that has as many branches at one scale."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import ttest_ind

from evaluation.comparison.comparison import Comparison
from evaluation.comparison.runs import Recipe
from evaluation.metrics import LABELS
from evaluation.resampling import CONFIDENCE
from util import counted

METRIC = "auc"


def scales_against_control(comparison: Comparison) -> list[str]:
    """One sentence for each recipe of several scales whose control of equal capacity is compared,
    too.

    Both recipes must differ in nothing but the scales, in training and in testing. The interval is
    Welch's, over seeds, of the difference of the mean AUC over the sets that all have.
    """
    return [_sentence(ours, control, comparison) for ours, control in _pairs(comparison.recipes)]


def _pairs(recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Recipe]]:
    for ours in recipes:
        for control in recipes:
            one, other = ours.results[0], control.results[0]
            scales, equal = one.scales, other.scales
            fits = (
                len(set(scales)) == len(scales) > 1
                and len(equal) == len(scales)
                and len(set(equal)) == 1
            )
            alike = all(a.agrees_with(b) for a in ours.results for b in control.results)
            if fits and alike and one.circumstances == other.circumstances:
                yield ours, control


def _sentence(ours: Recipe, control: Recipe, comparison: Comparison) -> str:
    runs = [*ours.results, *control.results]
    keys = [
        k
        for k in comparison.keys
        if all(k in r.sets and r.sets[k].get(METRIC) is not None for r in runs)
    ]
    about = f"{ours.label} against its control of equal capacity, {control.label}"
    if not keys:
        return f"{about}: no set has an AUC in all runs"
    means = [
        [100 * float(np.mean([r.sets[k][METRIC] for k in keys])) for r in one.results]
        for one in (ours, control)
    ]
    difference = float(np.mean(means[0]) - np.mean(means[1]))
    said = f"{about}: {LABELS[METRIC]} {difference:+.2f} points over {counted(len(keys), 'set')}"
    if min(map(len, means)) < 2:
        return f"{said}, without an interval: train both with several seeds"
    found = ttest_ind(*means, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    if np.isnan(low):  # runs that do not differ at all
        low = high = difference
    verdict = (
        "no difference that these seeds could show"
        if low <= 0 <= high
        else "more"
        if low > 0
        else "less"
    )
    seeds = f"{len(means[0])} and {len(means[1])} seeds"
    return f"{said} [{low:+.2f}, {high:+.2f}] over {seeds}: {verdict}" + (
        " than capacity explains" if verdict == "more" else ""
    )
