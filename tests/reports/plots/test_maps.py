"""Pictures of where a model looks: what each panel shows, that every text is readable, and that bad
input is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reports.plots import maps as map_plots
from reports.plots.style import scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875]


def residuals(count: int, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {f"npr_{i}": rng.normal(size=(3, *shape)) * (i + 1) for i in range(count)}


def rows(figure: Figure, columns: int) -> list[list[Axes]]:
    """Panels by scale; the image, the chart and the colour bars are left out."""
    panels = [axes for axes in figure.axes if axes.images][1:]
    return [panels[i : i + columns] for i in range(0, len(panels), columns)]


@pytest.mark.parametrize(
    ("shape", "scales", "with_cams"),
    [
        *itertools.product([(64, 64)], [1, 3, 8], [False, True]),
        *itertools.product([(30, 400), (400, 30), (16, 20), (300, 200)], [1, 8], [True]),
        pytest.param((1500, 2000), 3, True, marks=pytest.mark.slow),
    ],
)
def test_maps_share_their_colour_ranges(
    draw: Draw, scales: int, shape: tuple[int, int], with_cams: bool
) -> None:
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    maps = residuals(scales, shape)
    cams = np.random.default_rng(2).normal(size=(scales, 5, 7)) if with_cams else None
    weights, names = np.linspace(0.1, 0.9, scales), scale_labels(SCALES[:scales])
    title = "fake: " + "a_very_long_file_name_" * 4 + ", score 0.931"
    adds = np.linspace(-2, 1, scales) if with_cams else None
    figure = draw(
        map_plots.plot_npr_maps,
        image,
        maps,
        weights,
        SCALES[:scales],
        title=title,
        cams=cams,
        adds=adds,
    )
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), image.float().permute(1, 2, 0))
    signed = np.array([residual.mean(axis=0) for residual in maps.values()])
    strength = np.array([np.abs(residual).mean(axis=0) for residual in maps.values()])
    reach = np.percentile(np.abs(signed), 99.5)
    for i, panels in enumerate(rows(figure, 4 if with_cams else 3)):
        np.testing.assert_allclose(panels[0].images[0].get_array(), signed[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            panels[2].images[0].get_array(), strength[i], rtol=1e-5, atol=1e-6
        )
        assert (
            panels[0].images[0].get_clim()
            == panels[1].images[0].get_clim()
            == pytest.approx((-reach, reach))
        )
        assert panels[2].images[0].get_clim() == pytest.approx((0, np.percentile(strength, 99.5)))
        if cams is not None:
            grey, evidence = panels[3].images
            np.testing.assert_allclose(grey.get_array(), image.float().mean(dim=0), rtol=1e-6)
            np.testing.assert_allclose(evidence.get_array(), cams[i])
            assert evidence.get_extent() == list(grey.get_extent())
            assert evidence.get_clim() == (-np.abs(cams).max(), np.abs(cams).max())
    labels = [text.get_text() for text in figure.texts if "attention" in text.get_text()]
    expected = [
        f"{name}\nattention {weight:.3f}" for name, weight in zip(names, weights, strict=True)
    ]
    if adds is not None:
        expected = [
            f"{label}\nadds {part:+.3f}" for label, part in zip(expected, adds, strict=True)
        ]
    assert labels == expected
    chart = next(axes for axes in figure.axes if axes.get_xlabel() == "attention weight")
    np.testing.assert_allclose([bar.get_width() for bar in chart.patches], weights)
    assert set(chart.lines[0].get_xdata()) == {1 / scales}
    bars = [
        axes.get_xlabel()
        for axes in figure.axes
        if axes.get_xlabel() != "attention weight" and axes.get_xlabel()
    ]
    assert (
        bars == ["residual", "mean |residual|", "logit (real < 0 < fake)"][: 3 if with_cams else 2]
    )


@pytest.mark.parametrize("corner", [(0, 0), (7, 31), (40, 56), (0, 56)], ids=str)
@pytest.mark.parametrize("side", [24, 23])
def test_the_square_is_that_of_the_largest_residuals(
    draw: Draw, corner: tuple[int, int], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scales but one are quiet in the square; that one alone decides."""
    monkeypatch.setattr(map_plots, "ZOOM", side)
    maps = residuals(2, (64, 80))
    inside = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    maps["npr_1"][:, *inside] += 30
    figure = draw(map_plots.plot_npr_maps, np.zeros((3, 64, 80)), maps, [0.5, 0.5], [0.25, 0.5])
    for panels, residual in zip(rows(figure, 3), maps.values(), strict=True):
        shown = panels[1].images[0]
        np.testing.assert_allclose(
            shown.get_array(), residual.mean(axis=0)[inside], rtol=1e-5, atol=1e-6
        )
        assert shown.get_interpolation() == "nearest"
    for patch in figure.axes[0].patches:
        assert isinstance(patch, Rectangle)
        assert (*patch.get_xy(), patch.get_width(), patch.get_height()) == (
            corner[1] - 0.5,
            corner[0] - 0.5,
            side,
            side,
        )


def test_maps_of_a_flat_image_have_a_colour_range(draw: Draw) -> None:
    flat = np.full((3, 8, 8), 0.5)
    cams = np.zeros((1, 2, 2))
    figure = draw(map_plots.plot_npr_maps, flat, {"npr_0.5": flat * 0}, [1.0], [0.5], cams=cams)
    assert [axes.images[-1].get_clim() for axes in rows(figure, 4)[0]] == [
        (-1, 1),
        (-1, 1),
        (0, 1),
        (-1, 1),
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_maps_that_do_not_add_up_are_called_grad_cam(draw: Draw, exact: bool) -> None:
    flat = np.full((3, 8, 8), 0.5)
    cams = np.ones((1, 2, 2))
    figure = draw(
        map_plots.plot_npr_maps, flat, {"npr_0.5": flat}, [1.0], [0.5], cams=cams, exact=exact
    )
    texts = [text.get_text() for text in figure.texts]
    assert ("evidence" in texts, "Grad-CAM" in texts) == (exact, not exact)
    # what the maps add up to is not for the picture to say
    assert not any("adds" in text for text in texts)


def test_maps_as_pdf_too(tmp_path: Path) -> None:
    path = map_plots.plot_npr_maps(
        np.zeros((3, 9, 9)),
        residuals(1, (9, 9)),
        [1],
        [0.5],
        tmp_path / "a.b",
        formats=("png", "pdf"),
    )
    assert path == tmp_path / "a.png" and Image.open(path).format == "PNG"
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"npr_maps": {}}, "npr_maps has 0 maps"),
        ({"image": np.full((3, 4, 4), -2.1)}, "image spans -2.1"),
        ({"npr_maps": {"npr_0.5": np.zeros((3, 4, 5))}}, r"npr_maps\['npr_0.5'\]"),
        ({"cams": np.zeros((2, 4, 4))}, r"cams has shape \[2, 4, 4\], expected \[1, any, any\]"),
        ({"adds": [0.5, 0.5]}, r"adds has shape \[2\], expected \[1\]"),
    ],
)
def test_maps_that_do_not_fit_are_refused(
    changed: dict[str, object], message: str, tmp_path: Path
) -> None:
    flat = np.zeros((3, 4, 4))
    arguments = {
        "image": flat,
        "npr_maps": {"npr_0.5": flat},
        "weights": [1.0],
        "scales": [0.5],
    } | changed
    with pytest.raises(ValueError, match=message):
        map_plots.plot_npr_maps(**arguments, save_path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
