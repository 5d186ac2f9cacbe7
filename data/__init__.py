"""Images on disk to batches of tensors."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import distributed
from data.cache import PixelCache, open_cache
from data.datasets import ImageDataset, ImageLoader
from data.degradations import NOTHING, Degradation
from data.image_sets import FAKE, REAL, ImageSet
from data.layouts import find_test_sets, load_set
from data.protocols import evaluation_protocol, training_protocol
from data.samplers import EpochSampler, balancing_weights
from data.transforms import Protocol
from util import UserError

__all__ = ["create_dataloader", "evaluation_loader", "shared_set"]


def worker_count(asked: int) -> int:
    """--num_threads, but not more than the cores that this process may use, divided among the processes on this machine."""
    return min(asked, max(1, cores() // distributed.local_world_size()))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def create_dataloader(opt: Any, split: str | None = None) -> ImageLoader:
    """A loader of (images [B, 3, H, W] normalised float32, labels [B]: 0 real, 1 fake) for these
    options.

    Args:
        opt: TrainOptions (the train split, shuffled and augmented) or TestOptions (all of
            --dataroot, in order).
        split: with TrainOptions, another folder of --dataroot, in order and without augmentation
            (such as opt.val_split).

    Raises:
        UserError: no class folders or no images there, or a class is missing where training needs
            both.
    """
    if not opt.isTrain:
        root, sets = distributed.by_first(lambda: find_test_sets(opt.dataroot, opt.classes))
        if len(sets) > 1:
            raise UserError(
                f"--dataroot {root}: has {len(sets)} sets; a loader takes one, such as {sets[0].generator}"
            )
        images = sets[0]
        protocol = evaluation_protocol(Protocol("published"), images.suite, opt)
        return evaluation_loader(
            images,
            protocol,
            opt.batch_size,
            opt.num_threads,
            cache=opt.cache,
            on_bad_image=opt.on_bad_image,
        )
    protocol = training_protocol(opt)
    if split is not None:
        images = shared_set(Path(opt.dataroot) / split, opt.classes)
        return evaluation_loader(
            images,
            protocol,
            opt.batch_size,
            opt.num_threads,
            cache=opt.cache,
            on_bad_image=opt.on_bad_image,
        )
    images = shared_set(Path(opt.dataroot) / opt.train_split, opt.classes)
    require_both_classes(images, opt)
    sampler = EpochSampler(
        size=len(images.paths),
        seed=opt.seed,
        shuffle=not opt.serial_batches,
        weights=balancing_weights(images.labels) if opt.class_bal else None,
    )
    cache = cached_pixels(opt.cache, images, protocol, opt.num_threads)
    dataset = ImageDataset(images.paths, images.labels, protocol, opt.seed, cache=cache)
    workers = worker_count(opt.num_threads)
    return ImageLoader(
        dataset, sampler, opt.batch_size, workers, torch.cuda.is_available(), opt.on_bad_image
    )


def shared_set(root: Path, classes: tuple[str, ...]) -> ImageSet:
    """`load_set` by the first process for all, which so number the same files alike, whatever
    happens to the folder. Collective."""
    return distributed.by_first(lambda: load_set(root, classes=classes))


def cached_pixels(
    root: str | None, images: ImageSet, protocol: Protocol, num_threads: int
) -> PixelCache | None:
    """The cache of a set below `root` (--cache), built where it is missing, by one process per
    machine; None without."""
    if root is None:
        return None
    with distributed.first_of_machine_first():
        return open_cache(root, images.paths, protocol, max(1, min(num_threads, cores())))


def require_both_classes(images: ImageSet, opt: Any) -> None:
    """Raises UserError when a training set has only one class."""
    for label, name in ((REAL, "real (0_real/)"), (FAKE, "fake (1_fake/)")):
        if label not in images.labels:
            raise UserError(
                f"--dataroot {opt.dataroot}: {opt.train_split}/ has no {name} images; training needs both classes"
            )


def evaluation_loader(
    images: ImageSet,
    protocol: Protocol,
    batch_size: int,
    num_threads: int = 0,
    variants: Sequence[Degradation] = (NOTHING,),
    cache: str | None = None,
    on_bad_image: str = "skip",
) -> ImageLoader:
    """A loader of one set in order, under a protocol without anything random, once per variant of
    each picture.

    Args:
        cache: folder of caches (see `data.cache.open_cache`), not used for variants; None for none.
        on_bad_image: see `ImageLoader`.
    """
    protocol = protocol.for_evaluation()
    plain = list(variants) == [NOTHING]
    cached = cached_pixels(cache, images, protocol, num_threads) if plain else None
    dataset = ImageDataset(images.paths, images.labels, protocol, variants=variants, cache=cached)
    workers = worker_count(num_threads) if len(images.paths) > batch_size else 0
    sampler = EpochSampler(len(dataset))
    return ImageLoader(
        dataset, sampler, batch_size, workers, torch.cuda.is_available(), on_bad_image
    )
