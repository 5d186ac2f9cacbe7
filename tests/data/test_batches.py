"""Batches on their way: regrouping by size loses nothing and stays within its memory."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.batches import Batch, EpochSampler, ProcessBatches, ahead, regrouped


def batch_of(indices: list[int], side: int) -> Batch:
    numbers = torch.tensor(indices)
    pixels = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, side, side).contiguous()
    return Batch(pixels, numbers % 2, numbers, torch.zeros_like(numbers))


@st.composite
def streams(draw: st.DrawFn) -> list[Batch]:
    """Batches of 1 to 6 images with sides of 1 to 4 pixels; all images are numbered through."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), max_size=20))
    starts = [sum(count for count, _ in sizes[:position]) for position in range(len(sizes))]
    return [
        batch_of(list(range(s, s + count)), side)
        for s, (count, side) in zip(starts, sizes, strict=True)
    ]


def images_of(batches: list[Batch]) -> Counter:
    """(index, label, side, value of its pixels) of every image."""
    return Counter(
        (index, label, image.shape[-1], int(image.float().mean()))
        for batch in batches
        for image, label, index in zip(
            batch.pixels, batch.labels.tolist(), batch.indices.tolist(), strict=True
        )
    )


@given(streams(), st.integers(1, 6), st.sampled_from((0, 60, 10**6)))
def test_regrouping_keeps_every_image_once_and_fills_batches(
    stream: list[Batch], size: int, room: int
) -> None:
    out = list(regrouped(stream, size, room))
    assert images_of(out) == images_of(stream)
    assert all(1 <= len(batch.labels) <= size for batch in out)
    if room == 10**6:  # nothing had to go early: at most one batch of each size is not full
        partial = Counter(batch.pixels.shape[-1] for batch in out if len(batch.labels) < size)
        assert all(count == 1 for count in partial.values())


def test_no_more_pixels_wait_than_allowed() -> None:
    taken = given_back = 0

    def stream() -> object:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield batch_of([number], 1 + number % 50)

    for batch in regrouped(stream(), 8, waiting_bytes=3 * 50 * 50):
        given_back += len(batch.labels)
        assert taken - given_back <= 50  # so many of the smallest sizes at most


def test_what_waits_lies_in_its_own_memory() -> None:
    """A tensor from a worker holds a file open: many of them must not be kept."""
    stream = [
        Batch(*(column.share_memory_() for column in batch_of([n, n + 40], 1 + n)))
        for n in range(30)
    ]
    out = list(regrouped(stream, 8))
    assert len(out) == 30 and not any(column.is_shared() for batch in out for column in batch)


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 12))
def test_processes_share_every_batch(size: int, batch_size: int, world: int, start: int) -> None:
    """Together the parts are each key once, each process takes the same number of steps, and parts
    differ by one at most."""
    sampler = EpochSampler(size, seed=3, shuffle=True)
    sampler.set_epoch(2, start=start)
    parts = [list(ProcessBatches(sampler, batch_size, rank, world)) for rank in range(world)]
    alone = list(ProcessBatches(sampler, batch_size))
    assert (
        {len(part) for part in parts} == {len(alone)} == {len(ProcessBatches(sampler, batch_size))}
    )
    for batch, *shared in zip(alone, *parts, strict=True):
        keys = [key.index for part in shared for key in part]
        assert Counter(keys) == Counter(key.index for key in batch)
        assert max(map(len, shared)) - min(map(len, shared)) <= 1
    assert [key for batch in alone for key in batch] == list(sampler)


def test_on_the_cpu_steps_pass_unchanged() -> None:
    steps = [[batch_of([0], 2)], [], [batch_of([1], 2)]]
    assert list(map(id, ahead(steps, torch.device("cpu")))) == list(map(id, steps))


@pytest.mark.gpu
def test_on_a_gpu_the_same_pixels_come_in_the_same_order() -> None:
    steps = [[batch_of([n, n + 1], 64)] for n in range(0, 40, 2)]
    for moved, step in zip(ahead(steps, torch.device("cuda")), steps, strict=True):
        assert moved[0].pixels.device.type == "cuda"
        assert torch.equal(moved[0].pixels.cpu(), step[0].pixels)
