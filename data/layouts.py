"""Where a data set's images are: class folders, generators, suites, found by what is in the folders.

A *set* is what one pair of figures is reported for: the real and generated images of one generator. A *suite* is a
benchmark of several sets, of which some are published as tables of the NPR paper (Tan et al., CVPR 2024).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from util import UserError, log

REAL, FAKE = 0, 1
CLASS_FOLDERS = {"0_real": REAL, "1_fake": FAKE, "nature": REAL, "ai": FAKE, "real": REAL, "fake": FAKE}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SUITE_TABLES = {
    "ForenSynths": "Table 1",
    "GANGen-Detection": "Table 2",
    "DiffusionForensics": "Table 3",
    "UniversalFakeDetect": "Table 4",
    "Diffusion1kStep": "Table 5",
    "AIGCDetectBenchmark": None,
    "GenImage": None,
}
MULTI_CLASS_GENERATORS = ("progan", "stylegan", "stylegan2", "cyclegan")
"""Generators of ForenSynths whose images lie in content folders; the published evaluation lists them by name."""
EXPECTED = "0_real/ and 1_fake/ (or nature/ and ai/, real/ and fake/)"


@dataclass(frozen=True)
class ImageSet:
    """Real and generated images under one name; paths are sorted, real before fake within a folder."""

    suite: str
    generator: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]  # 0 real, 1 fake

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.generator}"

    @property
    def table(self) -> str | None:
        return SUITE_TABLES.get(self.suite)


def subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted by name; hidden ones are left out."""
    return sorted(Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))


def class_folders(folder: Path) -> dict[Path, int]:
    """The folders directly below that hold one class each, with their labels."""
    return {sub: CLASS_FOLDERS[sub.name] for sub in subfolders(folder) if sub.name in CLASS_FOLDERS}


def list_images(folder: Path) -> list[str]:
    """Paths of all image files below a folder (by their suffix), sorted; hidden files are left out."""
    found = []
    for directory, subdirs, files in os.walk(folder):
        subdirs[:] = sorted(name for name in subdirs if not name.startswith("."))
        names = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [os.path.join(directory, name) for name in sorted(names)]
    return found


def labelled_images(folders: list[Path]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Paths and labels of all images in the class folders that lie directly below the given folders."""
    paths: list[str] = []
    labels: list[int] = []
    for folder in folders:
        for class_folder, label in class_folders(folder).items():
            images = list_images(class_folder)
            paths += images
            labels += [label] * len(images)
    return tuple(paths), tuple(labels)


def find_class_pairs(root: Path, classes: tuple[str, ...] = ()) -> list[Path]:
    """The folders with class folders that make up one set: `root` itself, or its content folders (root/car, root/cat).

    GenImage's split folder is passed through: of <generator>/{train,val}/{nature,ai}, `val` is the one to test on.

    Raises:
        UserError: one of `classes` is missing, or there is no class folder.
    """
    missing = [name for name in classes if not (root / name).is_dir()]
    if missing:
        there = ", ".join(sub.name for sub in subfolders(root)) or "no folders"
        raise UserError(f"--classes {','.join(missing)}: not in {root}, which has {there}")
    if class_folders(root):
        return [root]
    if not classes and (root / "val").is_dir() and class_folders(root / "val"):
        return [root / "val"]
    contents = [root / name for name in classes] if classes else subfolders(root)
    inner = (
        folder / "val" if not class_folders(folder) and (folder / "val").is_dir() else folder for folder in contents
    )
    pairs = [folder for folder in inner if class_folders(folder)]
    if not pairs:
        raise UserError(f"no class folders in {root}: expected {EXPECTED} in it or in each of its folders")
    return pairs


def load_set(root: Path, suite: str = "", generator: str = "", classes: tuple[str, ...] = ()) -> ImageSet:
    """All images of one set.

    Raises:
        UserError: no class folders, or no image in them.
    """
    paths, labels = labelled_images(find_class_pairs(root, classes))
    if not paths:
        raise UserError(f"no images in {root}: expected {', '.join(SUFFIXES)} files in {EXPECTED}")
    return ImageSet(suite, generator or folder_name(root), paths, labels)


def folder_name(folder: Path) -> str:
    """A folder's own name, also when it is given as '.' or '..'."""
    return Path(os.path.abspath(folder)).name


def suite_name(folder: Path) -> str | None:
    """The published suite that a folder is named after ('_test' at the end allowed), or None."""
    plain = folder_name(folder).lower().removesuffix("_test").replace("-", "").replace("_", "")
    return next((suite for suite in SUITE_TABLES if suite.lower().replace("-", "") == plain), None)


def _height(folder: Path, limit: int = 4) -> int | None:
    """0 for a folder with class folders, else one more than the highest folder below; None without any class folder."""
    if class_folders(folder) or ((folder / "val").is_dir() and class_folders(folder / "val")):
        return 0
    if limit == 0:
        return None
    heights = [height for sub in subfolders(folder) if (height := _height(sub, limit - 1)) is not None]
    return max(heights) + 1 if heights else None


def find_sets(root: Path, classes: tuple[str, ...] = ()) -> list[ImageSet]:
    """All sets below a folder: one set, a generator with content folders, a suite, or a folder of suites.

    A folder named after a published suite is that suite. Otherwise the structure decides; where two readings fit (a
    folder of folders with class folders is a generator with contents, or a suite of generators), it is a generator if it
    bears the name of one that is published that way, and a suite if not.

    Raises:
        UserError: no class folders below, or no images in one of them.
    """
    height = _height(root)
    if height is None:
        raise UserError(f"no class folders below {root}: expected {EXPECTED}")
    known = suite_name(root)
    above = (suite_name(folder) for folder in Path(os.path.abspath(root)).parents)
    parent_suite = next((suite for suite in above if suite), "")
    if known is None and (height == 0 or (height == 1 and (classes or _holds_contents(root)))):
        return [load_set(root, parent_suite, classes=classes if height else ())]
    suites = [root]
    if known is None and height >= 2 and _is_folder_of_suites(root):
        suites = [sub for sub in subfolders(root) if _height(sub) is not None]
    sets = [found for suite in suites for found in _suite_sets(suite, classes)]
    keys = [found.key for found in sets]
    if not sets:
        raise UserError(f"no images below {root}")
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"{root}: {', '.join(sorted(twice))} occurs twice; test the folders one at a time")
    for name in classes:
        if not any(f"{os.sep}{name}{os.sep}" in path for found in sets for path in found.paths):
            raise UserError(f"--classes {name}: no generator below {root} has a folder of that name")
    return sets


def _holds_contents(folder: Path) -> bool:
    return folder_name(folder).lower() in MULTI_CLASS_GENERATORS


def _is_folder_of_suites(root: Path) -> bool:
    below = [sub for sub in subfolders(root) if _height(sub) is not None]
    if any(suite_name(sub) for sub in below):
        return True
    return not any(_height(sub) == 0 or _holds_contents(sub) for sub in below)


def _suite_sets(folder: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """The sets of one suite, by generator name; a folder of class folders directly below counts as a suite of one."""
    suite = suite_name(folder) or folder_name(folder)
    height = _height(folder)
    generators = [folder] if height == 0 else [sub for sub in subfolders(folder) if _height(sub) is not None]
    sets = []
    for generator in generators:
        contents = tuple(name for name in classes if (generator / name).is_dir())
        try:
            sets.append(load_set(generator, suite, classes=contents))
        except UserError as error:  # one empty folder must not keep the others from being tested
            log.warning("left out %s: %s", generator, error)
    return sets


def unique_names(sets: list[ImageSet]) -> dict[str, str]:
    """A name for each set's key: its generator, with the suite in front where two suites have it: {'A/ddpm': 'A_ddpm'}."""
    generators = [found.generator for found in sets]
    return {
        found.key: found.generator if generators.count(found.generator) == 1 else f"{found.suite}_{found.generator}"
        for found in sets
    }


def default_test_root() -> Path:
    """./datasets/Generalization_Test, else ./datasets.

    Raises:
        UserError: there is neither.
    """
    for candidate in (Path("datasets/Generalization_Test"), Path("datasets")):
        if candidate.is_dir():
            return candidate
    raise UserError("--dataroot: missing, and there is no ./datasets/Generalization_Test; give the folder to test on")


def find_test_sets(dataroot: str | None, classes: tuple[str, ...] = ()) -> tuple[Path, list[ImageSet]]:
    """The folder to test on and its sets; below the default ./datasets, training roots (with train/ or val/) are left out.

    Raises:
        UserError: nothing to test there, or a training root was given.
    """
    root = Path(dataroot) if dataroot is not None else default_test_root()
    if dataroot is None and root.name == "datasets":
        candidates = [sub for sub in subfolders(root) if not _is_training_root(sub) and _height(sub) is not None]
        if not candidates:
            raise UserError("--dataroot: missing, and ./datasets holds no test images; give the folder to test on")
        return root, [found for folder in candidates for found in find_sets(folder, classes)]
    if _is_training_root(root) and _height(root) != 0:
        advice = f"give {root / 'test'}" if (root / "test").is_dir() else "give a folder of generators"
        raise UserError(f"--dataroot {root}: is a training folder (train/, val/); {advice}")
    return root, find_sets(root, classes)


def _is_training_root(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in ("train", "val"))
