"""Folders, generators and images of the demo dataset."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tools.make_demo_data.images import SCENES, photograph
from tools.make_fakes.upsamplers import OPERATORS, AutoEncoder, fit_autoencoder, restore_detail

VERSION = 1  # raise it when the same settings give other images, so that old folders do not match
SEEN = "nearest_conv"  # the generator of training and validation
GENERATORS: dict[str, tuple[str, tuple[int, ...]]] = {
    SEEN: ("nearest", (10,)),
    "bilinear_conv": ("bilinear", (10,)),
    "transposed_conv": ("transposed", (10,)),
    "pixel_shuffle": ("pixel_shuffle", (10,)),
    "nearest_conv_x4": ("nearest", (12, 48)),
}
"""Up-sampling operator and latent channels of each stage, by test folder."""
FIT_IMAGES, FIT_SIZE = 12, 64  # photographs to fit on, and as many to measure on; side in pixels
POOL_FROM = 200  # for fewer photographs, starting worker processes takes longer than it saves


@dataclass(frozen=True)
class Settings:
    """Settings that decide the bytes of every file."""

    seed: int
    size: int  # pixels, width and height
    train: int  # images per class folder
    val: int
    test: int
    version: int = VERSION


@dataclass(frozen=True)
class ImageFolder:
    """A folder to fill with `amount` images."""

    path: str  # relative to the output
    scenes: tuple[int, ...]  # scene of image i: scenes[i % len(scenes)]
    amount: int
    generator: str = ""  # decodes the photographs; empty: they stay as they are


def planned_folders(settings: Settings) -> list[ImageFolder]:
    """Return all folders of the dataset; test folders mix the scenes."""
    folders = []
    for split, amount in (("train", settings.train), ("val", settings.val)):
        for index, scene in enumerate(SCENES):
            folders.append(ImageFolder(f"{split}/{scene.name}/0_real", (index,), amount))
            folders.append(ImageFolder(f"{split}/{scene.name}/1_fake", (index,), amount, SEEN))
    mixed = tuple(range(len(SCENES)))
    for generator in GENERATORS:
        folders.append(ImageFolder(f"test/{generator}/0_real", mixed, settings.test))
        folders.append(ImageFolder(f"test/{generator}/1_fake", mixed, settings.test, generator))
    return folders


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Compute on one thread, so that sums and bytes do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _take(size: int, job: tuple[tuple[int, ...], int]) -> np.ndarray:
    seed, scene = job
    return photograph(seed, size, SCENES[scene])


Photographer = Callable[[Sequence[tuple[int, ...]], int, list[int]], Tensor]
"""Takes N seeds, a size in pixels and N scenes; returns photographs.

They are [N, 3, size, size] in double precision, display values in [0, 1].
"""


@contextmanager
def photographer(workers: int) -> Iterator[Photographer]:
    """Yield a photographer that works in `workers` processes; with one, in this process."""
    if workers == 1:
        yield lambda seeds, size, scenes: _stack(
            map(partial(_take, size), zip(seeds, scenes, strict=True))
        )
        return
    # spawn: forking a process in which PyTorch has already started threads can hang
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield lambda seeds, size, scenes: _stack(
            pool.map(partial(_take, size), zip(seeds, scenes, strict=True), chunksize=8)
        )


def _stack(images: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(images)))


def fit_generators(
    take: Photographer, seed: int
) -> tuple[dict[str, AutoEncoder], dict[str, float]]:
    """Fit each generator on photographs that are in no folder.

    Args:
        take: makes the photographs.
        seed: seed of the dataset.

    Returns:
        The generators by name, and their PSNR in dB on `FIT_IMAGES` further photographs.
    """
    half = FIT_IMAGES
    seeds = [(seed, 0, index) for index in range(2 * half)]
    images = take(seeds, FIT_SIZE, [index % len(SCENES) for index in range(2 * half)])
    models = {
        name: fit_autoencoder(OPERATORS[operator], images[:half], channels)
        for name, (operator, channels) in GENERATORS.items()
    }
    held_out = images[half:]
    errors = {
        name: float((model(held_out) - held_out).square().mean()) for name, model in models.items()
    }
    return models, {name: round(-10 * float(np.log10(error)), 2) for name, error in errors.items()}


def write_images(folder: Path, images: Tensor) -> None:
    """Quantise images to 8 bits and write them as 0000.png, 0001.png, ...

    Args:
        folder: folder to make.
        images: [N, 3, H, W], display values; clipped to [0, 1].
    """
    folder.mkdir(parents=True)
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:04d}.png")


def fill(output: Path, settings: Settings, workers: int) -> dict[str, float]:
    """Make all images below `output` and return the PSNR of each generator in dB.

    The bytes do not depend on `workers`.
    """
    folders = planned_folders(settings)
    total = sum(folder.amount for folder in folders)
    if total < POOL_FROM:
        workers = 1
    progress = tqdm(total=total, unit="image", desc="demo data", leave=False, disable=None)
    with _single_threaded(), photographer(workers) as take, progress:
        models, psnr = fit_generators(take, settings.seed)
        for number, folder in enumerate(folders, start=1):
            write_images(output / folder.path, render(folder, number, settings, models, take))
            progress.update(folder.amount)
    return psnr


def render(
    folder: ImageFolder,
    number: int,
    settings: Settings,
    models: dict[str, AutoEncoder],
    take: Photographer,
) -> Tensor:
    """Return the images of a folder.

    Args:
        folder: the folder.
        number: seed of the folder, from 1; 0 is that of the photographs for fitting.
        settings: seed and size.
        models: fitted generators by name.
        take: makes the photographs.

    Returns:
        [N, 3, size, size], display values, not clipped.
    """
    scenes = [folder.scenes[index % len(folder.scenes)] for index in range(folder.amount)]
    images = take(
        [(settings.seed, number, index) for index in range(folder.amount)], settings.size, scenes
    ).float()
    if not folder.generator:
        return images
    noise_seed = np.random.SeedSequence((settings.seed, number)).generate_state(1)[0]
    noise = torch.Generator().manual_seed(int(noise_seed))
    return restore_detail(images, models[folder.generator](images), noise)
