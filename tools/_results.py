"""Test runs as their folders hold them, and which of them are repetitions of one recipe."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import LABELS
from evaluation.runs import METRICS_FILE, PREDICTIONS_FILE, SCHEMA, read_document, read_predictions
from evaluation.summary import ScoredSet
from util import UserError

TIME_STAMP = re.compile(r"_\d{4}(_\d\d){5}(?=_|$)")
SEED_SUFFIX = re.compile(r"[-_]?(?:seed|s)?\d+$")
NOT_THE_RECIPE = ("name", "suffix", "seed", "dataroot", "test_dataroot", "checkpoints_dir", "gpu_ids", "num_threads",
                  "continue_train", "epoch", "new_optim", "loss_freq", "save_latest_freq", "save_epoch_freq",
                  "attention_log_freq")  # fmt: skip
"""Training flags in which two runs of one recipe may differ."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One test run.

    Args:
        name: unique among the compared runs. sets: {"suite/generator": its part of metrics.json}.
        document: all of metrics.json.
    """

    name: str
    path: Path
    sets: dict[str, dict[str, Any]]
    document: dict[str, Any]

    @cached_property
    def scored(self) -> dict[str, ScoredSet]:
        """Scores by set; empty without a predictions.csv beside metrics.json."""
        file = self.path.parent / PREDICTIONS_FILE
        if not file.exists():
            return {}
        return {scored.key: scored for scored in read_predictions(file)[0].get(None, [])}

    @property
    def label(self) -> str:
        """Name of the training, without its time stamp and a number of its seed."""
        run, *kind = TIME_STAMP.split(self.name, maxsplit=1)[::2]
        return SEED_SUFFIX.sub("", run) + "".join(kind) if kind else run

    @property
    def recipe(self) -> str:
        """Equal for runs that differ in nothing but their seed and their names; the run's own name where that is unknown."""
        model = self.document["model"]
        training = model.get("training")
        if not training:
            return self.name
        flags = {key: value for key, value in training.items() if key not in NOT_THE_RECIPE}
        settings = [self.document.get(key) for key in ("equalize", "precision")]
        kind = TIME_STAMP.split(self.name, maxsplit=1)[-1]
        return json.dumps([flags, model.get("scales"), settings, kind, self.label], sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Runs that differ only in their seed, under one label that is unique among the compared ones."""

    label: str
    results: tuple[Result, ...]

    def values(self, key: str, metric: str) -> list[float]:
        """The figure of each run that has it, in [0, 1]."""
        found = (result.sets[key].get(metric) for result in self.results if key in result.sets)
        return [value for value in found if value is not None]

    def mean(self, key: str, metric: str) -> float | None:
        """Mean over the runs; None if none has it."""
        values = self.values(key, metric)
        return float(np.mean(values)) if values else None

    def std(self, key: str, metric: str) -> float | None:
        """Standard deviation over the runs (ddof 1); None with fewer than two."""
        values = self.values(key, metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def read_result(path: Path) -> Result:
    """Read a test run's folder, or its metrics.json.

    Raises:
        UserError: it cannot be read, is not JSON, or does not hold what test.py writes; the message names the file.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    document = read_document(file)
    try:
        name, sets = document["model"]["name"], document["sets"]
        problem = "it holds no test sets" if not sets else next(filter(None, map(_problem, sets.items())), None)
        if not isinstance(name, str) or not isinstance(document.get("protocol", {}), dict):
            problem = "the model's name or the protocol is of the wrong type"
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__} {error}"
    if problem:
        raise UserError(f"{file}: does not hold what {SCHEMA} promises: {problem}")
    return Result(name, file, sets, document)


def _problem(item: tuple[str, dict[str, Any]]) -> str | None:
    key, figures = item
    if not isinstance(figures["suite"], str) or not isinstance(figures["generator"], str):
        return f"suite or generator of {key} is no text"
    for metric in LABELS:
        value = figures.get(metric)
        # not (...): so that NaN is refused too
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            return f"{metric} of {key} is {value!r}, expected a number from 0 to 1, or null"
    counts = figures["n_real"], figures["n_fake"]
    return None if all(isinstance(n, int) for n in counts) else f"n_real and n_fake of {key} are {counts}"


def read_recipes(paths: Sequence[Path], baseline: str | None = None, grouped: bool = True) -> list[Recipe]:
    """Read test runs and group them by recipe, the baseline first.

    Args:
        paths: at least two folders (or metrics.json files). baseline: label or run name of the baseline; None = the first.
        grouped: put runs that differ only in their seed together.

    Raises:
        UserError: a file that does not fit or is given twice, fewer than two, or no such baseline.
    """
    if len(paths) < 2:
        raise UserError(f"results {' '.join(map(str, paths))}: give at least two folders, the baseline first")
    results = [read_result(path) for path in paths]
    twice = [
        str(result.path) for result in results if sum(result.path.resolve() == o.path.resolve() for o in results) > 1
    ]
    if twice:
        raise UserError(f"results {twice[0]}: given twice; give each once")
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.recipe if grouped else str(result.path), []).append(result)
    several = [tuple(group) for group in groups.values()]
    names = [" + ".join(result.name for result in group) for group in several]
    names = _unique(names, [f"{name} ({group[0].path.parent})" for name, group in zip(names, several, strict=True)])
    plain = [TIME_STAMP.sub("", group[0].name) if len(group) == 1 else group[0].label for group in several]
    labels = _unique(plain, names)
    recipes = [Recipe(label, group) for label, group in zip(labels, several, strict=True)]
    if baseline is None:
        return recipes
    chosen = [r for r in recipes if baseline == r.label or baseline in [result.name for result in r.results]]
    if len(chosen) != 1:
        raise UserError(f"--baseline {baseline}: no recipe of that name; there are {', '.join(labels)}")
    return chosen + [recipe for recipe in recipes if recipe is not chosen[0]]


def _unique(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    count = Counter(names)
    return [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]


def shown(key: str) -> str:
    """A set's key as tables show it: on one line, without the slash of a set that belongs to no suite."""
    return "".join(c if c.isprintable() else "?" for c in key.removeprefix("/"))
