"""What the dataset doctor says: findings, with the files they are about and the commands that mend
them."""

import os
import shlex
from dataclasses import dataclass
from typing import Any

from evaluation.names import escaped
from util import counted

PROBLEM, WARNING, NOTE = SEVERITIES = ("problem", "warning", "note")
"""A problem is to be mended before figures are believed; a warning is to be known when they are
read."""


SHOWN_TOGETHER = 3
"""Names of one picture that are printed; it may lie in dozens of sets."""


@dataclass(frozen=True)
class Item:
    """Files that belong together in a finding; names are `escaped` and below the folder that is
    examined.

    Args:
        note: what is to be said about them. folder: set where they are all files of a folder that
            are meant.
    """

    paths: tuple[str, ...]
    note: str = ""
    folder: str = ""

    def line(self) -> str:
        """The item as one line."""
        if self.folder:
            such_as = self.paths[0].rsplit("/", 1)[-1]
            return f"{self.folder}/: {counted(len(self.paths), 'picture')}, such as {such_as}{self._remark()}"
        more = len(self.paths) - SHOWN_TOGETHER
        return (
            " = ".join(self.paths[:SHOWN_TOGETHER])
            + (f" and {more} more" if more > 0 else "")
            + self._remark()
        )

    def _remark(self) -> str:
        return f" ({self.note})" if self.note else ""


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set.

    Args:
        kind: what it is, for programs ('unreadable'). severity: one of `SEVERITIES`. message: what
            it is, one line.
        commands: bash commands that mend it, to be run in the folder where the doctor was.
    """

    kind: str
    severity: str
    message: str
    items: tuple[Item, ...] = ()
    commands: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        items = [
            {"paths": list(item.paths), "note": item.note, "folder": item.folder}
            for item in self.items
        ]
        return {"kind": self.kind, "severity": self.severity, "message": self.message, "items": items,
                "commands": list(self.commands)}  # fmt: skip


def below(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """A path relative to a folder, with forward slashes, `escaped`; '.' for the folder itself."""
    path, root = os.fspath(path), os.fspath(root)
    if path == root:
        return "."
    inner = path if root == "." else path[len(root.rstrip(os.sep)) + 1 :]
    return escaped(inner.replace(os.sep, "/"))


def bash(path: str | os.PathLike) -> str:
    r"""A path as one word of a bash command line, whatever characters or bytes are in it: 'my set', $'two\012lines'."""
    path = os.fspath(path)
    path = f"./{path}" if path.startswith("-") else path  # no flag of mv or find
    if path.isprintable():  # bytes that are not UTF-8 are not: Python holds them as surrogates
        return shlex.quote(path)
    plain = set(range(0x20, 0x7F)) - set(b"'\\")
    return (
        "$'"
        + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(path))
        + "'"
    )
