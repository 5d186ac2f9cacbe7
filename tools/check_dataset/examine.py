"""Examine a data set: layout, counts, unreadable files, duplicates, misplaced files, and how the
classes are encoded."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.folders import SPLITS
from data.image_sets import FAKE, REAL, ImageSet
from evaluation.format_leak import format_leak, is_leak
from evaluation.names import escaped
from tools.check_dataset.files import Files
from tools.check_dataset.findings import PROBLEM, SEVERITIES, WARNING, Finding, Item, below
from tools.check_dataset.formats import ClassFormats
from tools.check_dataset.layout import TRAIN, Layout, Reading, about_suite, protocol_of, read_layout
from tools.check_dataset.misplaced import misplaced
from tools.check_dataset.tree import Tree, walk
from util import UserError, counted

CLASSES = {REAL: "real", FAKE: "fake"}
IMBALANCE = 10
"""So many times more pictures of one class than of the other are worth a warning."""
SCHEMA = 1
Counts = tuple[int, int]


@dataclass(frozen=True)
class SetReport:
    """One set: its images (each file once), and what was found out about them.

    Args:
        contents: (real, fake) per folder that holds class folders, '.' for the set's own.
        formats: by class ('real', 'fake'), those with readable files. leak: AUC of `format_leak`,
            None if undefined.
    """

    reading: Reading
    images: ImageSet
    contents: dict[str, Counts]
    formats: dict[str, ClassFormats]
    leak: float | None

    @property
    def counts(self) -> Counts:
        """(real, fake)."""
        return self.images.labels.count(REAL), self.images.labels.count(FAKE)

    @property
    def name(self) -> str:
        """Split and generator, as tables show them: 'test/progan'."""
        split, generator = self.reading.split, escaped(self.images.generator)
        return generator if split in ("", self.images.generator) else f"{split}/{generator}"

    def to_dict(self) -> dict[str, Any]:
        real, fake = self.counts
        suite = self.images.suite
        return {
            "split": self.reading.split,
            "read_by": self.reading.reader,
            "suite": escaped(suite),
            "generator": escaped(self.images.generator),
            "table": self.images.table,
            "protocol": None if self.reading.reader == TRAIN else protocol_of(suite),
            "n_real": real,
            "n_fake": fake,
            "contents": {
                name: {"n_real": r, "n_fake": f} for name, (r, f) in self.contents.items()
            },
            "formats": {name: asdict(formats) for name, formats in self.formats.items()},
            "format_leak": self.leak,
        }


@dataclass(frozen=True)
class Diagnosis:
    """All that was found out about a folder; `findings` with the worst first."""

    root: Path
    layout: Layout
    files: int  # that belong to sets
    sets: tuple[SetReport, ...]
    findings: tuple[Finding, ...]

    @property
    def status(self) -> int:
        """1 if there is a problem, else 0."""
        return int(any(finding.severity == PROBLEM for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "folder": escaped(str(self.root)),
            "layout": self.layout.about,
            "status": self.status,
            "files": self.files,
            "suites": [
                about_suite(suite)
                for suite in dict.fromkeys(report.images.suite for report in self.sets)
            ],
            "sets": [report.to_dict() for report in self.sets],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def examine(root: Path, threads: int) -> Diagnosis:
    """Look at everything below a folder; every file is decoded once, `threads` at a time, and none
    is changed.

    Raises:
        UserError: no such folder, or no picture in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    tree = walk(root)
    if not tree.pictures and not tree.nameless:
        raise UserError(f"{root}: no pictures in it or below")
    layout = read_layout(tree)
    sets = [(reading, images) for reading in layout.readings for images in reading.sets]
    files = Files([(reading.split, images) for reading, images in sets], str(root))
    files.decode(threads)
    reports = tuple(_report(reading, images, files, tree) for reading, images in sets)
    findings = [
        *layout.findings,
        *files.findings(),
        *misplaced(tree, files.is_read),
        *_empty_classes(tree),
    ]
    findings += _splits_in_classes(tree)
    findings += [finding for report in reports for finding in _of_counts(report)]
    findings += _of_formats(reports)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(root, layout, len(files.paths), reports, tuple(findings))


def _report(reading: Reading, images: ImageSet, files: Files, tree: Tree) -> SetReport:
    contents: dict[str, list[int]] = {}
    for path, label in zip(images.paths, images.labels, strict=True):
        contents.setdefault(tree.content(path), [0, 0])[label] += 1
    formats = {
        name: ClassFormats.of(found)
        for label, name in CLASSES.items()
        if (found := files.encodings(images, label))
    }
    counts = {escaped(name): (real, fake) for name, (real, fake) in contents.items()}
    return SetReport(reading, images, counts, formats, format_leak(images))


def _empty_classes(tree: Tree) -> Iterator[Finding]:
    """Class folders without a picture; that is a problem where nothing beside them has the class."""
    empty = [folder for folder in tree.class_folders if not tree.count(folder)]
    if empty:
        items = tuple(Item((below(folder, tree.root),)) for folder in empty)
        yield Finding(
            "empty_class",
            PROBLEM,
            f"{counted(len(empty), 'class folder')} without a picture",
            items,
        )


def _splits_in_classes(tree: Tree) -> Iterator[Finding]:
    """Folders called like splits within class folders: all that is below is read as one set."""
    found = [
        folder / split
        for folder in map(Path, tree.class_folders)
        for split in SPLITS
        if (folder / split).is_dir()
    ]
    if found:
        text = f"{counted(len(found), 'split folder')} within class folders, all read together; expected <split>/<class>/"
        yield Finding(
            "split_in_class",
            WARNING,
            text,
            tuple(Item((below(str(folder), tree.root),)) for folder in found),
        )


def _of_counts(report: SetReport) -> Iterator[Finding]:
    """Classes that are missing from a set or from one of its contents, or nearly so."""
    for label, name in CLASSES.items():
        if not report.counts[label]:
            trained = report.reading.reader == TRAIN
            effect = "training needs both classes" if trained else "AP and AUC are undefined"
            yield Finding(
                "one_class",
                PROBLEM if trained else WARNING,
                f"{report.name}: no {name} pictures; {effect}",
            )
    if not all(report.counts):
        return
    few, many = sorted(report.counts)
    if many >= IMBALANCE * few:
        rarer = CLASSES[int(np.argmin(report.counts))]
        text = f"{report.name}: {many / few:.0f} times fewer {rarer} pictures than others; see AP and AUC, not accuracy"
        yield Finding("imbalance", WARNING, text)
    lacking = [name for name, counts in report.contents.items() if not all(counts)]
    if (
        0 < len(lacking) < len(report.contents)
    ):  # where all are, that is the layout: real images in a folder of their own
        text = f"{report.name}: {counted(len(lacking), 'content folder')} with one class only, so that content tells the class"
        yield Finding("one_class_content", WARNING, text, tuple(Item((name,)) for name in lacking))


def _of_formats(reports: tuple[SetReport, ...]) -> list[Finding]:
    """Sets whose classes are told apart by how their files are encoded."""
    leaking = [report for report in reports if is_leak(report.leak, *report.counts)]
    if not leaking:
        return []
    text = (
        f"{counted(len(leaking), 'set')} whose classes differ in file format, size or compression: a detector may look at "
        "that; score again with test.py --equalize jpeg:90 and report both"
    )
    items = tuple(
        Item((report.name,), f"AUC {report.leak:.2f} without looking at a pixel")
        for report in leaking
    )
    return [Finding("format_leak", WARNING, text, items)]
