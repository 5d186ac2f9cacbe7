"""Escape file and folder names so that they are safe in every output and stay unambiguous."""

import os
import re
from pathlib import Path

FORMULA = "=+-@"  # a cell that starts with one of these is a formula in a spreadsheet


def escaped(name: str) -> str:
    r"""Return a name of printable characters on one line.

    Unsafe characters become \xNN, \uNNNN or \UNNNNNNNN. These are control and other unprintable
    characters, bytes that are not UTF-8 (\\udcNN, as Python reads them), the backslash itself, and
    a first character of `FORMULA`. Different names stay different; `unescaped` is the inverse.
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
    """Return the name that `escaped` was called with."""
    codes = r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})"
    return re.sub(codes, lambda match: chr(int(next(filter(None, match.groups())), 16)), name)


def relative_name(path: str, root: Path) -> str:
    """Return a file's path below the data root, with forward slashes, `escaped`.

    Of a root that is a table of paths, it is relative to the table's folder.
    """
    try:
        relative = Path(path).relative_to(root)
    except ValueError:
        relative = Path(os.path.relpath(path, root.parent))
    return escaped(relative.as_posix())


def markdown(text: str) -> str:
    """Return the text escaped for Markdown, so that it shows literally, also in a table cell."""
    return re.sub(r"([\\`*\[\]<>|~&#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
