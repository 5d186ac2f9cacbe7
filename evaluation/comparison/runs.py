"""Read the folders of test runs: `Result` of one checkpoint, `Recipe` of several seeds."""

import dataclasses
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import LABELS
from evaluation.predictions_file import read_predictions
from evaluation.result_files import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    SCHEMA,
    read_document,
)
from evaluation.scores import Scores
from options.presets import NOT_THE_RECIPE
from util import UserError

TIME_STAMP = re.compile(r"_\d{4}(_\d\d){5}(?=_|$)")
SEED_SUFFIX = re.compile(r"[-_]?(?:seed|s)?\d+$")


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of one checkpoint, from one folder, or from several with different sets.

    Args:
        name: of the model.
        paths: its metrics.json files.
        sets: {"suite/generator": its part of metrics.json}.
        document: all of the first metrics.json.
        protocols: {"suite/generator": preprocessing of its images}.
    """

    name: str
    paths: tuple[Path, ...]
    sets: dict[str, dict[str, Any]]
    document: dict[str, Any]
    protocols: dict[str, Any]

    @cached_property
    def scored(self) -> dict[str, Scores]:
        """Scores by set; empty if predictions.csv is missing beside metrics.json."""
        files = [path.parent / PREDICTIONS_FILE for path in self.paths]
        read = [read_predictions(file)[0].get(None, []) for file in files if file.exists()]
        return {scored.key: scored for sets in read for scored in sets}

    @property
    def checkpoint(self) -> str:
        """Digest of the checkpoint; the name of the model where the digest is unknown."""
        return str(self.document.get("checkpoint_sha256") or self.name)

    @property
    def label(self) -> str:
        """Name of the training run without its time stamp and its seed."""
        run, *kind = TIME_STAMP.split(self.name, maxsplit=1)[::2]
        return SEED_SUFFIX.sub("", run) + "".join(kind) if kind else run

    @property
    def recipe(self) -> str:
        """Text that is equal for runs that differ only in seed, time and folder."""
        return json.dumps([self.circumstances, self.scales, self.label])

    @property
    def scales(self) -> list[float]:
        """Scales of the model; empty where they are unknown."""
        return list(self.document["model"].get("scales") or [])

    @property
    def circumstances(self) -> str:
        """Settings of training and test as text, without scales, seed, time and folder.

        Where the training is unknown, name and checkpoint of the model take its place.
        """
        training = self.document["model"].get("training")
        settings = [self.document.get(key) for key in ("equalize", "precision", "classes")]
        if not training:
            return json.dumps([self.name, self.checkpoint, settings])
        flags = {
            key: value
            for key, value in training.items()
            if key not in (*NOT_THE_RECIPE, "npr_scales")
        }
        data = Path(str(training.get("dataroot"))).name
        kind = TIME_STAMP.split(self.name, maxsplit=1)[-1]
        return json.dumps([flags, data, settings, kind], sort_keys=True)

    def agrees_with(self, other: "Result") -> bool:
        """Return True if the sets that both have were preprocessed identically."""
        return all(
            self.protocols.get(key) == other.protocols.get(key)
            for key in self.sets
            if key in other.sets
        )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Runs that differ only in their seed, under one label."""

    label: str
    results: tuple[Result, ...]

    def values(self, key: str, metric: str) -> list[float]:
        """Return the metric of each run that has it, in [0, 1]."""
        values = (result.sets[key].get(metric) for result in self.results if key in result.sets)
        return [value for value in values if value is not None]

    def mean(self, key: str, metric: str) -> float | None:
        """Return the mean over the runs; None if no run has the metric."""
        values = self.values(key, metric)
        return float(np.mean(values)) if values else None

    def std(self, key: str, metric: str) -> float | None:
        """Return the standard deviation over the runs (ddof 1); None for fewer than two."""
        values = self.values(key, metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def read_result(path: Path) -> Result:
    """Read a test run's folder, or its metrics.json.

    Raises:
        UserError: the file cannot be read, is not JSON, or does not have the content that test.py
            writes; the message names it.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    document = read_document(file)
    try:
        name, sets = document["model"]["name"], document["sets"]
        protocols = document.get("protocol", {})
        problem = next(filter(None, map(_problem, sets.items())), None)
        if not sets:
            problem = "it holds no test sets"
        protocol_names = [(p["name"], p["version"]) for p in protocols.values()]
        if not isinstance(name, str) or not all(isinstance(n, str) for n, _ in protocol_names):
            problem = "the name of the model or of a protocol is not text"
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__} {error}"
    if problem:
        raise UserError(
            f"{file}: does not match the schema {SCHEMA} ({problem}); "
            "pass the folders that test.py wrote"
        )
    return Result(name, (file,), sets, document, protocols)


def _problem(item: tuple[str, dict[str, Any]]) -> str | None:
    """Return the first problem of a set's part of metrics.json; None if it is valid."""
    key, metrics = item
    if not isinstance(metrics["suite"], str) or not isinstance(metrics["generator"], str):
        return f"suite or generator of {key} is not text"
    for name in LABELS:
        value = metrics.get(name)
        # not (...), so that NaN is refused too
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            return f"{name} of {key} is {value!r}, expected a number from 0 to 1, or null"
    counts = metrics["n_real"], metrics["n_fake"]
    if not all(isinstance(n, int) for n in counts):
        return f"n_real and n_fake of {key} are {counts}"
    return None


def set_name(key: str) -> str:
    """Return a set's key for tables: without the leading slash of a set outside the suites."""
    return key.removeprefix("/")
