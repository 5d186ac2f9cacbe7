"""Batches of images between loader and network."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

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
