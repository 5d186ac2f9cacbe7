"""Photographs and their copies by an auto-encoder, side by side in class folders."""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from data.decode import UnreadableImage, read_image
from data.image_sets import FAKE, REAL, ImageSet
from options.base_options import OneLineParser, tool_parser
from options.flags import names, whole
from tools.make_fakes.autoencoders import CROP, FACTOR
from util import UserError, log, printable

CLASS_FOLDERS = {REAL: "0_real", FAKE: "1_fake"}
MOST = 2000
"""Photographs that auto-encoders are trained on, at most; they are held in memory."""
FAITHFUL = 25.0
"""PSNR in dB."""
Shrink = Callable[[Image.Image, np.random.Generator], Image.Image]


def photographs(images: ImageSet, shrink: Shrink, seed: int) -> Iterator[Tensor]:
    """The real pictures of a set, uint8 [3, H, W], shrunk and cut to sides that divide by 4; small
    ones are left out.

    Shrinking removes the grid of an earlier JPEG compression, which would tell photographs from
    their copies.
    """
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        if label != REAL:
            continue
        try:
            pixels = TF.pil_to_tensor(
                shrink(read_image(path), np.random.default_rng((seed, number)))
            )
        except UnreadableImage as error:
            log.warning("left out %s (%s)", printable(path), error)
            continue
        height, width = (side - side % FACTOR for side in pixels.shape[1:])
        if min(height, width) >= CROP:
            yield pixels[:, :height, :width]


def training_photographs(images: ImageSet, shrink: Shrink, seed: int) -> list[Tensor]:
    """`photographs` to train auto-encoders on, of at most `MOST` files.

    Raises:
        UserError: there is none.
    """
    real = images.of_class(REAL)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(real.paths))[:MOST])
    some = replace(real, paths=tuple(real.paths[i] for i in drawn), labels=(REAL,) * len(drawn))
    if found := list(photographs(some, shrink, seed)):
        return found
    raise UserError(f"--dataroot: no photograph of train/ has {CROP} pixels a side after shrinking")


def save(picture: Image.Image, folder: Path, number: int) -> None:
    """As PNG, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{number:05d}.png")


def mean_squared_error(one: Tensor, other: Tensor) -> float:
    """Of two uint8 pictures of one shape."""
    return float((one.float() - other.float()).square().mean())


def psnr(errors: list[float]) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures with these mean squared errors, all
    together; rounded to 0.01."""
    return round(float(10 * np.log10(255**2 / np.mean(errors))), 2)


def rebuilding_parser(name: str, doc: str | None, steps: int, seed: int) -> OneLineParser:
    """Return the parser of a tool that rebuilds photographs, with the flags that all of these have.

    Args:
        name: see `tool_parser`.
        doc: see `tool_parser`.
        steps: default of --steps.
        seed: default of --seed.
    """
    parser = tool_parser(name, doc)
    parser.add_argument(
        "--dataroot", type=Path, required=True, help="folder that holds train/ and val/"
    )
    parser.add_argument(
        "--classes", type=names, default=(), help="class folders; all when left out"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument(
        "--steps",
        type=whole(1),
        default=steps,
        help=f"training steps of each auto-encoder ({steps})",
    )
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=seed,
        help=f"of the auto-encoders and all that is drawn ({seed})",
    )
    return parser


def write_report(path: Path, args: argparse.Namespace, decibel: Any) -> None:
    """JSON with all flags but the output's, and PSNR in dB."""
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    path.write_text(
        json.dumps({"settings": settings, "psnr": decibel}, indent=2, default=str) + "\n"
    )


def warn_of_noise(decibel: dict[str, float], or_else: str = "") -> None:
    """Say which auto-encoders rebuild so badly that their copies tell nothing; `or_else`: what else
    may help."""
    for name, value in decibel.items():
        if value < FAITHFUL:
            log.warning(
                "%s rebuilds at %.1f dB only, unlike a generator; give more --steps%s, or another --seed",
                name,
                value,
                or_else,
            )


def require_splits(dataroot: Path) -> None:
    """Raises UserError unless `dataroot` holds train/ and val/."""
    for split in ("train", "val"):
        if not (dataroot / split).is_dir():
            raise UserError(f"--dataroot {dataroot}: has no folder {split}/")


def require_new(output: Path) -> None:
    """Raises UserError where `output` exists."""
    if output.exists():
        raise UserError(f"--output {output}: exists already; give another folder")
