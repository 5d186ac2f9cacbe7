"""Walk a folder once: its folders, images, and files that are not read as images."""

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data.decode import UnreadableImage, read_format
from data.folders import SPLITS, USUAL
from data.image_sets import SUFFIXES, ClassNames

# files of operating systems, in lower case; names with a leading dot are skipped anyway
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", ".ds_store")
# suffixes under which a format of Pillow is read
SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
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
        names: of class folders.
    """

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    wrong_suffix: list[tuple[str, str]] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    names: ClassNames = USUAL

    @property
    def class_folders(self) -> list[str]:
        """Return the folders with the exact name of a class."""
        return [folder for folder in list(self.images)[1:] if self.is_exact(folder)]

    def is_exact(self, folder: str) -> bool:
        """Return True for a folder with the exact name of a class."""
        return self.names.exact(os.path.basename(folder)) is not None

    def is_class(self, folder: str) -> bool:
        """Return True for a folder with the name of a class, as `data.folders.scan` reads it."""
        usual = self.names.label(os.path.basename(folder)) is not None
        return self.is_exact(folder) or (usual and folder not in self._above_exact)

    @cached_property
    def _above_exact(self) -> set[str]:
        return {str(parent) for folder in self.class_folders for parent in Path(folder).parents}

    def count(self, folder: str) -> int:
        """Return the number of images in a folder and below."""
        return sum(len(paths) for place, paths in self.images.items() if within(place, folder))

    def above_class(self, folder: str) -> tuple[str, ...]:
        """Return the names from below `root` down to a folder, at most to above a class folder."""
        names = Path(folder).relative_to(self.root).parts
        above = (Path(self.root, *names[: depth + 1]) for depth in range(len(names)))
        depths = (depth for depth, place in enumerate(above) if self.is_class(str(place)))
        return names[: next(depths, len(names))]

    def content(self, path: str) -> str:
        """Return the folder of an image's class folder, below its split; '.' for the split."""
        names = self.above_class(os.path.dirname(path))
        start = next((depth + 1 for depth, name in enumerate(names) if name in SPLITS), 0)
        return "/".join(names[start:]) or "."


def within(path: str, folder: str) -> bool:
    """Return True for a folder and everything below it."""
    return folder == "." or path == folder or path.startswith(folder + os.sep)


def walk(root: Path, names: ClassNames = USUAL) -> Tree:
    """Walk everything below a folder, through links too, each folder once."""
    tree, seen = Tree(root, names=names), set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        system = [name for name in (*folders, *files) if name.lower() in SYSTEM]
        hidden = {name for name in (*folders, *files) if name.startswith(".")} - set(system)
        tree.ignored.update([*system, *("hidden" for _ in hidden)])
        folders[:] = sorted(set(folders) - hidden - set(system))
        folder = str(Path(place))
        tree.images[folder] = []
        for name in sorted(set(files) - hidden - set(system)):
            _sort_file(str(Path(folder, name)), tree)
    return tree


def _sort_file(path: str, tree: Tree) -> None:
    """Add a file to the part of the tree where it belongs."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        tree.images[os.path.dirname(path) or "."].append(path)
    elif kind := _image_kind(path):
        tree.wrong_suffix.append((path, kind))
    else:
        tree.not_read[suffix or "no suffix"] += 1


def _image_kind(path: str) -> str:
    """Return Pillow's format of an image by content, one of `SUFFIXES_OF`; '' for other files."""
    try:
        kind = read_format(path).kind
    except UnreadableImage:
        return ""
    return kind if kind in SUFFIXES_OF else ""
