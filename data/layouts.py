"""Which folder is what: sets, generators, suites, found by what is in the folders."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.benchmarks import suite_called
from data.folders import EXPECTED, Folder, class_folders, scan
from data.image_sets import FAKE, ImageSet, subfolders
from util import UserError, log

MULTI_CLASS_GENERATORS = ("progan", "stylegan", "stylegan2", "cyclegan")
"""Generators of ForenSynths whose images lie in content folders; the published evaluation lists
them by name."""


def load_set(
    root: Path, suite: str = "", generator: str = "", classes: tuple[str, ...] = ()
) -> ImageSet:
    """All images of one set: of the class folders in `root`, or in each of its folders (root/car,
    root/cat).

    Args:
        classes: names of the folders to take; empty for all.

    Raises:
        UserError: one of `classes` is missing, there are no class folders, or no image in them.
    """
    missing = [name for name in classes if not (root / name).is_dir()]
    if missing:
        there = ", ".join(sub.name for sub in subfolders(root)) or "no folders"
        raise UserError(f"--classes {','.join(missing)}: not in {root}, which has {there}")
    found = scan(root)
    contents = (
        [folder for folder in found.below if not classes or folder.path.name in classes]
        if found
        else []
    )
    if found is None or (found.below and not any(folder.classes for folder in contents)):
        raise UserError(
            f"no class folders in {root}: expected {EXPECTED} in it or in each of its folders"
        )
    return replace(found, below=tuple(contents)).images(suite, generator)


def find_sets(
    root: Path, classes: tuple[str, ...] = (), splits: Sequence[str] = ("test", "val")
) -> list[ImageSet]:
    """All sets below a folder: one set, a generator with content folders, a suite, or a folder of
    suites.

    A folder that is named like a published suite, or has its generators, is that suite. Otherwise
    the structure decides; where two readings fit (a folder of folders with class folders is a
    generator with contents, or a suite of generators), it is a generator if it bears the name of
    one that is published that way, and a suite if not.

    Args:
        classes: content folders to take; empty for all. splits: see `scan`.

    Raises:
        UserError: no class folders below, or no images in one of them.
    """
    folder = scan(root, splits)
    if folder is None:
        raise UserError(f"no class folders below {root}: expected {EXPECTED}")
    names = (suite_called(above.name) for above in Path(os.path.abspath(root)).parents)
    above = next((suite for suite in names if suite), "")
    if suite_called(folder.name) is None:
        if (
            folder.height == 1
            and len(folder.below) == 1
            and folder.suite == "GenImage"
            and not folder.below[0].suite_named
        ):
            # <generator>/imagenet_<generator>/val
            folder = replace(folder.below[0], name=folder.name)
        if folder.height == 0:
            folder = _with_shared_real_above(folder)
            return [folder.images(above or folder.suite or "")]
        if folder.height == 1 and (classes or (_holds_contents(folder) and not folder.suite)):
            return [load_set(root, above, classes=classes)]
    suites = folder.below if _is_folder_of_suites(folder) else (folder,)
    sets = [found for suite in suites for found in _suite_sets(suite, classes)]
    if not sets:
        raise UserError(f"no images below {root}")
    _refuse_twice(sets, root)
    for name in classes:
        if not any(f"{os.sep}{name}{os.sep}" in path for found in sets for path in found.paths):
            raise UserError(
                f"--classes {name}: no generator below {root} has a folder of that name"
            )
    return sets


def _refuse_twice(sets: Sequence[ImageSet], root: Path) -> None:
    keys = [found.key for found in sets]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(
            f"{root}: {', '.join(sorted(twice))} occurs twice; test the folders one at a time"
        )


def _with_shared_real_above(folder: Folder) -> Folder:
    """A generator of UniversalFakeDetect that is given alone, with the real images that lie beside
    it."""
    parent = Path(os.path.abspath(folder.path)).parent
    if suite_called(parent.name) != "UniversalFakeDetect" or {
        label for _, label in folder.classes
    } != {FAKE}:
        return folder
    suite = scan(parent)
    beside = (
        [sub for sub in suite.below if sub.path.resolve() == folder.path.resolve()] if suite else []
    )
    return beside[0] if beside else folder


def _holds_contents(folder: Folder) -> bool:
    return folder.name.lower() in MULTI_CLASS_GENERATORS


def _is_folder_of_suites(folder: Folder) -> bool:
    if suite_called(folder.name) or folder.height < 1:
        return False
    if any(sub.suite_named for sub in folder.below):
        return True
    if folder.suite or folder.height < 2:
        return False
    if any(sub.suite for sub in folder.below if sub.below):
        return True
    return not any(sub.height == 0 or _holds_contents(sub) for sub in folder.below)


def _suite_sets(folder: Folder, classes: tuple[str, ...]) -> list[ImageSet]:
    """The sets of one suite; a folder of class folders directly below counts as a suite of one."""
    suite = folder.suite or folder.name
    if folder.suite and suite_called(folder.name) is None:
        log.info("%s is taken for %s by what is in it", folder.path, suite)
    sets = []
    for generator in folder.below or (folder,):
        contents = tuple(sub for sub in generator.below if sub.path.name in classes)
        try:
            # the contents of a suite within a suite: no set of one generator
            if generator.height > 1:
                raise UserError(
                    f"no class folders in {generator.path}: expected {EXPECTED} in it or in each of its folders"
                )
            sets.append(replace(generator, below=contents or generator.below).images(suite))
        except UserError as error:  # one empty folder must not keep the others from being tested
            log.warning("left out %s: %s", generator.path, error)
    return sets


def default_test_root() -> Path:
    """./datasets/Generalization_Test, else ./datasets.

    Raises:
        UserError: there is neither.
    """
    for candidate in (Path("datasets/Generalization_Test"), Path("datasets")):
        if candidate.is_dir():
            return candidate
    raise UserError(
        "--dataroot: missing, and there is no ./datasets/Generalization_Test; give the folder to test on"
    )


def find_test_sets(
    dataroot: str | None, classes: tuple[str, ...] = ()
) -> tuple[Path, list[ImageSet]]:
    """The folder to test on and its sets; below the default ./datasets, training roots (with train/
    or val/) are left out.

    Raises:
        UserError: nothing to test there, or a training root was given.
    """
    root = Path(dataroot) if dataroot is not None else default_test_root()
    if dataroot is None and root.name == "datasets":
        candidates = [
            sub for sub in subfolders(root) if not is_training_root(sub) and scan(sub) is not None
        ]
        if not candidates:
            raise UserError(
                "--dataroot: missing, and ./datasets holds no test images; give the folder to test on"
            )
        sets = [found for folder in candidates for found in find_sets(folder, classes)]
        _refuse_twice(sets, root)
        return root, sets
    if is_training_root(root) and not _is_one_set(root):
        advice = (
            f"give {root / 'test'}" if (root / "test").is_dir() else "give a folder of generators"
        )
        raise UserError(f"--dataroot {root}: is a training folder (train/, val/); {advice}")
    return root, find_sets(root, classes)


def is_training_root(folder: Path) -> bool:
    """True if the folder has train/ or val/."""
    return any((folder / split).is_dir() for split in ("train", "val"))


def _is_one_set(root: Path) -> bool:
    return any(class_folders(place) for place in (root, root / "test", root / "val"))
