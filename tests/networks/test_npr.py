"""The residual against the published formula, and against its own definition re-stated with
indices."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from networks.npr import NPRExtractor, npr_residual, reduced_size, residual_maps, scale_keys

SCALES = (
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    1 / 3,
    0.35,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    2 / 3,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
)
SIZES = ((224, 224), (256, 256), (225, 223), (31, 64), (17, 17), (100, 75))


def published_residual(x: torch.Tensor, scale: float) -> torch.Tensor:
    """x - up(down(x)) as published: two interpolations by factors; its size need not be that of x."""
    down = F.interpolate(x, scale_factor=scale, mode="nearest", recompute_scale_factor=True)
    up = F.interpolate(down, scale_factor=1 / scale, mode="nearest", recompute_scale_factor=True)
    return x - up


def kept_indices(size: int, scale: float) -> np.ndarray:
    """Which pixel each of `size` pixels shows: floor(floor(i p/q) q/p), in the float32 of PyTorch's
    operator."""
    exact = Fraction(scale).limit_denominator(100)
    reduced = np.floor(np.arange(size, dtype=np.float32) * np.float32(exact))
    return np.floor(reduced * np.float32(1 / exact)).astype(np.int64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", SCALES)
def test_equals_x_minus_indexed_x(size: tuple[int, int], scale: float) -> None:
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    rows, columns = (torch.from_numpy(kept_indices(n, scale)) for n in size)
    assert torch.equal(npr_residual(x, scale), x - x[:, :, rows][:, :, :, columns])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(16, 80),
    st.integers(16, 80),
    st.one_of(st.sampled_from(SCALES), st.floats(0.13, 0.97)),
)
def test_equals_published_formula_wherever_that_returns_to_size(
    height: int, width: int, scale: float
) -> None:
    x = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(height * width))
    try:
        published = published_residual(x, scale)
    except RuntimeError:  # sizes do not return
        assert npr_residual(x, scale).shape == x.shape
        return
    if published.shape == x.shape:
        assert torch.equal(npr_residual(x, scale), published)


def test_published_sizes_return_for_the_default_scales() -> None:
    """The comparison above is not empty: 224 and 256 return at 0.25, 0.5 and 0.75."""
    for size in (224, 256):
        for scale in (0.25, 0.5, 0.75):
            assert published_residual(torch.zeros(1, 1, size, size), scale).shape[-1] == size


@pytest.mark.parametrize("scale", (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9))
@pytest.mark.parametrize("size", (224, 256, 225))
def test_scales_and_sizes_on_which_the_earlier_code_crashed(scale: float, size: int) -> None:
    x = torch.rand(1, 3, size, size)
    assert npr_residual(x, scale).shape == x.shape
    assert npr_residual(x, scale).abs().max() > 0


@given(st.sampled_from(SCALES), st.integers(20, 70), st.integers(20, 70))
@settings(deadline=None)
def test_a_corner_has_the_residual_that_it_has_in_the_whole(
    scale: float, height: int, width: int
) -> None:
    """Photographs of odd sizes must not look unlike all others."""
    whole = torch.rand(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    corner = npr_residual(whole[..., :height, :width], scale)
    assert torch.equal(corner, npr_residual(whole, scale)[..., :height, :width])


@pytest.mark.parametrize("size", (17, 31, 64))
def test_up_sampled_images_of_any_size_have_no_residual(size: int) -> None:
    image = (
        torch.rand(1, 3, 32, 32).repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :size, :size]
    )
    assert npr_residual(image, 0.5).abs().max() == 0


@given(st.floats(0.13, 0.97), st.integers(10, 80))
@settings(deadline=None)
def test_scales_without_a_short_period_work_too(scale: float, size: int) -> None:
    assert npr_residual(torch.rand(1, 1, size, size + 1), scale).shape == (1, 1, size, size + 1)


@given(st.sampled_from(SCALES), st.integers(10, 40), st.floats(-5, 5))
@settings(deadline=None)
def test_constant_image_has_no_residual(scale: float, size: int, value: float) -> None:
    assert npr_residual(torch.full((1, 3, size, size), value), scale).abs().max() == 0


@pytest.mark.parametrize("factor", (2, 3, 4, 5, 6, 7, 8))
def test_nearest_upsampled_image_has_no_residual_at_its_scale(factor: int) -> None:
    for small in (1, 2, 7, 13, 32):
        image = (
            torch.rand(1, 3, small, small + 1)
            .repeat_interleave(factor, 2)
            .repeat_interleave(factor, 3)
        )
        assert npr_residual(image, 1 / factor).abs().max() == 0


@given(st.sampled_from(SCALES), st.floats(-3, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_is_linear(scale: float, factor: float, seed: int) -> None:
    x, y = torch.randn(
        2, 1, 3, 21, 34, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    combined = npr_residual(x + factor * y, scale)
    assert torch.allclose(
        combined, npr_residual(x, scale) + factor * npr_residual(y, scale), atol=1e-12
    )


def test_half_scale_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 7.0]])[None, None]
    assert npr_residual(x, 0.5).tolist() == [[[[0.0, 1.0], [2.0, 6.0]]]]


@pytest.mark.parametrize("scale", (0.0, 1.0, -0.5, 1.5, float("nan")))
def test_scale_outside_0_1_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        npr_residual(torch.zeros(1, 1, 8, 8), scale)
    with pytest.raises(ValueError, match="between 0 and 1"):
        NPRExtractor(scale)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no pixel"):
        npr_residual(torch.zeros(1, 1, 8, 100), 0.1)


def test_rounding_of_the_reduced_size_is_forgiven() -> None:
    assert 98 * (1 / 49) < 2  # the product that floor would spoil
    assert reduced_size(98, 1 / 49) == 2


def test_extractor_is_the_function_without_state() -> None:
    x = torch.rand(2, 3, 20, 20)
    extractor = NPRExtractor(0.3)
    assert torch.equal(extractor(x), npr_residual(x, 0.3))
    assert not extractor.state_dict()


def test_repeated_scales_get_a_suffix() -> None:
    assert scale_keys([0.25, 0.5, 0.5, 0.5]) == ["0.25", "0.5", "0.5_2", "0.5_3"]
    assert scale_keys([1 / 3, 2 / 3, 1 / 3]) == ["0.333333", "0.666667", "0.333333_2"]
    close = ["0.3333333333333333", "0.33333333", "0.3333333333333333_2"]
    assert scale_keys([1 / 3, 0.33333333, 1 / 3]) == close
    assert list(residual_maps(torch.rand(1, 3, 8, 8), (0.5, 0.5))) == ["npr_0.5", "npr_0.5_2"]
