"""Photographs that go through an up-sampler: same content, another trace, the same in every process."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.self_made import draw, self_made
from data.upsamplers import OPERATORS
from tools._demo_images import SCENES, photograph

SIDE = 96


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    pictures = [photograph((7, index), SIDE, SCENES[index % len(SCENES)]) for index in range(8)]
    return [torch.from_numpy((picture.clip(0, 1) * 255).round().astype(np.uint8)) for picture in pictures]


def made_of(pixels: Tensor, seed: int, *operators: str) -> Tensor:
    return self_made(pixels, np.random.default_rng(seed), operators or tuple(OPERATORS))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 10**6),
    contrast=st.sampled_from((0, 1, 255)),
)
def test_any_picture_keeps_its_size(height: int, width: int, seed: int, contrast: int) -> None:
    pixels = torch.randint(contrast + 1, (3, height, width), dtype=torch.uint8)
    made = made_of(pixels, seed)
    assert made.shape == pixels.shape and made.dtype == torch.uint8


def test_flat_pictures_stay_flat() -> None:
    pixels = torch.tensor([40, 120, 200], dtype=torch.uint8)[:, None, None].expand(3, 64, 48)
    for seed in range(30):
        made = made_of(pixels, seed).float()
        assert (made - pixels).abs().mean() < 8  # a decoder with wrong weights leaves a pattern


@pytest.mark.parametrize("operator", OPERATORS)
def test_content_stays_and_a_periodic_trace_comes(photographs: list[Tensor], operator: str) -> None:
    """What a pixel differs by from the mean of its neighbours is, in size, the same in all four phases of a photograph."""
    before, after, psnr = [], [], []
    for seed in range(24):
        pixels = photographs[seed % len(photographs)]
        made = made_of(pixels, seed, operator)
        before.append(unevenness(pixels))
        after.append(unevenness(made))
        psnr.append(10 * np.log10(255**2 / float((made.float() - pixels.float()).square().mean())))
    assert np.median(psnr) > 24
    assert np.mean(np.array(after) > before) > 0.8


def unevenness(pixels: Tensor) -> float:
    """Spread of the mean absolute Laplacian over the 16 phases of a grid of 4 pixels, as a share of its mean."""
    inner = pixels.float()
    laplacian = (
        4 * inner[:, 1:-1, 1:-1] - inner[:, 2:, 1:-1] - inner[:, :-2, 1:-1] - inner[:, 1:-1, 2:] - inner[:, 1:-1, :-2]
    )
    size = laplacian.abs()[:, : (SIDE - 2) // 4 * 4, : (SIDE - 2) // 4 * 4]
    phases = torch.stack([size[:, i::4, j::4].mean() for i in range(4) for j in range(4)])
    return float(phases.std() / phases.mean())


def test_the_generator_decides_and_the_number_of_threads_does_not(photographs: list[Tensor]) -> None:
    threads = torch.get_num_threads()
    one = [made_of(photographs[0], seed) for seed in range(12)]
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert all(torch.equal(made, made_of(photographs[0], seed)) for seed, made in enumerate(one))
    finally:
        torch.set_num_threads(threads)
    assert torch.get_num_threads() == threads
    assert len({made.numpy().tobytes() for made in one}) == 12


def test_operators_stages_and_phases_are_all_drawn() -> None:
    drawn = [draw(np.random.default_rng(seed)) for seed in range(400)]
    assert {d.operator.kernel_size for d in drawn} == {1, 3, 4} and {len(d.channels) for d in drawn} == {1, 2}
    assert {d.offset for d in drawn if len(d.channels) == 2} == {(i, j) for i in range(4) for j in range(4)}
    assert {d.offset for d in drawn if len(d.channels) == 1} == {(i, j) for i in range(2) for j in range(2)}
    assert all(d.operator.shuffle for d in (draw(np.random.default_rng(s), ["pixel_shuffle"]) for s in range(20)))
