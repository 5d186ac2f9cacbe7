"""Result files of test.py beside each other: read, checked, and compared with a baseline."""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.reports import SCHEMA
from util import UserError

METRICS = {"acc": "accuracy", "ap": "AP", "auc": "AUC"}
TIME_STAMP = re.compile(r"_\d{4}(_\d\d){5}(?=_|$)")


@dataclasses.dataclass(frozen=True)
class ModelResults:
    """One result file.

    Args:
        name: unique among the compared models. label: the same, without the run's time stamp where that stays unique.
        sets: {"suite/generator": {"acc", "ap", "auc": in [0, 1] or None; "n_real", "n_fake": images}}.
        protocol: {"suite/generator": how its images were preprocessed}.
    """

    name: str
    label: str
    path: Path
    sets: dict[str, dict[str, Any]]
    protocol: dict[str, Any]

    def values(self, metric: str) -> dict[str, float | None]:
        """{"suite/generator": value in [0, 1], None where it is undefined}."""
        return {key: figures[metric] for key, figures in self.sets.items()}


@dataclasses.dataclass(frozen=True)
class Improvement:
    """Differences to the baseline in percent points, of the generators where both are defined."""

    differences: dict[str, float]

    @property
    def mean(self) -> float | None:
        """Mean difference in percent points; None without a common generator."""
        return math.fsum(self.differences.values()) / len(self.differences) if self.differences else None

    @property
    def improved(self) -> int:
        """Number of generators on which the model is better than the baseline."""
        return sum(difference > 0 for difference in self.differences.values())


def improvement(baseline: Mapping[str, float | None], other: Mapping[str, float | None]) -> Improvement:
    """What `other` gains over `baseline`: {generator: value in [0, 1], or None where it is undefined} both."""
    differences = {}
    for key, reference in baseline.items():
        value = other.get(key)
        if reference is not None and value is not None:
            differences[key] = 100 * value - 100 * reference
    return Improvement(differences)


def read_results(path: Path) -> ModelResults:
    """Read a result file.

    Raises:
        UserError: it cannot be read, is not JSON, or does not hold what test.py writes; the message names the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the .json files of test.py") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); give the .json files of test.py") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path}: has the schema {schema!r}, expected {SCHEMA!r}; give the .json files of test.py")
    try:
        name, sets = document["model"]["name"], document["sets"]
        problem = "it holds no test sets" if not sets else next(filter(None, map(_problem, sets.items())), None)
        protocol = document.get("protocol") or {}
        if not isinstance(name, str) or not isinstance(protocol, dict):
            problem = "the model's name or the protocol is of the wrong type"
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__} {error}"
    if problem:
        raise UserError(f"{path}: does not hold what {SCHEMA} promises: {problem}")
    return ModelResults(name, name, path, sets, protocol)


def _problem(item: tuple[str, dict[str, Any]]) -> str | None:
    key, figures = item
    if not isinstance(figures["suite"], str) or not isinstance(figures["generator"], str):
        return f"suite or generator of {key} is no text"
    for metric in METRICS:
        value = figures[metric]
        # not (...): so that NaN is refused too
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            return f"{metric} of {key} is {value!r}, expected a number from 0 to 1, or null"
    counts = figures["n_real"], figures["n_fake"]
    return None if all(isinstance(n, int) for n in counts) else f"n_real and n_fake of {key} are {counts}"


def read_models(paths: Sequence[Path], baseline: str | None = None) -> list[ModelResults]:
    """Read the result files, the baseline first, with unique names and labels.

    Args:
        paths: at least two. baseline: name or label of the baseline; None = the first file's.

    Raises:
        UserError: a file that does not fit or is given twice, fewer than two, or no such baseline.
    """
    if len(paths) < 2:
        raise UserError(f"results {' '.join(map(str, paths))}: give at least two files, the baseline first")
    twice = [str(path) for path, n in Counter(path.resolve() for path in paths).items() if n > 1]
    if twice:
        raise UserError(f"results {twice[0]}: given twice; give each file once")
    models = [read_results(path) for path in paths]
    names = _unique([model.name for model in models], [f"{model.name} ({model.path})" for model in models])
    labels = _unique([TIME_STAMP.sub("", name) for name in names], names)
    models = [
        dataclasses.replace(model, name=name, label=label)
        for model, name, label in zip(models, names, labels, strict=True)
    ]
    if baseline is None:
        return models
    chosen = [model for model in models if baseline in (model.name, model.label)]
    if len(chosen) != 1:
        raise UserError(f"--baseline {baseline}: no model of that name; there are {', '.join(labels)}")
    return chosen + [model for model in models if model is not chosen[0]]


def _unique(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    count = Counter(names)
    return [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]


def all_sets(models: Sequence[ModelResults]) -> list[str]:
    """Keys of the sets that any model was tested on, in the order of the files."""
    return list(dict.fromkeys(key for model in models for key in model.sets))


def remarks(models: Sequence[ModelResults]) -> list[str]:
    """What limits the comparison: sets that a model lacks, sets of one class, other images, other preprocessing."""
    found, keys = [], all_sets(models)
    for model in models:
        missing = [shown(key) for key in keys if key not in model.sets]
        if missing:
            found.append(f"not tested, so not compared: {shown(model.label)} lacks {', '.join(missing)}")
    tested = {key: [model for model in models if key in model.sets] for key in keys}
    counts = {key: {(m.sets[key]["n_real"], m.sets[key]["n_fake"]) for m in tested[key]} for key in keys}
    one_class = [shown(key) for key in keys if any(0 in pair for pair in counts[key])]
    if one_class:
        found.append(f"AP and AUC are undefined with one class, only accuracy counts: {', '.join(one_class)}")
    unequal = [shown(key) for key in keys if len(counts[key]) > 1]
    if unequal:
        found.append(f"the models saw different numbers of images: {', '.join(unequal)}")
    other = [shown(k) for k in keys if any(m.protocol.get(k) != tested[k][0].protocol.get(k) for m in tested[k])]
    if other:
        found.append(f"the models saw differently preprocessed images: {', '.join(other)}")
    return found


def shown(name: str) -> str:
    """A name from a file for the terminal: control characters, which could steer it, become '?'."""
    return "".join(c if c.isprintable() else "?" for c in name.removeprefix("/"))
