"""Sets of labelled image files.

A *set* has one row of metrics in the results: the real and generated images of one generator.
A *suite* is a benchmark of several sets. Some suites are published as tables of the NPR paper (Tan
et al., CVPR 2024).
"""

import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from data.benchmarks import SUITES
from util import UserError, log, printable

REAL, FAKE = 0, 1
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif"),  # cameras write .hif
)
CLASS_FOLDERS = {
    "0_real": REAL,
    "1_fake": FAKE,
    "nature": REAL,
    "ai": FAKE,
    "real": REAL,
    "fake": FAKE,
}
"""Labels by name of the class folder, in lower case."""
WRITTEN_CLASS_FOLDERS = {REAL: "0_real", FAKE: "1_fake"}
"""Names of the class folders that tools make."""
CLASS_WORDS = {
    **dict.fromkeys(("real", "reals", "nature", "natural", "authentic", "genuine"), REAL),
    **dict.fromkeys(("human", "humans", "camera", "original", "originals", "pristine"), REAL),
    **dict.fromkeys(
        ("fake", "fakes", "generated", "ai", "aigc", "aigenerated", "artificial"), FAKE
    ),
    **dict.fromkeys(("synthetic", "synthesized", "synthesised", "synth", "forged"), FAKE),
}
"""Labels by the words of other usual names, such as 1_fakes or ai-generated images."""
FILLERS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"),
    *("face", "faces", "sample", "samples", "data", "class", "folder", "made", "train", "val"),
    "test",
}
"""Words that may stand beside them; with any other word a name is something else (Real-ESRGAN)."""


@dataclass(frozen=True)
class ClassNames:
    """Names of class folders and of labels, in any case.

    Args:
        real: further names of real images, see --real_names.
        fake: further names of generated images, see --fake_names.
    """

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()

    def exact(self, name: str) -> int | None:
        """Return the label of a name that always means a class, else None."""
        name = name.lower()
        for label, names in ((REAL, self.real), (FAKE, self.fake)):
            if name in {other.lower() for other in names}:
                return label
        return CLASS_FOLDERS.get(name)

    def label(self, name: str) -> int | None:
        """Return the label of a name that clearly tells a class, such as 0_reals, else None."""
        if (label := self.exact(name)) is not None:
            return label
        words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word not in {"", *FILLERS}]
        labels = {CLASS_WORDS.get(word) for word in words}
        return labels.pop() if len(labels) == 1 else None

    def flags(self) -> str:
        """Return the flags that name them, each after a blank; '' without any."""
        given = (("--real_names", self.real), ("--fake_names", self.fake))
        return "".join(f" {flag} {shlex.quote(','.join(names))}" for flag, names in given if names)


@dataclass(frozen=True)
class ImageSet:
    """Real and generated images under one name; paths are sorted within each class folder."""

    suite: str
    generator: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]  # 0 real, 1 fake

    def of_class(self, label: int) -> "ImageSet":
        """Return the set's images with this label only."""
        paths = tuple(
            path for path, other in zip(self.paths, self.labels, strict=True) if other == label
        )
        return replace(self, paths=paths, labels=(label,) * len(paths))

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.generator}"

    @property
    def table(self) -> str | None:
        return SUITES[self.suite].table if self.suite in SUITES else None


class Named(Protocol):
    """Anything that belongs to a generator of a suite, such as an `ImageSet`."""

    @property
    def suite(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def key(self) -> str: ...


def unique_names(sets: Sequence[Named]) -> dict[str, str]:
    """Return a short name for each set, by the set's key.

    It is the generator, with the suite in front where two suites have that generator:
    {'A/ddpm': 'A_ddpm'}. Where these names are not distinct, it is the key.
    """
    generators = [item.generator for item in sets]
    names = {
        item.key: item.generator
        if generators.count(item.generator) == 1
        else f"{item.suite}_{item.generator}"
        for item in sets
    }
    return names if len(set(names.values())) == len(names) else {key: key for key in names}


def sample_evenly(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Return `count` images of a set, half real and half generated, in their order.

    A class with fewer images than half of `count` gives all of them, and the other class the rest.
    The same seed draws the same images.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(images.labels)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in (REAL, FAKE)]
    half = count // 2
    from_real = min(len(shuffled[0]), max(count - half, count - len(shuffled[1])))
    from_fake = min(len(shuffled[1]), count - from_real)
    chosen = np.sort(np.concatenate([shuffled[0][:from_real], shuffled[1][:from_fake]]))
    return replace(
        images,
        paths=tuple(images.paths[index] for index in chosen),
        labels=tuple(images.labels[index] for index in chosen),
    )


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly below, and links to folders, sorted by name, without hidden ones.

    Raises:
        UserError: the folder cannot be listed.
    """
    try:
        return sorted(
            Path(e.path) for e in os.scandir(folder) if not e.name.startswith(".") and _is_folder(e)
        )
    except OSError as error:
        raise _unlisted(error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # a link in a circle
    except OSError:
        return False


def list_images(folder: Path) -> list[str]:
    """Return the sorted paths of all image files below a folder, by suffix, without hidden files.

    Links to folders are not followed, with a warning: one may lead to the other class, or in a
    circle.

    Raises:
        UserError: a folder below cannot be listed; its images would be missing without a message.
    """

    def refuse(error: OSError) -> None:
        raise _unlisted(error)

    paths = []
    for directory, subdirs, files in os.walk(folder, onerror=refuse):
        subdirs[:] = sorted(name for name in subdirs if not name.startswith("."))
        if links := [
            path for name in subdirs if os.path.islink(path := os.path.join(directory, name))
        ]:
            log.warning(
                "links to folders inside a class folder are not followed: %s",
                ", ".join(map(printable, links)),
            )
        paths += [os.path.join(directory, name) for name in sorted(files) if _is_image(name)]
    return paths


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def unread_folders(root: Path, read: Iterable[str], other: Collection[str]) -> list[Path]:
    """Return the folders, `root` and below, that directly hold images of which none is read.

    Args:
        root: the folder, searched through links too.
        read: paths of the images that are read.
        other: names of folders that are skipped where one beside them is read, such as splits.
    """
    used = {os.path.realpath(folder) for folder in {os.path.dirname(path) for path in read}}
    above = {str(parent) for folder in used for parent in Path(folder).parents}
    seen, unread = {os.path.realpath(root)}, []
    for place, folders, files in os.walk(root, followlinks=True):
        real = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders)}
        is_read = any(path in used or path in above for path in real.values())
        folders[:] = [
            name
            for name, path in real.items()
            if not name.startswith(".")
            and path not in used
            and path not in seen
            and not (name in other and is_read and path not in above)
        ]
        seen |= set(real.values())
        if any(map(_is_image, files)):
            unread.append(Path(place))
    return unread


def _unlisted(error: OSError) -> UserError:
    return UserError(f"{printable(str(error.filename))}: cannot be listed ({error.strerror})")
