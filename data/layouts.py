"""Where a data set's images are: class folders, generators, suites, found by what is in the folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.benchmarks import SUITES, is_generator_of, plain, suite_called, suite_of_generators
from data.image_sets import FAKE, REAL, SUFFIXES, ImageSet, list_images, subfolders
from util import UserError, log

CLASS_FOLDERS = {"0_real": REAL, "1_fake": FAKE, "nature": REAL, "ai": FAKE, "real": REAL, "fake": FAKE}
"""Names of class folders, in lower case."""
SPLITS = ("train", "val", "test")
DIRE_COPIES = ("recons", "dire")
"""Folders of reconstructions and their differences, beside images/ in DiffusionForensics as distributed."""
MULTI_CLASS_GENERATORS = ("progan", "stylegan", "stylegan2", "cyclegan")
"""Generators of ForenSynths whose images lie in content folders; the published evaluation lists them by name."""
EXPECTED = "0_real/ and 1_fake/ (or nature/ and ai/, real/ and fake/)"


@dataclass(frozen=True)
class Folder:
    """A folder of a data set: with class folders, or with such folders below.

    Args:
        name: what a set of it is called. classes: (folder, label) of the class folders that make up a set.
        below: the folders that have class folders in them or below, by name; empty where there are `classes`.
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
        found = suite_called(self.name) or suite_of_generators([folder.name for folder in self.below])
        if not found and any(folder.is_its_own_class for folder in self.below):
            found = "DiffusionForensics"
        return found or ("GenImage" if self._has_nature else None)

    @property
    def suite_named(self) -> bool:
        """True if the folder itself is called like a published suite."""
        return suite_called(self.path.name) is not None or suite_called(self.name) is not None

    @property
    def is_its_own_class(self) -> bool:
        """True for a folder of generated images whose real ones lie beside it (see `_generators_beside_real`)."""
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
            raise UserError(f"{self.path}: holds generators beside their real images, which are sets of their own")
        paths: list[str] = []
        labels: list[int] = []
        for path, label in [pair for folder in (self.below or (self,)) for pair in folder.classes]:
            found = list_images(path)
            paths += found
            labels += [label] * len(found)
        if not paths:
            raise UserError(f"no images in {self.path}: expected {', '.join(SUFFIXES)} files in {EXPECTED}")
        return ImageSet(suite, generator or self.name, tuple(paths), tuple(labels))


def class_folders(folder: Path) -> tuple[tuple[Path, int], ...]:
    """The folders directly below that hold one class each, with their labels."""
    below = subfolders(folder) if folder.is_dir() else []
    return tuple((sub, CLASS_FOLDERS[sub.name.lower()]) for sub in below if sub.name.lower() in CLASS_FOLDERS)


def folder_name(folder: Path) -> str:
    """A folder's own name, also when it is given as '.' or '..'; that of its parent where it is a split's."""
    path = Path(os.path.abspath(folder))
    is_split = path.name in SPLITS and (suite_called(path.parent.name) or "nature" in _names(path))
    return path.parent.name if is_split else path.name


def _names(folder: Path) -> list[str]:
    return [sub.name.lower() for sub in subfolders(folder)] if folder.is_dir() else []


def scan(path: Path, splits: Sequence[str] = ("test", "val"), limit: int = 5) -> Folder | None:
    """The class folders in and below a folder; None if there is none.

    Args:
        splits: of <folder>/{train,val,test}/<class folders>, as in GenImage and Chameleon, the first of these is taken.
        limit: how many folders deep to look.
    """
    name = folder_name(path)
    for place in (path, *(path / split for split in splits)):
        if classes := class_folders(place):
            return Folder(path, name, classes, _generators_beside_real(place, classes))
    if limit == 0:
        return None
    below = [folder for sub in subfolders(path) if (folder := scan(sub, splits, limit - 1)) is not None]
    if not below:
        return None
    inner = {folder.path.name.lower(): folder for folder in below}
    if "images" in inner and set(inner) <= {
        "images",
        *DIRE_COPIES,
    }:  # beside pictures, DIRE's archives hold copies of them
        return replace(inner["images"], path=path, name=name)
    if (suite_called(name) or plain(name) == "images") and set(inner) <= set(SPLITS):
        chosen = next((inner[split] for split in splits if split in inner), None)  # <suite>/images/test/<generators>
        return chosen and replace(chosen, path=path, name=name)
    below = [one for folder in below for one in (folder.below if folder.classes and folder.below else (folder,))]
    return Folder(path, name, below=_with_shared_real(below))


def _generators_beside_real(folder: Path, classes: tuple[tuple[Path, int], ...]) -> tuple[Folder, ...]:
    """DiffusionForensics as distributed (DIRE): <content>/real/ and, beside it, a folder of images for each generator."""
    if [label for _, label in classes] != [REAL]:
        return ()
    (real, _), *_ = classes
    others = [sub for sub in subfolders(folder) if sub != real]
    above = Path(os.path.abspath(folder)).parents
    named = any(suite_called(parent.name) == "DiffusionForensics" for parent in above)
    unknown = [sub.name for sub in others if not (named or is_generator_of("DiffusionForensics", sub.name))]
    if unknown:
        log.warning("%s: only %s/ is read, %s are no class folders", folder, real.name, ", ".join(unknown))
        return ()
    return tuple(Folder(sub, f"{folder.name}_{sub.name}", ((real, REAL), (sub, FAKE))) for sub in others)


def _with_shared_real(below: list[Folder]) -> tuple[Folder, ...]:
    """UniversalFakeDetect as distributed: generators with fakes only get the images of its folders of real ones."""
    shared = SUITES["UniversalFakeDetect"].shared_real
    one_class = {folder.name: folder for folder in below if len({label for _, label in folder.classes}) == 1}
    real = {name: one_class[name] for name in set(shared.values()) if name in one_class}
    fake = [folder for name, folder in one_class.items() if is_generator_of("UniversalFakeDetect", name)]
    if not fake or not real:
        return tuple(below)
    paired = []
    for folder in below:
        if folder.name in real:
            continue
        origin = real.get(shared.get(folder.name, shared["default"])) if folder in fake else None
        paired.append(replace(folder, classes=(*origin.classes, *folder.classes)) if origin else folder)
    return tuple(paired)


def load_set(root: Path, suite: str = "", generator: str = "", classes: tuple[str, ...] = ()) -> ImageSet:
    """All images of one set: of the class folders in `root`, or in each of its folders (root/car, root/cat).

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
    contents = [folder for folder in found.below if not classes or folder.path.name in classes] if found else []
    if found is None or (found.below and not any(folder.classes for folder in contents)):
        raise UserError(f"no class folders in {root}: expected {EXPECTED} in it or in each of its folders")
    return replace(found, below=tuple(contents)).images(suite, generator)


def find_sets(root: Path, classes: tuple[str, ...] = (), splits: Sequence[str] = ("test", "val")) -> list[ImageSet]:
    """All sets below a folder: one set, a generator with content folders, a suite, or a folder of suites.

    A folder that is named like a published suite, or has its generators, is that suite. Otherwise the structure decides;
    where two readings fit (a folder of folders with class folders is a generator with contents, or a suite of generators),
    it is a generator if it bears the name of one that is published that way, and a suite if not.

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
            folder = replace(folder.below[0], name=folder.name)  # <generator>/imagenet_<generator>/val
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
            raise UserError(f"--classes {name}: no generator below {root} has a folder of that name")
    return sets


def _refuse_twice(sets: Sequence[ImageSet], root: Path) -> None:
    keys = [found.key for found in sets]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"{root}: {', '.join(sorted(twice))} occurs twice; test the folders one at a time")


def _with_shared_real_above(folder: Folder) -> Folder:
    """A generator of UniversalFakeDetect that is given alone, with the real images that lie beside it."""
    parent = Path(os.path.abspath(folder.path)).parent
    if suite_called(parent.name) != "UniversalFakeDetect" or {label for _, label in folder.classes} != {FAKE}:
        return folder
    suite = scan(parent)
    beside = [sub for sub in suite.below if sub.path.resolve() == folder.path.resolve()] if suite else []
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
            if generator.height > 1:  # the contents of a suite within a suite: no set of one generator
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
    raise UserError("--dataroot: missing, and there is no ./datasets/Generalization_Test; give the folder to test on")


def find_test_sets(dataroot: str | None, classes: tuple[str, ...] = ()) -> tuple[Path, list[ImageSet]]:
    """The folder to test on and its sets; below the default ./datasets, training roots (with train/ or val/) are left out.

    Raises:
        UserError: nothing to test there, or a training root was given.
    """
    root = Path(dataroot) if dataroot is not None else default_test_root()
    if dataroot is None and root.name == "datasets":
        candidates = [sub for sub in subfolders(root) if not is_training_root(sub) and scan(sub) is not None]
        if not candidates:
            raise UserError("--dataroot: missing, and ./datasets holds no test images; give the folder to test on")
        sets = [found for folder in candidates for found in find_sets(folder, classes)]
        _refuse_twice(sets, root)
        return root, sets
    if is_training_root(root) and not _is_one_set(root):
        advice = f"give {root / 'test'}" if (root / "test").is_dir() else "give a folder of generators"
        raise UserError(f"--dataroot {root}: is a training folder (train/, val/); {advice}")
    return root, find_sets(root, classes)


def is_training_root(folder: Path) -> bool:
    """True if the folder has train/ or val/."""
    return any((folder / split).is_dir() for split in ("train", "val"))


def _is_one_set(root: Path) -> bool:
    return any(class_folders(place) for place in (root, root / "test", root / "val"))
