"""Compare recipes: the spread over the runs of each, and its gain over a baseline."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from evaluation.comparison.runs import Recipe, set_name
from evaluation.metrics import LOWER_IS_BETTER
from evaluation.resampling import Distribution, Interval, interval
from evaluation.result_files import PREDICTIONS_FILE
from evaluation.summary import distribution, mean_distribution


@dataclasses.dataclass(frozen=True)
class Gain:
    """Differences of a recipe from the baseline, in percentage points.

    Args:
        points: by set, where both have the metric.
        intervals: 95 % by set, from a paired bootstrap over the images.
        mean: over the sets with both classes; None without such a set.
        mean_interval: 95 % of the mean; None unless all these sets have an interval.
        improved: number of these sets that are better (for EER, ECE and Brier: lower).
        n_sets: their number.
        p_value: Wilcoxon signed-rank test over these sets, two-sided; None if no set differs.
    """

    points: dict[str, float]
    intervals: dict[str, Interval]
    mean: float | None
    mean_interval: Interval | None
    improved: int
    n_sets: int
    p_value: float | None


class Comparison:
    """Recipes, the baseline first.

    Args:
        recipes: at least one.
        resamples: of the paired bootstrap, 0 for no intervals.
        seed: of the bootstrap.

    Attributes:
        keys: of all sets.
        both: of the sets with both classes, over which means are.
    """

    def __init__(self, recipes: Sequence[Recipe], resamples: int = 1000, seed: int = 0) -> None:
        self.recipes, self.baseline = list(recipes), recipes[0]
        self.results = [result for recipe in recipes for result in recipe.results]
        self.keys = list(dict.fromkeys(key for result in self.results for key in result.sets))
        self.both = [key for key in self.keys if self._has_both(key)]
        self._drawn = {
            (r.label, key): _of_recipe(r, key, resamples, seed)
            for r in self.recipes
            for key in self.keys
        }
        self._images = {(r.label, key): _images(r, key) for r in self.recipes for key in self.keys}

    def _has_both(self, key: str) -> bool:
        """Return True if every run has real and generated images of a set."""
        counts = [result.sets[key] for result in self.results if key in result.sets]
        return all(of_run["n_real"] and of_run["n_fake"] for of_run in counts)

    def protocol(self, key: str) -> dict[str, Any] | None:
        """Return the preprocessing of a set, from the first run that has it; None if unknown."""
        known = (result.protocols.get(key) for result in self.results)
        return next(filter(None, known), None)

    def paired(self, recipe: Recipe, key: str) -> bool:
        """Return True if all runs of a recipe and the baseline scored the same images of a set."""
        ours, theirs = self._images[recipe.label, key], self._images[self.baseline.label, key]
        return ours is not None and ours == theirs

    def interval(self, recipe: Recipe, key: str, metric: str) -> Interval | None:
        """Return the 95 % interval of a recipe's mean over its runs, over the images of a set."""
        drawn = self._drawn[recipe.label, key].get(metric)
        return None if drawn is None else interval(drawn)

    def gain(self, recipe: Recipe, metric: str) -> Gain:
        """Return the gain of a recipe over the baseline."""
        points, drawn = {}, {}
        for key in self.keys:
            ours, theirs = recipe.mean(key, metric), self.baseline.mean(key, metric)
            if ours is None or theirs is None:
                continue
            points[key] = 100 * ours - 100 * theirs
            both = self._drawn[self.baseline.label, key], self._drawn[recipe.label, key]
            if self.paired(recipe, key) and all(metric in metrics for metrics in both):
                drawn[key] = 100 * (both[1][metric] - both[0][metric])
        # rounding, so that equal differences tie and no difference is 0
        values = np.array([points[key] for key in points if key in self.both]).round(9)
        drawn_both = [drawn[key] for key in drawn if key in self.both]
        mean_interval = (
            interval(np.mean(drawn_both, axis=0))
            if drawn_both and len(drawn_both) == len(values)
            else None
        )
        return Gain(
            points,
            {key: interval(distribution) for key, distribution in drawn.items()},
            float(values.mean()) if len(values) else None,
            mean_interval,
            int((values * (-1 if metric in LOWER_IS_BETTER else 1) > 0).sum()),
            len(values),
            float(wilcoxon(values).pvalue) if values.any() else None,
        )


def _of_recipe(recipe: Recipe, key: str, resamples: int, seed: int) -> Distribution:
    """Return the distribution of the mean over a recipe's runs; empty if a run has no scores.

    The runs scored the same images, so they get the same resamples.
    """
    runs = [
        (r.scored[key], r.sets[key].get("threshold")) for r in recipe.results if key in r.scored
    ]
    tested = sum(key in result.sets for result in recipe.results)
    if not runs or len(runs) < tested:
        return {}
    drawn = [distribution(scored, threshold, resamples, seed) for scored, threshold in runs]
    return mean_distribution(drawn, [list(metrics) for metrics in drawn])


def _images(recipe: Recipe, key: str) -> frozenset[tuple[str, int]] | None:
    """Return names and labels of a set's images; None if the recipe's runs scored other ones."""
    runs = [result for result in recipe.results if key in result.sets]
    if not runs or any(key not in result.scored for result in runs):
        return None
    sets = [result.scored[key] for result in runs]
    seen = {frozenset(zip(s.names, s.labels.tolist(), strict=True)) for s in sets}
    return seen.pop() if len(seen) == 1 else None


def warnings(comparison: Comparison) -> list[str]:
    """Return warnings of what limits the comparison.

    These are missing sets, sets of one class, other images, other preprocessing and missing scores.
    """
    texts = [*_incomplete(comparison), *_unequal(comparison)]
    unscored = [result.name for result in comparison.results if not result.scored]
    if unscored:
        texts.append(f"no {PREDICTIONS_FILE}, so no intervals: {', '.join(unscored)}")
    baseline = comparison.baseline
    for recipe in comparison.recipes[1:]:
        both = [k for k in comparison.keys if recipe.values(k, "acc") and baseline.values(k, "acc")]
        apart = [set_name(key) for key in both if not comparison.paired(recipe, key)]
        if apart:
            texts.append(
                "the runs did not score the same images, so gains have no intervals: "
                f"{recipe.label}, {', '.join(apart)}"
            )
    return texts


def _incomplete(comparison: Comparison) -> Iterator[str]:
    """Yield warnings of sets that a recipe, or some of its runs, was not tested on."""
    for recipe in comparison.recipes:
        tested = {key: sum(key in r.sets for r in recipe.results) for key in comparison.keys}
        missing = [set_name(key) for key, runs in tested.items() if not runs]
        if missing:
            yield f"not tested, so not compared: {recipe.label} lacks {', '.join(missing)}"
        some = [set_name(key) for key, runs in tested.items() if 0 < runs < len(recipe.results)]
        if some:
            yield f"not every run of {recipe.label} was tested on {', '.join(some)}"


def _unequal(comparison: Comparison) -> Iterator[str]:
    """Yield warnings of sets of one class, and of sets that the runs saw in different ways."""
    one_class, numbers, protocols, equalized = [], [], [], []
    for key in comparison.keys:
        tested = [result for result in comparison.results if key in result.sets]
        counts = {(r.sets[key]["n_real"], r.sets[key]["n_fake"]) for r in tested}
        one_class += [key] * (key not in comparison.both)
        numbers += [key] * (len(counts) > 1)
        first = tested[0].protocols.get(key)
        protocols += [key] * any(result.protocols.get(key) != first for result in tested)
        equalized += [key] * (len({result.document.get("equalize") for result in tested}) > 1)
    for text, keys in (
        (
            "AP and AUC are undefined with one class, so only accuracy is compared, and not in means",
            one_class,
        ),
        ("the models saw different numbers of images", numbers),
        ("the models saw differently preprocessed images", protocols),
        ("the images were re-encoded (--equalize) for some models only", equalized),
    ):
        if keys:
            yield f"{text}: {', '.join(map(set_name, keys))}"
