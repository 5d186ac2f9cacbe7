"""Images of a benchmark: procedural, or from a dataset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.image_sets import FAKE, REAL
from data.layouts import load_set
from tools.make_demo_data.images import SCENES, photograph
from util import UserError

DRAWN = 64  # different procedural images; more files are links to these
SIDE = 256  # pixels


def draw_images(folder: Path, count: int) -> list[str]:
    """Write `count` procedural photographs as PNG files of 256x256 pixels; return their paths."""
    folder.mkdir()
    paths = [str(folder / f"{number:04d}.png") for number in range(count)]
    for number, path in enumerate(paths):
        image = photograph((0, number), SIDE, SCENES[number % len(SCENES)])
        pixels = (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(path)
    return paths


def link_images(folder: Path, data: Path | None, count: int) -> None:
    """Fill folder/train/images/{0_real,1_fake} with `count` links to images, half to each class.

    Args:
        folder: an empty folder.
        data: a dataset with train/, whose images are taken at even distances, some of them more
            than once if there are too few; None: procedural images.
        count: number of links.

    Raises:
        UserError: train/ is missing or lacks a class.
    """
    if data is None:
        paths = draw_images(folder / "drawn", min(count, DRAWN))
        sources = {REAL: paths[::2], FAKE: paths[1::2]}
    elif (data / "train").is_dir():
        images = load_set(data / "train")
        pairs = list(zip(images.paths, images.labels, strict=True))
        sources = {
            label: [path for path, truth in pairs if truth == label] for label in (REAL, FAKE)
        }
    else:
        raise UserError(
            f"--data {data}: has no folder train/ with <class>/0_real and 1_fake; pass one"
        )
    for label, name, links in ((REAL, "0_real", count - count // 2), (FAKE, "1_fake", count // 2)):
        if not sources[label]:
            raise UserError(
                f"--data {data}: train/ has no {name} images; pass one with both classes"
            )
        link_evenly(sources[label], folder / "train" / "images" / name, links)


def link_evenly(sources: Sequence[str], folder: Path, count: int) -> None:
    """Make `count` symbolic links to evenly spaced `sources` in a new folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        source = Path(sources[number * len(sources) // count]).absolute()
        (folder / f"{number:06d}{source.suffix}").symlink_to(source)
