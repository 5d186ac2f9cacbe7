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
from evaluation.names import escaped
from evaluation.predictions_file import read_predictions
from evaluation.result_files import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    SCHEMA,
    read_document,
)
from evaluation.scores import Scores
from options.train_options import NOT_THE_RECIPE
from util import UserError

TIME_STAMP = re.compile(r"_\d{4}(_\d\d){5}(?=_|$)")
SEED_SUFFIX = re.compile(r"[-_]?(?:seed|s)?\d+$")


@dataclasses.dataclass(frozen=True)
class Result:
    """What one checkpoint was tested on, from one folder or from several with other sets.

    Args:
        name: of the model. paths: its metrics.json files. sets: {"suite/generator": its part of
            metrics.json}.
        document: all of the first metrics.json. protocols: {"suite/generator": how its images were
            preprocessed}.
    """

    name: str
    paths: tuple[Path, ...]
    sets: dict[str, dict[str, Any]]
    document: dict[str, Any]
    protocols: dict[str, Any]

    @cached_property
    def scored(self) -> dict[str, Scores]:
        """Scores by set; empty without a predictions.csv beside metrics.json."""
        files = [path.parent / PREDICTIONS_FILE for path in self.paths]
        read = [read_predictions(file)[0].get(None, []) for file in files if file.exists()]
        return {scored.key: scored for sets in read for scored in sets}

    @property
    def checkpoint(self) -> str:
        """Digest of the checkpoint; the name of the model where it is unknown."""
        return str(self.document.get("checkpoint_sha256") or self.name)

    @property
    def label(self) -> str:
        """Name of the training, without its time stamp and a number of its seed."""
        run, *kind = TIME_STAMP.split(self.name, maxsplit=1)[::2]
        return SEED_SUFFIX.sub("", run) + "".join(kind) if kind else run

    @property
    def recipe(self) -> str:
        """Equal for runs that differ in nothing but seed, time and place; the model's own name
        where that is unknown."""
        return json.dumps([self.circumstances, self.scales, self.label])

    @property
    def scales(self) -> list[float]:
        """Of the model; empty where they are unknown."""
        return list(self.document["model"].get("scales") or [])

    @property
    def circumstances(self) -> str:
        """Training, but for scales, seed, time and place, which of its checkpoints, and how that
        was tested, as text.

        With the model's own name where its training is unknown.
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
        """True if the sets that both have were preprocessed alike."""
        return all(
            self.protocols.get(key) == other.protocols.get(key)
            for key in self.sets
            if key in other.sets
        )


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
        UserError: it cannot be read, is not JSON, or does not hold what test.py writes; the message
            names the file.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    document = read_document(file)
    try:
        name, sets, protocols = (
            document["model"]["name"],
            document["sets"],
            document.get("protocol", {}),
        )
        problem = (
            "it holds no test sets"
            if not sets
            else next(filter(None, map(_problem, sets.items())), None)
        )
        if not isinstance(name, str) or not isinstance(protocols, dict):
            problem = "the model's name or the protocol is of the wrong type"
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__} {error}"
    if problem:
        raise UserError(f"{file}: does not hold what {SCHEMA} promises: {problem}")
    return Result(name, (file,), sets, document, protocols)


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
    return (
        None
        if all(isinstance(n, int) for n in counts)
        else f"n_real and n_fake of {key} are {counts}"
    )


def read_recipes(
    paths: Sequence[Path], baseline: str | None = None, grouped: bool = True
) -> list[Recipe]:
    """Read test runs and group them by recipe, the baseline first.

    Results of one checkpoint on different sets are one run; runs that differ only in their seed are
    one recipe.

    Args:
        paths: at least two folders (or metrics.json files). baseline: label or run name of the
            baseline; None = the first.
        grouped: put runs that differ only in their seed together.

    Raises:
        UserError: a file that does not fit or is given twice, fewer than two, one checkpoint twice
            on one set and in the same way, or no such baseline.
    """
    if len(paths) < 2:
        raise UserError(
            f"results {' '.join(map(str, paths))}: give at least two folders, the baseline first"
        )
    results = [read_result(path) for path in paths]
    places = Counter(result.paths[0].resolve() for result in results)
    twice = [result.paths[0] for result in results if places[result.paths[0].resolve()] > 1]
    if twice:
        raise UserError(f"results {twice[0]}: given twice; give each once")
    recipes: list[list[Result]] = []
    for result in results:
        _put(result, recipes, grouped)
    several = [tuple(group) for group in recipes]
    names = [" + ".join(result.name for result in group) for group in several]
    names = _unique(
        names,
        [
            f"{n} ({escaped(str(g[0].paths[0].parent))})"
            for n, g in zip(names, several, strict=True)
        ],
    )
    plain = [
        TIME_STAMP.sub("", group[0].name) if len(group) == 1 else group[0].label
        for group in several
    ]
    equalized = [group[0].document.get("equalize") for group in several]
    plain = [
        f"{label}, equalize {how}" if how else label
        for label, how in zip(plain, equalized, strict=True)
    ]
    made = [
        Recipe(label, group) for label, group in zip(_unique(plain, names), several, strict=True)
    ]
    if baseline is None:
        return made
    chosen = [
        r for r in made if baseline == r.label or baseline in [result.name for result in r.results]
    ]
    if len(chosen) != 1:
        raise UserError(
            f"--baseline {baseline}: no recipe of that name; there are {', '.join(r.label for r in made)}"
        )
    return chosen + [recipe for recipe in made if recipe is not chosen[0]]


def _put(result: Result, recipes: list[list[Result]], grouped: bool) -> None:
    """Add a result to the recipe that it belongs to: to a run of the same checkpoint, or as a run
    of its own."""
    for group in recipes:
        if group[0].recipe != result.recipe or not all(
            result.agrees_with(other) for other in group
        ):
            continue
        for number, other in enumerate(group):
            if other.checkpoint != result.checkpoint:
                continue
            if both := [key for key in result.sets if key in other.sets]:
                places = " and ".join(escaped(str(path)) for path in (*other.paths, *result.paths))
                raise UserError(
                    f"{places}: the same checkpoint, tested in the same way on {both[0]}; give one of them"
                )
            sets, protocols = other.sets | result.sets, other.protocols | result.protocols
            paths = (*other.paths, *result.paths)
            group[number] = dataclasses.replace(other, paths=paths, sets=sets, protocols=protocols)
            return
        if grouped:
            group.append(result)
            return
    recipes.append([result])


def _unique(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    count = Counter(names)
    return [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]


def shown(key: str) -> str:
    """A set's key as tables show it: without the slash of a set that belongs to no suite."""
    return key.removeprefix("/")
