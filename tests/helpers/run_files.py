"""Test runs made up of given scores, and their folders."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from evaluation.result_files import SCHEMA, TestRun, bootstrap_settings
from evaluation.scores import Scores

LabelledScores = dict[str, tuple[list[int], list[float]]]
"""{"suite/generator": (labels, scores)}"""


def scored_set(
    key: str,
    labels: Any,
    scores: Any,
    prefix: str = "",
    attention: Any = None,
    branch_logits: Any = None,
) -> Scores:
    suite, generator = key.split("/", 1)
    labels, scores = np.asarray(labels, dtype=int), np.asarray(scores, dtype=float)
    paths = tuple(
        f"{generator}/{'1_fake' if label else '0_real'}/{prefix}{i}.png"
        for i, label in enumerate(labels)
    )
    with np.errstate(divide="ignore"):
        return Scores(suite, generator, paths, labels, logit(scores), attention, branch_logits)


def make_run(
    name: str,
    sets: LabelledScores,
    training: dict[str, Any] | None = None,
    prefix: str = "",
    **head: Any,
) -> TestRun:
    """A run of these scores; `training` are the flags that its checkpoint would hold."""
    about = {
        "schema": SCHEMA,
        "model": {
            "name": name,
            "path": f"checkpoints/{name}/model_epoch_last.pth",
            "epoch": 1,
            "training": training,
        },
        "dataroot": "data",
        "protocol": {},
        "skipped": [],
        "threshold": None,
        "bootstrap": bootstrap_settings(200),
    }
    return TestRun(about | head, [scored_set(key, *values, prefix) for key, values in sets.items()])


def write_run(folder: Path, name: str, sets: LabelledScores, **about: Any) -> Path:
    """The folder of such a run, as far as tools read it."""
    path = folder / f"{name}_set"
    path.mkdir(parents=True)
    make_run(name, sets, **about).write_data(path)
    return path


def with_accuracy(accuracy: float, images: int = 1000) -> tuple[list[int], list[float]]:
    """Labels and scores of a set of which this share is classified correctly at 0.5, as nearly as
    its size allows."""
    wrong = round(images * (1 - accuracy))
    labels = [i % 2 for i in range(images)]
    return labels, [0.9 if (label == 1) == (i >= wrong) else 0.1 for i, label in enumerate(labels)]
