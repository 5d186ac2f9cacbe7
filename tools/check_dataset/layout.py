"""Find which images train.py and test.py read from a folder, by the functions that they use."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from data.benchmarks import DATA, SUITES
from data.folders import EMPTY_CLASS, SPLITS, USUAL, class_folders
from data.image_sets import ClassNames, ImageSet
from data.layouts import find_sets
from data.protocols import evaluation_protocol
from data.splits import load_set
from data.transforms import Protocol
from evaluation.names import escaped
from options.test_options import TestOptions
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding
from util import UserError, counted, log

TRAIN, TEST = "train.py", "test.py"


class Reading(NamedTuple):
    """A set that a script reads.

    Args:
        split: train, val or test; '' in a folder without splits.
        reader: TRAIN or TEST.
        images: each file once.
    """

    split: str
    reader: str
    images: ImageSet


def protocol_of(suite: str) -> str:
    """Return the name of the protocol that test.py uses for a suite without flags."""
    return evaluation_protocol(Protocol("published"), suite, TestOptions()).name


def about_suite(suite: str) -> str:
    """Describe a suite with its published table and its protocol."""
    protocol = protocol_of(suite)
    name = escaped(suite) or "no suite"
    if suite in SUITES and SUITES[suite].table:
        name += f" ({SUITES[suite].table} of the NPR paper)"
    return f"{name}, protocol {protocol}: {DATA['protocols'][protocol]['about']}"


def read_layout(root: Path, names: ClassNames = USUAL) -> tuple[str, list[Reading], list[Finding]]:
    """Return what the folder is, what the scripts read below it, and their warnings and errors."""
    findings: list[Finding] = []
    val = root / "val"
    is_training = (root / "train").is_dir() or (val.is_dir() and not class_folders(val, names))
    with _log_as_findings(findings):
        if is_training:
            splits = [split for split in SPLITS if (root / split).is_dir()]
            readings = [
                reading for split in splits for reading in _read(root, split, findings, names)
            ]
            about = f"a training root with {', '.join(f'{split}/' for split in splits)}"
        else:
            readings = _read(root, "", findings, names)
            about = _about(readings)
    if is_training and "train" not in splits:
        findings.append(Finding("no_train", PROBLEM, "train/ is missing; train.py needs it"))
    return about, readings, list(dict.fromkeys(findings))


def _about(readings: Sequence[Reading]) -> str:
    suites = {reading.images.suite for reading in readings}
    if not readings:
        return "no layout that the scripts know"
    if len(suites) > 1:
        return f"a folder of {counted(len(suites), 'suite')}"
    return "one set" if len(readings) == 1 else f"a suite of {counted(len(readings), 'generator')}"


def _read(root: Path, split: str, findings: list[Finding], names: ClassNames) -> list[Reading]:
    """Return the sets of a split; none, with a finding that holds the error, where there is one."""
    folder, reader = root / split, TRAIN if split in ("train", "val") else TEST
    readings: list[Reading] = []
    try:
        sets = (
            [load_set(folder, generator=split, names=names)]
            if reader == TRAIN
            else find_sets(folder, names=names)
        )
        readings = [Reading(split, reader, images) for images in sets]
    except (UserError, OSError) as error:
        text = f"the scripts would stop: {escaped(str(error))}"
        findings.append(Finding("layout", PROBLEM, text))
    return readings


@contextmanager
def _log_as_findings(findings: list[Finding]) -> Iterator[None]:
    """Turn the project's log messages into findings, instead of lines on the terminal."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kind, severity = "suite", NOTE
            if record.msg == EMPTY_CLASS:
                kind, severity = "empty_class", PROBLEM
            elif record.levelno >= logging.WARNING:
                kind, severity = "left_out", WARNING
            findings.append(Finding(kind, severity, escaped(record.getMessage())))

    before = log.handlers, log.level, log.propagate
    log.handlers, log.propagate = [Listener()], False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers, level, log.propagate = before
        log.setLevel(level)
