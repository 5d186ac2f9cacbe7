"""Samplers whose order depends on (seed, epoch) alone.

Workers, prefetching and resuming therefore change nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import Sampler


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
