"""Images to try the page with: those of a folder, or some like those of tools.make_demo_data."""

import shutil
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data.decode import UnreadableImage, read_format
from tools.make_demo_data.dataset import (
    SEEN,
    ImageFolder,
    Settings,
    fit_generators,
    photographer,
    render,
    write_images,
)
from util import UserError

MOST = 12  # examples of a folder
SIDE = 256  # pixels of a drawn example
SEED = 1  # of drawn examples; the demo data has seed 0 by default, so no detector has seen these
FOLDERS = [
    (ImageFolder("real", (0, 1), 3), "real"),
    (ImageFolder("generated", (1, 0), 3, SEEN), "generated"),
]


class Example(NamedTuple):
    """An image file and its caption."""

    path: Path
    caption: str


def draw_examples(folder: Path) -> list[Example]:
    """Draw photographs into `folder`, half of them through the up-sampler of the demo's training
    set."""
    settings = Settings(SEED, SIDE, 1, 1, 1)
    examples = []
    with photographer(workers=1) as take:
        models, _ = fit_generators(take, SEED)
        for number, (place, caption) in enumerate(FOLDERS, start=1):
            write_images(folder / place.path, render(place, number, settings, models, take))
            examples += [Example(path, caption) for path in sorted((folder / place.path).iterdir())]
    return examples


def copy_examples(source: Path, folder: Path) -> list[Example]:
    """Copy the first `MOST` images of `source`, by name, into `folder`: Gradio hands out no files
    from elsewhere.

    Raises:
        UserError: `source` is missing or has no image.
    """
    if not source.is_dir():
        raise UserError(f"--examples {source}: no such folder")
    images = list(islice(filter(_is_image, sorted(source.iterdir())), MOST))
    if not images:
        raise UserError(f"--examples {source}: no image directly in it; pass a folder of images")
    copies = folder / "examples"
    copies.mkdir()
    return [Example(Path(shutil.copy(path, copies)), path.name) for path in images]


def _is_image(path: Path) -> bool:
    try:
        read_format(str(path))
    except UnreadableImage:
        return False
    return True
