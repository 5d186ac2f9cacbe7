"""Sheets of images: which ones are chosen, what stands below each, that every text is readable, and
that bad input is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from reports.plots import sheets as sheet_plots
from reports.plots.sheets import typical_and_surprising
from reports.plots.style import palette, scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875]


def js_distance(a: np.ndarray, b: np.ndarray) -> float:
    middle = (a + b) / 2
    return (
        max(0.0, sum((p[p > 0] * np.log(p[p > 0] / middle[p > 0])).sum() for p in (a, b)) / 2)
        ** 0.5
    )


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 12), st.integers(0, 100))
def test_typical_images_are_nearer_to_the_mean_than_all_others(
    images: int, scales: int, count: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(scales), size=images)
    typical, surprising = (list(found) for found in typical_and_surprising(weights, count))
    distances = [js_distance(w, weights.mean(axis=0)) for w in weights]
    assert len(typical) == min(count, (images + 1) // 2) and len(surprising) == min(
        count, images - len(typical)
    )
    assert len({*typical, *surprising}) == len(typical) + len(surprising)
    ordered = sorted(distances)
    np.testing.assert_allclose([distances[i] for i in typical], ordered[: len(typical)], atol=1e-7)
    np.testing.assert_allclose(
        [distances[i] for i in surprising], ordered[::-1][: len(surprising)], atol=1e-7
    )


def test_equal_images_are_chosen_by_their_order() -> None:
    typical, surprising = typical_and_surprising(np.full((6, 3), 1 / 3), 2)
    assert typical.tolist() == [0, 1] and surprising.tolist() == [2, 3]


def item(i: int, scales: int) -> tuple[Any, np.ndarray, float, int]:
    rng = np.random.default_rng(i)
    height, width = [(40, 40), (20, 60), (900, 100), (7, 5)][i % 4]
    image: Any = rng.random((3, height, width))
    if i % 2:
        image = Image.fromarray((image[0] * 255).astype(np.uint8))  # grey
    return image, rng.dirichlet(np.ones(scales)), i / 40, i // 2 % 2


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (5, 3), (6, 8), (20, 3)])
def test_every_image_stands_over_its_attention_class_and_score(
    draw: Draw, count: int, scales: int
) -> None:
    items = [item(i, scales) for i in range(count + 1)]
    blocks = {"most typical": items[:count], "none": [], "most surprising " * 4: items[count:]}
    figure = draw(
        sheet_plots.plot_image_sheet,
        blocks,
        SCALES[:scales],
        title="a generator with a long name, fake",
    )
    (axes,) = figure.axes
    width, height = figure.get_size_inches()
    box = axes.get_position()
    # in inches, so nothing is distorted
    assert box.width * width == pytest.approx(np.ptp(axes.get_xlim()))
    assert box.height * height == pytest.approx(np.ptp(axes.get_ylim()))
    assert len(axes.images) == len(axes.collections) == len(axes.patches) == count + 1
    kinds = [text for text in axes.texts if text.get_text() in ("real", "fake")]
    scores = [text for text in axes.texts if text.get_text().startswith("score")]
    drawn = zip(items, axes.images, axes.patches, axes.collections, kinds, scores, strict=True)
    for (image, weights, score, label), shown, frame, strip, kind, text in drawn:
        corners = np.array([path.vertices[:4] for path in strip.get_paths()])  # [S, 4, 2]
        starts, ends = corners[..., 0].min(axis=1), corners[..., 0].max(axis=1)
        np.testing.assert_allclose((ends - starts) / (ends[-1] - starts[0]), weights)
        np.testing.assert_allclose(starts[1:], ends[:-1])
        left, right, bottom, top = shown.get_extent()
        tall, wide = image.shape[1:] if isinstance(image, np.ndarray) else image.size[::-1]
        assert (right - left) / (bottom - top) == pytest.approx(wide / tall)
        assert starts[0] - 1e-9 <= left and right <= ends[-1] + 1e-9
        assert bottom <= corners[..., 1].min() and corners[..., 1].max() <= text.get_position()[1]
        assert text.get_text() == f"score {score:.3f}"
        assert kind.get_text() == ("real", "fake")[label]
        assert (
            abs(kind.get_position()[0] - starts[0]) < 0.1
            and kind.get_position()[1] == text.get_position()[1]
        )
        assert (
            to_rgb(frame.get_edgecolor())
            == to_rgb(kind.get_bbox_patch().get_facecolor())
            == palette(2)[label]
        )
        assert frame.get_bbox().extents.tolist() == pytest.approx([left, top, right, bottom])
        assert max(shown.get_array().shape[:2]) == min(400, max(tall, wide))
    assert [
        text.get_text().replace("\n", " ") for text in axes.texts if text.get_fontweight() == "bold"
    ] == [
        "most typical",
        ("most surprising " * 4).strip(),
    ]
    assert legend_texts(figure) == scale_labels(SCALES[:scales])
    extents = [image.get_extent() for image in axes.images]
    for i, (a_left, a_right, a_low, a_top) in enumerate(extents):
        for b_left, b_right, b_low, b_top in extents[:i]:
            assert a_right <= b_left or b_right <= a_left or a_low <= b_top or b_low <= a_top


def test_pixels_are_those_of_the_image(draw: Draw) -> None:
    pixels = np.random.default_rng(0).random((3, 30, 20))
    blocks = {"one": [(pixels, [1.0], 0.5, 1)]}
    figure = draw(sheet_plots.plot_image_sheet, blocks, [0.5])
    np.testing.assert_allclose(
        figure.axes[0].images[0].get_array() / 255, pixels.transpose(1, 2, 0), atol=0.5 / 255 + 1e-9
    )


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"a": []}, "holds no image"),
        ({"a": [(np.zeros((4, 4)), [1.0], 0.5, 0)]}, r"image 0 of 'a' has shape \[4, 4\]"),
        (
            {"a": [(np.zeros((3, 4, 4)), [0.5, 0.5], 0.5, 0)]},
            r"weights of image 0 of 'a' has shape \[2\]",
        ),
        ({"a": [(np.zeros((3, 4, 4)), [1.0], 3, 0)]}, "score of image 0 of 'a' spans 3"),
        ({"a": [(np.zeros((3, 4, 4)), [1.0], 0.5, 2)]}, "label of image 0 of 'a' must be 0"),
    ],
)
def test_sheets_that_cannot_be_drawn_are_refused(
    blocks: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        sheet_plots.plot_image_sheet(blocks, [0.5], tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
