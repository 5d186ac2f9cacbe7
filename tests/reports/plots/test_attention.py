"""Plots of attention weights: their axes show the given numbers, and every text can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch

import visualize_attention
from reports.plots import attention as plots
from reports.plots.style import scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts, tick_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.25, 0.5, 0.5]
NAMES = [f"UniversalFakeDetect/a_generator_with_a_long_name_{i}" for i in range(12)]
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(3) * 3, 12)
LABELS = np.arange(12) % 2


def test_heatmap_writes_each_weight(draw: Draw) -> None:
    means = dict(zip(NAMES, WEIGHTS, strict=True))
    heat, bar = draw(plots.plot_attention_heatmap, means, SCALES).axes
    assert [text.get_text() for text in heat.texts] == [f"{w:.3f}" for w in WEIGHTS.ravel()]
    assert tick_texts(heat.yaxis) == NAMES and tick_texts(heat.xaxis) == scale_labels(SCALES)
    assert bar.get_ylabel() == "attention weight"


@pytest.mark.parametrize("kind", [list, torch.tensor])
@pytest.mark.usefixtures("blank_pictures")
def test_the_scripts_heatmap_takes_any_weights(tmp_path: Path, kind: type) -> None:
    means = {"ProGAN": kind([0.4, 0.6]), "trained": torch.ones(2, requires_grad=True) / 2}
    path = visualize_attention.plot_attention_heatmap(means, [0.25, 0.5], str(tmp_path / "heat"))
    assert path == tmp_path / "heat.png" and path.is_file()


def test_means_have_a_panel_per_scale(draw: Draw) -> None:
    ends = np.stack([WEIGHTS, WEIGHTS * 0.8, WEIGHTS * 1.1], axis=1)
    means = {name: {"fake": ends[i]} for i, name in enumerate(NAMES)}
    means[NAMES[3]]["real"] = ends[0]
    figure = draw(plots.plot_attention_means, means, SCALES)
    assert [axes.get_title() for axes in figure.axes] == scale_labels(SCALES)
    assert tick_texts(figure.axes[0].yaxis) == NAMES
    assert legend_texts(figure) == ["uniform", "real", "fake"]
    for column, axes in enumerate(figure.axes):
        (real, _, (bar,)), (fake, *_) = (container.lines for container in axes.containers)
        assert real.get_xdata() == WEIGHTS[0, column] and round(real.get_ydata()[0]) == 3
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], ends[0, 1:, column])
        np.testing.assert_array_equal(fake.get_xdata(), WEIGHTS[:, column])


@pytest.mark.parametrize("classes", [1, 2])
def test_distribution_has_a_box_per_scale_and_class(draw: Draw, classes: int) -> None:
    labels = LABELS % classes
    figure = draw(plots.plot_attention_distribution, WEIGHTS, labels, SCALES, title="a/b")
    boxes = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    ends = sorted((line.get_ydata().min(), line.get_ydata().max()) for line in boxes)
    of_classes = [WEIGHTS[labels == label] for label in range(classes)]
    quartiles = [np.percentile(column, [25, 75]) for part in of_classes for column in part.T]
    np.testing.assert_allclose(ends, sorted(map(tuple, quartiles)), atol=2e-6)
    assert legend_texts(figure) == ["real", "fake"][:classes] + ["uniform"]


@pytest.mark.parametrize("spread", [1e-12, 1e-200], ids=["rounding noise", "underflow"])
def test_violins_of_constant_weights_are_drawn(draw: Draw, spread: float) -> None:
    noise = np.random.default_rng(0).random((30, 2)) * spread
    figure = draw(plots.plot_attention_distribution, noise + [0, 0.5], np.zeros(30), [0.25, 0.5])
    lines = [line for line in figure.axes[1].lines if line.get_label() != "uniform"]
    heights = [line.get_ydata() for line in lines]
    np.testing.assert_allclose(heights, np.repeat([[0.0], [0.5]], 2, axis=1), atol=1e-6)


def test_attention_per_image_stacks_sorted_weights(draw: Draw) -> None:
    scores = np.linspace(0, 1, 12)
    figure = draw(plots.plot_attention_per_image, WEIGHTS, LABELS, scores, SCALES, title="progan")
    rows = zip(LABELS, WEIGHTS.argmax(axis=1), -WEIGHTS.max(axis=1), range(12), strict=True)
    order = [image for *_, image in sorted(rows)]
    bars, strip, _ = figure.axes
    heights = [[bar.get_height() for bar in container] for container in bars.containers]
    np.testing.assert_allclose(np.transpose(heights), WEIGHTS[order])
    np.testing.assert_allclose(strip.images[0].get_array()[0], scores[order])
    assert bars.get_title() == "6 real, 6 fake" and bars.lines[0].get_xdata()[0] == 6
    assert legend_texts(figure) == scale_labels(SCALES)


def test_training_shows_means_and_entropies(draw: Draw) -> None:
    history = {epoch: (WEIGHTS[epoch], [0.1] * 3, 1.0) for epoch in (2, 1, 3)}
    figure = draw(plots.plot_attention_training, history, SCALES)
    upper, lower = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in upper.lines[:3]], WEIGHTS[1:4].T)
    over_images, of_mean = (line.get_ydata() for line in lower.lines)
    np.testing.assert_allclose(over_images, 1 / np.log(3))
    np.testing.assert_allclose(of_mean, -(WEIGHTS * np.log(WEIGHTS)).sum(axis=1)[1:4] / np.log(3))
    assert legend_texts(figure) == [*scale_labels(SCALES), "uniform"]
    assert lower.get_xlabel() == "epoch"
    (panel,) = draw(plots.plot_attention_training, {1: ([1.0], [0.0], 0.0)}, [0.5]).axes
    assert panel.get_xlabel() == "epoch"  # one scale has no entropy
