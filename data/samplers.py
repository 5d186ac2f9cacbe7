"""The order of images as a function of (seed, epoch) alone, so that workers, prefetching and resuming change nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class SampleKey:
    """What a dataset is asked for: the epoch decides, with the seed and the index, every random augmentation."""

    epoch: int
    index: int


class EpochSampler(Sampler[SampleKey]):
    """Yields every image's key once per epoch, in order, shuffled, or drawn with weights.

    Args:
        size: number of images.
        seed: with the epoch, decides the order.
        shuffle: a fresh permutation per epoch.
        weights: one per image; draw `size` images with replacement in proportion to them (then `shuffle` has no effect).
    """

    def __init__(self, size: int, seed: int = 0, shuffle: bool = False, weights: Sequence[float] | None = None) -> None:
        self.size, self.seed, self.shuffle, self.weights = size, seed, shuffle, weights
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and how many of its keys to leave out at its beginning (after an interruption)."""
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


def balancing_weights(labels: Sequence[int]) -> list[float]:
    """Weights that draw each class equally often: one over the number of images of the image's class."""
    counts = torch.bincount(torch.tensor(labels)).tolist()
    return [1.0 / counts[label] for label in labels]
