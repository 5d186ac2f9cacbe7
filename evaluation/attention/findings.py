"""Findings about one model's attention on test images: statistics, controls and verdicts.

They follow from labels, scores, attention and branch logits alone. So they need one pass over the
images, or predictions.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.image_sets import unique_names
from evaluation.attention.controls import attention_controls
from evaluation.attention.groups import leanings
from evaluation.attention.kinds import Verdict
from evaluation.attention.statistics import attention_statistics
from evaluation.attention.verdict import attention_verdicts
from evaluation.result_files import TestRun
from evaluation.scores import Scores

FINDINGS_FILE = "attention.json"


@dataclass(frozen=True)
class AttentionFindings:
    """Statistics, controls and verdicts of a model with two scales or more.

    Args:
        sets: the scores that they follow from.
        scales: S of them.
        statistics: of `attention_statistics`.
        controls: of `attention_controls`, None without branch logits.
        verdicts: of `attention_verdicts`.
    """

    sets: Sequence[Scores]
    scales: tuple[float, ...]
    statistics: dict[str, Any]
    controls: dict[str, Any] | None
    verdicts: list[Verdict]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "leanings": leanings(self.statistics),
            "statistics": self.statistics,
            "controls": self.controls,
        }


def attention_findings(
    sets: Sequence[Scores],
    scales: Sequence[float],
    fusion: dict[str, Any] | None,
    seed: int = 0,
    resamples: int = 1000,
) -> AttentionFindings | None:
    """Return all findings; None for one scale or no image.

    Args:
        sets: scores; the names of suite and generator are `escaped`.
        scales: S of them.
        fusion: bias and residual of the model (`fusion` in metrics.json), None where unknown.
        seed: of shuffles, permutations and bootstraps.
        resamples: of the bootstraps, 0 for no intervals.
    """
    sets = [scored for scored in sets if len(scored.labels)]
    if len(scales) < 2 or not sets:
        return None
    statistics = attention_statistics(sets, scales, seed, resamples)
    controls = None
    if fusion and all(scored.branch_logits is not None for scored in sets):
        bias, residual = float(fusion["bias"]), bool(fusion["residual"])
        controls = attention_controls(sets, scales, bias, residual, seed, resamples)
    return AttentionFindings(
        sets, tuple(scales), statistics, controls, attention_verdicts(statistics, controls)
    )


def findings_of_run(run: TestRun) -> AttentionFindings | None:
    """Return the findings of a test run; None for a model without attention."""
    scales = run.head["model"].get("scales")
    if not run.attention or not scales:
        return None
    names = unique_names(run.sets)
    in_order = sorted(run.sets, key=lambda scored: scored.key)
    sets = [_by_path(scored, names[scored.key]) for scored in in_order]
    settings = run.head["bootstrap"]
    return attention_findings(
        sets, scales, run.head.get("fusion"), settings["seed"], settings["resamples"]
    )


def _by_path(scored: Scores, name: str) -> Scores:
    """Return the set under this name, sorted by path, because permutations depend on the order."""
    order = np.argsort(np.array(scored.paths, dtype=object), kind="stable")
    return replace(scored.take(order), generator=name)
