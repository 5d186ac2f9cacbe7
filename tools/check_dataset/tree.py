"""Everything that lies below a folder, walked once: folders, pictures, and what is not read as one."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from data.decode import UnreadableImage
from data.folders import CLASS_FOLDERS, SPLITS
from data.formats import read_format
from data.image_sets import SUFFIXES

SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", ".ds_store")
"""What operating systems leave behind, in lower case; names that begin with a dot are left out
anyway."""
SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
}
"""The suffix under which a format of Pillow's is read."""
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of those formats: most files without a picture's suffix need no further look."""
NOT_READ = (".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga")
Identity = tuple[int, int]


@dataclass
class Tree:
    """What lies below `root`; paths are spelled as `data.layouts` spells them.

    Args:
        folders: in the order of the walk, without hidden ones. pictures: names of files with a
            suffix that is read, by folder.
        nameless: pictures by their content whose suffix is not read, with Pillow's format.
            not_read: suffix -> how many.
        ignored: name of a hidden or system file or folder -> how often. loops: links to a folder
            that they lie in.
    """

    root: Path
    folders: list[str] = field(default_factory=list)
    pictures: dict[str, list[str]] = field(default_factory=dict)
    nameless: list[tuple[str, str]] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)

    @property
    def class_folders(self) -> list[str]:
        """The folders that are called like a class."""
        return [folder for folder in self.folders[1:] if is_class(folder)]

    def count(self, folder: str) -> int:
        """Pictures in a folder and below."""
        return sum(len(names) for place, names in self.pictures.items() if within(place, folder))

    def parts(self, path: str) -> list[str]:
        """The names from below `root` down to a path."""
        root = str(self.root)
        inner = path if root == "." else path[len(root.rstrip(os.sep)) + 1 :]
        return inner.split(os.sep) if inner and path != root else []

    def split(self, path: str) -> str:
        """The split that a file or folder belongs to: the first of train, val, test above its class
        folder, else ''."""
        for name in self.parts(path):
            if name in SPLITS:
                return name
            if name.lower() in CLASS_FOLDERS:
                break
        return ""

    def content(self, path: str) -> str:
        """The folder that holds a picture's class folder, below its split; '.' where that is the
        split or `root` itself."""
        parts = self.parts(path)[:-1]
        depth = next(
            (depth for depth, name in enumerate(parts) if name.lower() in CLASS_FOLDERS), len(parts)
        )
        start = next((depth + 1 for depth, name in enumerate(parts[:depth]) if name in SPLITS), 0)
        return "/".join(parts[start:depth]) or "."


def is_class(folder: str) -> bool:
    """True for a folder called like a class."""
    return os.path.basename(folder).lower() in CLASS_FOLDERS


def within(path: str, folder: str) -> bool:
    """True for a folder and all below it; every path is within '.'."""
    return folder == "." or path == folder or path.startswith(folder + os.sep)


def identity_of(path: str) -> Identity | None:
    """What is the same for all names and links of one file or folder; None for a file that is not
    there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def walk(root: Path) -> Tree:
    """Look at everything below a folder, through links too; each folder once, so that links in a
    circle come to an end."""
    tree = Tree(root)
    seen: set[Identity] = set()
    waiting: list[tuple[str, tuple[Identity, ...]]] = [(str(root), ())]
    while waiting:
        folder, above = waiting.pop()
        identity = identity_of(folder)
        if identity in above:
            tree.loops.append(folder)
        if identity is None or identity in seen:
            continue
        seen.add(identity)
        tree.folders.append(folder)
        inner = _look_into(folder, tree)
        waiting += [(sub, (*above, identity)) for sub in sorted(inner, reverse=True)]
    return tree


def _look_into(folder: str, tree: Tree) -> list[str]:
    """Sort what lies directly in a folder into the tree; returns the folders there."""
    inner = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # may not be listed: nothing reads it either
        return []
    for entry in entries:
        path = str(Path(entry.path))  # without the './' that a class folder's files do not have
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
            tree.ignored[entry.name if entry.name.lower() in SYSTEM else "hidden"] += 1
        elif os.path.isdir(path):
            inner.append(path)
        elif entry.name.lower().endswith(SUFFIXES):
            tree.pictures.setdefault(folder, []).append(entry.name)
        elif kind := _picture_kind(path):
            tree.nameless.append((path, kind))
        elif entry.name.lower().endswith(NOT_READ):
            tree.not_read[os.path.splitext(entry.name)[1].lower()] += 1
    return inner


def _picture_kind(path: str) -> str:
    """Pillow's format of a file that is a picture by its content, one of `SUFFIX_OF`; else ''."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for ever
            return ""
        with open(path, "rb") as file:
            if not file.read(4).startswith(SIGNATURES):
                return ""
        kind = read_format(path).kind
    except (OSError, UnreadableImage):
        return ""
    return kind if kind in SUFFIX_OF else ""
