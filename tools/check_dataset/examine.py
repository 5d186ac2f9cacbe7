"""Examine a dataset: layout, counts, unreadable files, duplicates, misplaced files, encoding."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.decode import FileFormat
from data.folders import SPLITS, USUAL
from data.image_sets import FAKE, REAL, ClassNames, ImageSet
from evaluation.format_leak import format_leak, is_leak
from evaluation.names import escaped
from tools.check_dataset.files import Decoded, decode_all, equal_images, single_files
from tools.check_dataset.findings import PROBLEM, SEVERITIES, WARNING, Finding, Item, below
from tools.check_dataset.formats import class_formats
from tools.check_dataset.layout import TRAIN, Reading, about_suite, protocol_of, read_layout
from tools.check_dataset.misplaced import misplaced
from tools.check_dataset.tree import Tree, walk
from util import UserError, counted

CLASSES = {REAL: "real", FAKE: "fake"}
IMBALANCE = 10  # from this ratio of the classes on, accuracy says little
SCHEMA = 1  # version of the JSON file


@dataclass(frozen=True)
class SetReport:
    """One set and what was measured on it.

    Args:
        reading: the set, its split and the script that reads it.
        contents: [real, fake] images by folder that holds class folders; '.' for the set's own.
        formats: see `class_formats`; by class ('real', 'fake') with readable files.
        leak: AUC of `format_leak`; None where it is undefined.
    """

    reading: Reading
    contents: dict[str, list[int]]
    formats: dict[str, dict[str, Any]]
    leak: float | None

    @property
    def images(self) -> ImageSet:
        """Return the set."""
        return self.reading.images

    @property
    def counts(self) -> tuple[int, int]:
        """Return the numbers of real and fake images."""
        return self.images.labels.count(REAL), self.images.labels.count(FAKE)

    @property
    def name(self) -> str:
        """Return split and generator: 'test/progan'."""
        split, generator = self.reading.split, escaped(self.images.generator)
        return generator if split in ("", self.images.generator) else f"{split}/{generator}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        n_real, n_fake = self.counts
        suite = self.images.suite
        return {
            "split": self.reading.split,
            "read_by": self.reading.reader,
            "suite": escaped(suite),
            "generator": escaped(self.images.generator),
            "table": self.images.table,
            "protocol": None if self.reading.reader == TRAIN else protocol_of(suite),
            "n_real": n_real,
            "n_fake": n_fake,
            "contents": {
                name: {"n_real": real, "n_fake": fake}
                for name, (real, fake) in self.contents.items()
            },
            "formats": self.formats,
            "format_leak": self.leak,
        }


@dataclass(frozen=True)
class Diagnosis:
    """The result of the check.

    Args:
        root: the folder.
        about: what it is.
        files: number of files that belong to sets.
        sets: in the order of the layout.
        findings: the worst first.
    """

    root: Path
    about: str
    files: int
    sets: tuple[SetReport, ...]
    findings: tuple[Finding, ...]

    @property
    def status(self) -> int:
        """Return 1 with a problem, else 0."""
        return int(any(finding.severity == PROBLEM for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        suites = dict.fromkeys(report.images.suite for report in self.sets)
        return {
            "schema": SCHEMA,
            "folder": escaped(str(self.root)),
            "layout": self.about,
            "status": self.status,
            "files": self.files,
            "suites": [about_suite(suite) for suite in suites],
            "sets": [report.to_dict() for report in self.sets],
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(root: Path, threads: int, names: ClassNames = USUAL) -> Diagnosis:
    """Examine everything below a folder; change nothing.

    Args:
        root: the folder.
        threads: files decoded at a time.
        names: of class folders.

    Raises:
        UserError: the folder is missing, or has no images.
    """
    if not root.is_dir():
        what = "is a file; pass a folder" if root.is_file() else "no such folder"
        raise UserError(f"{root}: {what}")
    tree = walk(root, names)
    if not any(tree.images.values()) and not tree.wrong_suffix:
        raise UserError(f"{root}: no images in it or below")
    about, readings, findings = read_layout(root, names)
    decoded = decode_all((path for reading in readings for path in reading.images.paths), threads)
    files = {result.file for result in decoded.values()}
    reports = tuple(_report(reading, decoded, tree) for reading in readings)
    findings += [
        *equal_images(readings, decoded, root),
        *single_files(decoded, root),
        *misplaced(tree, lambda path: os.path.realpath(path) in files),
        *_splits_in_classes(tree),
        *(finding for report in reports for finding in _counts(report)),
        *_encodings(reports),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(root, about, len(files), reports, tuple(findings))


def _report(reading: Reading, decoded: dict[str, Decoded], tree: Tree) -> SetReport:
    contents: dict[str, list[int]] = {}
    encodings: dict[str, list[FileFormat]] = {name: [] for name in CLASSES.values()}
    for path, label in zip(reading.images.paths, reading.images.labels, strict=True):
        contents.setdefault(escaped(tree.content(path)), [0, 0])[label] += 1
        if encoding := decoded[path].encoding:
            encodings[CLASSES[label]].append(encoding)
    formats = {name: class_formats(of_class) for name, of_class in encodings.items() if of_class}
    return SetReport(reading, contents, formats, format_leak(reading.images))


def _splits_in_classes(tree: Tree) -> Iterator[Finding]:
    """Find class folders with the names of splits inside."""
    inner = [str(Path(folder, split)) for folder in tree.class_folders for split in SPLITS]
    items = tuple(Item((below(path, tree.root),)) for path in inner if path in tree.images)
    if items:
        text = f"{counted(len(items), 'folder')} named like a split inside a class folder, read"
        yield Finding("split_in_class", WARNING, f"{text} together", items)


def _counts(report: SetReport) -> Iterator[Finding]:
    """Find classes that are missing, or nearly, from a set or from one of its contents."""
    for label, name in CLASSES.items():
        if not report.counts[label]:
            severity, effect = WARNING, "AP and AUC are undefined"
            if report.reading.reader == TRAIN:
                severity, effect = PROBLEM, "training needs both classes"
            yield Finding("one_class", severity, f"{report.name}: no {name} images; {effect}")
    if not all(report.counts):
        return
    real, fake = report.counts
    ratio, rarer = max(real / fake, fake / real), "fake" if fake < real else "real"
    if ratio >= IMBALANCE:
        text = (
            f"{report.name}: {ratio:.0f} times fewer {rarer} images; read AP and AUC, not accuracy"
        )
        yield Finding("imbalance", WARNING, text)
    one_class = [name for name, counts in report.contents.items() if not all(counts)]
    # where all contents have one class, real images lie in a folder of their own
    if 0 < len(one_class) < len(report.contents):
        number = counted(len(one_class), "content folder")
        text = f"{report.name}: {number} with one class only, so content tells the class"
        if report.reading.reader == TRAIN:
            text += "; train.py needs --allow_one_class_folders for it"
        items = tuple(Item((name,)) for name in one_class)
        yield Finding("one_class_content", WARNING, text, items)


def _encodings(reports: tuple[SetReport, ...]) -> Iterator[Finding]:
    """Find sets whose classes are told apart by the encoding of their files."""
    leaking = [report for report in reports if is_leak(report.leak, *report.counts)]
    if leaking:
        text = (
            f"{counted(len(leaking), 'set')} whose classes differ in file format, size or"
            " compression, which a detector may learn; test again with test.py --equalize jpeg:90"
            " and report both"
        )
        items = tuple(
            Item((report.name,), f"AUC {report.leak:.2f} by the encoding alone")
            for report in leaking
        )
        yield Finding("format_leak", WARNING, text, items)
