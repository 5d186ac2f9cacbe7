"""Samplers, whose order depends on seed and epoch alone, and batches on their way to the network."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

import distributed
from data.transforms import Protocol
from util import UserError

WAITING_BYTES = 2**28  # pixels that may wait for others of their size (256 MiB)


class Batch(NamedTuple):
    """Images of one size, to be normalised by `data.loader.ImageLoader.images`."""

    pixels: Tensor  # [B, 3, H, W] uint8
    labels: Tensor  # [B], 0 real, 1 fake
    indices: Tensor  # [B] into the dataset
    variants: Tensor  # [B] into its variants


def empty_part(protocol: Protocol) -> list[Batch]:
    """Return a batch of 0 images for a process without images; an empty list in a single process.

    Raises:
        UserError: images keep their own sizes, so that some processes would take more steps than
            others.
    """
    if distributed.world_size() == 1:
        return []
    side = protocol.crop or protocol.resize
    if side is None:
        raise UserError(
            "--no_crop, --no_resize: several processes need images of one size;"
            " leave one of them out"
        )
    empty = torch.zeros(0, dtype=torch.int64)
    return [Batch(torch.zeros(0, 3, side, side, dtype=torch.uint8), empty, empty, empty)]


def ahead(steps: Iterable[list[Batch]], device: torch.device) -> Iterator[list[Batch]]:
    """Yield the steps with their pixels on the device.

    To a GPU the next step is copied, on a stream of its own, during this one.
    """
    if device.type != "cuda":
        yield from steps
        return
    copying = copying_stream(device)
    before: list[Batch] | None = None
    for step in steps:
        with torch.cuda.stream(copying):
            moved = [
                batch._replace(pixels=pinned(batch.pixels).to(device, non_blocking=True))
                for batch in step
            ]
        if before is not None:
            yield before
        torch.cuda.current_stream(device).wait_stream(copying)
        for batch in moved:
            batch.pixels.record_stream(torch.cuda.current_stream(device))
        before = moved
    if before is not None:
        yield before


@cache
def copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU on which pixels are copied.

    There is one, because the memory of each stream is kept apart.
    """
    return torch.cuda.Stream(device)


def pinned(pixels: Tensor) -> Tensor:
    """Return the pixels in pinned memory, which is lost where a loader's batch is taken apart."""
    return pixels if pixels.is_pinned() else pixels.pin_memory()


def regrouped(
    batches: Iterable[Batch], batch_size: int, waiting_bytes: int = WAITING_BYTES
) -> Iterator[Batch]:
    """Yield the same images in batches of `batch_size` of one size; the order changes.

    Images wait until their size has a full batch. When more than `waiting_bytes` of pixels wait,
    the size that has most of them goes out as it is, so that memory stays bounded however many
    sizes there are.
    """
    waiting: dict[tuple[int, ...], list[Batch]] = {}
    bytes_of: Counter[tuple[int, ...]] = Counter()
    for batch in batches:
        size = tuple(batch.pixels.shape[1:])
        missing = batch_size - sum(len(part.labels) for part in waiting.get(size, []))
        while len(batch.labels) >= missing:
            yield joined([*waiting.pop(size, []), part_of(batch, 0, missing)])
            batch, missing = part_of(batch, missing), batch_size
        if len(batch.labels):
            # a copy: a tensor from a worker keeps a file of shared memory open, and a part keeps
            # the whole
            waiting.setdefault(size, []).append(Batch(*(column.clone() for column in batch)))
        bytes_of[size] = sum(part.pixels.nbytes for part in waiting.get(size, []))
        while bytes_of.total() > waiting_bytes:
            largest, _ = bytes_of.most_common(1)[0]
            del bytes_of[largest]
            yield joined(waiting.pop(largest))
    for parts in waiting.values():
        yield joined(parts)


def part_of(batch: Batch, start: int, end: int | None = None) -> Batch:
    """Return images `start` to `end` of a batch, as views."""
    return Batch(*(column[start:end] for column in batch))


def joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch of several of the same image size."""
    return (
        batches[0]
        if len(batches) == 1
        else Batch(*(torch.cat(column) for column in zip(*batches, strict=True)))
    )


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Key of one sample of a dataset.

    Epoch, index and the dataset's seed decide every random augmentation.
    """

    epoch: int
    index: int


class EpochSampler(Sampler[SampleKey]):
    """Yields every image's key once per epoch, in order, shuffled, or drawn with weights.

    Args:
        size: number of images.
        seed: with the epoch, decides the order.
        shuffle: a fresh permutation per epoch.
        weights: one per image; `size` images are drawn with replacement in proportion to them.
            `shuffle` then has no effect.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        shuffle: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.size, self.seed, self.shuffle, self.weights = size, seed, shuffle, weights
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch and, to resume within it, the number of its first keys to skip."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return max(self.size - self.start, 0)

    def __iter__(self) -> Iterator[SampleKey]:
        generator = torch.Generator().manual_seed(self.seed * 2**20 + self.epoch)
        if self.weights is not None:
            weights = torch.tensor(self.weights, dtype=torch.double)
            order = torch.multinomial(weights, self.size, replacement=True, generator=generator)
        elif self.shuffle:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.arange(self.size)
        for index in order[self.start :].tolist():
            yield SampleKey(self.epoch, index)


class ProcessBatches(Sampler[list[SampleKey]]):
    """Batches of a sampler's keys, and of each batch the part of one process.

    The part holds the batch's keys `rank`, `rank + world_size`, ... Every process gets the same
    number of batches. The part of the last batch may be empty. All parts together hold every key
    once. A last batch of fewer than `least` keys joins the batch before.

    Args:
        sampler: yields the keys.
        batch_size: keys per batch, over all processes together.
        rank: of the process, in [0, world_size).
        world_size: number of processes.
        least: keys of a part, if the batch has as many; a small batch goes to fewer processes.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        least: int = 1,
    ) -> None:
        self.sampler, self.batch_size, self.least = sampler, batch_size, least
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest >= self.least or (rest > 0 and full == 0))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        keys, steps = iter(self.sampler), len(self)
        for step in range(1, steps + 1):
            batch = list(islice(keys, self.batch_size if step < steps else None))
            parts = max(1, min(self.world_size, len(batch) // self.least))
            yield batch[self.rank :: parts] if self.rank < parts else []


def balancing_weights(labels: Sequence[int]) -> list[float]:
    """Return a weight per image that draws each class equally often.

    It is one over the number of images of the image's class.
    """
    counts = torch.bincount(torch.tensor(labels)).tolist()
    return [1.0 / counts[label] for label in labels]
