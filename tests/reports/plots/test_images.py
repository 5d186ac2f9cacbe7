"""Plots of single images: their panels show the given numbers, and every text can be read."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from reports.plots import images as plots
from reports.plots.style import palette, scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.25, 0.5, 0.5]


@pytest.mark.parametrize(("shape", "corner"), [((40, 300), (7, 200)), ((300, 40), (0, 16))])
def test_maps_share_their_colour_ranges(
    draw: Draw, shape: tuple[int, int], corner: tuple[int, int]
) -> None:
    rng, title = np.random.default_rng(0), "fake: " + "a_very_long_file_name_" * 4 + ", score 0.9"
    residuals, cams = rng.normal(size=(3, 3, *shape)), rng.normal(size=(3, 5, 7))
    # all scales but one are quiet in the square
    square = np.s_[corner[0] : corner[0] + 24, corner[1] : corner[1] + 24]
    residuals[1][:, *square] += 30
    weights, adds = np.array([0.2, 0.3, 0.5]), np.array([-2.0, 0.5, 1.0])
    figure = draw(
        plots.plot_npr_maps, torch.tensor(rng.random((3, *shape))), dict(enumerate(residuals)),
        weights, SCALES, title=title, cams=cams, adds=adds,
    )  # fmt: skip
    image, *panels = [axes for axes in figure.axes if axes.images]
    signed, strength = residuals.mean(axis=1), np.abs(residuals).mean(axis=1)
    maps = [*signed, *(values[square] for values in signed), *strength, *cams]
    for axes, values in zip(panels, maps, strict=True):
        np.testing.assert_allclose(axes.images[-1].get_array(), values, rtol=1e-4, atol=1e-5)
    limits = [axes.images[-1].get_clim()[1] for axes in panels]
    reach, largest = (np.percentile(np.abs(values), 99.5) for values in (signed, strength))
    furthest = np.abs(cams).max()
    assert limits == pytest.approx([reach] * 6 + [largest] * 3 + [furthest] * 3, rel=1e-5)
    assert image.patches[0].get_xy() == (corner[1] - 0.5, corner[0] - 0.5)
    assert panels[-1].images[1].get_extent() == list(panels[-1].images[0].get_extent())
    rows = zip(scale_labels(SCALES), weights, adds, strict=True)
    labels = [f"{name}\nattention {w:.3f}\nadds {part:+.3f}" for name, w, part in rows]
    assert [axes.get_ylabel() for axes in panels[:3]] == labels
    headings = ["residual", "24 x 24 px of it", "mean |residual|", "evidence"]
    assert [axes.get_title() for axes in panels if axes.get_title()] == headings


def test_maps_of_a_flat_image_without_attention(draw: Draw) -> None:
    """Every colour range has some width; maps that do not add up are called Grad-CAM."""
    flat, cams = np.full((3, 8, 8), 0.5), np.zeros((1, 2, 2))
    figure = draw(
        plots.plot_npr_maps,
        flat,
        {"npr_0.5": flat * 0},
        None,
        [0.5],
        title="flat",
        cams=cams,
        adds=[0.5],
        exact=False,
    )
    panels = [axes for axes in figure.axes if axes.images][1:]
    ranges = [axes.images[-1].get_clim() for axes in panels]
    assert ranges == [(-1, 1), (-1, 1), (0, 1), (-1, 1)]
    assert panels[3].get_title() == "Grad-CAM" and panels[0].get_ylabel() == "0.5x\nadds +0.500"


def test_every_image_has_its_attention_class_and_score(draw: Draw) -> None:
    rng = np.random.default_rng(0)
    shapes = [(40, 40), (900, 100), (7, 5)]
    pictures = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    items = [
        (Image.fromarray(pixels), rng.dirichlet(np.ones(3)), i / 7, i % 2)
        for i, pixels in enumerate(pictures)
    ]
    blocks = {"most typical": items[:2], "most surprising": items[2:]}
    figure = draw(plots.plot_image_sheet, blocks, SCALES, title="a long name, fake")
    panels = [axes for axes in figure.axes if axes.images]
    strips = [axes for axes in figure.axes if axes.containers]
    for (image, weights, score, label), axes, strip in zip(items, panels, strips, strict=True):
        assert axes.get_title() == f"{('real', 'fake')[label]}, {score:.3f}"
        assert to_rgb(axes.spines["top"].get_edgecolor()) == palette(2)[label]
        assert max(axes.images[0].get_array().shape) == min(400, max(image.size))
        np.testing.assert_allclose([bar.get_width() for bar in strip.containers[0]], weights)
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == list(blocks)
    assert legend_texts(figure) == scale_labels(SCALES)
