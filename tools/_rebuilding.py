"""Photographs and their copies by an auto-encoder, side by side in class folders."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from data.decode import UnreadableImage, read_image
from data.image_sets import FAKE, REAL, ImageSet
from tools._autoencoders import CROP, FACTOR
from util import UserError, log, printable

CLASS_FOLDERS = {REAL: "0_real", FAKE: "1_fake"}
Shrink = Callable[[Image.Image, np.random.Generator], Image.Image]


def photographs_of(images: ImageSet, shrink: Shrink, seed: int) -> list[Tensor]:
    """The real pictures of a set, uint8 [3, H, W], shrunk and cut to sides that divide by 4; small ones are left out.

    Shrinking removes the grid of an earlier JPEG compression, which would tell photographs from their copies.

    Raises:
        UserError: none is left.
    """
    found = []
    for number, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        if label != REAL:
            continue
        try:
            pixels = TF.pil_to_tensor(shrink(read_image(path), np.random.default_rng((seed, number))))
        except UnreadableImage as error:
            log.warning("left out %s (%s)", printable(path), error)
            continue
        height, width = (side - side % FACTOR for side in pixels.shape[1:])
        if min(height, width) >= CROP:
            found.append(pixels[:, :height, :width])
    if not found:
        raise UserError(f"--dataroot: no photograph has {CROP} pixels a side after shrinking")
    return found


def save(picture: Image.Image, folder: Path, number: int) -> None:
    """As PNG, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{number:05d}.png")


def psnr(photographs: Sequence[Tensor], made: Sequence[Tensor]) -> float:
    """Peak signal-to-noise ratio in dB over all pictures."""
    errors = [(a.float() - b.float()).square().mean() for a, b in zip(photographs, made, strict=True)]
    return float(10 * torch.log10(255**2 / torch.stack(errors).mean()))


def require_splits(dataroot: Path, output: Path) -> None:
    """Raises UserError unless `dataroot` holds train/ and val/, and `output` is yet to be made."""
    if output.exists():
        raise UserError(f"--output {output}: exists already; give another folder")
    for split in ("train", "val"):
        if not (dataroot / split).is_dir():
            raise UserError(f"--dataroot {dataroot}: has no folder {split}/")
