"""Which images train.py and test.py read from a folder: the same functions are asked, so that the
answer cannot differ."""

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
    """What a script reads of one split.

    Args:
        split: train, val or test; '' in a folder without splits. reader: TRAIN, TEST, or '' where
            neither reads it from here.
        sets: each file once.
    """

    split: str
    reader: str
    sets: tuple[ImageSet, ...]


@dataclass(frozen=True)
class Layout:
    """A folder as the scripts see it: in words, and what they read."""

    about: str
    readings: tuple[Reading, ...]
    findings: tuple[Finding, ...] = ()


def protocol_of(suite: str) -> str:
    """Name of the preprocessing protocol that test.py uses for a suite when no flag asks for
    another."""
    return evaluation_protocol(Protocol("published"), suite, TestOptions()).name


def about_suite(suite: str) -> str:
    """A suite, its published table, and its protocol, in words."""
    table = SUITES[suite].table if suite in SUITES else None
    protocol = protocol_of(suite)
    named = (
        "no suite"
        if not suite
        else escaped(suite) + (f" ({table} of the NPR paper)" if table else "")
    )
    return f"{named}, protocol {protocol}: {DATA['protocols'][protocol]['about']}"


def read_layout(tree: Tree) -> Layout:
    """What the scripts read below a folder; what they would complain about becomes findings."""
    findings: list[Finding] = []
    with _heard(findings):
        training = (tree.root / "train").is_dir() or (
            (tree.root / "val").is_dir() and not _one_set(tree.root / "val")
        )
        about, readings = _training_root(tree, findings) if training else _test_root(tree, findings)
    return Layout(
        about,
        tuple(reading for reading in readings if reading.sets),
        tuple(dict.fromkeys(findings)),
    )


def _one_set(folder: Path) -> bool:
    return bool(class_folders(folder))


def _training_root(tree: Tree, findings: list[Finding]) -> tuple[str, list[Reading]]:
    there = [split for split in SPLITS if (tree.root / split).is_dir()]
    readings = []
    for split in there:
        folder = tree.root / split
        read = partial(find_sets, folder) if split == "test" else partial(_training_set, folder)
        readings.append(
            Reading(split, TEST if split == "test" else TRAIN, _attempt(read, findings))
        )
    if "train" not in there:
        findings.append(
            Finding("no_train", PROBLEM, "there is val/, but no train/: train.py needs both")
        )
    return f"a training root with {_listed([f'{split}/' for split in there])}", readings


def _training_set(folder: Path) -> list[ImageSet]:
    return [load_set(folder, generator=folder.name)]


def _test_root(tree: Tree, findings: list[Finding]) -> tuple[str, list[Reading]]:
    """A folder that test.py reads; the splits inside of its generators are asked for one after the
    other."""
    sets = _attempt(partial(find_sets, tree.root), findings)
    about = _about(scan(tree.root), sets)
    inner = {tree.split(folder) for folder in tree.class_folders} - {""}
    splits = [split for split in SPLITS if split in inner]
    if not splits:
        return about, [Reading("", TEST, sets)]
    read_by_test = {tree.split(path) for found in sets for path in found.paths}
    readings = [Reading("", TEST, _of_split(tree, sets, ""))]
    for split in splits:
        order = (split, *(other for other in splits if other != split))
        of_split = _attempt(partial(find_sets, tree.root, splits=order), findings)
        readings.append(
            Reading(split, TEST if split in read_by_test else "", _of_split(tree, of_split, split))
        )
    return f"{about}, with {_listed([f'{split}/' for split in splits])} inside", readings


def _of_split(tree: Tree, sets: Sequence[ImageSet], split: str) -> tuple[ImageSet, ...]:
    """The part of each set that lies in a split; sets without such a part are left out."""
    parts = []
    for found in sets:
        pairs = [
            pair
            for pair in zip(found.paths, found.labels, strict=True)
            if tree.split(pair[0]) == split
        ]
        if pairs:
            paths, labels = zip(*pairs, strict=True)
            parts.append(replace(found, paths=paths, labels=labels))
    return tuple(parts)


def _attempt(
    read: Callable[[], Sequence[ImageSet]], findings: list[Finding]
) -> tuple[ImageSet, ...]:
    """The sets, each file once, or none and a finding with what the script would say."""
    try:
        return tuple(_each_once(found) for found in read())
    except (UserError, OSError) as error:
        findings.append(
            Finding("layout", PROBLEM, f"the scripts would stop: {escaped(str(error))}")
        )
        return ()


def _each_once(images: ImageSet) -> ImageSet:
    """A set in which no file occurs twice, as the shared real images of DIRE's layout do when they
    are trained on."""
    pairs = tuple(dict.fromkeys(zip(images.paths, images.labels, strict=True)))
    if len(pairs) == len(images.paths):
        return images
    return replace(
        images, paths=tuple(path for path, _ in pairs), labels=tuple(label for _, label in pairs)
    )


@contextmanager
def _heard(findings: list[Finding]) -> Iterator[None]:
    """What the project logs meanwhile becomes findings instead of lines on the terminal."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg in (EMPTY_CLASS, LINK_ABOVE):  # findings of their own
                return
            warning = record.levelno >= logging.WARNING
            kind = "left_out" if warning else "suite"
            findings.append(
                Finding(kind, WARNING if warning else NOTE, escaped(record.getMessage()))
            )

    before = log.handlers, log.level, log.propagate
    log.handlers, log.propagate = [Listener()], False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers, level, log.propagate = before
        log.setLevel(level)


def _about(folder: Folder | None, sets: Sequence[ImageSet]) -> str:
    """The layout in words."""
    if folder is None or not sets:
        return "no layout that the scripts know"
    suites = {found.suite for found in sets}
    if len(suites) > 1:
        return f"a folder of {counted(len(suites), 'suite')}"
    if any(
        sub.is_its_own_class
        for sub in (*folder.below, *(inner for sub in folder.below for inner in sub.below))
    ):
        return f"{counted(len(sets), 'generator')} beside their real images, as DiffusionForensics (DIRE) is distributed"
    if any(len({path.parent for path, _ in sub.classes}) > 1 for sub in folder.below):
        return f"{counted(len(sets), 'generator')} that share real images, as UniversalFakeDetect is distributed"
    if folder.height == 0:
        return "one set"
    if (
        len(sets) == 1
        and folder.height == 1
        and sets[0].generator == folder.name
        and not folder.suite
    ):
        return f"a generator with {counted(len(folder.below), 'content folder')}"
    if suites.isdisjoint({folder.suite, folder.name}):
        return "a folder of 1 suite"
    return f"a suite of {counted(len(sets), 'generator')}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
