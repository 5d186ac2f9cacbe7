"""Folders of a dataset: class folders, and the layouts of suites as their archives unpack."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.benchmarks import SUITES, is_generator_of, plain, suite_called, suite_of_generators
from data.image_sets import (
    FAKE,
    REAL,
    SUFFIXES,
    ClassNames,
    ImageSet,
    list_images,
    subfolders,
)
from util import UserError, log, printable

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}
"""Splits by usual names, in lower case."""
DIRE_COPIES = ("recons", "dire")
"""Folders of reconstructions and of their differences.

They lie beside images/ in DiffusionForensics as distributed.
"""
EMPTY_CLASS = f"%s: a class folder without images (no file ends in {', '.join(SUFFIXES)})"
LINK_ABOVE = "%s: not followed, a link to a folder above it"
EXPECTED = "0_real/ and 1_fake/ (or real/ and fake/, nature/ and ai/, or other usual names)"
USUAL = ClassNames()


@dataclass(frozen=True)
class Folder:
    """A folder of a dataset: with class folders, or with such folders below.

    Args:
        path: the folder.
        name: generator name of its set.
        classes: (folder, label) of the class folders that make up a set.
        below: the folders with class folders in them or below, by name; empty beside `classes`,
            but for generators beside their real images (see `_generators_beside_real`).
    """

    path: Path
    name: str
    classes: tuple[tuple[Path, int], ...] = ()
    below: tuple["Folder", ...] = ()

    @property
    def height(self) -> int:
        """Return 0 for a folder with class folders, else one more than the highest below."""
        return max((folder.height + 1 for folder in self.below), default=0)

    @property
    def suite(self) -> str | None:
        """Return the published suite, told by name, class folders or generators; else None."""
        suite = suite_called(self.name) or suite_of_generators(
            [folder.name for folder in self.below]
        )
        if not suite and any(folder.is_its_own_class for folder in self.below):
            suite = "DiffusionForensics"
        return suite or ("GenImage" if self._has_nature else None)

    @property
    def suite_named(self) -> bool:
        """Return True if the folder itself has the name of a published suite."""
        return suite_called(self.path.name) is not None or suite_called(self.name) is not None

    @property
    def is_its_own_class(self) -> bool:
        """Return True for a folder of fakes whose real images lie beside it.

        See `_generators_beside_real`.
        """
        return any(path == self.path for path, _ in self.classes)

    @property
    def has_both(self) -> bool:
        """Return True if its own class folders are of both classes."""
        return {label for _, label in self.classes} == {REAL, FAKE}

    def is_exact(self, names: ClassNames) -> bool:
        """Return True if a class folder here or below has an exact name."""
        return any(_has_exact((sub for sub, _ in leaf.classes), names) for leaf in self.leaves)

    @property
    def _has_nature(self) -> bool:
        """Return True if all class folders here or below have GenImage's names."""
        if self.below:
            return all(folder._has_nature for folder in self.below)
        return {path.name.lower() for path, _ in self.classes} <= {"nature", "ai"}

    @property
    def leaves(self) -> tuple["Folder", ...]:
        """Return the folders with class folders, here or below."""
        return tuple(leaf for folder in self.below for leaf in folder.leaves) or (self,)

    def images(self, suite: str, generator: str = "") -> ImageSet:
        """Return all images of the class folders, here or below, as one set, each file once.

        Args:
            suite: name of the set's suite.
            generator: name of the set; '' = the folder's name.

        Raises:
            UserError: no images.
        """
        paths: list[str] = []
        labels: list[int] = []
        # generators may share their real images
        for path, label in dict.fromkeys(pair for leaf in self.leaves for pair in leaf.classes):
            images = list_images(path)
            if not images:
                log.warning(EMPTY_CLASS, printable(str(path)))
            paths += images
            labels += [label] * len(images)
        if not paths:
            raise UserError(
                f"no images in {self.path}: expected {', '.join(SUFFIXES)} files in {EXPECTED}"
            )
        return ImageSet(suite, generator or self.name, tuple(paths), tuple(labels))


def class_folders(folder: Path, names: ClassNames = USUAL) -> tuple[tuple[Path, int], ...]:
    """Return the class folders directly below, with their labels.

    Names that only usually mean a class count for a class without an exact name, and where no
    class folders lie in the folder itself. A folder that holds class folders of both classes is
    content, whatever its name.
    """
    below = subfolders(folder) if folder.is_dir() else []
    exact = {names.exact(sub.name) for sub in below}
    labels = {}
    for sub in below:
        label = names.exact(sub.name)
        if label is None and (usual := names.label(sub.name)) not in exact:
            label = None if _has_exact(subfolders(sub), names) else usual
        if label is not None and not _holds_both(sub, names):
            labels[sub] = label
    return tuple(labels.items())


def _holds_both(folder: Path, names: ClassNames) -> bool:
    return {REAL, FAKE} <= {names.label(sub.name) for sub in subfolders(folder)}


def _has_exact(folders: Iterable[Path], names: ClassNames) -> bool:
    return any(names.exact(folder.name) is not None for folder in folders)


def folder_name(folder: Path) -> str:
    """Return a folder's name, or the name of its parent where the folder is a split.

    Of a table of labels it is the name without suffix. '.' and '..' are resolved first.
    """
    path = Path(os.path.abspath(folder))
    if path.is_file():
        return path.stem
    is_split = path.name in SPLITS and (suite_called(path.parent.name) or "nature" in _names(path))
    return path.parent.name if is_split else path.name


def _names(folder: Path) -> list[str]:
    return [sub.name.lower() for sub in subfolders(folder)] if folder.is_dir() else []


def scan(
    path: Path,
    splits: Sequence[str] = ("test", "val"),
    limit: int = 5,
    above: frozenset[str] = frozenset(),
    names: ClassNames = USUAL,
) -> Folder | None:
    """Return the class folders in and below a folder, None if there are none.

    Args:
        path: the folder.
        splits: folder names; where class folders lie in <folder>/<split>/, as in GenImage and
            Chameleon, the first split with class folders is used.
        limit: levels of folders to search, >= 0.
        above: real paths of the folders above this one; links to them are not followed.
        names: of class folders. Where only usually a name means a class, class folders with exact
            names below come first.
    """
    name, above = folder_name(path), above | {os.path.realpath(path)}
    usual = None
    for parent in (path, *(path / split for split in splits)):
        if classes := class_folders(parent, names):
            folder = Folder(path, name, classes, _generators_beside_real(parent, classes))
            if _has_exact((sub for sub, _ in classes), names):
                return folder
            usual = usual or folder
    below = []
    for sub in subfolders(path) if limit else ():
        if os.path.realpath(sub) in above:
            log.warning(LINK_ABOVE, printable(str(sub)))
        elif (found := scan(sub, splits, limit - 1, above, names)) is not None:
            below.append(found)
    if usual and (not below or usual.has_both and not any(sub.is_exact(names) for sub in below)):
        return usual
    if not below:
        return None
    inner = {folder.path.name.lower(): folder for folder in below}
    if "images" in inner and set(inner) <= {"images", *DIRE_COPIES}:
        return replace(inner["images"], path=path, name=name)
    if (suite_called(name) or plain(name) == "images") and set(inner) <= set(SPLITS):
        # <suite>/images/test/<generators>
        chosen = next((inner[split] for split in splits if split in inner), None)
        return chosen and replace(chosen, path=path, name=name)
    below = [
        generator
        for folder in below
        for generator in (folder.below if folder.classes and folder.below else (folder,))
    ]
    return Folder(path, name, below=_with_shared_real(below))


def _generators_beside_real(
    folder: Path, classes: tuple[tuple[Path, int], ...]
) -> tuple[Folder, ...]:
    """Return the generators of DiffusionForensics as distributed (DIRE), each with the real images.

    There, <content>/ holds real/ and, beside it, a folder of images for each generator.
    """
    if [label for _, label in classes] != [REAL]:
        return ()
    (real, _), *_ = classes
    others = [sub for sub in subfolders(folder) if sub != real]
    place = Path(os.path.abspath(folder))  # "." has no name
    named = any(suite_called(parent.name) == "DiffusionForensics" for parent in place.parents)
    if not named and not all(is_generator_of("DiffusionForensics", sub.name) for sub in others):
        return ()
    return tuple(
        Folder(sub, f"{place.name}_{sub.name}", ((real, REAL), (sub, FAKE))) for sub in others
    )


def _with_shared_real(below: list[Folder]) -> tuple[Folder, ...]:
    """Return the folders of UniversalFakeDetect as distributed, each generator with real images.

    There, generators hold fakes only, and the real images lie in folders of their own. Folders of
    other datasets come back unchanged.
    """
    shared = SUITES["UniversalFakeDetect"].shared_real
    one_class = {
        folder.name: folder for folder in below if len({label for _, label in folder.classes}) == 1
    }
    real = {name: one_class[name] for name in set(shared.values()) if name in one_class}
    fake = [
        folder for name, folder in one_class.items() if is_generator_of("UniversalFakeDetect", name)
    ]
    if not fake or not real:
        return tuple(below)
    paired = []
    for folder in below:
        if folder.name in real:
            continue
        origin = real.get(shared.get(folder.name, shared["default"])) if folder in fake else None
        paired.append(
            replace(folder, classes=(*origin.classes, *folder.classes)) if origin else folder
        )
    return tuple(paired)
