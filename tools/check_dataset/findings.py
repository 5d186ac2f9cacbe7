"""Findings of the check, with the files they are about and the commands that fix them."""

import os
import shlex
from dataclasses import dataclass

from evaluation.names import escaped
from util import counted

# problem: fix it first; warning: keep it in mind when you read metrics; note: for information
PROBLEM, WARNING, NOTE = SEVERITIES = ("problem", "warning", "note")
MAX_NAMES = 3  # paths on the line of an image with many copies


@dataclass(frozen=True)
class Item:
    """Files that belong together in a finding.

    Args:
        paths: names below the examined folder, `escaped`.
        note: what is wrong with them.
        folder: if set, the line shows this folder and the number of its files, not their paths.
    """

    paths: tuple[str, ...]
    note: str = ""
    folder: str = ""

    def line(self) -> str:
        """Return the item as one line."""
        names = " = ".join(self.paths[:MAX_NAMES])
        if len(self.paths) > MAX_NAMES:
            names += f" and {len(self.paths) - MAX_NAMES} more"
        if self.folder:
            example = self.paths[0].rsplit("/", 1)[-1]
            names = f"{self.folder}/: {counted(len(self.paths), 'image')}, such as {example}"
        return f"{names} ({self.note})" if self.note else names


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset.

    Args:
        kind: name for programs, such as 'unreadable'.
        severity: one of `SEVERITIES`.
        message: one line.
        items: the files that it is about.
        commands: shell commands that fix it; run them where the check ran.
    """

    kind: str
    severity: str
    message: str
    items: tuple[Item, ...] = ()
    commands: tuple[str, ...] = ()


def below(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """Return a path relative to a folder, with forward slashes, `escaped`."""
    return escaped(os.path.relpath(path, root).replace(os.sep, "/"))


def move_command(source: str, target: str) -> tuple[str, ...]:
    """Return one command that moves a folder; none if a name is not printable."""
    if not (source + target).isprintable():
        return ()
    return (f"mv -n -- {shlex.quote(source)} {shlex.quote(target)}",)
