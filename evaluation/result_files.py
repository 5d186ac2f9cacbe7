"""A test run: what one checkpoint said about all sets, with everything needed to say how; kept in
files and read back.

The scores (predictions.csv) are the run; every figure follows from them and from the head of
metrics.json.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data.benchmarks import SUITES
from evaluation.names import escaped
from evaluation.resampling import CONFIDENCE, RESAMPLES
from evaluation.summary import ScoredSet, Summary, summarise
from util import UserError, atomic_file

SCHEMA = "npr-results/2"
METRICS_FILE, PREDICTIONS_FILE, ROBUSTNESS_FILE = (
    "metrics.json",
    "predictions.csv",
    "robustness_predictions.csv",
)
LEFT_OUT_FILE = "left_out.csv"
COLUMNS = ("path", "suite", "generator", "label", "logit", "score")
ATTENTION, BRANCH = "attention_", "branch_logit_"
"""Columns of models with attention begin so; a scale's key follows. Files of earlier code have none
of the second kind."""
FIGURES = ("sets", "suites", "pooled", "robustness")
"""The parts of metrics.json that follow from the scores; the others are the head."""


def bootstrap_settings(resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """How intervals are made, for the head."""
    return {
        "resamples": resamples,
        "seed": seed,
        "confidence": CONFIDENCE,
        "method": "percentile, stratified by class",
    }


@dataclass(frozen=True)
class TestRun:
    """Scores and how they came about.

    Args:
        head: all of metrics.json but the figures: schema, model, protocol, checkpoint_sha256,
            versions, skipped (files without a score), left_out (how many of them each set has, by
            its key; not in runs of earlier code), ... For models with attention also fusion: bias b
            and residual, with which logits follow from attention and branch logits (not in earlier
            code's).
        sets: those with an image that could be read, in the order of the folders.
        robustness: {degradation: sets}, empty without --robustness.
        attention: names of the attention columns, empty for models without.
    """

    __test__ = False  # not a pytest class

    head: dict[str, Any]
    sets: list[ScoredSet]
    robustness: dict[str, list[ScoredSet]] = field(default_factory=dict)
    attention: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.head["model"]["name"])

    @cached_property
    def summary(self) -> Summary:
        """All figures with intervals; threshold and bootstrap as the head says."""
        settings = self.head["bootstrap"]
        return summarise(self.sets, self.head["threshold"], settings["resamples"], settings["seed"])

    @cached_property
    def robustness_summaries(self) -> dict[str, Summary]:
        """{degradation: figures}, without intervals."""
        return {
            name: summarise(sets, self.head["threshold"], resamples=0)
            for name, sets in self.robustness.items()
        }

    def figures(self) -> dict[str, Any]:
        """The `FIGURES` of metrics.json, in [0, 1] or null."""
        found = self.summary.to_dict()
        for scored in self.sets:
            table = SUITES[scored.suite].table if scored.suite in SUITES else None
            about = {"suite": scored.suite, "generator": scored.generator, "table": table}
            found["sets"][scored.key] = about | found["sets"][scored.key]
        if self.robustness:
            found["robustness"] = {
                name: summary.to_dict() for name, summary in self.robustness_summaries.items()
            }
        return found

    def document(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return self.head | self.figures()

    def write_data(self, folder: Path) -> None:
        """Write predictions.csv, robustness_predictions.csv where there is one, left_out.csv, and,
        last, metrics.json."""
        write_predictions(folder / PREDICTIONS_FILE, {None: self.sets}, self.attention)
        if self.robustness:
            write_predictions(folder / ROBUSTNESS_FILE, self.robustness)
        with atomic_file(folder / LEFT_OUT_FILE, newline="") as file:
            writer = csv.DictWriter(file, ("path", "reason", "condition"), restval="")
            writer.writeheader()
            writer.writerows(self.head["skipped"])
        text = json.dumps(self.document(), indent=2, allow_nan=False) + "\n"
        with atomic_file(folder / METRICS_FILE) as file:
            file.write(text)


def write_predictions(
    path: Path,
    conditions: "dict[None, list[ScoredSet]] | dict[str, list[ScoredSet]]",
    attention: Sequence[str] = (),
) -> None:
    """CSV, one line per image: (condition,) path, suite, generator, label, logit, score, the
    attention columns, and one for each branch's logit where all sets have them."""
    sets_of_all = [one for sets in conditions.values() for one in sets]
    branches = tuple(BRANCH + name.removeprefix(ATTENTION) for name in attention)
    branches = branches if all(one.branch_logits is not None for one in sets_of_all) else ()
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        first = [] if None in conditions else ["condition"]
        writer.writerow([*first, *COLUMNS, *attention, *branches])
        for condition, sets in conditions.items():
            before = [] if condition is None else [condition]
            for one in sets:
                for row, image in enumerate(one.paths):
                    weights = () if one.attention is None or not attention else one.attention[row]
                    each = (
                        one.branch_logits[row] if branches and one.branch_logits is not None else ()
                    )
                    numbers = (
                        repr(float(value))
                        for value in (one.logits[row], one.scores[row], *weights, *each)
                    )
                    writer.writerow(
                        [*before, image, one.suite, one.generator, int(one.labels[row]), *numbers]
                    )


def read_predictions(path: Path) -> tuple[dict[str | None, list[ScoredSet]], tuple[str, ...]]:
    """What `write_predictions` wrote: the sets of each condition (None where there is no such
    column), attention columns.

    Raises:
        UserError: it cannot be read, a column is missing, or a value is no number in its range; the
            line is named.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            first = [name for name in ("condition",) if name in header[:1]]
            if tuple(header[len(first) : len(first) + len(COLUMNS)]) != COLUMNS:
                raise UserError(
                    f"{path}: has the columns {','.join(header)}, expected {','.join(COLUMNS)}"
                )
            more = header[len(first) + len(COLUMNS) :]
            attention = tuple(name for name in more if not name.startswith(BRANCH))
            if more not in (
                [*attention],
                [*attention, *(BRANCH + name.removeprefix(ATTENTION) for name in attention)],
            ):
                raise UserError(
                    f"{path}: its columns {','.join(more)} are not attention and branch logits of the same scales"
                )
            rows = [
                _row(values, len(header), bool(first), f"{path}, line {reader.line_num}")
                for values in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give the folder that test.py wrote"
        ) from None
    by_set: dict[tuple[str | None, str, str], list[Row]] = {}
    for row in rows:  # wherever it stands: somebody may have sorted the file
        by_set.setdefault(row[:3], []).append(row)
    conditions: dict[str | None, list[ScoredSet]] = {}
    for (condition, suite, generator), of_set in by_set.items():
        paths = Counter(row[3] for row in of_set)
        if len(paths) < len(of_set):
            raise UserError(
                f"{path}: {max(paths, key=lambda name: paths[name])} occurs twice in {suite}/{generator}"
            )
        conditions.setdefault(condition, []).append(
            _scored_set(suite, generator, of_set, len(attention))
        )
    return conditions, attention


Row = tuple[str | None, str, str, str, list[float]]


def _row(values: list[str], width: int, has_condition: bool, place: str) -> Row:
    """Condition, suite, generator, path, and the numbers label, logit, score, attention, branch
    logits."""
    if len(values) != width:
        raise UserError(f"{place}: has {len(values)} values, expected {width}")
    condition = values.pop(0) if has_condition else None
    path, suite, generator, *numbers = values
    try:
        label, logit, score, *more = map(float, numbers)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if label not in (0, 1) or not 0 <= score <= 1:
        raise UserError(
            f"{place}: label {label:g} and score {score:g}, expected 0 or 1 and a number from 0 to 1"
        )
    if not math.isclose(expit(logit), score, abs_tol=1e-6):
        raise UserError(f"{place}: score {score:g} is not the sigmoid of logit {logit:g}")
    return condition, suite, generator, path, [label, logit, score, *more]


def _scored_set(suite: str, generator: str, rows: Iterable[Row], scales: int) -> ScoredSet:
    numbers: NDArray = np.array([row[4] for row in rows])
    paths = tuple(row[3] for row in rows)
    attention, branches = (
        part if part.size else None
        for part in (numbers[:, 3 : 3 + scales], numbers[:, 3 + scales :])
    )
    labels, logits, scores = numbers[:, 0].astype(int), numbers[:, 1], numbers[:, 2]
    return ScoredSet(suite, generator, paths, labels, logits, scores, attention, branches)


def read_document(path: Path) -> dict[str, Any]:
    """The content of a metrics.json (or of the one in a folder).

    Raises:
        UserError: it cannot be read, is not JSON, or has another schema; the message names the
            file.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    advice = "give the folders that test.py wrote"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error}); {advice}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{file}: has the schema {schema!r}, expected {SCHEMA!r}; {advice}")
    return document


def read_run(folder: Path) -> TestRun:
    """A run from its folder: the head of metrics.json and the scores of the CSV files.

    Without metrics.json the head is made up: no threshold, the default bootstrap, the folder's name
    as the model's.

    Raises:
        UserError: see `read_document` and `read_predictions`.
    """
    head: dict[str, Any] = {}
    if (folder / METRICS_FILE).exists():
        head = {key: value for key, value in read_document(folder).items() if key not in FIGURES}
    defaults: dict[str, Any] = {"schema": SCHEMA, "model": {"name": escaped(folder.resolve().name)}}
    defaults |= {"threshold": None, "bootstrap": bootstrap_settings(), "skipped": []}
    head |= {key: value for key, value in defaults.items() if key not in head}
    conditions, attention = read_predictions(folder / PREDICTIONS_FILE)
    if None not in conditions:
        raise UserError(f"{folder / PREDICTIONS_FILE}: holds no scores")
    robust = (
        read_predictions(folder / ROBUSTNESS_FILE)[0] if (folder / ROBUSTNESS_FILE).exists() else {}
    )
    return TestRun(
        head, conditions[None], {str(name): sets for name, sets in robust.items()}, attention
    )
