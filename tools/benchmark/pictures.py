"""The pictures of a benchmark: drawn, or taken from a data root."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.image_sets import FAKE, REAL
from data.layouts import load_set
from tools.make_demo_data.images import SCENES, photograph
from util import UserError

DRAWN = 64
"""Different pictures at most; more files are the same ones under other names, which take as long to
decode."""
SIDE = 256


def draw(folder: Path, count: int) -> list[str]:
    """`count` procedural photographs of 256x256 pixels as PNG files in `folder`."""
    paths = []
    for number in range(count):
        picture = photograph((0, number), SIDE, SCENES[number % len(SCENES)])
        pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        paths.append(str(folder / f"{number:04d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make_root(folder: Path, data: Path | None, images: int) -> Path:
    """A data root in `folder` whose train/pictures/{0_real,1_fake}/ has `images` links, half of
    them to each class.

    Args:
        data: a data root whose train/ they are taken from, evenly spaced (some several times where
            there are fewer); None to draw them.

    Raises:
        UserError: there are no such images.
    """
    if data is None:
        (folder / "drawn").mkdir()
        drawn = draw(folder / "drawn", min(images, DRAWN))
        sources = {REAL: drawn[::2], FAKE: drawn[1::2]}
    else:
        if not (data / "train").is_dir():
            raise UserError(
                f"--data {data}: has no folder train/; expected train/<class>/0_real and 1_fake"
            )
        found = load_set(data / "train")
        sources = {wanted: [p for p, label in zip(found.paths, found.labels, strict=True) if label == wanted]
                   for wanted in (REAL, FAKE)}  # fmt: skip
    for label, name in ((REAL, "0_real"), (FAKE, "1_fake")):
        if not sources[label]:
            raise UserError(
                f"--data {data}: train/ has no {name} images; the benchmark needs both classes"
            )
        link(
            sources[label],
            folder / "train" / "pictures" / name,
            images // 2 + (images % 2 if label == REAL else 0),
        )
    return folder


def link(sources: Sequence[str], target: Path, count: int) -> None:
    """`count` symbolic links to files, evenly spaced among them, in a new folder."""
    target.mkdir(parents=True)
    for number in range(count):
        index = number * len(sources) // count if count <= len(sources) else number % len(sources)
        source = Path(sources[index]).absolute()
        (target / f"{number:06d}{source.suffix}").symlink_to(source)
