"""Pictures of mean attention: what their axes show, that every text is readable, and that bad input
is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer

from reports.plots import attention as attention_plots
from reports.plots.style import scale_labels
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
SCALES = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75, 0.875]


def interval(rng: np.random.Generator, scales: int) -> np.ndarray:
    mean = rng.dirichlet(np.ones(scales) * 4)
    return np.stack([mean, mean * 0.8, mean + (1 - mean) * 0.1])


def means(generators: int, scales: int) -> dict[str, dict[str, np.ndarray]]:
    """Every third generator has fakes only."""
    rng = np.random.default_rng(0)
    kinds = [("fake",) if i % 3 == 2 else ("real", "fake") for i in range(generators)]
    name = "UniversalFakeDetect/a_generator_with_a_long_name_{}"
    return {
        name.format(i): {k: interval(rng, scales) for k in kind} for i, kind in enumerate(kinds)
    }


def drawn_intervals(container: ErrorbarContainer, axis: int) -> np.ndarray:
    """[bars, 2], low and high end."""
    (lines,) = container.lines[2]
    assert isinstance(lines, LineCollection)
    return np.array([segment[:, axis] for segment in lines.get_segments()])


@pytest.mark.parametrize("generators", [1, 2, 6])
@pytest.mark.parametrize("scales", [1, 3, 8])
def test_few_generators_have_a_panel_of_bars_each(draw: Draw, generators: int, scales: int) -> None:
    given = means(generators, scales)
    figure = draw(attention_plots.plot_attention_means, given, SCALES[:scales], title="a model")
    assert len(figure.axes) == generators
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes, (name, classes) in zip(figure.axes, given.items(), strict=True):
        assert axes.get_title().replace("\n", "") == name
        bars = [c for c in axes.containers if isinstance(c, BarContainer)]
        ends = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        assert [bar.get_label() for bar in bars] == list(classes)
        for bar, end, (mean, low, high) in zip(bars, ends, classes.values(), strict=True):
            np.testing.assert_allclose([patch.get_height() for patch in bar], mean)
            np.testing.assert_allclose(drawn_intervals(end, 1), np.transpose([low, high]))
            assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= high.max()
        assert set(axes.lines[-1].get_ydata()) == {1 / scales}
        assert [text.get_text() for text in axes.get_xticklabels()] == scale_labels(SCALES[:scales])
    assert legend_texts(figure) == ["real", "fake", "uniform"]


@pytest.mark.parametrize("scales", [1, 3, 8])
def test_many_generators_have_a_row_in_a_panel_per_scale(draw: Draw, scales: int) -> None:
    given = means(38, scales)
    figure = draw(attention_plots.plot_attention_means, given, SCALES[:scales], title="a model")
    assert [axes.get_title() for axes in figure.axes] == scale_labels(SCALES[:scales])
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(given)
    for s, axes in enumerate(figure.axes):
        for container in axes.containers:
            label = container.get_label()
            rows = [row for row, classes in enumerate(given.values()) if label in classes]
            expected = np.array(
                [classes[label][:, s] for classes in given.values() if label in classes]
            )
            np.testing.assert_allclose(container.lines[0].get_xdata(), expected[:, 0])
            np.testing.assert_array_equal(np.round(container.lines[0].get_ydata()), rows)
            np.testing.assert_allclose(drawn_intervals(container, 0), expected[:, 1:])
        assert set(axes.lines[-1].get_xdata()) == {1 / scales}
    assert legend_texts(figure) == ["real", "fake", "uniform"]


def test_one_class_alone_has_one_entry_in_the_legend(draw: Draw) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 8):
        given = {f"g{i}": {"fake": interval(rng, 2)} for i in range(count)}
        assert legend_texts(draw(attention_plots.plot_attention_means, given, [0.25, 0.5])) == [
            "fake",
            "uniform",
        ]


def moments_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    return (
        weights.mean(axis=0),
        weights.std(axis=0),
        float(-(weights * np.log(weights)).sum(axis=1).mean()),
    )


@pytest.mark.parametrize("moments", [1, 4, 60])
@pytest.mark.parametrize("scales", [1, 3, 8])
def test_training_shows_means_bands_and_entropies(draw: Draw, moments: int, scales: int) -> None:
    rng = np.random.default_rng(0)
    history = {
        10 * i: rng.dirichlet(np.ones(scales) * 3, size=5 + i % 2)
        for i in reversed(range(1, moments + 1))
    }
    given = {t: moments_of(weights) for t, weights in history.items()}
    figure = draw(
        attention_plots.plot_attention_training,
        given,
        SCALES[:scales],
        time="step",
        title="a model",
    )
    assert legend_texts(figure) == scale_labels(SCALES[:scales])
    assert figure.axes[-1].get_xlabel() == "step" and len(figure.axes) == (1 if scales == 1 else 2)
    times = sorted(history)
    for s in range(scales):
        line, band = figure.axes[0].lines[s], figure.axes[0].collections[s].get_paths()[0].vertices
        middle = np.array([sum(history[t][:, s]) / len(history[t]) for t in times])
        spread = np.array(
            [
                math.sqrt(sum((history[t][:, s] - m) ** 2) / len(history[t]))
                for t, m in zip(times, middle, strict=True)
            ]
        )
        np.testing.assert_allclose(line.get_xydata(), np.transpose([times, middle]))
        assert {(t, round(y, 9)) for t, y in zip(times, middle + spread, strict=True)} <= {
            (x, round(y, 9)) for x, y in band
        }
        assert {(t, round(y, 9)) for t, y in zip(times, middle - spread, strict=True)} <= {
            (x, round(y, 9)) for x, y in band
        }
    assert set(figure.axes[0].lines[scales].get_ydata()) == {1 / scales}
    if scales > 1:
        each, of_mean = (line.get_ydata() for line in figure.axes[1].lines)
        for i, t in enumerate(times):
            images = [
                -sum(a * math.log(a) for a in image) / math.log(scales) for image in history[t]
            ]
            assert each[i] == pytest.approx(sum(images) / len(images))
            average = history[t].mean(axis=0)
            assert of_mean[i] == pytest.approx(
                -sum(a * math.log(a) for a in average) / math.log(scales)
            )


def test_attention_to_one_scale_has_no_entropy(draw: Draw) -> None:
    figure = draw(
        attention_plots.plot_attention_training,
        {0: ([1, 0], [0, 0], 0.0), 1.5: ([0.5, 0.5], [0, 0], math.log(2))},
        [0.25, 0.5],
    )
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "means is empty"),
        ({"g": {}}, r"means\['g'\] has classes \[\]"),
        ({"g": {"fakes": [[1], [1], [1]]}}, r"has classes \['fakes'\]"),
        (
            {"g": {"fake": [[1], [1]]}},
            r"means\['g'\]\['fake'\] has shape \[2, 1\], expected \[3, 1\]",
        ),
        ({"g": {"fake": [[0.5], [0.6], [0.7]]}}, "does not contain its mean"),
    ],
)
def test_means_that_do_not_fit_are_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        attention_plots.plot_attention_means(given, [0.5], tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "is empty"), ({3: ([0.5], [0], 0)}, r"history\[3\]\[0\] has shape \[1\]")],
)
def test_histories_that_do_not_fit_are_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        attention_plots.plot_attention_training(given, [0.25, 0.5], tmp_path / "picture.png")
