"""Recipes beside each other: each with the spread over its runs, and against a baseline on the same pictures."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import wilcoxon

from evaluation.bootstrap import Distribution, Interval, ResampledScores, interval, mean_distribution, resample
from evaluation.metrics import LOWER_IS_BETTER
from evaluation.runs import PREDICTIONS_FILE
from evaluation.summary import ScoredSet, set_seed
from tools._results import Recipe, shown


@dataclasses.dataclass(frozen=True)
class Gain:
    """Differences of a recipe to the baseline, in percent points.

    Args:
        points: by set, where both have the figure. intervals: by set, 95 %, paired bootstrap over the pictures.
        mean, mean_interval: over the sets. improved: sets that are better (for EER, ECE and Brier: lower).
        p_value: Wilcoxon signed-rank test over the sets, two-sided; None with none that differs.
    """

    points: dict[str, float]
    intervals: dict[str, Interval]
    mean: float | None
    mean_interval: Interval | None
    improved: int
    p_value: float | None


class Comparison:
    """Recipes, the baseline first.

    Args:
        resamples: of the paired bootstrap, 0 for no intervals.
    """

    def __init__(self, recipes: Sequence[Recipe], resamples: int = 1000, seed: int = 0) -> None:
        self.recipes, self.baseline = list(recipes), recipes[0]
        self.results = [result for recipe in recipes for result in recipe.results]
        self.keys = list(dict.fromkeys(key for result in self.results for key in result.sets))
        self.paired: dict[str, list[str]] = {}  # set: labels of the recipes that scored the baseline's pictures
        self._distributions = {key: self._resampled(key, resamples, seed) for key in self.keys} if resamples else {}

    def _resampled(self, key: str, resamples: int, seed: int) -> list[Distribution]:
        """Distribution of each recipe's mean over its runs, from the same resamples of the same pictures."""
        scored = [[r.scored.get(key) for r in recipe.results if key in r.sets] for recipe in self.recipes]
        pictures = [
            {frozenset(zip(s.paths, s.labels.tolist(), strict=True)) if s else None for s in of} for of in scored
        ]
        self.paired[key] = [
            recipe.label
            for recipe, seen in zip(self.recipes, pictures, strict=True)
            if len(seen) == 1 and None not in seen and seen == pictures[0]
        ]
        complete = [
            [s for s in of if s] if len(seen) == 1 and None not in seen else []
            for of, seen in zip(scored, pictures, strict=True)
        ]
        found: list[Distribution] = [{} for _ in self.recipes]
        for of_pictures in {seen for of, group in zip(complete, pictures, strict=True) if of for seen in group}:
            chosen = [i for i, of in enumerate(complete) if of and pictures[i] == {of_pictures}]
            ready = [_in_order(s) for i in chosen for s in complete[i]]
            drawn: Iterator[Distribution] = iter(resample(ready, resamples, set_seed(seed, key)))
            for i in chosen:
                found[i] = mean_distribution([next(drawn) for _ in complete[i]])
        return found

    def interval(self, recipe: Recipe, key: str, metric: str) -> Interval | None:
        """95 % interval of a recipe's mean over its runs, over the pictures of a set."""
        if key not in self._distributions:
            return None
        drawn = self._distributions[key][self.recipes.index(recipe)].get(metric)
        return None if drawn is None else interval(drawn)

    def gain(self, recipe: Recipe, metric: str) -> Gain:
        """What a recipe gains over the baseline."""
        points, drawn = {}, {}
        for key in self.keys:
            ours, theirs = recipe.mean(key, metric), self.baseline.mean(key, metric)
            if ours is None or theirs is None:
                continue
            points[key] = 100 * ours - 100 * theirs
            if recipe.label in self.paired.get(key, ()):
                both = self._distributions[key][0], self._distributions[key][self.recipes.index(recipe)]
                if all(metric in one for one in both):
                    drawn[key] = 100 * (both[1][metric] - both[0][metric])
        values = np.array(list(points.values()))
        whole = interval(np.mean(list(drawn.values()), axis=0)) if drawn and len(drawn) == len(points) else None
        return Gain(
            points,
            {key: interval(distribution) for key, distribution in drawn.items()},
            float(values.mean()) if len(values) else None,
            whole,
            int((values * (-1 if metric in LOWER_IS_BETTER else 1) > 1e-9).sum()),
            float(wilcoxon(values).pvalue) if np.any(np.abs(values) > 1e-9) else None,
        )


def _in_order(scored: ScoredSet) -> ResampledScores:
    """Scores in the order of the pictures' names, so that runs can be paired."""
    order = sorted(range(len(scored.paths)), key=lambda index: scored.paths[index])
    return ResampledScores(scored.labels[order], scored.scores[order])


def remarks(comparison: Comparison) -> list[str]:
    """What limits the comparison: sets that a run lacks, sets of one class, other pictures, other preprocessing, no scores."""
    found, results, keys = [], comparison.results, comparison.keys
    for result in results:
        missing = [shown(key) for key in keys if key not in result.sets]
        if missing:
            found.append(f"not tested, so not compared: {result.name} lacks {', '.join(missing)}")
    tested = {key: [result for result in results if key in result.sets] for key in keys}
    counts = {key: {(r.sets[key]["n_real"], r.sets[key]["n_fake"]) for r in tested[key]} for key in keys}
    protocols = {key: [result.document.get("protocol", {}).get(key) for result in tested[key]] for key in keys}
    equalized = [shown(key) for key in keys if len({result.document.get("equalize") for result in tested[key]}) > 1]
    for text, of in (
        (
            "AP and AUC are undefined with one class, only accuracy counts",
            [k for k in keys if any(0 in n for n in counts[k])],
        ),
        ("the models saw different numbers of images", [key for key in keys if len(counts[key]) > 1]),
        (
            "the models saw differently preprocessed images",
            [k for k in keys if any(p != protocols[k][0] for p in protocols[k])],
        ),
    ):
        if of:
            found.append(f"{text}: {', '.join(map(shown, of))}")
    if equalized:
        found.append(f"the pictures were re-encoded (--equalize) for some models only: {', '.join(equalized)}")
    unscored = [result.name for result in results if not result.scored]
    if unscored:
        found.append(f"no {PREDICTIONS_FILE}, so no intervals: {', '.join(unscored)}")
    return found
