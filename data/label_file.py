"""Sets of images by a table with the columns path,label[,generator][,split]."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.benchmarks import suite_called, suite_of_generators
from data.folders import SPLIT_NAMES, USUAL
from data.image_sets import FAKE, REAL, ClassNames, ImageSet
from util import UserError, counted, log, printable, read_text

COLUMNS = "path,label, and as needed generator and split"
DELIMITERS = ",;\t|"
BEFORE_THE_HEADER = re.compile(r"\A(\s*\n)*(sep=.\r?\n)?(\s*\n)*", re.IGNORECASE)
"""Blank lines, and the line by which spreadsheets name their separator."""
NUMBERS = {"0": REAL, "0.0": REAL, "1": FAKE, "1.0": FAKE}
CLASS = {REAL: "real", FAKE: "fake"}
VAL_SHARE = 0.1  # of a generator's images of a class, where the table has no splits


@dataclass(frozen=True)
class Row:
    """An image of the table; without a generator it has the table's name, without a split ''."""

    line: int
    path: str
    label: int
    generator: str
    split: str


def label_sets(
    file: Path,
    classes: tuple[str, ...] = (),
    names: ClassNames = USUAL,
    trained_on: Collection[str] = (),
) -> list[ImageSet]:
    """Return the sets to test on: a set per generator.

    The table's test rows are read, else its val rows. Of a table without splits all rows are read,
    but if a model was trained on it, only those that training drew for validation.

    Args:
        file: the table.
        classes: generators to use; empty for all.
        names: of labels.
        trained_on: --dataroot of the models to test.

    Raises:
        UserError: the table is wrong, an image is missing, or no row is left.
    """
    rows = read_rows(file, names)
    same = {os.path.realpath(root) for root in trained_on} & {os.path.realpath(file)}
    if same and not any(row.split for row in rows):
        rows = _drawn_splits(rows, file)
        log.info("%s: a model was trained on this table, which has no column split", file)
    splits = {row.split for row in rows}
    split = next((name for name in ("test", "val", "") if name in splits), None)
    if split is None:
        raise UserError(f"{file}: has no rows with split test or val; these are tested")
    rows = [row for row in rows if row.split == split]
    what = f"with split {split} are" if split else "are all"
    log.info("%s: %s %s read", file, counted(len(rows), "row"), what)
    return _sets(rows, file, classes)


def label_split(
    file: Path, split: str, classes: tuple[str, ...] = (), names: ClassNames = USUAL
) -> ImageSet:
    """Return the images of a split for training, as one set, each once.

    Args:
        file: the table; without splits, `VAL_SHARE` of each generator's images of each class are
            val, drawn by a hash of their paths.
        split: train or val.
        classes: generators to use; empty for all.
        names: of labels.

    Raises:
        UserError: see `label_sets`; the split lacks a class.
    """
    rows = read_rows(file, names)
    if not any(row.split for row in rows):
        rows = _drawn_splits(rows, file)
        if split == "train":
            count = len({row.path for row in rows if row.split == "val"})
            log.info(
                "%s: has no column split, so %s of %s are val (%.0f %% per generator and class,"
                " drawn by a hash of the path)",
                file, count, counted(len({row.path for row in rows}), "image"), 100 * VAL_SHARE,
            )  # fmt: skip
    sets = _sets([row for row in rows if row.split == split], file, classes)
    label_of = {
        path: label
        for images in sets
        for path, label in zip(images.paths, images.labels, strict=True)
    }
    for label, name in CLASS.items():
        if label not in label_of.values():
            raise UserError(
                f"{file}: has no {name} images with split {split}; training needs both classes in"
                " train and in val"
            )
    return ImageSet("", file.stem, tuple(label_of), tuple(label_of.values()))


def read_rows(file: Path, names: ClassNames = USUAL) -> list[Row]:
    """Return the rows of a table; each image once per generator.

    Args:
        file: the table, with a header, separated by one of `DELIMITERS`; paths are relative to its
            folder.
        names: of labels, beside 0 and 1.

    Raises:
        UserError: with the line and what to do.
    """
    try:
        text = read_text(file)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{file}: is not a text in UTF-8 ({error}); save it as CSV UTF-8, with the columns"
            f" {COLUMNS}, or pass a folder of images"
        ) from None
    begin = BEFORE_THE_HEADER.match(text).end()  # type: ignore[union-attr]  # it may be empty
    lines_before, text = text.count("\n", 0, begin), text[begin:]
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows: list[Row] = []
    try:
        columns = [name.strip().lower() for name in next(lines, [])]
        if not {"path", "label"} <= set(columns):
            raise _wrong(
                file,
                lines_before + 1,
                f"names no columns path and label; begin with the names {COLUMNS}",
            )
        if twice := [name for name in columns if name and columns.count(name) > 1]:
            raise _wrong(file, lines_before + 1, f"names column {twice[0]} twice; keep one")
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(columns) :]):
                raise _wrong(
                    file, lines_before + lines.line_num,
                    f"has {len(cells)} cells, but the header names {len(columns)} columns; put"
                    " a path with a comma in quotes",
                )  # fmt: skip
            cell = {name: text.strip() for name, text in zip(columns, cells, strict=False)}
            rows.append(_row(file, lines_before + lines.line_num, cell, names))
    except csv.Error as error:
        raise _wrong(
            file, lines_before + lines.line_num, f"is not CSV ({error}); check its quotes"
        ) from None
    if not rows:
        raise UserError(f"{file}: has no rows below the header; add one per image")
    _require_files(rows, file)
    if (lacking := [row for row in rows if not row.split]) and len(lacking) < len(rows):
        raise _wrong(file, lacking[0].line, "has no split; write train or val")
    return _without_repeats(rows, file)


def _wrong(file: Path, line: int, problem: str) -> UserError:
    return UserError(f"{file}, line {line}: {problem}")


def _row(file: Path, line: int, cell: dict[str, str], names: ClassNames) -> Row:
    """Return a row of the table from its cells by column."""
    text = cell.get("label", "")
    label = names.label(text)
    label = NUMBERS.get(text) if label is None else label
    if label is None:
        raise _wrong(
            file, line,
            f"label {text!r} is unknown; write 0 or real, 1 or fake, or name it by --real_names or"
            " --fake_names",
        )  # fmt: skip
    split = cell.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        raise _wrong(file, line, f"split {split!r} is unknown; write train, val or test")
    generator = cell.get("generator") or file.stem
    # results have folders of this name
    if "/" in generator or generator in (".", ".."):
        raise _wrong(file, line, f"generator {generator!r}: pass a plain name without slashes")
    if not cell["path"] or "\0" in cell["path"]:
        raise _wrong(file, line, "has no path; write that of an image")
    path = os.path.normpath(os.path.join(file.parent, cell["path"]))
    if "\\" in path and not os.path.exists(path):  # written under Windows
        path = os.path.normpath(os.path.join(file.parent, cell["path"].replace("\\", "/")))
    return Row(line, path, label, generator, SPLIT_NAMES.get(split, ""))


def _require_files(rows: Sequence[Row], file: Path) -> None:
    missing = [row for row in rows if not os.path.isfile(row.path)]
    if missing:
        raise UserError(
            f"{file}: {len(missing):,} of {len(rows):,} files are missing, the first in"
            f" line {missing[0].line}: {missing[0].path}; paths are relative to"
            f" {os.path.abspath(file.parent)}"
        )


def _without_repeats(rows: Sequence[Row], file: Path) -> list[Row]:
    """Return the rows without those that repeat an earlier one; refuse contradictions.

    A file is the same by a relative path, an absolute one, or a link.
    """
    first: dict[str, Row] = {}
    kept: dict[tuple[str, str], Row] = {}
    for row in rows:
        place = os.path.realpath(row.path)
        other = first.setdefault(place, row)
        for ours, theirs, advice in (
            (CLASS[row.label], CLASS[other.label], "keep the row with the right label"),
            (row.split, other.split, "keep one, or validation would see training images"),
        ):
            if ours != theirs:
                raise _wrong(
                    file, row.line,
                    f"{printable(row.path)} is {ours} here and {theirs} in line {other.line};"
                    f" {advice}",
                )  # fmt: skip
        kept.setdefault((place, row.generator), replace(row, path=other.path))
    if len(kept) < len(rows):
        repeats = counted(len(rows) - len(kept), "row")
        log.warning("%s: %s with an image of an earlier row, not read again", file, repeats)
    return list(kept.values())


def _drawn_splits(rows: Sequence[Row], file: Path) -> list[Row]:
    """Return the rows with splits drawn within each generator and class; an image has one split."""
    groups: dict[tuple[str, int], list[str]] = {}
    for path, row in {row.path: row for row in reversed(rows)}.items():
        groups.setdefault((row.generator, row.label), []).append(path)

    def drawn(path: str) -> bytes:
        return hashlib.sha256(os.fsencode(os.path.relpath(path, file.parent))).digest()

    val: set[str] = set()
    for paths in groups.values():
        count = max(round(VAL_SHARE * len(paths)), 1) if len(paths) > 1 else 0
        val |= set(sorted(paths, key=drawn)[:count])
    return [replace(row, split="val" if row.path in val else "train") for row in rows]


def _sets(rows: Sequence[Row], file: Path, classes: Collection[str]) -> list[ImageSet]:
    """Return a set per generator.

    Generators without real images get those of all rows whose generator has real images only.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.generator, []).append(row)
    labels = {name: {row.label for row in group} for name, group in groups.items()}
    fakes = [name for name in groups if labels[name] == {FAKE}]
    origins = [name for name in groups if labels[name] == {REAL}]
    if fakes and origins:
        shared = [row for name in origins for row in groups.pop(name)]
        groups |= {name: [*shared, *groups[name]] for name in fakes}
    if missing := [name for name in classes if name not in groups]:
        present = ", ".join(groups)
        raise UserError(
            f"--classes {','.join(missing)}: not a generator of {file}; it has {present}"
        )
    several = len(groups) > 1
    suite = suite_called(file.stem) or (suite_of_generators(groups) if several else None)
    if suite:
        log.info("%s is read as %s", file, suite)
    return [
        ImageSet(
            suite or (file.stem if several else ""),
            name,
            tuple(row.path for row in group),
            tuple(row.label for row in group),
        )
        for name, group in groups.items()
        if not classes or name in classes
    ]
