"""Find which images train.py and test.py read from a folder, by the functions that they use."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data.benchmarks import DATA, SUITES
from data.folders import EMPTY_CLASS, SPLITS, class_folders
from data.image_sets import ImageSet
from data.layouts import find_sets, load_set
from data.protocols import evaluation_protocol
from data.transforms import Protocol
from evaluation.names import escaped
from options.test_options import TestOptions
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding
from util import UserError, counted, log

TRAIN, TEST = "train.py", "test.py"


@dataclass(frozen=True)
class Reading:
    """The sets that a script reads of one split.

    Args:
        split: train, val or test; '' in a folder without splits.
        reader: TRAIN or TEST.
        sets: each file once.
    """

    split: str
    reader: str
    sets: tuple[ImageSet, ...]


@dataclass(frozen=True)
class Layout:
    """A folder as the scripts see it: its description and what they read."""

    about: str
    readings: tuple[Reading, ...]
    findings: tuple[Finding, ...] = ()


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


def read_layout(root: Path) -> Layout:
    """Return what the scripts read below a folder; their warnings and errors become findings."""
    findings: list[Finding] = []
    val = root / "val"
    is_training = (root / "train").is_dir() or (val.is_dir() and not class_folders(val))
    with _log_as_findings(findings):
        if is_training:
            splits = [split for split in SPLITS if (root / split).is_dir()]
            readings = [_read_split(root / split, findings) for split in splits]
            about = f"a training root with {', '.join(f'{split}/' for split in splits)}"
        else:
            readings = [Reading("", TEST, _attempt(partial(find_sets, root), findings))]
            about = _about(readings[0].sets)
    if is_training and "train" not in splits:
        findings.append(Finding("no_train", PROBLEM, "train/ is missing; train.py needs it"))
    read_from = tuple(reading for reading in readings if reading.sets)
    return Layout(about, read_from, tuple(dict.fromkeys(findings)))


def _about(sets: Sequence[ImageSet]) -> str:
    suites = {images.suite for images in sets}
    if not sets:
        return "no layout that the scripts know"
    if len(suites) > 1:
        return f"a folder of {counted(len(suites), 'suite')}"
    return "one set" if len(sets) == 1 else f"a suite of {counted(len(sets), 'generator')}"


def _read_split(folder: Path, findings: list[Finding]) -> Reading:
    """Read a split of a training root."""
    if folder.name == "test":
        return Reading("test", TEST, _attempt(partial(find_sets, folder), findings))

    def load() -> list[ImageSet]:
        return [load_set(folder, generator=folder.name)]

    return Reading(folder.name, TRAIN, _attempt(load, findings))


def _attempt(
    read: Callable[[], Sequence[ImageSet]], findings: list[Finding]
) -> tuple[ImageSet, ...]:
    """Return the sets with each file once, or none with a finding that holds the error."""
    sets = []
    try:
        for images in read():
            # the shared real images of DIRE's layout occur several times in a training set
            pairs = dict.fromkeys(zip(images.paths, images.labels, strict=True))
            paths, labels = zip(*pairs, strict=True)
            sets.append(replace(images, paths=paths, labels=labels))
    except (UserError, OSError) as error:
        text = f"the scripts would stop: {escaped(str(error))}"
        findings.append(Finding("layout", PROBLEM, text))
    return tuple(sets)


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
