"""Every image file decoded once: can it be read, how is it encoded, and which files hold the same
picture."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

from tqdm import tqdm

from data.decode import UnreadableImage, read_image
from data.formats import FileFormat, read_format
from data.image_sets import ImageSet
from evaluation.names import escaped
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding, Item, below
from tools.check_dataset.tree import SUFFIX_OF, Identity, identity_of
from util import counted

SAME_AS = {".jpeg": ".jpg", ".tiff": ".tif"}
"""Suffixes that stand for the same format as one in `SUFFIX_OF`."""


class Seen(NamedTuple):
    """What is kept of a decoded file: the digest of its pixels, its encoding, and why it cannot be
    read ('' if it can)."""

    digest: bytes
    encoding: FileFormat | None
    problem: str


class Member(NamedTuple):
    """One place of a picture in a set."""

    split: str
    key: str
    label: int
    file: int
    path: str


class Files:
    """The decoded files of some sets. A file with several names (a link, a folder that generators
    share) is one file.

    Args:
        sets: (split, set) pairs. root: the folder below which names are shown.
    """

    def __init__(self, sets: Sequence[tuple[str, ImageSet]], root: str) -> None:
        self.sets, self.root = sets, root
        self.number: dict[str, int] = {}  # path -> number of the file
        self.identities: dict[Identity, int] = {}
        self.paths: list[str] = []  # one per file
        self.seen: list[Seen] = []
        for _, images in sets:
            for path in images.paths:
                if path not in self.number:
                    self.number[path] = self._number_of(path)

    def _number_of(self, path: str) -> int:
        identity = identity_of(path)
        number = (
            len(self.paths)
            if identity is None
            else self.identities.setdefault(identity, len(self.paths))
        )
        if number == len(self.paths):
            self.paths.append(path)
        return number

    def is_read(self, path: str) -> bool:
        """True for a file that belongs to a set, by this name or another."""
        return path in self.number or identity_of(path) in self.identities

    def decode(self, threads: int) -> None:
        """Look at every file; what is kept of one is small, whatever its size."""
        with ThreadPool(threads) as pool:
            found = pool.imap(look_at, self.paths, chunksize=8)
            self.seen = list(
                tqdm(
                    found,
                    total=len(self.paths),
                    desc="decoding",
                    unit="file",
                    leave=False,
                    disable=None,
                )
            )

    def encodings(self, images: ImageSet, label: int) -> list[FileFormat]:
        """How the readable files of one class of a set are encoded."""
        seen = (
            self.seen[self.number[path]]
            for path, own in zip(images.paths, images.labels, strict=True)
            if own == label
        )
        return [one.encoding for one in seen if one.encoding is not None]

    def findings(self) -> list[Finding]:
        """All that is to be said about single files and about equal ones."""
        return [*self._duplicates(), *self._unreadable(), *self._misnamed()]

    def _name(self, path: str) -> str:
        return below(path, self.root)

    def _unreadable(self) -> Iterator[Finding]:
        bad = [
            Item((self._name(path),), escaped(seen.problem))
            for path, seen in zip(self.paths, self.seen, strict=True)
            if seen.problem
        ]
        if bad:
            text = (
                f"{counted(len(bad), 'file')} that cannot be read: left out of training and scoring"
            )
            yield Finding("unreadable", PROBLEM, text, tuple(bad))

    def _misnamed(self) -> Iterator[Finding]:
        odd = [
            Item((self._name(path),), f"is {seen.encoding.kind}")
            for path, seen in zip(self.paths, self.seen, strict=True)
            if seen.encoding is not None and not suffix_fits(path, seen.encoding.kind)
        ]
        if odd:
            text = f"{counted(len(odd), 'file')} of another format than the suffix says: harmless, the content decides"
            yield Finding("suffix", NOTE, text, tuple(odd))

    def _same_pictures(self) -> list[list[Member]]:
        """The places of each picture that has several; one file in several sets of a split has one
        place there."""
        places = Counter(
            self.seen[self.number[path]].digest for _, images in self.sets for path in images.paths
        )
        groups: dict[bytes, list[Member]] = defaultdict(list)
        for split, images in self.sets:
            for path, label in zip(images.paths, images.labels, strict=True):
                digest = self.seen[self.number[path]].digest
                if digest and places[digest] > 1:
                    groups[digest].append(Member(split, images.key, label, self.number[path], path))
        return [
            group
            for group in groups.values()
            if len({(m.split, m.label, m.path) for m in group}) > 1
        ]

    def _duplicates(self) -> Iterator[Finding]:
        groups = self._same_pictures()
        both = [group for group in groups if len({m.label for m in group}) > 1]
        leaks = [group for group in groups if len({m.split for m in group}) > 1]
        of_sets = [part for group in groups for part in _parts(group, by_set=True)]
        repeated = [part for part in of_sets if len({m.path for m in part}) > 1]
        of_splits = [part for group in groups for part in _parts(group, by_set=False)]
        shared = [
            part
            for part in of_splits
            if len({m.key for m in part}) > 1 and len({m.file for m in part}) > 1
        ]
        for kind, severity, found, text in (
            ("label_conflict", PROBLEM, both, "labelled both real and fake"),
            ("leak", PROBLEM, leaks, "in more than one of train/, val/ and test/"),
            ("duplicate", WARNING, repeated, "more than once in a set, and counted as often"),
            ("shared", NOTE, shared, "in several sets of a split, as different files"),
        ):
            if found:
                items = tuple(
                    Item(tuple(dict.fromkeys(self._name(m.path) for m in group))) for group in found
                )
                yield Finding(kind, severity, f"{counted(len(found), 'picture')} {text}", items)


def _parts(group: Sequence[Member], by_set: bool) -> list[list[Member]]:
    """The places of one picture, apart by split and class, and by set if asked."""
    parts: dict[tuple[str, str, int], list[Member]] = defaultdict(list)
    for member in group:
        parts[member.split, member.key if by_set else "", member.label].append(member)
    return list(parts.values())


def suffix_fits(path: str, kind: str) -> bool:
    """True if a file of this format of Pillow's is called like one."""
    suffix = os.path.splitext(path)[1].lower()
    return SAME_AS.get(suffix, suffix) == SUFFIX_OF.get(kind)


def look_at(path: str) -> Seen:
    """Decode a file as training and testing do; nothing of it is kept but a digest of its RGB
    values and its size."""
    try:
        encoding = read_format(path)
        image = read_image(path)
    except UnreadableImage as error:
        return Seen(b"", None, str(error))
    return Seen(
        hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%dx%d" % image.size).digest(),
        encoding,
        "",
    )
