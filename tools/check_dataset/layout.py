"""Find which images train.py and test.py read from a folder, by the functions that they use."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data.benchmarks import DATA, SUITES
from data.folders import EMPTY_CLASS, LINK_ABOVE, SPLITS, Folder, class_folders, scan
from data.image_sets import ImageSet
from data.layouts import find_sets, load_set
from data.protocols import evaluation_protocol
from data.transforms import Protocol
from evaluation.names import escaped
from options.test_options import TestOptions
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding
from tools.check_dataset.tree import Tree
from util import UserError, counted, log

TRAIN, TEST = "train.py", "test.py"


@dataclass(frozen=True)
class Reading:
    """The sets that a script reads of one split.

    Args:
        split: train, val or test; '' in a folder without splits.
        reader: TRAIN, TEST, or '' where neither reads the split from here.
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


def read_layout(tree: Tree) -> Layout:
    """Return what the scripts read below a folder; their warnings and errors become findings."""
    findings: list[Finding] = []
    val = tree.root / "val"
    is_training = (tree.root / "train").is_dir() or (val.is_dir() and not class_folders(val))
    with _log_as_findings(findings):
        read = _training_root if is_training else _test_root
        about, readings = read(tree, findings)
    read_from = tuple(reading for reading in readings if reading.sets)
    return Layout(about, read_from, tuple(dict.fromkeys(findings)))


def _training_root(tree: Tree, findings: list[Finding]) -> tuple[str, list[Reading]]:
    splits = [split for split in SPLITS if (tree.root / split).is_dir()]
    readings = []
    for split in splits:
        folder = tree.root / split
        if split == "test":
            readings.append(Reading(split, TEST, _attempt(partial(find_sets, folder), findings)))
        else:
            load = partial(_training_set, folder)
            readings.append(Reading(split, TRAIN, _attempt(load, findings)))
    if "train" not in splits:
        findings.append(Finding("no_train", PROBLEM, "train/ is missing; train.py needs it"))
    return f"a training root with {_listed(splits)}", readings


def _training_set(folder: Path) -> list[ImageSet]:
    return [load_set(folder, generator=folder.name)]


def _test_root(tree: Tree, findings: list[Finding]) -> tuple[str, list[Reading]]:
    """Read a folder of test.py, and each split inside its generators."""
    sets = _attempt(partial(find_sets, tree.root), findings)
    about = _about(scan(tree.root), sets)
    inner = {tree.split(folder) for folder in tree.class_folders}
    splits = [split for split in SPLITS if split in inner]
    if not splits:
        return about, [Reading("", TEST, sets)]
    read_by_test = {tree.split(path) for images in sets for path in images.paths}
    readings = [Reading("", TEST, _of_split(tree, sets, ""))]
    for split in splits:
        order = (split, *(other for other in splits if other != split))
        sets_in_order = _attempt(partial(find_sets, tree.root, splits=order), findings)
        reader = TEST if split in read_by_test else ""
        readings.append(Reading(split, reader, _of_split(tree, sets_in_order, split)))
    return f"{about}, with {_listed(splits)} inside", readings


def _of_split(tree: Tree, sets: Sequence[ImageSet], split: str) -> tuple[ImageSet, ...]:
    """Return the part of each set that lies in a split, where it has one."""
    parts = []
    for images in sets:
        pairs = zip(images.paths, images.labels, strict=True)
        if inside := [pair for pair in pairs if tree.split(pair[0]) == split]:
            parts.append(_with_files(images, inside))
    return tuple(parts)


def _with_files(images: ImageSet, pairs: Sequence[tuple[str, int]]) -> ImageSet:
    paths, labels = zip(*pairs, strict=True)
    return replace(images, paths=paths, labels=labels)


def _attempt(
    read: Callable[[], Sequence[ImageSet]], findings: list[Finding]
) -> tuple[ImageSet, ...]:
    """Return the sets with each file once, or none with a finding that holds the error."""
    try:
        # the shared real images of DIRE's layout occur several times in a training set
        return tuple(
            _with_files(images, tuple(dict.fromkeys(zip(images.paths, images.labels, strict=True))))
            for images in read()
        )
    except (UserError, OSError) as error:
        text = f"the scripts would stop: {escaped(str(error))}"
        findings.append(Finding("layout", PROBLEM, text))
        return ()


@contextmanager
def _log_as_findings(findings: list[Finding]) -> Iterator[None]:
    """Turn the project's log messages into findings, instead of lines on the terminal."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # these have findings of their own
            if record.msg in (EMPTY_CLASS, LINK_ABOVE):
                return
            kind, severity = "suite", NOTE
            if record.levelno >= logging.WARNING:
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


def _about(folder: Folder | None, sets: Sequence[ImageSet]) -> str:
    """Describe the layout."""
    if folder is None or not sets:
        return "no layout that the scripts know"
    suites, generators = {images.suite for images in sets}, counted(len(sets), "generator")
    if len(suites) > 1:
        return f"a folder of {counted(len(suites), 'suite')}"
    inner = [sub for below in folder.below for sub in (below, *below.below)]
    if any(sub.is_its_own_class for sub in inner):
        return f"{generators} beside their real images, as DiffusionForensics (DIRE) is distributed"
    if any(len({path.parent for path, _ in sub.classes}) > 1 for sub in folder.below):
        return f"{generators} that share real images, as UniversalFakeDetect is distributed"
    if folder.height == 0:
        return "one set"
    is_generator = len(sets) == 1 and folder.height == 1 and sets[0].generator == folder.name
    if is_generator and not folder.suite:
        return f"a generator with {counted(len(folder.below), 'content folder')}"
    if suites.isdisjoint({folder.suite, folder.name}):
        return "a folder of 1 suite"
    return f"a suite of {generators}"


def _listed(splits: Sequence[str]) -> str:
    names = [f"{split}/" for split in splits]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
