"""Walk a folder once: its folders, images, and files that are not read as images."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from data.decode import UnreadableImage, read_format
from data.folders import CLASS_FOLDERS, SPLITS
from data.image_sets import SUFFIXES

# files of operating systems, in lower case; names with a leading dot are skipped anyway
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", ".ds_store")
# suffix under which a format of Pillow is read
SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
}


@dataclass
class Tree:
    """Everything below `root`; paths are spelled as by `data.layouts`.

    Args:
        root: the folder.
        images: paths with a suffix that is read, by folder; every folder that is not hidden.
        wrong_suffix: (path, Pillow's format) of images by content whose suffix is not read.
        not_read: number of all other files by suffix.
        ignored: number of hidden and system files and folders by name.
        loops: links to a folder that they lie in.
    """

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    wrong_suffix: list[tuple[str, str]] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)

    @property
    def class_folders(self) -> list[str]:
        """Return the folders with the name of a class."""
        return [folder for folder in list(self.images)[1:] if is_class(folder)]

    def count(self, folder: str) -> int:
        """Return the number of images in a folder and below."""
        return sum(len(paths) for place, paths in self.images.items() if within(place, folder))

    def parts(self, path: str) -> tuple[str, ...]:
        """Return the names from below `root` down to a path."""
        return Path(path).relative_to(self.root).parts

    def split(self, path: str) -> str:
        """Return the first of train, val, test above the class folder of a path, else ''."""
        return next((name for name in self._above_class(path) if name in SPLITS), "")

    def content(self, path: str) -> str:
        """Return the folder of an image's class folder, below its split; '.' for the split."""
        names = self._above_class(os.path.dirname(path))
        start = next((depth + 1 for depth, name in enumerate(names) if name in SPLITS), 0)
        return "/".join(names[start:]) or "."

    def _above_class(self, path: str) -> tuple[str, ...]:
        """Return the names of the folders above the class folder; all names without one."""
        names = self.parts(path)
        depths = (depth for depth, name in enumerate(names) if name.lower() in CLASS_FOLDERS)
        return names[: next(depths, len(names))]


def is_class(folder: str) -> bool:
    """Return True for a folder with the name of a class."""
    return os.path.basename(folder).lower() in CLASS_FOLDERS


def within(path: str, folder: str) -> bool:
    """Return True for a folder and everything below it."""
    return folder == "." or path == folder or path.startswith(folder + os.sep)


def walk(root: Path) -> Tree:
    """Walk everything below a folder, through links too, each folder once."""
    tree = Tree(root)
    seen: set[str] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(folder)
        if real in above:
            tree.loops.append(folder)
        if real not in seen:
            seen.add(real)
            inner = _sort_entries(folder, tree)
            waiting += [(sub, (*above, real)) for sub in reversed(inner)]
    return tree


def _sort_entries(folder: str, tree: Tree) -> list[str]:
    """Add the entries of a folder to the tree; return the folders among them."""
    images, inner = tree.images.setdefault(folder, []), []
    try:
        names = sorted(os.listdir(folder))
    # nothing else reads a folder that cannot be listed
    except OSError:
        return []
    for name in names:
        path, lower = str(Path(folder, name)), name.lower()
        suffix = os.path.splitext(lower)[1]
        if lower in SYSTEM:
            tree.ignored[name] += 1
        elif name.startswith("."):
            tree.ignored["hidden"] += 1
        elif os.path.isdir(path):
            inner.append(path)
        elif suffix in SUFFIXES:
            images.append(path)
        elif kind := _image_kind(path):
            tree.wrong_suffix.append((path, kind))
        else:
            tree.not_read[suffix or "no suffix"] += 1
    return inner


def _image_kind(path: str) -> str:
    """Return Pillow's format of an image by content, one of `SUFFIX_OF`; '' for other files."""
    try:
        kind = read_format(path).kind
    except UnreadableImage:
        return ""
    return kind if kind in SUFFIX_OF else ""
