"""Write and read the files of a test run: predictions.csv, metrics.json and others.

Every metric follows from the scores (predictions.csv) and the settings in metrics.json.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data.benchmarks import SUITES
from evaluation.names import escaped
from evaluation.predictions_file import read_predictions, write_predictions
from evaluation.resampling import CONFIDENCE, RESAMPLES
from evaluation.scores import Scores
from evaluation.summary import Summary, summarise
from util import UserError, atomic_file, read_text

SCHEMA = "npr-results/2"
METRICS_FILE, PREDICTIONS_FILE, ROBUSTNESS_FILE = (
    "metrics.json",
    "predictions.csv",
    "robustness_predictions.csv",
)
LEFT_OUT_FILE = "left_out.csv"
METRIC_PARTS = ("sets", "suites", "pooled", "robustness")
"""The parts of metrics.json that follow from the scores; the other parts are the head."""


def bootstrap_settings(resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the settings of the confidence intervals, for the head."""
    return {
        "resamples": resamples,
        "seed": seed,
        "confidence": CONFIDENCE,
        "method": "percentile, stratified by class",
    }


@dataclass(frozen=True)
class TestRun:
    """Scores of one checkpoint and their provenance.

    Args:
        head: all of metrics.json but the metrics: schema, model, protocol, checkpoint_sha256,
            versions, skipped (files without a score), left_out (their number by set key), ...
            For models with attention also fusion: bias and residual, from which logits follow with
            attention and branch logits.
        sets: the sets with a readable image, in the order of the folders.
        robustness: {degradation: sets}, empty without --robustness.
        attention: names of the attention columns, empty for models without.
    """

    __test__ = False  # not a pytest class

    head: dict[str, Any]
    sets: Sequence[Scores]
    robustness: dict[str, list[Scores]] = field(default_factory=dict)
    attention: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.head["model"]["name"])

    @cached_property
    def summary(self) -> Summary:
        """All metrics with intervals; threshold and bootstrap as the head says."""
        settings = self.head["bootstrap"]
        return summarise(self.sets, self.head["threshold"], settings["resamples"], settings["seed"])

    @cached_property
    def robustness_summaries(self) -> dict[str, Summary]:
        """{degradation: metrics}, without intervals."""
        return {
            name: summarise(sets, self.head["threshold"], resamples=0)
            for name, sets in self.robustness.items()
        }

    def metrics(self) -> dict[str, Any]:
        """Return the `METRIC_PARTS` of metrics.json, in [0, 1] or null."""
        parts = self.summary.to_dict()
        for scored in self.sets:
            table = SUITES[scored.suite].table if scored.suite in SUITES else None
            header = {"suite": scored.suite, "generator": scored.generator, "table": table}
            parts["sets"][scored.key] = header | parts["sets"][scored.key]
        if self.robustness:
            parts["robustness"] = {
                name: summary.to_dict() for name, summary in self.robustness_summaries.items()
            }
        return parts

    def write_data(self, folder: Path) -> None:
        """Write predictions.csv, robustness_predictions.csv (with --robustness) and left_out.csv.

        metrics.json comes last, so a folder that has it is complete.
        """
        write_predictions(folder / PREDICTIONS_FILE, {None: self.sets}, self.attention)
        if self.robustness:
            write_predictions(folder / ROBUSTNESS_FILE, self.robustness)
        with atomic_file(folder / LEFT_OUT_FILE, newline="") as file:
            writer = csv.DictWriter(file, ("path", "reason", "condition"), restval="")
            writer.writeheader()
            writer.writerows(self.head["skipped"])
        text = json.dumps(self.head | self.metrics(), indent=2, allow_nan=False) + "\n"
        with atomic_file(folder / METRICS_FILE) as file:
            file.write(text)


def read_document(path: Path) -> dict[str, Any]:
    """Read a metrics.json (or the one in a folder).

    Raises:
        UserError: the file cannot be read, is not JSON, or has another schema; the message names
            it.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    advice = "pass the folders that test.py wrote"
    try:
        document = json.loads(read_text(file))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error}); {advice}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{file}: has the schema {schema!r}, expected {SCHEMA!r}; {advice}")
    return document


def read_run(folder: Path) -> TestRun:
    """Read a run from its folder: the head of metrics.json and the scores of the CSV files.

    Without metrics.json the head has no threshold, the default bootstrap settings, and the folder's
    name as the model's.

    Raises:
        UserError: see `read_document` and `read_predictions`.
    """
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "model": {"name": escaped(folder.resolve().name)},
        "threshold": None,
        "bootstrap": bootstrap_settings(),
        "skipped": [],
    }
    if (folder / METRICS_FILE).exists():
        document = read_document(folder)
        head = {key: value for key, value in document.items() if key not in METRIC_PARTS}
    conditions, attention = read_predictions(folder / PREDICTIONS_FILE)
    if None not in conditions:
        raise UserError(f"{folder / PREDICTIONS_FILE}: holds no scores")
    robust: dict[str | None, list[Scores]] = {}
    if (folder / ROBUSTNESS_FILE).exists():
        robust, _ = read_predictions(folder / ROBUSTNESS_FILE)
    by_name = {str(name): sets for name, sets in robust.items()}
    return TestRun(head, conditions[None], by_name, attention)
