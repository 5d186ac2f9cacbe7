"""Read a folder, or a split of it for training, as one set; name the folders that are not read."""

import os
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from data.folders import DIRE_COPIES, EXPECTED, SPLITS, USUAL, Folder, scan
from data.image_sets import FAKE, REAL, ClassNames, ImageSet, subfolders, unread_folders
from util import UserError, counted, log, printable

LISTED = 20  # unread folders that a message names
NAMES_ADVICE = "name its class folders by --real_names and --fake_names"


def load_set(
    root: Path,
    suite: str = "",
    generator: str = "",
    classes: tuple[str, ...] = (),
    splits: Sequence[str] = ("test", "val"),
    names: ClassNames = USUAL,
) -> ImageSet:
    """Return all images of a folder as one set, each file once.

    Args:
        root: holds the class folders, or folders that hold them (root/car, root/cat), or any other
            layout that `find_sets` reads.
        suite: name of the set's suite.
        generator: name of the set; '' = the folder's name.
        classes: names of the folders directly below to use; empty for all.
        splits: see `scan`.
        names: of class folders.

    Raises:
        UserError: one of `classes` is missing, or class folders or their images are missing.
    """
    return _contents(root, classes, splits, names).images(suite, generator)


def _contents(
    root: Path, classes: tuple[str, ...], splits: Sequence[str], names: ClassNames
) -> Folder:
    """Return a folder with its leaves (those in the folders `classes`) directly below."""
    missing = [name for name in classes if not (root / name).is_dir()]
    if missing:
        present = ", ".join(sub.name for sub in subfolders(root)) or "no folders"
        raise UserError(f"--classes {','.join(missing)}: not in {root}, which has {present}")
    folder = scan(root, splits, names=names)
    chosen = {root / name for name in classes}
    leaves = [
        leaf
        for leaf in (folder.leaves if folder else ())
        if not classes or chosen & {leaf.path, *leaf.path.parents}
    ]
    found = {p for leaf in leaves for sub, _ in leaf.classes for p in (leaf.path, *sub.parents)}
    if empty := [name for name in classes if root / name not in found]:
        raise UserError(
            f"--classes {','.join(empty)}: no class folders in {root / empty[0]}: expected {EXPECTED};"
            f" {NAMES_ADVICE}"
        )
    if folder is None or not leaves:
        raise UserError(
            f"no class folders in {root}: expected {EXPECTED} in it or in each of its folders;"
            f" {NAMES_ADVICE}"
        )
    return replace(folder, below=tuple(leaves))


def load_split(
    root: Path,
    split: str,
    classes: tuple[str, ...] = (),
    names: ClassNames = USUAL,
    one_class: bool = False,
    splits: Collection[str] = (),
) -> ImageSet:
    """Return the images of a split for training, as one set; warn of folders that are not read.

    Args:
        root: holds a folder with the split's name; or a suite, each of its generators does.
        split: name of the split.
        classes: see `load_set`.
        names: of class folders.
        one_class: also take folders with images of one class.
        splits: names of the training's splits, to look for unread folders in all of `root`; empty
            to look in the split's folder.

    Raises:
        UserError: see `load_set`; images of the suite lie in no folder of that name; the split, or
            without `one_class` a folder of it, has images of one class.
    """
    has_folder = (root / split).is_dir()
    folder = _contents(root / split if has_folder else root, classes, (split,), names)
    images = folder.images("")
    if not has_folder and (
        outside := [p for p in images.paths if split not in Path(p).relative_to(root).parts]
    ):
        raise UserError(
            f"--dataroot {root}: has no folder {split}/, and {outside[0]} is not in one either;"
            f" add it to each generator, or name those that have {split}/ by --classes"
        )
    # with --classes, folders are not read on purpose
    if not classes and (splits or has_folder):
        warn_of_unread(root if splits else root / split, images.paths, names, splits)
    for label, name in ((REAL, "real (0_real/)"), (FAKE, "fake (1_fake/)")):
        if label not in images.labels:
            raise UserError(
                f"--dataroot {root}: {split}/ has no {name} images; training needs both classes;"
                f" {NAMES_ADVICE}; {check(root, names)}"
            )
    if not one_class:
        _refuse_one_class(folder, images, root, names)
    return images


def _refuse_one_class(folder: Folder, images: ImageSet, root: Path, names: ClassNames) -> None:
    """Raise UserError if a folder with class folders has images of one class only."""
    used = {Path(place) for place in {os.path.dirname(path) for path in images.paths}}
    used |= {parent for place in used for parent in place.parents}
    lacking = {}
    for leaf in folder.leaves:
        labels = {label for path, label in leaf.classes if path in used}
        if len(labels) == 1:
            lacking[leaf.path] = "real" if labels == {FAKE} else "fake"
    if lacking:
        path, name = next(iter(lacking.items()))
        more = f" (as {counted(len(lacking) - 1, 'more folder')})" if len(lacking) > 1 else ""
        raise UserError(
            f"{path}: has no {name} images that are read{more}, so its content would tell the"
            f" class; {NAMES_ADVICE}, or pass --allow_one_class_folders; {check(root, names)}"
        )


def warn_of_unread(
    root: Path, images: Iterable[str], names: ClassNames, other: Collection[str] = ()
) -> None:
    """Name the folders below `root` with images that are not read, in one line.

    Args:
        root: the folder.
        images: paths that are read.
        names: of class folders, for the command that shows more.
        other: further names of splits.
    """
    unread = unread_folders(root, images, {*SPLITS, *DIRE_COPIES, *other})
    if unread:
        listed = ", ".join(printable(str(path)) for path in unread[:LISTED])
        more = f" and {len(unread) - LISTED} more" if len(unread) > LISTED else ""
        log.warning("not read, though they hold images: %s%s; %s", listed, more, check(root, names))


def check(root: Path, names: ClassNames) -> str:
    """Return the command that shows more about a folder, as the end of a message."""
    return f"python -m tools.check_dataset {shlex.quote(str(root))}{names.flags()} shows more"
