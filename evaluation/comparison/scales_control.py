"""Compare recipes of several scales with their controls: as many branches, all at one scale."""

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
    """Return a sentence for each recipe of several scales that has a control in the comparison.

    Both recipes must differ only in the scales, in training and in testing. The sentence has the
    difference of the mean AUC over the sets that all runs have, with Welch's interval over seeds.
    """
    return [_sentence(ours, control, comparison) for ours, control in _pairs(comparison.recipes)]


def _pairs(recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Recipe]]:
    """Yield each recipe of several scales with each of its controls."""
    for ours in recipes:
        for control in recipes:
            result, of_control = ours.results[0], control.results[0]
            scales, equal = result.scales, of_control.scales
            fits = (
                len(set(scales)) == len(scales) > 1
                and len(equal) == len(scales)
                and len(set(equal)) == 1
            )
            alike = all(a.agrees_with(b) for a in ours.results for b in control.results)
            if fits and alike and result.circumstances == of_control.circumstances:
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
        [100 * float(np.mean([r.sets[k][METRIC] for k in keys])) for r in recipe.results]
        for recipe in (ours, control)
    ]
    difference = float(np.mean(means[0]) - np.mean(means[1]))
    effect = f"{about}: {LABELS[METRIC]} {difference:+.2f} points over {counted(len(keys), 'set')}"
    if min(map(len, means)) < 2:
        return f"{effect}, without an interval: train both with several seeds"
    test = ttest_ind(*means, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    # the runs do not differ at all
    if np.isnan(low):
        low = high = difference
    verdict = (
        "no significant difference with these seeds"
        if low <= 0 <= high
        else "more"
        if low > 0
        else "less"
    )
    seeds = f"{len(means[0])} and {len(means[1])} seeds"
    return f"{effect} [{low:+.2f}, {high:+.2f}] over {seeds}: {verdict}" + (
        " than capacity explains" if verdict == "more" else ""
    )
