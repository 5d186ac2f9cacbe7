"""Sets of labelled image files.

A *set* is what one line of figures is reported for: the real and generated images of one generator.
A *suite* is a benchmark of several sets, of which some are published as tables of the NPR paper
(Tan et al., CVPR 2024).
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
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageSet:
    """Real and generated images under one name; paths are sorted within each class folder."""

    suite: str
    generator: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]  # 0 real, 1 fake

    def of_class(self, label: int) -> "ImageSet":
        """Its real or its generated images only."""
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
    """What belongs to a generator of a suite."""

    @property
    def suite(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def key(self) -> str: ...


def unique_names(sets: Sequence[Named]) -> dict[str, str]:
    """A name for each set's key: its generator, with the suite in front where two suites have it:
    {'A/ddpm': 'A_ddpm'}.

    Where even these are not distinct, the keys themselves.
    """
    generators = [found.generator for found in sets]
    names = {
        found.key: found.generator
        if generators.count(found.generator) == 1
        else f"{found.suite}_{found.generator}"
        for found in sets
    }
    return names if len(set(names.values())) == len(names) else {key: key for key in names}


def sample_evenly(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` images of a set, half real and half generated, drawn repeatably and kept in order.

    A class with fewer images than its half gives all it has, and the other class fills up.
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
    """Folders directly below, links to folders too, sorted by name; hidden ones are left out.

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
    """Paths of all image files below a folder (by their suffix), sorted; hidden files are left out.

    Links to folders are not followed, with a warning: one may lead to the other class, or in a
    circle.

    Raises:
        UserError: a folder below cannot be listed; its images would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise _unlisted(error)

    found = []
    for directory, subdirs, files in os.walk(folder, onerror=refuse):
        subdirs[:] = sorted(name for name in subdirs if not name.startswith("."))
        if links := [
            path for name in subdirs if os.path.islink(path := os.path.join(directory, name))
        ]:
            log.warning(
                "links inside of a class folder are not followed: %s",
                ", ".join(map(printable, links)),
            )
        names = (
            name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        )
        found += [os.path.join(directory, name) for name in sorted(names)]
    return found


def _unlisted(error: OSError) -> UserError:
    return UserError(f"{printable(str(error.filename))}: cannot be listed ({error.strerror})")
