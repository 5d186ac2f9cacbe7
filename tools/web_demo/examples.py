"""Images to try the page with: those of a folder."""

import shutil
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data.decode import UnreadableImage, read_format
from util import UserError

MOST = 12  # examples of a folder
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


class Example(NamedTuple):
    """An image file and its caption."""

    path: Path
    caption: str


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
    return [
        Example(Path(shutil.copy(path, copies)), path.stem.replace("_", " ")) for path in images
    ]


def _is_image(path: Path) -> bool:
    try:
        read_format(str(path))
    except UnreadableImage:
        return False
    return True
