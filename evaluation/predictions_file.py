"""Write and read predictions.csv: the scores of a test run, from which all its metrics follow."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluation.scores import Scores
from util import UserError, atomic_file, read_text

COLUMNS = ("path", "suite", "generator", "label", "logit", "score")
ATTENTION, BRANCH = "attention_", "branch_logit_"
"""Prefixes of the further columns of models with attention; the scale's key follows."""

Row = tuple[str | None, str, str, str, list[float]]
"""Condition, suite, generator, path, and the numbers label, logit, attention, branch logits."""


def write_predictions(
    path: Path,
    conditions: Mapping[None, Sequence[Scores]] | Mapping[str, Sequence[Scores]],
    attention: Sequence[str] = (),
) -> None:
    """Write one line per image.

    Columns: condition (unless it is None), `COLUMNS`, the attention of each scale, and the branch
    logit of each scale.

    Args:
        path: of the file.
        conditions: {degradation: sets}; {None: sets} without degradation.
        attention: names of the attention columns, () for none.
    """
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        first = [] if None in conditions else ["condition"]
        writer.writerow([*first, *COLUMNS, *attention, *_branch_columns(attention)])
        for condition, sets in conditions.items():
            before = [] if condition is None else [condition]
            for scored in sets:
                columns = [scored.logits[:, None], scored.scores[:, None]]
                if attention and scored.attention is not None and scored.branch_logits is not None:
                    columns += [scored.attention, scored.branch_logits]
                for image, label, *numbers in zip(
                    scored.paths, scored.labels, *np.hstack(columns).astype(float).T, strict=True
                ):
                    values = (repr(float(number)) for number in numbers)
                    row = (image, scored.suite, scored.generator, int(label), *values)
                    writer.writerow([*before, *row])


def _branch_columns(attention: Sequence[str]) -> list[str]:
    return [BRANCH + name.removeprefix(ATTENTION) for name in attention]


def read_predictions(path: Path) -> tuple[dict[str | None, list[Scores]], tuple[str, ...]]:
    """Read a file of `write_predictions`; its lines may be in any order.

    Returns:
        The sets of each condition (None without that column), and the names of the attention
        columns.

    Raises:
        UserError: the file cannot be read, a column is missing, or a value is not a number in its
            range; the message names the line.
    """
    try:
        with io.StringIO(read_text(path), newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            first = [name for name in ("condition",) if name in header[:1]]
            if tuple(header[len(first) : len(first) + len(COLUMNS)]) != COLUMNS:
                raise UserError(
                    f"{path}: has the columns {','.join(header)}, expected {','.join(COLUMNS)}"
                )
            more = header[len(first) + len(COLUMNS) :]
            attention = tuple(more[: len(more) // 2])
            if more[len(attention) :] != _branch_columns(attention):
                raise UserError(
                    f"{path}: its columns {','.join(more)} are not attention and branch logits of "
                    "the same scales"
                )
            rows = [
                _row(values, len(header), bool(first), f"{path}, line {reader.line_num}")
                for values in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); pass the folder that test.py wrote"
        ) from None
    by_set: dict[tuple[str | None, str, str], list[Row]] = {}
    for row in rows:
        by_set.setdefault(row[:3], []).append(row)
    conditions: dict[str | None, list[Scores]] = {}
    for (condition, suite, generator), of_set in by_set.items():
        paths = Counter(row[3] for row in of_set)
        if len(paths) < len(of_set):
            twice = max(paths, key=lambda name: paths[name])
            raise UserError(f"{path}: {twice} occurs twice in {suite}/{generator}")
        conditions.setdefault(condition, []).append(
            _scores(suite, generator, of_set, len(attention))
        )
    return conditions, attention


def _row(values: list[str], width: int, has_condition: bool, place: str) -> Row:
    if len(values) != width:
        raise UserError(f"{place}: has {len(values)} values, expected {width}")
    condition = values.pop(0) if has_condition else None
    path, suite, generator, *texts = values
    try:
        label, logit, score, *more = map(float, texts)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if label not in (0, 1) or not 0 <= score <= 1:
        raise UserError(
            f"{place}: label {label:g} and score {score:g}, "
            "expected 0 or 1 and a number from 0 to 1"
        )
    if not math.isclose(expit(logit), score, abs_tol=1e-6):
        raise UserError(f"{place}: score {score:g} is not the sigmoid of logit {logit:g}")
    return condition, suite, generator, path, [label, logit, *more]


def _scores(suite: str, generator: str, rows: Sequence[Row], scales: int) -> Scores:
    numbers: NDArray = np.array([row[4] for row in rows])
    paths = tuple(row[3] for row in rows)
    attention, branches = (
        part if part.size else None
        for part in (numbers[:, 2 : 2 + scales], numbers[:, 2 + scales :])
    )
    labels, logits = numbers[:, 0].astype(int), numbers[:, 1]
    return Scores(suite, generator, paths, labels, logits, attention, branches)
