"""Plots of single images: their panels show the given numbers, and every text can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reports.plots import images as plots
from reports.plots.style import palette, scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875]


def residuals(count: int, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {f"npr_{i}": rng.normal(size=(3, *shape)) * (i + 1) for i in range(count)}


def columns(figure: Figure, scales: int) -> list[list[Axes]]:
    """Panels with an image, by column; without the image itself."""
    panels = [axes for axes in figure.axes if axes.images][1:]
    return [panels[i : i + scales] for i in range(0, len(panels), scales)]


@pytest.mark.parametrize(
    ("shape", "scales", "with_cams"),
    [((64, 64), 1, False), ((64, 64), 3, True), ((64, 64), 8, True), ((30, 400), 3, True),
     ((400, 30), 3, True), ((16, 20), 3, True),
     pytest.param((1500, 2000), 3, True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_maps_share_their_colour_ranges(
    draw: Draw, shape: tuple[int, int], scales: int, with_cams: bool
) -> None:
    image, maps = np.random.default_rng(0).random((3, *shape)), residuals(scales, shape)
    cams = np.random.default_rng(2).normal(size=(scales, 5, 7)) if with_cams else None
    weights, adds = np.linspace(0.1, 0.9, scales), np.linspace(-2, 1, scales)
    title = "fake: " + "a_very_long_file_name_" * 4 + ", score 0.931"
    figure = draw(
        plots.plot_npr_maps, torch.tensor(image), {k: torch.tensor(r) for k, r in maps.items()},
        weights, SCALES[:scales], title=title, cams=cams, adds=adds,
    )  # fmt: skip
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, image.transpose(1, 2, 0), rtol=1e-6)
    signed = np.array([residual.mean(axis=0) for residual in maps.values()])
    strength = np.array([np.abs(residual).mean(axis=0) for residual in maps.values()])
    reach = np.percentile(np.abs(signed), 99.5)
    whole, pixels, magnitude, *evidence = columns(figure, scales)
    for i in range(scales):
        for axes, values in ((whole[i], signed[i]), (magnitude[i], strength[i])):
            np.testing.assert_allclose(axes.images[0].get_array(), values, rtol=1e-5, atol=1e-6)
        for axes in (whole[i], pixels[i]):
            assert axes.images[0].get_clim() == pytest.approx((-reach, reach))
        largest = np.percentile(strength, 99.5)
        assert magnitude[i].images[0].get_clim() == pytest.approx((0, largest))
        if cams is not None:
            grey, over = evidence[0][i].images
            np.testing.assert_allclose(grey.get_array(), image.mean(axis=0), rtol=1e-5)
            np.testing.assert_allclose(over.get_array(), cams[i], rtol=1e-5)
            assert over.get_extent() == list(grey.get_extent())
            assert over.get_clim() == pytest.approx((-np.abs(cams).max(), np.abs(cams).max()))
    rows = zip(scale_labels(SCALES[:scales]), weights, adds, strict=True)
    expected = [f"{name}\nattention {w:.3f}\nadds {part:+.3f}" for name, w, part in rows]
    assert [axes.get_ylabel() for axes in whole] == expected
    chart = next(axes for axes in figure.axes if axes.get_xlabel() == "attention weight")
    np.testing.assert_allclose([bar.get_width() for bar in chart.patches], weights)
    assert set(chart.lines[0].get_xdata()) == {1 / scales}
    bars = [axes.get_xlabel() for axes in figure.axes if axes is not chart and axes.get_xlabel()]
    units = ["residual", "mean |residual|", "logit (real < 0 < fake)"]
    assert bars == units[: 3 if with_cams else 2]


@pytest.mark.parametrize("corner", [(0, 0), (7, 31), (40, 56), (0, 56)], ids=str)
def test_the_square_is_that_of_the_largest_residuals(draw: Draw, corner: tuple[int, int]) -> None:
    """All scales but one are quiet in the square; that one alone decides."""
    maps = residuals(2, (64, 80))
    inside = np.s_[corner[0] : corner[0] + 24, corner[1] : corner[1] + 24]
    maps["npr_1"][:, *inside] += 30
    figure = draw(plots.plot_npr_maps, np.zeros((3, 64, 80)), maps, [0.5, 0.5], [0.25, 0.5])
    for axes, residual in zip(columns(figure, 2)[1], maps.values(), strict=True):
        shown, expected = axes.images[0], residual.mean(axis=0)[inside]
        np.testing.assert_allclose(shown.get_array(), expected, rtol=1e-5, atol=1e-6)
        assert shown.get_interpolation() == "nearest"
        assert axes.get_title() in ("24 x 24 px of it", "")
    for patch in figure.axes[0].patches:
        assert isinstance(patch, Rectangle)
        x, y, width, height = (*patch.get_xy(), patch.get_width(), patch.get_height())
        assert (x, y, width, height) == (corner[1] - 0.5, corner[0] - 0.5, 24, 24)


@pytest.mark.parametrize("exact", [True, False])
def test_maps_of_a_flat_image_without_attention(draw: Draw, exact: bool) -> None:
    """Every colour range has some width; maps that do not add up are called Grad-CAM."""
    flat, cams = np.full((3, 8, 8), 0.5), np.zeros((1, 2, 2))
    figure = draw(
        plots.plot_npr_maps, flat, {"npr_0.5": flat * 0}, None, [0.5], cams=cams, exact=exact
    )
    panels = [of_scale for (of_scale,) in columns(figure, 1)]
    ranges = [axes.images[-1].get_clim() for axes in panels]
    assert ranges == [(-1, 1), (-1, 1), (0, 1), (-1, 1)]
    assert panels[3].get_title() == ("evidence" if exact else "Grad-CAM")
    assert panels[0].get_ylabel() == "0.5x"


def test_maps_as_pdf_too(tmp_path: Path) -> None:
    flat = np.zeros((3, 9, 9))
    path = plots.plot_npr_maps(
        flat, {"npr_0.5": flat}, [1], [0.5], tmp_path / "a.b", formats=("png", "pdf")
    )
    assert path == tmp_path / "a.png"
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (5, 3), (6, 8)])
def test_every_image_has_its_attention_class_and_score(draw: Draw, count: int, scales: int) -> None:
    rng = np.random.default_rng(0)
    shapes = [(40, 40), (20, 60), (900, 100), (7, 5), (64, 64), (300, 200)]
    items = [
        (Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)),
         rng.dirichlet(np.ones(scales)), i / 7, i % 2)
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    blocks = {"most typical": items[:count], "most surprising": items[-1:]}
    figure = draw(plots.plot_image_sheet, blocks, SCALES[:scales], title="a long name, fake")
    panels = [axes for axes in figure.axes if axes.images]
    strips = [axes for axes in figure.axes if axes.containers]
    drawn = zip([*items[:count], items[-1]], panels, strips, strict=True)
    for (image, weights, score, label), axes, strip in drawn:
        assert axes.get_title() == f"{('real', 'fake')[label]}, {score:.3f}"
        assert to_rgb(axes.spines["top"].get_edgecolor()) == palette(2)[label]
        shown = axes.images[0].get_array()
        assert max(shown.shape[:2]) == min(400, max(image.size))
        if max(image.size) <= 400:
            np.testing.assert_array_equal(shown, np.asarray(image))
        bars = strip.containers[0]
        np.testing.assert_allclose([bar.get_width() for bar in bars], weights)
        np.testing.assert_allclose([bar.get_x() for bar in bars], np.cumsum(weights) - weights)
    headings = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert headings == ["most typical", "most surprising"]
    assert legend_texts(figure) == scale_labels(SCALES[:scales])
