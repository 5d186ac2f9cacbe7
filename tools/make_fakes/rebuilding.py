"""Common parts of the tools that write photographs and their copies by auto-encoders."""

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
from data.image_sets import REAL, ImageSet
from options.flags import OneLineParser, names, tool_parser, whole
from tools.make_fakes.autoencoders import CROP, FACTOR
from util import UserError, log, printable

MOST = 2000  # photographs that auto-encoders are trained on; all are held in memory
FAITHFUL = 25.0  # PSNR in dB; below this, copies are noise
Shrink = Callable[[Image.Image, np.random.Generator], Image.Image]


def photographs(images: ImageSet, shrink: Shrink, seed: int) -> Iterator[Tensor]:
    """Yield the real images of a set, shrunk and cut to sides divisible by 4.

    Shrinking removes the grid of an earlier JPEG compression, which would tell photographs from
    their copies. Images with a side below `CROP` after shrinking are skipped, and so are unreadable
    ones, with a warning.

    Args:
        images: the set.
        shrink: makes an image smaller, with random numbers of its own.
        seed: seed of these random numbers.

    Yields:
        uint8 [3, H, W].
    """
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        if label != REAL:
            continue
        try:
            pixels = TF.pil_to_tensor(
                shrink(read_image(path), np.random.default_rng((seed, number)))
            )
        except UnreadableImage as error:
            log.warning("skipped %s (%s)", printable(path), error)
            continue
        height, width = (side - side % FACTOR for side in pixels.shape[1:])
        if min(height, width) >= CROP:
            yield pixels[:, :height, :width]


def training_photographs(images: ImageSet, shrink: Shrink, seed: int) -> list[Tensor]:
    """Return the `photographs` of at most `MOST` random files, to train auto-encoders on.

    Raises:
        UserError: no file gives one.
    """
    real = images.of_class(REAL)
    indices = np.sort(np.random.default_rng(seed).permutation(len(real.paths))[:MOST])
    sample = replace(
        real, paths=tuple(real.paths[i] for i in indices), labels=(REAL,) * len(indices)
    )
    if training := list(photographs(sample, shrink, seed)):
        return training
    raise UserError(
        f"--dataroot: no photograph of train/ has {CROP} pixels a side after shrinking; "
        "pass a dataset with larger images"
    )


def save(image: Image.Image, folder: Path, number: int) -> None:
    """Write an image as PNG, named by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{number:05d}.png")


def mean_squared_error(image: Tensor, reference: Tensor) -> float:
    """Return the mean squared error of two uint8 images of one shape."""
    return float((image.float() - reference.float()).square().mean())


def psnr(errors: list[float]) -> float:
    """Return the peak signal-to-noise ratio of 8-bit images, in dB, rounded to 0.01.

    Args:
        errors: mean squared error of each image; they are averaged.
    """
    return round(float(10 * np.log10(255**2 / np.mean(errors))), 2)


def rebuilding_parser(name: str, doc: str | None, steps: int, seed: int) -> OneLineParser:
    """Return the parser of a tool that rebuilds photographs, with the common flags.

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
        "--classes", type=names, default=(), help="comma-separated class folders (default: all)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument(
        "--steps",
        type=whole(1),
        default=steps,
        help=f"training steps of each auto-encoder (default: {steps})",
    )
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=seed,
        help=f"seed of the auto-encoders and all that is drawn (default: {seed})",
    )
    return parser


def write_report(path: Path, args: argparse.Namespace, decibel: Any) -> None:
    """Write JSON with all flags except --output, and the PSNR in dB."""
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    path.write_text(
        json.dumps({"settings": settings, "psnr": decibel}, indent=2, default=str) + "\n"
    )


def warn_of_noise(decibel: dict[str, float], or_else: str = "") -> None:
    """Warn of auto-encoders whose copies are noise.

    Args:
        decibel: PSNR in dB by name.
        or_else: another remedy, added to the message.
    """
    for name, value in decibel.items():
        if value < FAITHFUL:
            log.warning(
                "%s rebuilds at %.1f dB only, unlike a generator; "
                "pass more --steps%s, or another --seed",
                name,
                value,
                or_else,
            )


def require_splits(dataroot: Path) -> None:
    """Raise UserError unless `dataroot` holds train/ and val/."""
    for split in ("train", "val"):
        if not (dataroot / split).is_dir():
            raise UserError(
                f"--dataroot {dataroot}: has no folder {split}/; pass one with train/ and val/"
            )


def require_new(output: Path) -> None:
    """Raise UserError if `output` exists."""
    if output.exists():
        raise UserError(f"--output {output}: exists already; pass another folder")
