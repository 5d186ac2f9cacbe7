"""Sets of labelled image files.

A *set* has one row of metrics in the results: the real and generated images of one generator.
A *suite* is a benchmark of several sets. Some suites are published as tables of the NPR paper (Tan
et al., CVPR 2024).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from data.benchmarks import SUITES
from util import UserError, log, printable

REAL, FAKE = 0, 1
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")


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
            Path(e.path)
            for e in os.scandir(folder)
            if not e.name.startswith(".") and os.path.isdir(e.path)
        )
    except OSError as error:
        raise _unlisted(error) from None


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
        names = (
            name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        )
        paths += [os.path.join(directory, name) for name in sorted(names)]
    return paths


def _unlisted(error: OSError) -> UserError:
    return UserError(f"{printable(str(error.filename))}: cannot be listed ({error.strerror})")
