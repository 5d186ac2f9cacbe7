"""Random histories of training pictures: sizes, and how often each step happens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import data.augmentation as module
from data.augmentation import matched


def noise(height: int, width: int) -> Tensor:
    return torch.randint(
        256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@settings(max_examples=80, deadline=None)
@given(
    side=st.integers(1, 40),
    more=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    seed=st.integers(0, 10**6),
)
def test_what_comes_out_can_be_cropped(side: int, more: tuple[int, int], seed: int) -> None:
    out = matched(noise(side + more[0], side + more[1]), np.random.default_rng(seed), 1.0, side)
    assert out.dtype == torch.uint8 and min(out.shape[1:]) >= side


def test_without_probability_nothing_but_a_window_is_taken() -> None:
    pixels = noise(50, 60)
    for seed in range(10):
        out = matched(pixels, np.random.default_rng(seed), 0.0, 24)
        assert out.shape[1:] == (31, 31)
        windows = pixels.unfold(1, 31, 1).unfold(2, 31, 1)  # [3, 20, 30, 31, 31]
        assert (windows == out[:, None, None]).all(-1).all(-1).all(0).any()


def test_steps_happen_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"blur": 0, "jpeg": 0, "resize": 0}

    def counting(name: str, original: object) -> object:
        def call(*args: object) -> object:
            counts[name] += 1
            return original(*args)  # type: ignore[operator]

        return call

    monkeypatch.setattr(module, "gaussian_blur", counting("blur", module.gaussian_blur))
    monkeypatch.setattr(module, "pil_jpeg", counting("jpeg", module.pil_jpeg))
    monkeypatch.setattr(module.TF, "resize", counting("resize", module.TF.resize))
    for seed in range(1000):
        matched(noise(48, 48), np.random.default_rng(seed), 0.4, 16)
    assert counts["jpeg"] == pytest.approx(400, abs=60)
    assert counts["blur"] == pytest.approx(200, abs=50)
    assert counts["resize"] == pytest.approx(600, abs=80)  # shrinking, and the resize after
