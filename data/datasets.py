"""From a list of files to batches of tensors; files that cannot be read are left out and reported,
never scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

import distributed
from data.batches import Batch, ahead, regrouped
from data.cache import PixelCache
from data.decode import UnreadableImage, read_image
from data.degradations import NOTHING, Degradation
from data.samplers import EpochSampler, ProcessBatches, SampleKey
from data.transforms import Protocol
from data.workers import WORKER_ADVICE, WatchedLoader, init_worker
from util import UserError, log, printable


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a worker hands it over; `problem` says why there are no pixels."""

    index: int
    variant: int
    label: int
    pixels: Tensor | None  # uint8 [3, H, W]
    problem: str


class LoadedBatch(NamedTuple):
    """What one step of a loader brings: batches grouped by image size, and what was left out; or
    that memory had no room for it."""

    groups: list[Batch]
    left_out: list[tuple[int, int, str]]  # (index, variant, reason)
    no_room: bool = False


class ImageDataset(Dataset[list[Sample]]):
    """Files with labels under a protocol; asked for a `SampleKey`, so that augmentation depends on
    (seed, epoch, index) only.

    Args:
        variants: what is done to each picture before the protocol; every file is decoded once and
            comes once per variant.
        cache: the files' pixels after the protocol's first half, to be taken instead of the files;
            not with `variants`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        protocol: Protocol,
        seed: int = 0,
        variants: Sequence[Degradation] = (NOTHING,),
        cache: PixelCache | None = None,
    ) -> None:
        self.paths, self.labels = list(paths), list(labels)
        self.protocol, self.seed, self.variants = protocol, seed, list(variants)
        self.cache = cache
        if cache is not None and self.variants != [NOTHING]:
            raise ValueError("a cache holds pictures as they are: no variants of them")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: SampleKey) -> list[Sample]:
        if self.cache is not None:
            return [self._from_cache(key, self.cache)]
        try:
            image = read_image(self.paths[key.index])
        except UnreadableImage as error:
            return [
                self._sample(key, variant, None, str(error))
                for variant in range(len(self.variants))
            ]
        return [self._of_variant(key, variant, image) for variant in range(len(self.variants))]

    def _from_cache(self, key: SampleKey, cache: PixelCache) -> Sample:
        if (why := cache.problem(key.index)) is not None:
            return self._sample(key, 0, None, why)
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        try:
            return self._sample(key, 0, self.protocol.finish(cache.pixels(key.index), rng), "")
        except ValueError as error:  # smaller than the crop
            return self._sample(key, 0, None, str(error))

    def _of_variant(self, key: SampleKey, variant: int, image: Image.Image) -> Sample:
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        try:
            return self._sample(
                key, variant, self.protocol.pixels(self.variants[variant](image, rng), rng), ""
            )
        # smaller than the crop; more pixels than an encoder takes
        except (ValueError, OSError) as error:
            return self._sample(key, variant, None, str(error))

    def _sample(self, key: SampleKey, variant: int, pixels: Tensor | None, problem: str) -> Sample:
        return Sample(key.index, variant, self.labels[key.index], pixels, problem)


def collate(files: list[list[Sample]]) -> LoadedBatch:
    """Stack samples of the same size, in order of first appearance; list those without pixels."""
    samples = [sample for file in files for sample in file]
    by_size: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        if sample.pixels is not None:
            by_size.setdefault(tuple(sample.pixels.shape), []).append(sample)
    groups = [
        Batch(
            torch.stack([sample.pixels for sample in group if sample.pixels is not None]),
            torch.tensor([sample.label for sample in group]),
            torch.tensor([sample.index for sample in group]),
            torch.tensor([sample.variant for sample in group]),
        )
        for group in by_size.values()
    ]
    # here: the queue would lose the batch, and its parent wait for ever
    if get_worker_info() is not None:
        try:
            for tensor in chain.from_iterable(groups):
                tensor.share_memory_()
        except RuntimeError:
            return LoadedBatch([], [], no_room=True)
    return LoadedBatch(
        groups, [(s.index, s.variant, s.problem) for s in samples if s.pixels is None]
    )


class ImageLoader:
    """Iterates over (images [B, 3, H, W], labels [B]) pairs; `batches()` adds the indices,
    `left_out` the files without a score.

    Pictures of different native sizes come as separate batches, so that B is at most the batch size
    (or the number of variants of one file, where that is more). Of several processes, each gets its
    part of each batch, at least one file of full ones.

    Args:
        dataset: the files. sampler: their order. batch_size: images per batch, over all processes
            together.
        num_workers: processes that decode; does not change what comes out. pin_memory: for copies
            to a GPU.
        on_bad_image: what `leave_out` does: 'skip' the file, or 'fail'.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        sampler: EpochSampler,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        on_bad_image: str = "skip",
    ) -> None:
        self.dataset, self.sampler, self.batch_size = dataset, sampler, batch_size
        self.on_bad_image = on_bad_image
        # per variant: path -> reason
        self.left_out_of: list[dict[str, str]] = [{} for _ in dataset.variants]
        files = max(distributed.world_size(), batch_size // len(dataset.variants))
        self._loader: DataLoader[list[Sample]] = DataLoader(
            dataset,
            batch_sampler=ProcessBatches(
                sampler, files, distributed.rank(), distributed.world_size()
            ),
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=init_worker,
            # its own, so that making an iterator draws nothing from the global one
            generator=torch.Generator(),
        )
        self.watched = WatchedLoader(self._loader)

    @property
    def left_out(self) -> dict[str, str]:
        """Files without a score in the first variant: path -> reason."""
        return self.left_out_of[0]

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches():
            yield self.images(batch), batch.labels

    def images(self, batch: Batch, device: torch.device | str = "cpu") -> Tensor:
        """The batch's pixels as the network sees them, [B, 3, H, W] normalised float32, moved to
        the device as bytes."""
        return self.dataset.protocol.normalise(batch.pixels.to(device, non_blocking=True))

    def batches(self) -> Iterator[Batch]:
        """The batches with their indices into `dataset.paths`."""
        for step in self.steps():
            yield from step

    def full_batches(self, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """The same pictures in another order: those of one size, from different steps, fill a
        batch; pixels on the device."""
        share = max(1, distributed.share_of(self.batch_size))
        for step in ahead(
            ([batch] for batch in regrouped(self.batches(), share)), torch.device(device)
        ):
            yield from step

    def steps(self, device: torch.device | str = "cpu") -> Iterator[list[Batch]]:
        """What each group of files became: usually one batch; several when sizes differ; none when
        all are bad.

        Pixels lie on the device, copied while the step before is worked on.
        """
        return ahead(self._steps(), torch.device(device))

    def _steps(self) -> Iterator[list[Batch]]:
        for loaded in self.watched:
            if loaded.no_room:
                raise UserError(f"--num_threads: shared memory (/dev/shm) is full; {WORKER_ADVICE}")
            for index, variant, why in loaded.left_out:
                self.leave_out(self.dataset.paths[index], why, variant)
            yield [Batch(*group) for group in loaded.groups]

    def leave_out(self, path: str, why: str, variant: int = 0) -> None:
        """Note, once, that a file has no score in a variant, and why.

        Raises:
            UserError: --on_bad_image fail.
        """
        if self.on_bad_image == "fail":
            raise UserError(f"--on_bad_image fail: {printable(path)} ({why})")
        seen = any(path in left_out for left_out in self.left_out_of)
        self.left_out_of[variant].setdefault(path, why)
        if not seen:
            log.warning("left out %s (%s)", printable(path), why)
