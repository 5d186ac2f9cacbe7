"""Loaders of batches for training, validation and testing."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import distributed
from data.batches import Batch, EpochSampler, ProcessBatches, ahead, balancing_weights, regrouped
from data.cache import PixelCache, open_cache
from data.datasets import WORKER_ADVICE, ImageDataset, WatchedLoader, collate, init_worker
from data.degradations import NOTHING, Degradation
from data.image_sets import ClassNames, ImageSet
from data.label_file import label_split
from data.layouts import find_test_sets
from data.protocols import evaluation_protocol, training_protocol
from data.splits import load_split
from data.transforms import Protocol
from util import UserError, log, printable


class ImageLoader:
    """Iterates over (images [B, 3, H, W], labels [B]) pairs; `batches()` adds the indices.

    Images of different sizes come as separate batches, so B is at most the batch size (or the
    number of variants of one file, where that is more). Of several processes, each gets its part of
    each batch, at least one file of full ones.

    Args:
        dataset: the files.
        sampler: their order.
        batch_size: images per batch, over all processes together.
        num_workers: processes that decode; does not change what comes out.
        on_bad_image: what to do with a file that has no pixels: 'skip' it, or 'fail'.
        least: files of a process' part, see `ProcessBatches`.

    Attributes:
        left_out_of: for each variant, why files are skipped, by path.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        sampler: EpochSampler,
        batch_size: int,
        num_workers: int = 0,
        on_bad_image: str = "skip",
        least: int = 1,
    ) -> None:
        self.dataset, self.sampler, self.batch_size = dataset, sampler, batch_size
        self.on_bad_image = on_bad_image
        self.left_out_of: list[dict[str, str]] = [{} for _ in dataset.variants]
        files = max(distributed.world_size(), batch_size // len(dataset.variants))
        rank, world_size = distributed.rank(), distributed.world_size()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=ProcessBatches(sampler, files, rank, world_size, least),
            num_workers=num_workers,
            collate_fn=collate,
            persistent_workers=num_workers > 0,
            worker_init_fn=init_worker,
            # its own, so that making an iterator draws nothing from the global one
            generator=torch.Generator(),
        )
        self.watched = WatchedLoader(self._loader)

    @property
    def left_out(self) -> dict[str, str]:
        """Return the skipped files of the first variant: path -> reason."""
        return self.left_out_of[0]

    def __len__(self) -> int:
        """Return the steps per epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches():
            yield self.images(batch), batch.labels

    def images(self, batch: Batch, device: torch.device | str = "cpu") -> Tensor:
        """Return the pixels as the network sees them, [B, 3, H, W] float32, moved as bytes."""
        return self.dataset.protocol.normalise(batch.pixels.to(device, non_blocking=True))

    def batches(self) -> Iterator[Batch]:
        """Yield the batches with their indices into `dataset.paths`."""
        for step in self.steps():
            yield from step

    def full_batches(self, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield batches filled with images of one size from several steps; pixels on the device."""
        share = max(1, distributed.share_of(self.batch_size))
        device = torch.device(device)
        batches = (batch for step in self._steps(device) for batch in step)
        regrouped_steps = ([batch] for batch in regrouped(batches, share))
        for step in ahead(regrouped_steps, device):
            yield from step

    def steps(self, device: torch.device | str = "cpu") -> Iterator[list[Batch]]:
        """Yield what each group of files became; pixels on the device, copied one step ahead.

        That is usually one batch; several when sizes differ; none when all files are bad.
        """
        device = torch.device(device)
        return ahead(self._steps(device), device)

    def _steps(self, device: torch.device) -> Iterator[list[Batch]]:
        # for copies to a GPU; on the CPU it would open a GPU that the machine has
        self._loader.pin_memory = device.type == "cuda"
        for loaded in self.watched:
            if loaded.no_room:
                raise UserError(f"--num_threads: shared memory (/dev/shm) is full; {WORKER_ADVICE}")
            for index, variant, why in loaded.left_out:
                self.leave_out(self.dataset.paths[index], why, variant)
            yield loaded.groups

    def leave_out(self, path: str, why: str, variant: int = 0) -> None:
        """Note that a file is skipped in a variant, and log it once.

        Raises:
            UserError: --on_bad_image fail.
        """
        if self.on_bad_image == "fail":
            raise UserError(f"--on_bad_image fail: {printable(path)} ({why})")
        seen = any(path in left_out for left_out in self.left_out_of)
        self.left_out_of[variant].setdefault(path, why)
        if not seen:
            log.warning("skipped %s (%s)", printable(path), why)


def create_dataloader(opt: Any, split: str | None = None, least: int = 1) -> ImageLoader:
    """Return a loader of images [B, 3, H, W] and labels [B] (0 real, 1 fake) for these options.

    Args:
        opt: TrainOptions (the train split, shuffled and augmented) or TestOptions (all of
            --dataroot, in order).
        split: with TrainOptions, another folder of --dataroot, in order and without augmentation
            (such as opt.val_split).
        least: files of a process' part of a training batch, see `ProcessBatches`.

    Raises:
        UserError: no class folders or images there, or a class is missing where training needs
            both.
    """
    if opt.isTrain and split is None:
        return _training_loader(opt, least)
    if opt.isTrain:
        images = shared_set(opt, str(split))
        protocol = training_protocol(opt)
    else:
        root, sets = distributed.by_first(
            lambda: find_test_sets(opt.dataroot, opt.classes, class_names(opt))
        )
        if len(sets) > 1:
            raise UserError(
                f"--dataroot {root}: has {len(sets)} sets;"
                f" a loader takes one, such as {sets[0].generator}"
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


def _training_loader(opt: Any, least: int) -> ImageLoader:
    protocol = training_protocol(opt)
    images = shared_set(opt, opt.train_split)
    sampler = EpochSampler(
        size=len(images.paths),
        seed=opt.seed,
        shuffle=not opt.serial_batches,
        weights=balancing_weights(images.labels) if opt.class_bal else None,
    )
    cache = _cached_pixels(opt.cache, images, protocol, opt.num_threads)
    dataset = ImageDataset(images.paths, images.labels, protocol, opt.seed, cache=cache)
    workers = worker_count(opt.num_threads)
    return ImageLoader(dataset, sampler, opt.batch_size, workers, opt.on_bad_image, least)


def evaluation_loader(
    images: ImageSet,
    protocol: Protocol,
    batch_size: int,
    num_threads: int = 0,
    variants: Sequence[Degradation] = (NOTHING,),
    cache: str | None = None,
    on_bad_image: str = "skip",
) -> ImageLoader:
    """Return a loader of one set in order, without anything random, once per variant of each image.

    Args:
        images: the set.
        protocol: its evaluation form is used.
        batch_size: images per batch.
        num_threads: see `worker_count`.
        variants: see `ImageDataset`.
        cache: folder of caches (see `data.cache.open_cache`), not used for variants.
        on_bad_image: see `ImageLoader`.
    """
    protocol = protocol.for_evaluation()
    plain = list(variants) == [NOTHING]
    cached = _cached_pixels(cache, images, protocol, num_threads) if plain else None
    dataset = ImageDataset(images.paths, images.labels, protocol, variants=variants, cache=cached)
    workers = worker_count(num_threads) if len(images.paths) > batch_size else 0
    sampler = EpochSampler(len(dataset))
    return ImageLoader(dataset, sampler, batch_size, workers, on_bad_image)


def worker_count(asked: int) -> int:
    """Return --num_threads, but not more than this process' share of the cores."""
    return min(asked, max(1, cores() // distributed.local_world_size()))


def cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_set(opt: Any, split: str) -> ImageSet:
    """Return the split that `load_split` finds in rank 0, so that all ranks number files alike.

    Collective: every process must call it.

    Args:
        opt: TrainOptions.
        split: folder of --dataroot; --train_split or --val_split where that is a table.
    """

    def load() -> ImageSet:
        root, names, one_class = Path(opt.dataroot), class_names(opt), opt.allow_one_class_folders
        if root.is_file():
            part = "train" if split == opt.train_split else "val"
            return label_split(root, part, opt.classes, names)
        splits = (split, opt.val_split) if split == opt.train_split else ()
        return load_split(root, split, opt.classes, names, one_class, splits)

    return distributed.by_first(load)


def class_names(opt: Any) -> ClassNames:
    """Return the names of class folders with those of --real_names and --fake_names."""
    return ClassNames(opt.real_names, opt.fake_names)


def _cached_pixels(
    root: str | None, images: ImageSet, protocol: Protocol, num_threads: int
) -> PixelCache | None:
    """Open the cache of a set below `root` (--cache), which one process per machine builds."""
    if root is None:
        return None
    with distributed.first_of_machine_first():
        return open_cache(root, images.paths, protocol, max(1, min(num_threads, cores())))
