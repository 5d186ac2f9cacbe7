"""Decode every image file once; find unreadable files and equal images."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data.decode import FileFormat, UnreadableImage, read_format, read_image
from evaluation.names import escaped
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding, Item, below
from tools.check_dataset.layout import Reading
from tools.check_dataset.tree import SUFFIXES_OF
from util import counted


class Decoded(NamedTuple):
    """The result of decoding a file.

    Args:
        file: its real path; a file with several names, such as a link, is one file.
        digest: of size and pixels; empty for an unreadable file.
        encoding: None for an unreadable file.
        problem: why it is unreadable, else ''.
    """

    file: str
    digest: bytes
    encoding: FileFormat | None
    problem: str


class Copy(NamedTuple):
    """One place of an image in a set."""

    split: str
    key: str
    label: int
    path: str


def decode(file: str) -> Decoded:
    """Decode a file as training and testing do; keep a digest of its size and RGB values."""
    try:
        encoding = read_format(file)
        image = read_image(file)
    except UnreadableImage as error:
        return Decoded(file, b"", None, str(error))
    size = b"%dx%d" % image.size
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=size).digest()
    return Decoded(file, digest, encoding, "")


def decode_all(paths: Iterable[str], threads: int) -> dict[str, Decoded]:
    """Decode files, each once, `threads` at a time.

    Returns:
        The results by path.
    """
    file_of = {path: os.path.realpath(path) for path in paths}
    files = list(dict.fromkeys(file_of.values()))
    with ThreadPool(threads) as pool:
        results = pool.imap(decode, files, chunksize=8)
        bar = tqdm(results, "decoding", len(files), unit="file", leave=False, disable=None)
        decoded = dict(zip(files, bar, strict=True))
    return {path: decoded[file] for path, file in file_of.items()}


def single_files(decoded: dict[str, Decoded], root: Path) -> Iterator[Finding]:
    """Find unreadable files, and files with the suffix of another format."""
    first_names = {result.file: path for path, result in reversed(decoded.items())}
    bad, misnamed = [], []
    for path, result in decoded.items():
        name = (below(path, root),)
        if first_names[result.file] != path:
            continue
        if result.encoding is None:
            bad.append(Item(name, escaped(result.problem)))
        elif Path(path).suffix.lower() not in SUFFIXES_OF.get(result.encoding.kind, ()):
            misnamed.append(Item(name, f"is {result.encoding.kind}"))
    if bad:
        text = f"{counted(len(bad), 'unreadable file')}: skipped in training and scoring"
        yield Finding("unreadable", PROBLEM, text, tuple(bad))
    if misnamed:
        text = f"{counted(len(misnamed), 'file')} in another format than the suffix says"
        text += ": harmless, because the content decides"
        yield Finding("suffix", NOTE, text, tuple(misnamed))


def equal_images(
    readings: Sequence[Reading], decoded: dict[str, Decoded], root: Path
) -> Iterator[Finding]:
    """Find images that occur several times.

    Args:
        readings: the sets of all splits.
        decoded: see `decode_all`.
        root: folder below which names are shown.
    """
    equal: dict[bytes, list[Copy]] = defaultdict(list)
    for split, _, images in readings:
        for path, label in zip(images.paths, images.labels, strict=True):
            if decoded[path].digest:
                equal[decoded[path].digest].append(Copy(split, images.key, label, path))
    both, leaks, repeated, shared = [], [], [], []
    for copies in equal.values():
        if len({copy.label for copy in copies}) > 1:
            both.append(copies)
        if len({copy.split for copy in copies}) > 1:
            leaks.append(copies)
        of_sets, of_splits = defaultdict(list), defaultdict(list)
        for copy in copies:
            of_sets[copy.split, copy.label, copy.key].append(copy)
            of_splits[copy.split, copy.label].append(copy)
        repeated += [part for part in of_sets.values() if len(part) > 1]
        for part in of_splits.values():
            files = {decoded[copy.path].file for copy in part}
            if len({copy.key for copy in part}) > 1 and len(files) > 1:
                shared.append(part)
    for kind, severity, groups, text in (
        ("label_conflict", PROBLEM, both, "labelled both real and fake"),
        ("leak", PROBLEM, leaks, "in more than one of train/, val/ and test/"),
        ("duplicate", WARNING, repeated, "more than once in a set, and counted as often"),
        ("shared", NOTE, shared, "in several sets of a split, as different files"),
    ):
        if groups:
            names = (dict.fromkeys(below(copy.path, root) for copy in group) for group in groups)
            items = tuple(Item(tuple(paths)) for paths in names)
            yield Finding(kind, severity, f"{counted(len(groups), 'image')} {text}", items)
