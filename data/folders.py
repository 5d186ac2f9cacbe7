"""The folders of a data set: which hold a class each, and how suites are laid out as their archives
unpack."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.benchmarks import SUITES, is_generator_of, plain, suite_called, suite_of_generators
from data.image_sets import FAKE, REAL, SUFFIXES, ImageSet, list_images, subfolders
from util import UserError, log, printable

CLASS_FOLDERS = {
    "0_real": REAL,
    "1_fake": FAKE,
    "nature": REAL,
    "ai": FAKE,
    "real": REAL,
    "fake": FAKE,
}
"""Names of class folders, in lower case."""
SPLITS = ("train", "val", "test")
DIRE_COPIES = ("recons", "dire")
"""Folders of reconstructions and their differences, beside images/ in DiffusionForensics as
distributed."""
EMPTY_CLASS = "%s: a class folder without images"
LINK_ABOVE = "%s: not followed, a link to a folder that it lies in"
EXPECTED = "0_real/ and 1_fake/ (or nature/ and ai/, real/ and fake/)"


@dataclass(frozen=True)
class Folder:
    """A folder of a data set: with class folders, or with such folders below.

    Args:
        name: what a set of it is called. classes: (folder, label) of the class folders that make up
            a set.
        below: the folders that have class folders in them or below, by name; empty where there are
            `classes`.
    """

    path: Path
    name: str
    classes: tuple[tuple[Path, int], ...] = ()
    below: tuple["Folder", ...] = ()

    @property
    def height(self) -> int:
        """0 for a folder with class folders, else one more than the highest below."""
        return max((folder.height + 1 for folder in self.below), default=0)

    @property
    def suite(self) -> str | None:
        """The published suite that this is, by its name, its class folders or its generators."""
        found = suite_called(self.name) or suite_of_generators(
            [folder.name for folder in self.below]
        )
        if not found and any(folder.is_its_own_class for folder in self.below):
            found = "DiffusionForensics"
        return found or ("GenImage" if self._has_nature else None)

    @property
    def suite_named(self) -> bool:
        """True if the folder itself is called like a published suite."""
        return suite_called(self.path.name) is not None or suite_called(self.name) is not None

    @property
    def is_its_own_class(self) -> bool:
        """True for a folder of generated images whose real ones lie beside it (see
        `_generators_beside_real`)."""
        return any(path == self.path for path, _ in self.classes)

    @property
    def _has_nature(self) -> bool:
        """True where all that is below lies in GenImage's class folders."""
        if self.below:
            return all(folder._has_nature for folder in self.below)
        return {path.name.lower() for path, _ in self.classes} <= {"nature", "ai"}

    def images(self, suite: str, generator: str = "") -> ImageSet:
        """All images of the class folders here, or in the folders directly below, as one set.

        Raises:
            UserError: there is none.
        """
        if any(folder.is_its_own_class for folder in self.below):
            raise UserError(
                f"{self.path}: holds generators beside their real images, which are sets of their own"
            )
        paths: list[str] = []
        labels: list[int] = []
        for path, label in [pair for folder in (self.below or (self,)) for pair in folder.classes]:
            found = list_images(path)
            if not found:
                log.warning(EMPTY_CLASS, printable(str(path)))
            paths += found
            labels += [label] * len(found)
        if not paths:
            raise UserError(
                f"no images in {self.path}: expected {', '.join(SUFFIXES)} files in {EXPECTED}"
            )
        return ImageSet(suite, generator or self.name, tuple(paths), tuple(labels))


def class_folders(folder: Path) -> tuple[tuple[Path, int], ...]:
    """The folders directly below that hold one class each, with their labels."""
    below = subfolders(folder) if folder.is_dir() else []
    return tuple(
        (sub, CLASS_FOLDERS[sub.name.lower()]) for sub in below if sub.name.lower() in CLASS_FOLDERS
    )


def folder_name(folder: Path) -> str:
    """A folder's own name, also when it is given as '.' or '..'; that of its parent where it is a
    split's."""
    path = Path(os.path.abspath(folder))
    is_split = path.name in SPLITS and (suite_called(path.parent.name) or "nature" in _names(path))
    return path.parent.name if is_split else path.name


def _names(folder: Path) -> list[str]:
    return [sub.name.lower() for sub in subfolders(folder)] if folder.is_dir() else []


def scan(
    path: Path,
    splits: Sequence[str] = ("test", "val"),
    limit: int = 5,
    above: frozenset[str] = frozenset(),
) -> Folder | None:
    """The class folders in and below a folder; None if there is none.

    Args:
        splits: of <folder>/{train,val,test}/<class folders>, as in GenImage and Chameleon, the
            first of these is taken.
        limit: how many folders deep to look. above: real paths of folders that this one lies in;
            links to them are not followed.
    """
    name, above = folder_name(path), above | {os.path.realpath(path)}
    for place in (path, *(path / split for split in splits)):
        if classes := class_folders(place):
            return Folder(path, name, classes, _generators_beside_real(place, classes))
    if limit == 0:
        return None
    below = []
    for sub in subfolders(path):
        if os.path.realpath(sub) in above:
            log.warning(LINK_ABOVE, printable(str(sub)))
        elif (folder := scan(sub, splits, limit - 1, above)) is not None:
            below.append(folder)
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
        one
        for folder in below
        for one in (folder.below if folder.classes and folder.below else (folder,))
    ]
    return Folder(path, name, below=_with_shared_real(below))


def _generators_beside_real(
    folder: Path, classes: tuple[tuple[Path, int], ...]
) -> tuple[Folder, ...]:
    """DiffusionForensics as distributed (DIRE): <content>/real/ and, beside it, a folder of images
    for each generator."""
    if [label for _, label in classes] != [REAL]:
        return ()
    (real, _), *_ = classes
    others = [sub for sub in subfolders(folder) if sub != real]
    above = Path(os.path.abspath(folder)).parents
    named = any(suite_called(parent.name) == "DiffusionForensics" for parent in above)
    unknown = [
        sub.name for sub in others if not (named or is_generator_of("DiffusionForensics", sub.name))
    ]
    if unknown:
        log.warning(
            "%s: only %s/ is read, %s are no class folders", folder, real.name, ", ".join(unknown)
        )
        return ()
    return tuple(
        Folder(sub, f"{folder.name}_{sub.name}", ((real, REAL), (sub, FAKE))) for sub in others
    )


def _with_shared_real(below: list[Folder]) -> tuple[Folder, ...]:
    """UniversalFakeDetect as distributed: generators with fakes only get the images of its folders
    of real ones."""
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
