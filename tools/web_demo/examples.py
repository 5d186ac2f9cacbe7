"""Pictures to try the page with: those of a folder, or some of the kind that tools.make_demo_data
makes."""

from pathlib import Path
from typing import NamedTuple

from data.decode import UnreadableImage
from data.formats import read_format
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

MOST = 12
SEED, SIDE = 1, 256
"""Of drawn examples; tools.make_demo_data takes seed 0 unless told otherwise, so a model of the
demo has not seen them."""
FOLDERS = [
    (ImageFolder("real", (0, 1), 3), "real"),
    (ImageFolder("generated", (1, 0), 3, SEEN), "generated"),
]


class Example(NamedTuple):
    """A picture file and what it is called."""

    path: Path
    caption: str


def draw_examples(folder: Path) -> list[Example]:
    """Make procedural photographs in `folder`, half of them decoded through the up-sampler of the
    demo's training set."""
    settings = Settings(SEED, SIDE, 1, 1, 1)
    found = []
    with photographer(workers=1) as take:
        models, _ = fit_generators(take, SEED)
        for number, (place, caption) in enumerate(FOLDERS, start=1):
            write_images(folder / place.path, render(place, number, settings, models, take))
            found += [Example(path, caption) for path in sorted((folder / place.path).iterdir())]
    return found


def examples_of(folder: Path) -> list[Example]:
    """The first `MOST` pictures of a folder, by name.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--examples {folder}: no such folder")
    found: list[Example] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            read_format(str(path))
        except UnreadableImage:
            continue
        found.append(Example(path, path.name))
        if len(found) == MOST:
            break
    if not found:
        raise UserError(f"--examples {folder}: holds no picture; pictures lie directly in it")
    return found
