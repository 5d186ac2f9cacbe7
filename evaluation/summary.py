"""Metrics of a test run with 95 % confidence intervals: per set, per suite (macro mean), pooled."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.benchmarks import SUITES
from evaluation.metrics import LABELS, Metrics, binary_metrics, mean_metrics
from evaluation.resampling import (
    RESAMPLES,
    Distribution,
    Interval,
    interval,
    resample,
)
from evaluation.scores import Scores, pool


@dataclass(frozen=True)
class Estimates:
    """Metrics by name, each in [0, 1] or None, and their 95 % intervals where defined."""

    values: dict[str, float | None]
    intervals: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, intervals under `ci95`."""
        return {**self.values, "ci95": {name: list(ends) for name, ends in self.intervals.items()}}


@dataclass(frozen=True)
class Summary:
    """All metrics of a run.

    Args:
        metrics: {key: `Metrics` of the set}.
        sets: {key: metrics of the set with intervals}.
        suites: {suite: macro means over its sets with both classes}.
        n_sets: {suite: number of these sets}.
        pooled_metrics: `Metrics` over the images of all sets, each once.
        pooled: these metrics with intervals.
    """

    metrics: dict[str, Metrics]
    sets: dict[str, Estimates]
    suites: dict[str, Estimates]
    n_sets: dict[str, int]
    pooled_metrics: Metrics
    pooled: Estimates

    def to_dict(self) -> dict[str, Any]:
        """Return the parts `sets`, `suites` and `pooled` of metrics.json."""
        return {
            "sets": {
                key: self.metrics[key].to_dict() | estimates.to_dict()
                for key, estimates in self.sets.items()
            },
            "suites": {
                suite: {"n_sets": self.n_sets[suite], **estimates.to_dict()}
                for suite, estimates in self.suites.items()
            },
            "pooled": self.pooled_metrics.to_dict() | self.pooled.to_dict(),
        }


def suites_of(sets: Sequence[Scores]) -> dict[str, list[Scores]]:
    """Return the sets by suite: published suites in the paper's order, then others by name."""
    order = list(SUITES)
    names = sorted(
        {s.suite for s in sets},
        key=lambda suite: (order.index(suite) if suite in order else len(order), suite),
    )
    return {suite: [scored for scored in sets if scored.suite == suite] for suite in names}


def summarise(
    sets: Sequence[Scores], threshold: float | None, resamples: int = RESAMPLES, seed: int = 0
) -> Summary:
    """Return metrics and intervals of a run; they do not depend on the order of the images.

    Args:
        sets: at least one, with distinct keys.
        threshold: chosen on validation data; None if there is none.
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: two sets share a key.
    """
    metrics = {
        scored.key: binary_metrics(scored.labels, scored.scores, threshold) for scored in sets
    }
    if len(metrics) < len(sets):
        raise ValueError(f"two sets share a key: {', '.join(scored.key for scored in sets)}")
    distributions = {
        scored.key: distribution(scored, threshold, resamples, seed) for scored in sets
    }
    suites, n_sets = {}, {}
    for suite, of_suite in suites_of(sets).items():
        both = [scored.key for scored in of_suite if metrics[scored.key].auc is not None]
        rows = [metrics[key] for key in both]
        defined = [
            [name for name, value in row.values().items() if value is not None] for row in rows
        ]
        mean = mean_distribution([distributions[key] for key in both], defined)
        suites[suite], n_sets[suite] = _estimates(mean_metrics(rows), mean), len(both)
    pooled = pool(sets) if len(sets) > 1 else sets[0]
    pooled_metrics = binary_metrics(pooled.labels, pooled.scores, threshold)
    return Summary(
        metrics,
        {key: _estimates(metrics[key].values(), distributions[key]) for key in metrics},
        suites,
        n_sets,
        pooled_metrics,
        _estimates(pooled_metrics.values(), distribution(pooled, threshold, resamples, seed)),
    )


def distribution(
    scored: Scores, threshold: float | None, resamples: int = RESAMPLES, seed: int = 0
) -> Distribution:
    """Return all metrics of a set in resamples of its images, see `resample`."""
    return resample(scored.labels, scored.scores, scored.names, threshold, resamples, seed)


def _estimates(values: dict[str, float | None], drawn: Distribution) -> Estimates:
    return Estimates(values, {name: interval(of_metric) for name, of_metric in drawn.items()})


def mean_distribution(
    distributions: Sequence[Distribution], defined: Sequence[Collection[str]]
) -> Distribution:
    """Average each metric's distribution over sets (macro mean).

    Args:
        distributions: one per set.
        defined: names of the metrics that each set has. The result lacks a metric if a set has it
            but no distribution of it: the spread of some sets is not the spread of the mean.
    """
    means = {}
    for name in LABELS:
        of_sets = [
            drawn for drawn, names in zip(distributions, defined, strict=True) if name in names
        ]
        if of_sets and all(name in drawn for drawn in of_sets):
            means[name] = np.mean([drawn[name] for drawn in of_sets], axis=0)
    return means
