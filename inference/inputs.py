"""Find the files of a command line of files, folders, patterns and lists, in a fixed order."""

import codecs
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.decode import UnreadableImage, open_image
from data.image_sets import SUFFIXES
from inference.video.frames import EXTENSIONS
from util import UserError, text_encoding

IMAGE_ENDINGS = (*SUFFIXES, ".gif")  # of the files that are taken for images in a folder
MAX_PATH_BYTES = 1 << 16  # of a path in a list; no system takes more
BLOCK_BYTES = 1 << 16  # of a list, read at once


class Input(NamedTuple):
    """A file to predict.

    Args:
        path: of the file.
        problem: reason why it cannot be predicted, else "".
    """

    path: str
    problem: str = ""


def read_standard_input() -> bytes:
    """Return the bytes that have come, at least one; b"" at the end."""
    return os.read(0, BLOCK_BYTES)


class Inputs:
    """An iterator of the files of a command line, in the order of its words; iterate once.

    - A folder stands for the images and videos in it and below it, by the endings of their names
      and sorted. Hidden files and folders are skipped. Links are followed, unless they lead to a
      folder that they lie in.
    - A word that is not a file and holds `*`, `?` or `[` is a pattern as in `glob`.
    - `-` stands for a list of paths.
    - Any other word is a file, whatever its ending.

    Memory does not grow with the number of files. The names of one folder, or the matches of one
    pattern, are held at a time.

    Args:
        words: of the command line.
        separator: between two paths of the list.
        read: returns the next bytes of the list, b"" at its end; by default of standard input.

    Attributes:
        passed_over: number of files in folders that are neither images nor videos, so far, by
            ending, such as {".txt": 3}.

    Raises:
        UserError: while iterating, if the list cannot be read, or is not a list of paths.
    """

    def __init__(
        self,
        words: Sequence[str],
        separator: bytes = b"\n",
        read: Callable[[], bytes] = read_standard_input,
    ) -> None:
        self._words, self._separator, self._read = words, separator, read
        self.passed_over = Counter[str]()

    def __iter__(self) -> Iterator[Input]:
        for word in self._words:
            if word == "-":
                for path in self._listed():
                    yield from self._below(os.fsdecode(path))
            elif word != glob.escape(word) and not os.path.lexists(word):
                yield from self._matching(word)
            else:
                yield from self._below(word)

    def _listed(self) -> Iterator[bytes]:
        """Yield the paths of the list as soon as each is complete; empty ones are skipped."""
        on_lines, rest = self._separator == b"\n", b""
        # some systems end their lines with a carriage return, too
        ending = b"\r" if on_lines else b""
        # each of several lists that come one after the other may begin with one
        mark = codecs.BOM_UTF8 if on_lines else b""
        try:
            for block in self._utf8_blocks():
                *paths, rest = (rest + block).split(self._separator)
                if len(rest) > MAX_PATH_BYTES or (on_lines and b"\0" in block):
                    raise UserError(
                        "PATH -: not a list of one path per line; with NUL bytes between them add"
                        " --null"
                    )
                paths = [path.removeprefix(mark).removesuffix(ending) for path in paths]
                yield from filter(None, paths)
        # standard input is closed, or a folder
        except OSError as error:
            raise UserError(f"PATH -: standard input cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"PATH -: not text in {error.encoding}; save the list as UTF-8"
            ) from None
        yield from filter(None, [rest.removeprefix(mark).removesuffix(ending)])

    def _utf8_blocks(self) -> Iterator[bytes]:
        """Yield the list in UTF-8 without a byte order mark; bytes that are not text stay."""
        start = b""
        while len(start) < 4 and (block := self._read()):
            start += block
        # between NUL bytes, zeros are no sign of UTF-16: there only a byte order mark is
        encoding = text_encoding(start if self._separator == b"\n" else start[:3])
        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        while start:
            yield decoder.decode(start).encode("utf-8", "surrogateescape")
            start = self._read()
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")

    def _matching(self, pattern: str) -> Iterator[Input]:
        paths = sorted(glob.glob(pattern, recursive=True))
        # ** also matches the files in a matching folder
        if "**" in pattern:
            paths = [path for path in paths if not os.path.isdir(path)]
        if not paths:
            yield Input(pattern, "no file matches the pattern")
        for path in paths:
            yield from self._below(path)

    def _below(self, root: str) -> Iterator[Input]:
        """Yield a file, or the images and videos in and below a folder."""
        if not os.path.isdir(root):
            yield Input(root)
            return
        errors: list[OSError] = []
        for folder, subfolders, names in os.walk(root, onerror=errors.append, followlinks=True):
            for name in sorted(name for name in names if not name.startswith(".")):
                if name.lower().endswith((*IMAGE_ENDINGS, *EXTENSIONS)):
                    yield Input(os.path.join(folder, name))
                else:
                    self.passed_over[os.path.splitext(name)[1].lower()] += 1
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in subfolders[:]:
                link = Path(folder, name)
                if link.is_symlink() and Path(folder).resolve().is_relative_to(link.resolve()):
                    subfolders.remove(name)
                    yield Input(str(link), "not followed, a link to a folder that it lies in")
        for error in errors:
            yield Input(error.filename, f"a folder that cannot be listed: {error.strerror}")


def is_media(path: str) -> bool:
    """Return True if a file exists and is an image or a video, by its ending or its content."""
    if not os.path.isfile(path):
        return False
    if os.path.realpath(path).lower().endswith((*IMAGE_ENDINGS, *EXTENSIONS)):
        return True
    try:
        with open_image(path):
            return True
    except UnreadableImage:
        return False
