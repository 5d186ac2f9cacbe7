"""File and folder names that are safe in every text that is written, and still say exactly which
file they mean."""

import re
from pathlib import Path

FORMULA = "=+-@"
"""First characters that make a spreadsheet take a cell for a formula."""


def escaped(name: str) -> str:
    r"""A name of printable characters on one line; what cannot stand as it is becomes \xNN, \uNNNN or \UNNNNNNNN.

    That are control and other unprintable characters, bytes that are not UTF-8 (\\udcNN, as Python reads them), the backslash
    itself, and a first character
    that would start a formula. Different names stay different; `unescaped` gives the name back.
    """
    return "".join(
        character if _harmless(character, first=not index) else _code(character)
        for index, character in enumerate(name)
    )


def _harmless(character: str, first: bool) -> bool:
    return character.isprintable() and character != "\\" and not (first and character in FORMULA)


def _code(character: str) -> str:
    value = ord(character)
    return (
        f"\\x{value:02x}"
        if value < 0x100
        else f"\\u{value:04x}"
        if value < 0x10000
        else f"\\U{value:08x}"
    )


def unescaped(name: str) -> str:
    """The inverse of `escaped`."""
    codes = r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})"
    return re.sub(codes, lambda found: chr(int(next(filter(None, found.groups())), 16)), name)


def relative_name(path: str, root: Path) -> str:
    """A file's path below the data root, with forward slashes, `escaped`."""
    return escaped(Path(path).relative_to(root).as_posix())


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    return re.sub(r"([\\`*\[\]<>|~&#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
