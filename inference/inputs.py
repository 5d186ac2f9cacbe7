"""Which files are meant: files, folders, patterns and lists of paths as one stream of paths, in a
fixed order.

Nothing is collected but the names of one folder at a time, so that millions of paths take no
memory.
"""

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from data.decode import UnreadableImage, open_image
from data.image_sets import SUFFIXES
from inference.video.files import EXTENSIONS
from util import UserError

PICTURES = (*SUFFIXES, ".gif")
"""Endings by which files in a folder are taken for pictures."""
LONGEST = 1 << 16
"""Bytes of the longest path in a list; systems take less."""
KINDS = 100
"""Endings that are counted each for itself."""


class Input(NamedTuple):
    """A file to look at; or, with a `problem`, something that was meant and is none.

    found: by its ending, in a folder; otherwise it is meant whatever its ending.
    """

    path: str
    problem: str = ""
    found: bool = False

    @property
    def is_video(self) -> bool:
        """By its ending."""
        return self.path.lower().endswith(EXTENSIONS)


class Inputs:
    """The files that words of a command line stand for, in the words' order; iterate over it once.

    A folder stands for the pictures and videos below it, by their names' endings and sorted by
    name; links are followed, unless they lead to a folder that they lie in, and hidden files and
    folders left out. A word that is no file and holds `*`, `?` or `[` is a pattern as in `glob`
    (`**` for folders at any depth); `-` stands for a list of paths. Any other word is a file,
    whatever its ending.

    Args:
        words: see above. read: gives the next bytes of the list, b"" at its end. separator: what
            ends a path in it.

    Attributes:
        passed_over: how many files in folders were taken for neither pictures nor videos, so far,
            by ending, such as {".txt": 3}; "" counts those without one, and what goes beyond
            `KINDS`. Hidden files do not count.

    Raises:
        UserError: while iterating: the list cannot be read, or holds a path longer than `LONGEST`.
    """

    def __init__(
        self,
        words: Sequence[str],
        read: Callable[[], bytes] = lambda: b"",
        separator: bytes = b"\n",
    ) -> None:
        self._words, self._read, self._separator = words, read, separator
        self.passed_over = Counter[str]()

    def __iter__(self) -> Iterator[Input]:
        for word in self._words:
            if word == "-":
                for path in _listed(self._read, self._separator):
                    yield from self._named(path)
            elif word != glob.escape(word) and not os.path.lexists(word):
                yield from self._matching(word)
            else:
                yield from self._named(word)

    def _named(self, path: str) -> Iterator[Input]:
        if os.path.isdir(path):
            yield from self._below(path)
        elif "\0" in path:
            yield Input(path, "holds a NUL byte; is the list NUL-separated (--null)?")
        else:
            yield Input(path)

    def _matching(self, pattern: str) -> Iterator[Input]:
        found = False
        at_any_depth = any(part == "**" for part in pattern.split("/"))
        for path in matches(pattern):
            if at_any_depth and os.path.isdir(path):
                continue  # its files match, too, or are not meant
            found = True
            yield from self._named(path)
        if not found:
            yield Input(pattern, "no file matches the pattern")

    def _below(self, folder: str) -> Iterator[Input]:
        """Pictures and videos below a folder, depth first; a stack instead of recursion, because
        folders may lie deep."""
        stack: list[tuple[tuple[int, int] | None, Iterator[str]]] = [
            (None, iter([os.path.join(folder, "")]))
        ]
        while stack:
            path = next(stack[-1][1], None)
            if path is None:
                stack.pop()
            elif not path.endswith("/"):
                yield Input(path, found=True)
            else:
                try:
                    status = os.stat(path)
                    identity = status.st_dev, status.st_ino
                    if any(identity == above for above, _ in stack):
                        yield Input(path[:-1], "not followed, a link to a folder that it lies in")
                    else:
                        stack.append((identity, iter(self._entries(path))))
                except OSError as error:
                    yield Input(
                        path[:-1] or path, f"a folder that cannot be listed: {error.strerror}"
                    )

    def _entries(self, folder: str) -> list[str]:
        """Paths of what counts in a folder, sorted; those of folders end with a slash."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    found.append(entry.path + "/")
                elif entry.name.lower().endswith((*PICTURES, *EXTENSIONS)):
                    found.append(entry.path)
                else:
                    self.passed_over[self._kind(entry.name)] += 1
        return sorted(found)

    def _kind(self, name: str) -> str:
        ending = os.path.splitext(name)[1].lower()
        is_one = ending in self.passed_over or (
            ending[1:].isalnum() and len(self.passed_over) < KINDS
        )
        return ending if is_one else ""


def is_media(path: str) -> bool:
    """Whether a file, or that behind a link, is there and has a picture's or a video's ending, or
    begins like a picture."""
    if not os.path.isfile(path):
        return False
    if os.path.realpath(path).lower().endswith((*PICTURES, *EXTENSIONS)):
        return True
    try:
        with open_image(path):
            return True
    except UnreadableImage:
        return False


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def matches(pattern: str) -> Iterator[str]:
    """The paths that a pattern stands for, those of `glob.iglob(pattern, recursive=True)`, sorted
    within each folder.

    `**` does not follow links.
    """
    yield from _matches(
        "/" if pattern.startswith("/") else "", [part for part in pattern.split("/") if part]
    )


def _matches(root: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield root
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for folder, below, _ in os.walk(root or os.curdir):
            below[:] = sorted(name for name in below if not name.startswith("."))
            yield from _matches(folder if root else folder[2:], rest or ["*"])
    elif part == glob.escape(part):
        if os.path.lexists(path := os.path.join(root, part)):
            yield from _matches(path, rest)
    else:
        try:
            names = sorted(os.listdir(root or os.curdir))
        except OSError:
            return
        for name in fnmatch.filter(names, part):
            if part.startswith(".") or not name.startswith("."):
                yield from _matches(os.path.join(root, name), rest)


def _listed(read: Callable[[], bytes], separator: bytes) -> Iterator[str]:
    """The paths of a list, empty ones left out; those on lines without the carriage return of other
    systems."""
    rest = b""
    while block := _next_block(read):
        *whole, rest = (rest + block).split(separator)
        yield from _paths(whole, separator)
        if len(rest) > LONGEST:
            raise UserError(
                f"PATH -: the list holds a path of more than {LONGEST} bytes; give one path per line, or --null"
            )
    yield from _paths([rest], separator)


def _next_block(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except OSError as error:  # closed, or a folder
        raise UserError(f"PATH -: standard input cannot be read ({error.strerror})") from None


def _paths(found: list[bytes], separator: bytes) -> Iterator[str]:
    for path in found:
        path = path.removesuffix(b"\r") if separator == b"\n" else path
        if path:
            yield os.fsdecode(path)
