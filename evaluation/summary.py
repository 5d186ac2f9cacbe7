"""From the scores of a test run to its figures: per set, per suite (macro mean), pooled; all with
95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.benchmarks import SUITES
from evaluation.metrics import Metrics, binary_metrics, mean_metrics
from evaluation.resampling import (
    RESAMPLES,
    Distribution,
    Interval,
    interval,
    mean_distribution,
    resample,
)


@dataclass(frozen=True)
class ScoredSet:
    """What a model said about one set: one entry per image that could be read, in the order of the
    files.

    Args:
        paths: relative to the data root, see `evaluation.names.escaped`. labels: [N], 0 real, 1
            generated.
        logits: [N]. scores: [N] in [0, 1]. attention: [N, S], None for models without.
        branch_logits: [N, S], each branch's logit without bias, None for models and files without.
    """

    suite: str
    generator: str
    paths: tuple[str, ...]
    labels: NDArray
    logits: NDArray
    scores: NDArray
    attention: NDArray | None = None
    branch_logits: NDArray | None = None

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.generator}"


@dataclass(frozen=True)
class Figures:
    """Figures by name, each in [0, 1] or None, and the 95 % intervals of those that have one."""

    values: dict[str, float | None]
    intervals: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        return {**self.values, "ci95": {name: list(ends) for name, ends in self.intervals.items()}}


@dataclass(frozen=True)
class Summary:
    """All figures of a run.

    Args:
        sets, suites: {key: figures}. metrics: {key: `Metrics` of the set}. pooled: figures over the
            images of all sets, each once.
        pooled_metrics: their `Metrics`. n_sets: {suite: number of its sets}.
    """

    metrics: dict[str, Metrics]
    sets: dict[str, Figures]
    suites: dict[str, Figures]
    n_sets: dict[str, int]
    pooled_metrics: Metrics
    pooled: Figures

    def to_dict(self) -> dict[str, Any]:
        """The parts `sets`, `suites` and `pooled` of metrics.json, without what says which set it
        is."""
        return {
            "sets": {
                key: self.metrics[key].to_dict() | found.to_dict()
                for key, found in self.sets.items()
            },
            "suites": {
                suite: {"n_sets": self.n_sets[suite], **found.to_dict()}
                for suite, found in self.suites.items()
            },
            "pooled": self.pooled_metrics.to_dict() | self.pooled.to_dict(),
        }


def suites_of(sets: Sequence[ScoredSet]) -> dict[str, list[ScoredSet]]:
    """The sets of each suite, the published tables first and in their order."""
    order = list(SUITES)
    names = sorted(
        {s.suite for s in sets},
        key=lambda suite: (order.index(suite) if suite in order else len(order), suite),
    )
    return {suite: [scored for scored in sets if scored.suite == suite] for suite in names}


def summarise(
    sets: Sequence[ScoredSet], threshold: float | None, resamples: int = RESAMPLES, seed: int = 0
) -> Summary:
    """Figures and intervals of a run; the same scores, threshold, resamples and seed give the same,
    in any order of the images.

    Args:
        sets: at least one, with distinct keys. threshold: chosen on validation data, None without.
        resamples: of the bootstrap, 0 for no intervals.
    """
    metrics = {
        scored.key: binary_metrics(scored.labels, scored.scores, threshold) for scored in sets
    }
    if len(metrics) < len(sets):
        raise ValueError(f"sets of one key: {', '.join(scored.key for scored in sets)}")
    distributions = {
        scored.key: distribution(scored, threshold, resamples, seed) for scored in sets
    }
    suites, by_suite = {}, suites_of(sets)
    for suite, of_suite in by_suite.items():
        rows = [metrics[scored.key] for scored in of_suite]
        defined = [
            [name for name, value in row.values().items() if value is not None] for row in rows
        ]
        mean = mean_distribution([distributions[scored.key] for scored in of_suite], defined)
        suites[suite] = _figures(mean_metrics(rows), mean)
    pooled = pool(sets) if len(sets) > 1 else sets[0]
    pooled_metrics = binary_metrics(pooled.labels, pooled.scores, threshold)
    return Summary(
        metrics,
        {key: _figures(metrics[key].values(), distributions[key]) for key in metrics},
        suites,
        {suite: len(of_suite) for suite, of_suite in by_suite.items()},
        pooled_metrics,
        _figures(pooled_metrics.values(), distribution(pooled, threshold, resamples, seed)),
    )


def pool(sets: Sequence[ScoredSet]) -> ScoredSet:
    """All images of all sets; a file that belongs to several sets (real images that generators
    share) counts once."""
    labels, logits, scores = (
        np.concatenate([getattr(s, name) for s in sets]) for name in ("labels", "logits", "scores")
    )
    paths = [path for scored in sets for path in scored.paths]
    _, first = np.unique(np.asarray(paths, dtype=object), return_index=True)
    first.sort()
    return ScoredSet(
        "", "", tuple(paths[index] for index in first), labels[first], logits[first], scores[first]
    )


def picture_names(scored: ScoredSet) -> list[str]:
    """Names that stay the same wherever the data root was: the path below the generator's folder,
    where it lies in one."""
    marker = f"/{scored.generator}/"
    split = (f"/{path}".split(marker, 1) for path in scored.paths)
    return [f"{scored.key}:{parts[1]}" if len(parts) > 1 else parts[0] for parts in split]


def distribution(
    scored: ScoredSet, threshold: float | None, resamples: int = RESAMPLES, seed: int = 0
) -> Distribution:
    """`resample` of a set."""
    return resample(scored.labels, scored.scores, picture_names(scored), threshold, resamples, seed)


def _figures(values: dict[str, float | None], drawn: Distribution) -> Figures:
    return Figures(values, {name: interval(of_figure) for name, of_figure in drawn.items()})
