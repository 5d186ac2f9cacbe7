"""Recognise sets, generators and suites by the contents of their folders."""

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from data.benchmarks import suite_called
from data.folders import EXPECTED, USUAL, Folder, class_folders, scan
from data.image_sets import FAKE, ClassNames, ImageSet, subfolders
from data.label_file import label_sets
from data.splits import NAMES_ADVICE, load_set, warn_of_unread
from util import UserError, log

MULTI_CLASS_GENERATORS = ("progan", "stylegan", "stylegan2", "cyclegan")
"""Generators of ForenSynths whose images lie in content folders.

The published evaluation lists them by name.
"""


def find_sets(
    root: Path,
    classes: tuple[str, ...] = (),
    splits: Sequence[str] = ("test", "val"),
    names: ClassNames = USUAL,
) -> list[ImageSet]:
    """Return all sets below a folder.

    The folder may be one set, a generator with content folders, a suite, or a folder of suites. A
    folder that has the name of a published suite, or its generators, is that suite. Otherwise the
    structure decides.

    The structure is ambiguous for a folder of folders with class folders: it may be a generator
    with contents, or a suite of generators. It is a generator if it has one of the names in
    `MULTI_CLASS_GENERATORS`, else a suite.

    Args:
        root: the folder.
        classes: content folders to use; empty for all.
        splits: see `scan`.
        names: of class folders.

    Raises:
        UserError: no class folders below or no images in them, a set that occurs twice, or one of
            `classes` is missing.
    """
    folder = scan(root, splits, names=names)
    if folder is None:
        raise UserError(f"no class folders below {root}: expected {EXPECTED}; {NAMES_ADVICE}")
    suites_above = (suite_called(above.name) for above in Path(os.path.abspath(root)).parents)
    above = next((suite for suite in suites_above if suite), "")
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
            folder = _with_shared_real_above(folder, names)
            return [folder.images(above or folder.suite or "")]
        if folder.height == 1 and (classes or (_holds_contents(folder) and not folder.suite)):
            _refuse_generators(folder)
            return [load_set(root, above, classes=classes, names=names)]
    suites = folder.below if _is_folder_of_suites(folder) else (folder,)
    sets = [images for suite in suites for images in _suite_sets(suite, classes)]
    if not sets:
        raise UserError(f"no images below {root}")
    _refuse_twice(sets, root)
    for name in classes:
        if not any(f"{os.sep}{name}{os.sep}" in path for images in sets for path in images.paths):
            raise UserError(
                f"--classes {name}: no generator below {root} has a folder of that name"
            )
    return sets


def _refuse_generators(folder: Folder) -> None:
    if any(sub.is_its_own_class for sub in folder.below):
        raise UserError(
            f"{folder.path}: holds generators beside their real images;"
            " they are separate sets, not one"
        )


def _refuse_twice(sets: Sequence[ImageSet], root: Path) -> None:
    keys = [images.key for images in sets]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise UserError(
            f"{root}: {', '.join(sorted(repeated))} occurs twice; test the folders one at a time"
        )


def _with_shared_real_above(folder: Folder, names: ClassNames) -> Folder:
    """Return a generator of UniversalFakeDetect with the real images that lie beside its folder.

    Other folders come back unchanged.
    """
    parent = Path(os.path.abspath(folder.path)).parent
    if suite_called(parent.name) != "UniversalFakeDetect" or {
        label for _, label in folder.classes
    } != {FAKE}:
        return folder
    suite = scan(parent, names=names)
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
    """Return the sets of one suite; a folder with class folders counts as a suite of one set."""
    suite = folder.suite or folder.name
    if folder.suite and suite_called(folder.name) is None:
        log.info("%s is read as %s, by its contents", folder.path, suite)
    sets = []
    for generator in folder.below or (folder,):
        contents = tuple(sub for sub in generator.below if sub.path.name in classes)
        try:
            # contents of a suite within a suite do not make a set of one generator
            if generator.height > 1:
                raise UserError(
                    f"no class folders in {generator.path}:"
                    f" expected {EXPECTED} in it or in each of its folders"
                )
            _refuse_generators(generator)
            sets.append(replace(generator, below=contents or generator.below).images(suite))
        # one empty folder must not keep the others from being tested
        except UserError as error:
            log.warning("skipped %s: %s", generator.path, error)
    return sets


def default_test_root() -> Path:
    """Return ./datasets/Generalization_Test, or ./datasets if that is missing.

    Raises:
        UserError: both are missing.
    """
    for candidate in (Path("datasets/Generalization_Test"), Path("datasets")):
        if candidate.is_dir():
            return candidate
    raise UserError(
        "--dataroot: missing, and ./datasets/Generalization_Test does not exist;"
        " pass the folder to test on"
    )


def find_test_sets(
    dataroot: str | None,
    classes: tuple[str, ...] = (),
    names: ClassNames = USUAL,
    trained_on: Collection[str] = (),
) -> tuple[Path, list[ImageSet]]:
    """Return the folder or table to test on and its sets; warn of folders that are not read.

    Args:
        dataroot: the folder, or a table (see `data.label_file`); None = `default_test_root()`.
            Below ./datasets, training folders (see `is_training_root`) are skipped.
        classes: content folders to use; empty for all.
        names: of class folders.
        trained_on: --dataroot of the models to test.

    Raises:
        UserError: nothing to test in the folder, or it is a training folder.
    """
    root = Path(dataroot) if dataroot is not None else default_test_root()
    if dataroot is None and root.name == "datasets":
        candidates = [
            sub
            for sub in subfolders(root)
            if not is_training_root(sub) and scan(sub, names=names) is not None
        ]
        if not candidates:
            raise UserError(
                "--dataroot: missing, and ./datasets has no test images; pass the folder to test on"
            )
        sets = [images for sub in candidates for images in _test_sets(sub, classes, names)]
        _refuse_twice(sets, root)
        return root, sets
    if root.is_file():
        return root, label_sets(root, classes, names, trained_on)
    if is_training_root(root) and not _is_one_set(root, names):
        advice = (
            f"pass {root / 'test'}" if (root / "test").is_dir() else "pass a folder of generators"
        )
        raise UserError(f"--dataroot {root}: is a training folder (train/, val/); {advice}")
    return root, _test_sets(root, classes, names)


def _test_sets(root: Path, classes: tuple[str, ...], names: ClassNames) -> list[ImageSet]:
    sets = find_sets(root, classes, names=names)
    # with --classes, folders are not read on purpose
    if not classes:
        warn_of_unread(root, [path for images in sets for path in images.paths], names)
    return sets


def is_training_root(folder: Path) -> bool:
    """Return True if the folder has train/ or val/."""
    return any((folder / split).is_dir() for split in ("train", "val"))


def _is_one_set(root: Path, names: ClassNames) -> bool:
    return any(class_folders(folder, names) for folder in (root, root / "test", root / "val"))
