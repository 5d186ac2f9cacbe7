"""Random changes of training images: sizes, and how often each step happens."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import data.augmentation as module
from data.augmentation import matched


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 60), st.integers(0, 10**6))
def test_the_result_can_be_cropped(side: int, higher: int, wider: int, seed: int) -> None:
    out = matched(noise(side + higher, side + wider), np.random.default_rng(seed), 1.0, side)
    assert out.dtype == torch.uint8 and min(out.shape[1:]) >= side


def test_without_probability_only_a_window_is_taken() -> None:
    pixels = noise(50, 60)
    windows = pixels.unfold(1, 31, 1).unfold(2, 31, 1)  # [3, 20, 30, 31, 31]
    for seed in range(10):
        out = matched(pixels, np.random.default_rng(seed), 0.0, 24)
        assert (windows == out[:, None, None]).all(-1).all(-1).all(0).any()


def test_steps_happen_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()

    def count(name: str, function: object, *arguments: object) -> object:
        counts[name] += 1
        return function(*arguments)  # type: ignore[operator]

    for owner, name in ((module, "gaussian_blur"), (module, "pil_jpeg"), (module.TF, "resize")):
        monkeypatch.setattr(owner, name, partial(count, name, getattr(owner, name)))
    for seed in range(1000):
        matched(noise(24, 24), np.random.default_rng(seed), 0.4, 8)
    assert counts["pil_jpeg"] == pytest.approx(400, abs=60)
    assert counts["gaussian_blur"] == pytest.approx(200, abs=50)
    assert counts["resize"] == pytest.approx(600, abs=80)  # shrinking, and the resize after
