"""Decode every image file once; find unreadable files and equal images."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

from tqdm import tqdm

from data.decode import FileFormat, UnreadableImage, read_format, read_image
from data.image_sets import ImageSet
from evaluation.names import escaped
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding, Item, below
from tools.check_dataset.tree import SUFFIX_OF
from util import counted

SAME_AS = {".jpeg": ".jpg", ".tiff": ".tif"}  # other suffixes of formats in `SUFFIX_OF`


class Decoded(NamedTuple):
    """The result of decoding a file.

    Args:
        digest: of size and pixels; empty for an unreadable file.
        encoding: None for an unreadable file.
        problem: why it is unreadable, else ''.
    """

    digest: bytes
    encoding: FileFormat | None
    problem: str


class Copy(NamedTuple):
    """One place of an image in a set."""

    split: str
    key: str
    label: int
    path: str


class Files:
    """The decoded files of all sets.

    A file with several names, such as a link, is one file.

    Args:
        sets: (split, set) pairs.
        root: folder below which names are shown.
        threads: files decoded at a time.
    """

    def __init__(self, sets: Sequence[tuple[str, ImageSet]], root: str, threads: int) -> None:
        self.sets, self.root = sets, root
        paths = dict.fromkeys(path for _, images in sets for path in images.paths)
        self.file_of = {path: os.path.realpath(path) for path in paths}
        self.names: dict[str, str] = {}  # file -> its first path
        for path, file in self.file_of.items():
            self.names.setdefault(file, path)
        files = list(self.names)
        with ThreadPool(threads) as pool:
            results = pool.imap(decode, files, chunksize=8)
            bar = tqdm(results, "decoding", len(files), unit="file", leave=False, disable=None)
            self.decoded = dict(zip(files, bar, strict=True))

    def is_read(self, path: str) -> bool:
        """Return True for a file of a set, by this name or another."""
        return os.path.realpath(path) in self.decoded

    def encodings(self, images: ImageSet, label: int) -> list[FileFormat]:
        """Return the encodings of the readable files of one class of a set."""
        encodings = (self._of(path).encoding for path in images.of_class(label).paths)
        return [encoding for encoding in encodings if encoding is not None]

    def _of(self, path: str) -> Decoded:
        return self.decoded[self.file_of[path]]

    def findings(self) -> Iterator[Finding]:
        """Yield findings about single files and about equal images."""
        yield from self._duplicates()
        bad, misnamed = [], []
        for file, path in self.names.items():
            name, decoded = (below(path, self.root),), self.decoded[file]
            if decoded.encoding is None:
                bad.append(Item(name, escaped(decoded.problem)))
            elif not suffix_fits(path, decoded.encoding.kind):
                misnamed.append(Item(name, f"is {decoded.encoding.kind}"))
        if bad:
            text = f"{counted(len(bad), 'unreadable file')}: skipped in training and scoring"
            yield Finding("unreadable", PROBLEM, text, tuple(bad))
        if misnamed:
            text = f"{counted(len(misnamed), 'file')} in another format than the suffix says"
            text += ": harmless, because the content decides"
            yield Finding("suffix", NOTE, text, tuple(misnamed))

    def _duplicates(self) -> Iterator[Finding]:
        both, leaks, repeated, shared = [], [], [], []
        for copies in self._equal_images():
            if len({copy.label for copy in copies}) > 1:
                both.append(copies)
            if len({copy.split for copy in copies}) > 1:
                leaks.append(copies)
            of_sets, of_splits = defaultdict(list), defaultdict(list)
            for copy in copies:
                of_sets[copy.split, copy.label, copy.key].append(copy)
                of_splits[copy.split, copy.label].append(copy)
            repeated += [part for part in of_sets.values() if len({copy.path for copy in part}) > 1]
            shared += [
                part
                for part in of_splits.values()
                if len({copy.key for copy in part}) > 1
                and len({self.file_of[copy.path] for copy in part}) > 1
            ]
        for kind, severity, groups, text in (
            ("label_conflict", PROBLEM, both, "labelled both real and fake"),
            ("leak", PROBLEM, leaks, "in more than one of train/, val/ and test/"),
            ("duplicate", WARNING, repeated, "more than once in a set, and counted as often"),
            ("shared", NOTE, shared, "in several sets of a split, as different files"),
        ):
            if groups:
                names = (
                    dict.fromkeys(below(copy.path, self.root) for copy in copies)
                    for copies in groups
                )
                items = tuple(Item(tuple(paths)) for paths in names)
                yield Finding(kind, severity, f"{counted(len(groups), 'image')} {text}", items)

    def _equal_images(self) -> list[list[Copy]]:
        """Return the copies of each image with several."""
        groups: dict[bytes, list[Copy]] = defaultdict(list)
        for split, images in self.sets:
            for path, label in zip(images.paths, images.labels, strict=True):
                digest = self._of(path).digest
                if digest:
                    groups[digest].append(Copy(split, images.key, label, path))
        return [
            copies
            for copies in groups.values()
            if len({(copy.split, copy.label, copy.path) for copy in copies}) > 1
        ]


def suffix_fits(path: str, kind: str) -> bool:
    """Return True if the suffix of a file is one of its format, by Pillow's name."""
    suffix = os.path.splitext(path)[1].lower()
    return SAME_AS.get(suffix, suffix) == SUFFIX_OF.get(kind)


def decode(path: str) -> Decoded:
    """Decode a file as training and testing do; keep a digest of its size and RGB values."""
    try:
        encoding = read_format(path)
        image = read_image(path)
    except UnreadableImage as error:
        return Decoded(b"", None, str(error))
    size = b"%dx%d" % image.size
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=size).digest()
    return Decoded(digest, encoding, "")
