"""Images of a benchmark: procedural, or from a dataset."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.image_sets import FAKE, REAL, WRITTEN_CLASS_FOLDERS
from data.splits import load_set
from tools.make_demo_data.images import SCENES, photograph
from util import UserError

DRAWN = 64  # different procedural images; more files are links to these
SIDE = 256  # pixels


def draw_images(data: Path, count: int) -> None:
    """Write `count` procedural photographs of 256x256 pixels as a dataset, half to each class."""
    for number in range(count):
        image = photograph((0, number), SIDE, SCENES[number % len(SCENES)])
        pixels = (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        folder = data / "train" / WRITTEN_CLASS_FOLDERS[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")


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
        data = folder / "drawn"
        draw_images(data, min(count, DRAWN))
    if not (data / "train").is_dir():
        raise UserError(
            f"--data {data}: has no folder train/ with <class>/0_real and 1_fake; pass one"
        )
    images = load_set(data / "train")
    for label, links in ((REAL, count - count // 2), (FAKE, count // 2)):
        sources, name = images.of_class(label).paths, WRITTEN_CLASS_FOLDERS[label]
        if not sources:
            raise UserError(
                f"--data {data}: train/ has no {name} images; pass one with both classes"
            )
        target = folder / "train" / "images" / name
        target.mkdir(parents=True)
        for number in range(links):
            source = Path(sources[number * len(sources) // links]).absolute()
            (target / f"{number:06d}{source.suffix}").symlink_to(source)
