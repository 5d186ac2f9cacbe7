"""Plots of attention weights: their axes show the given numbers, and every text can be read."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb

import visualize_attention
from reports.plots import attention as plots
from reports.plots.style import palette, scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875]


def dirichlet(count: int, scales: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(scales) * 3, size=count)


def generators(count: int) -> list[str]:
    return [f"UniversalFakeDetect/a_generator_with_a_long_name_{i}" for i in range(count)]


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (12, 3), (38, 8)])
def test_heatmap_shows_each_weight(draw: Draw, count: int, scales: int) -> None:
    weights = dirichlet(count, scales)
    given = dict(zip(generators(count), weights, strict=True))
    figure = draw(plots.plot_attention_heatmap, given, SCALES[:scales], title="a model")
    heat, bar = figure.axes
    low, high = heat.collections[0].get_clim()
    assert low == 0 and 0 <= high - weights.max() < 0.1
    shown = np.asarray(heat.collections[0].get_array()).reshape(weights.shape)
    np.testing.assert_allclose(shown, weights)
    assert [text.get_text() for text in heat.texts] == [f"{w:.3f}" for w in weights.ravel()]
    assert [text.get_text() for text in heat.get_yticklabels()] == list(given)
    assert [text.get_text() for text in heat.get_xticklabels()] == scale_labels(SCALES[:scales])
    assert bar.get_ylabel() == "attention weight"


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_the_scripts_heatmap_takes_any_weights(tmp_path: Path, kind: type) -> None:
    given = {"ProGAN": kind([0.4, 0.6]), "trained": torch.ones(2, requires_grad=True) / 2}
    path = visualize_attention.plot_attention_heatmap(given, [0.25, 0.5], str(tmp_path / "heat"))
    assert path == tmp_path / "heat.png" and path.is_file()


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (1, 3), (12, 8)])
def test_means_have_a_row_in_a_panel_per_scale(draw: Draw, count: int, scales: int) -> None:
    """Every third generator has fakes only."""
    means = iter(dirichlet(2 * count, scales))
    given = {
        name: {
            kind: np.stack([m := next(means), m * 0.8, m + (1 - m) * 0.1])
            for kind in (("fake",) if i % 3 == 2 else ("real", "fake"))
        }
        for i, name in enumerate(generators(count))
    }
    figure = draw(plots.plot_attention_means, given, SCALES[:scales], title="a model")
    assert [axes.get_title() for axes in figure.axes] == scale_labels(SCALES[:scales])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(given)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for column, axes in enumerate(figure.axes):
        assert set(axes.lines[0].get_xdata()) == {1 / scales}
        for container in axes.containers:
            kind = container.get_label()
            rows = [row for row, classes in enumerate(given.values()) if kind in classes]
            expected = np.array([c[kind][:, column] for c in given.values() if kind in c])
            line, _, (bars,) = container.lines
            np.testing.assert_allclose(line.get_xdata(), expected[:, 0])
            np.testing.assert_array_equal(np.round(line.get_ydata()), rows)
            assert isinstance(bars, LineCollection)
            ends = [segment[:, 0] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, expected[:, 1:])
            assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] >= expected.max()
    assert legend_texts(figure) == ["uniform", "real", "fake"]


@pytest.mark.parametrize(("count", "scales", "classes"), [(1, 1, 1), (40, 3, 2), (60, 8, 2)])
def test_distribution_has_a_box_and_a_violin_per_scale_and_class(
    draw: Draw, count: int, scales: int, classes: int
) -> None:
    weights, labels = dirichlet(count, scales), np.arange(count) % 2
    figure = draw(plots.plot_attention_distribution, weights, labels, SCALES[:scales], title="a/b")
    box, violin = figure.axes
    boxes = sorted(
        (line.get_xdata().mean(), line.get_ydata().min(), line.get_ydata().max())
        for line in box.lines
        if len(line.get_xdata()) == 5 and line.get_linestyle() != "None"
    )
    assert len(boxes) == scales * classes
    for i, (place, low, high) in enumerate(boxes):  # by scale, and real before fake
        scale, label = divmod(i, classes)
        assert abs(place - scale) < 0.3
        expected = np.percentile(weights[labels == label][:, scale], [25, 75])
        np.testing.assert_allclose([low, high], expected, atol=2e-6)
    violins = [body for body in violin.collections if isinstance(body, PolyCollection)]
    assert len(violins) == (scales * classes if count > 2 else 0)
    for body in violins:
        places, heights = body.get_paths()[0].vertices.T
        scale = round(places.mean())
        label = int(places.mean() > scale)
        expected = weights[labels == label][:, scale]
        ends = heights.min(), heights.max()
        np.testing.assert_allclose(ends, (expected.min(), expected.max()), atol=2e-6)
        np.testing.assert_allclose(body.get_edgecolor()[0][:3], palette(2)[label])
    for axes in figure.axes:
        line = next(line for line in axes.lines if line.get_label() == "uniform")
        assert set(line.get_ydata()) == {1 / scales}
    assert legend_texts(figure) == ["real", "fake"][:classes] + ["uniform"]


@pytest.mark.parametrize(
    "spread", [0, 1e-12, 1e-200], ids=["constant", "rounding noise", "underflow"]
)
def test_violins_of_constant_weights_are_drawn(draw: Draw, spread: float) -> None:
    noise = np.random.default_rng(0).random((30, 2)) * spread
    figure = draw(plots.plot_attention_distribution, noise + [0, 0.5], np.zeros(30), [0.25, 0.5])
    lines = [line for line in figure.axes[1].lines if line.get_label() != "uniform"]
    shown = [line.get_ydata() for line in lines]
    np.testing.assert_allclose(shown, np.repeat([[0.0], [0.5]], 2, axis=1), atol=1e-6)


@pytest.mark.parametrize(("count", "scales"), [(1, 1), (60, 3), (100, 8)])
def test_attention_per_image_stacks_sorted_weights(draw: Draw, count: int, scales: int) -> None:
    weights, scores = dirichlet(count, scales), np.random.default_rng(2).random(count)
    labels = np.arange(count) % 2
    figure = draw(
        plots.plot_attention_per_image, weights, labels, scores, SCALES[:scales], title="progan"
    )

    def rank(i: int) -> tuple[int, int, float]:
        return labels[i], int(np.argmax(weights[i])), -max(weights[i])

    order = sorted(range(count), key=rank)
    bars, strip, colour_bar = figure.axes
    heights = [[bar.get_height() for bar in container] for container in bars.containers]
    np.testing.assert_allclose(np.transpose(heights), weights[order])
    tops = [bar.get_y() + bar.get_height() for bar in bars.containers[-1]]
    np.testing.assert_allclose(tops, 1)
    np.testing.assert_allclose(strip.images[0].get_array()[0], scores[order])
    assert strip.images[0].get_clim() == (0, 1) and "score" in colour_bar.get_ylabel()
    real = int((labels == 0).sum())
    assert bars.get_title() == f"{real} real, {count - real} fake"
    assert set(bars.lines[0].get_xdata()) == {real}
    assert legend_texts(figure) == scale_labels(SCALES[:scales])


@pytest.mark.parametrize(("epochs", "scales"), [(1, 1), (4, 3), (60, 8)])
def test_training_shows_means_bands_and_entropies(draw: Draw, epochs: int, scales: int) -> None:
    rng = np.random.default_rng(0)
    weights = {epoch: rng.dirichlet(np.ones(scales) * 3, 5) for epoch in range(epochs, 0, -1)}
    history = {
        epoch: (of.mean(axis=0), of.std(axis=0), -(of * np.log(of)).sum(axis=1).mean())
        for epoch, of in weights.items()
    }
    figure = draw(plots.plot_attention_training, history, SCALES[:scales], title="a model")
    assert legend_texts(figure) == [*scale_labels(SCALES[:scales]), "uniform"]
    assert figure.axes[-1].get_xlabel() == "epoch"
    assert len(figure.axes) == (1 if scales == 1 else 2)
    times = sorted(history)
    for column in range(scales):
        line, band = figure.axes[0].lines[column], figure.axes[0].collections[column]
        middle = np.array([history[epoch][0][column] for epoch in times])
        spread = np.array([history[epoch][1][column] for epoch in times])
        np.testing.assert_allclose(line.get_xydata(), np.transpose([times, middle]))
        corners = {(x, round(y, 9)) for x, y in band.get_paths()[0].vertices}
        for edge in (middle - spread, middle + spread):
            assert {(x, round(y, 9)) for x, y in zip(times, edge, strict=True)} <= corners
    assert set(figure.axes[0].lines[scales].get_ydata()) == {1 / scales}
    for i, epoch in enumerate(times if scales > 1 else []):
        each, of_mean = (line.get_ydata()[i] for line in figure.axes[1].lines)
        images = [-sum(a * math.log(a) for a in image) for image in weights[epoch]]
        assert each == pytest.approx(np.mean(images) / math.log(scales))
        average = weights[epoch].mean(axis=0)
        expected = -sum(a * math.log(a) for a in average) / math.log(scales)
        assert of_mean == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 20])
def test_changes_stand_beside_zero(draw: Draw, count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    given = {f"without scale {i}": (float(v), v - 0.5, v + 0.7) for i, v in enumerate(values)}
    figure = draw(
        plots.plot_control_changes, given | {"no interval": (-1.5, None, None)}, title="a model"
    )
    (axes,) = figure.axes
    *lines, last, zero = axes.lines
    assert set(zero.get_xdata()) == {0}
    assert [text.get_text() for text in axes.get_yticklabels()] == [*given, "no interval"]
    for row, (value, low, high) in enumerate(given.values()):
        np.testing.assert_allclose(lines[2 * row].get_xydata(), [[low, row], [high, row]])
        np.testing.assert_allclose(lines[2 * row + 1].get_xydata(), [[value, row]])
        hollow = to_rgb(lines[2 * row + 1].get_markerfacecolor()) == (1, 1, 1)
        assert hollow == (low <= 0 <= high)
    assert to_rgb(last.get_markerfacecolor()) == (1, 1, 1) and last.get_xdata() == [-1.5]
    written = [text.get_text() for text in axes.child_axes[0].get_yticklabels()]
    numbers = [f"{v:+.2f}  [{low:+.2f}, {high:+.2f}]" for v, low, high in given.values()]
    assert written == [*numbers, "-1.50"]
