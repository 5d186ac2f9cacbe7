"""Plots of scores: their axes show the given numbers, and every text can be read."""

import importlib
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon

from reports.plots.comparison import plot_comparison
from reports.plots.scores import plot_robustness, plot_roc, plot_score_histograms
from reports.plots.style import palette
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
HARD_NAMES = [
    "a$\\frac{$",  # as a formula it could not be parsed
    "_two\x07\nlines",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
    "Diffusion1kStep/a_generator/with_a_name_of_55_characters",
]
SHOWN_NAMES = ["a$\\frac{$", "_two??lines", "caf?", HARD_NAMES[3]]


def names(count: int) -> list[str]:
    return [f"Diffusion1kStep/generator_{i}" if i % 3 else f"gan_{i}" for i in range(count)]


def score_sets(set_names: list[str], images: int = 60) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return scores on a grid of 0.01, and so with ties."""
    rng, labels = np.random.default_rng(0), np.arange(images) % 2
    return {
        name: (labels, (rng.random(images) * 0.7 + 0.3 * labels).round(2)) for name in set_names
    }


def distance(point: list[float], line: np.ndarray) -> float:
    """Return that from a point to the nearest place on the straight pieces of line [K, 2]."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), 1e-30)
    along = (((point - starts) * steps).sum(axis=1) / lengths).clip(0, 1)
    return float(np.hypot(*(starts + along[:, None] * steps - point).T).min())


@pytest.mark.parametrize("count", [1, 40])
def test_roc_draws_the_rates_at_every_threshold(draw: Draw, count: int) -> None:
    sets = score_sets(names(count)) | {"only real": (np.zeros(3), np.full(3, 0.5))}
    figure = draw(plot_roc, sets, title="suite")
    linear, logarithmic = figure.axes
    curves = {line.get_label(): line.get_xydata() for line in linear.lines}
    np.testing.assert_array_equal(curves.pop("chance"), [[0, 0], [1, 1]])
    assert len(curves) == count and legend_texts(figure) == [*curves, "chance"]
    for (name, (labels, scores)), (entry, curve), bent in zip(
        sets.items(), curves.items(), logarithmic.lines, strict=False
    ):
        real, fake = scores[labels == 0], scores[labels == 1]
        # AUC as Mann and Whitney count it
        won = (fake[:, None] > real).mean() + (fake[:, None] == real).mean() / 2
        assert entry == f"{name} (AUC {won:.3f})"
        for threshold in [0.25, 0.5, 0.66, 1.0]:
            point = [(real >= threshold).mean(), (fake >= threshold).mean()]
            assert distance(point, curve) < 1e-9
        for point in bent.get_xydata()[::25]:
            assert distance(point, curve) < 1e-9
    assert logarithmic.get_xscale() == "log" and logarithmic.get_xlim()[0] == 1e-3
    looks = {(to_rgb(line.get_color()), line.get_linestyle()) for line in linear.lines}
    assert len(looks) == count + 1


@pytest.mark.parametrize(("count", "threshold"), [(1, None), (12, 0.123456)])
def test_histograms_count_every_image(draw: Draw, count: int, threshold: float | None) -> None:
    sets = score_sets(names(count))
    last = list(sets)[-1]
    sets[last] = (np.ones(4), np.array([0.0, 0.99, 1.0, 1.0]))  # one class, and scores on the edges
    figure = draw(plot_score_histograms, sets, threshold=threshold, title="suite")
    assert len(figure.axes) == count
    for axes, (name, (labels, scores)) in zip(figure.axes, sets.items(), strict=True):
        assert axes.get_title().replace("\n", "") == name
        outlines = [patch for patch in axes.patches if isinstance(patch, Polygon)]
        present = np.unique(labels).astype(int)
        assert [to_rgb(outline.get_edgecolor()) for outline in outlines] == [
            palette(2)[label] for label in present
        ]
        for outline, label in zip(outlines, present, strict=True):
            of_class = scores[labels == label]
            counts = np.histogram(of_class, bins=np.linspace(0, 1, 31))[0]
            assert outline.get_xy()[:, 1].max() == pytest.approx(counts.max() / len(of_class))
        marked = [0.5] if threshold is None else [0.5, threshold]
        assert [line.get_xdata()[0] for line in axes.lines] == marked
    note = [] if threshold is None else ["threshold of validation (0.123)"]
    assert legend_texts(figure) == ["real", "fake", "0.5", *note]


@pytest.mark.parametrize(("models", "generators"), [(1, 1), (3, 40), (10, 5)])
def test_comparison_has_a_bar_and_an_interval_per_measured_value(
    draw: Draw, models: int, generators: int
) -> None:
    values = np.random.default_rng(3).uniform(0.6, 1, (models, generators, 3))
    values.sort(axis=2)
    rows = {
        f"multiscale_{m}_2025_01_02_03_04_05": {
            name: (values[m, g, 1], values[m, g, 0], values[m, g, 2])
            for g, name in enumerate(names(generators))
        }
        for m in range(models)
    }
    first = next(iter(rows))
    bars = {(model, name): bar for model, row in rows.items() for name, bar in row.items()}
    if models > 1:
        rows[first]["gan_0"] = None
        del bars[first, "gan_0"]
    published = dict.fromkeys(names(generators)[::2], 0.9) | {"a generator of others": 0.1}
    figure = draw(plot_comparison, rows, metric="AP", published=published)
    (axes,) = figure.axes
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == names(generators)
    drawn = {
        (group.get_label(), shown[round(bar.get_y() + bar.get_height() / 2)]): bar.get_width()
        for group in axes.containers
        if group.get_label() in rows
        for bar in group
        if not np.isnan(bar.get_width())
    }
    assert drawn == {key: value for key, (value, _, _) in bars.items()}
    intervals = [
        segment[:, 0]
        for lines in axes.collections
        for segment in lines.get_segments()
        if len(segment) == 2  # none where a bar is missing
    ]
    ends = sorted((low, high) for _, low, high in bars.values())
    np.testing.assert_allclose(sorted(map(tuple, intervals)), ends)
    (diamonds,) = [line for line in axes.lines if line.get_label() == "published"]
    assert {shown[round(y)]: x for x, y in diamonds.get_xydata()} == {
        name: value for name, value in published.items() if name in shown
    }
    assert axes.get_xlim() == pytest.approx((0.45, 1.01))
    assert "not at 0" in axes.get_xlabel()
    assert ("not measured" in axes.get_xlabel()) == (models > 1)
    assert legend_texts(figure) == [*rows, "95 % interval", "published", "chance"]


def test_comparison_without_intervals_and_published_values(draw: Draw) -> None:
    rows = {"model": {"progan": (0.3, None, None)}}
    figure = draw(plot_comparison, rows, published={"other": 0.9})
    assert legend_texts(figure) == ["model", "chance"]
    assert figure.axes[0].get_xlim()[0] < 0.3


FAMILIES = {
    "JPEG quality": [("none", "clean"), ("95", "jpeg:95"), ("50", "jpeg:50"), ("30", "jpeg:30")],
    "a family with a name that is too long for its panel": [("none", "clean"), ("2", "blur:2")],
    "chains": [("none", "clean"), ("resize 0.75, JPEG 75", "a"), ("JPEG 90, JPEG 75", "b")],
    "never measured": [("1", "noise:1")],
}


@pytest.mark.parametrize("count", [1, 5, 40])
def test_robustness_draws_every_value_and_their_mean(draw: Draw, count: int) -> None:
    rng = np.random.default_rng(4)
    conditions = ("clean", "jpeg:95", "jpeg:50", "jpeg:30", "blur:2", "a", "b")
    values: dict[str, dict[str, float | None]] = {
        name: {condition: rng.uniform(0.3, 1) for condition in conditions} for name in names(count)
    }
    if count > 1:
        values["gan_0"]["jpeg:30"] = None
        del values["gan_0"]["jpeg:50"]
    figure = draw(plot_robustness, values | {"nothing": {"clean": None}}, FAMILIES, title="model")
    for axes, (family, degrees) in zip(figure.axes, FAMILIES.items(), strict=True):
        assert axes.get_xlabel().replace("\n", " ") == family
        ticks = [text.get_text().replace("\n", " ") for text in axes.get_xticklabels()]
        assert ticks == [label for label, _ in degrees]
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        table = np.array([[row.get(c) for _, c in degrees] for row in values.values()], float)
        lines = [line for line in axes.lines if line.get_label() not in ("mean", "chance")]
        np.testing.assert_array_equal([line.get_ydata() for line in lines], table)
        assert len({line.get_color() for line in lines}) == (count if count <= 10 else 1)
        mean = [line for line in axes.lines if line.get_label() == "mean"]
        measured = family != "never measured"
        assert len(mean) == (count > 1 and measured)
        assert ["not measured"] * (not measured) == [text.get_text() for text in axes.texts]
        if mean:  # where gan_0 lacks values it is in no point of the mean
            of = table[1:] if family == "JPEG quality" else table
            np.testing.assert_allclose(mean[0].get_ydata(), of.mean(axis=0))
    entries = [f"each of {count} generators"] if count > 10 else names(count)
    means = ["mean over generators"] if count > 1 else []
    assert legend_texts(figure) == [*entries, *means, "chance"]


def test_hard_names_are_drawn_as_they_are_or_with_question_marks(draw: Draw) -> None:
    sets = score_sets(HARD_NAMES)
    figure = draw(plot_roc, sets, title=HARD_NAMES[0])
    assert [text.rsplit(" (", 1)[0] for text in legend_texts(figure)] == [*SHOWN_NAMES, "chance"]
    figure = draw(plot_score_histograms, sets)
    assert [axes.get_title().replace("\n", "") for axes in figure.axes] == SHOWN_NAMES
    figure = draw(plot_comparison, {name: {name: (0.9, 0.8, 1.0)} for name in HARD_NAMES})
    assert legend_texts(figure)[:4] == SHOWN_NAMES
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == SHOWN_NAMES
    family = {HARD_NAMES[2]: [(HARD_NAMES[0], "clean")]}
    figure = draw(plot_robustness, {name: {"clean": 0.5} for name in HARD_NAMES}, family)
    assert legend_texts(figure)[:4] == SHOWN_NAMES


@pytest.mark.parametrize("name", ("matplotlib", "seaborn"))
def test_missing_library_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("scores", "style"):
        monkeypatch.delitem(sys.modules, f"reports.plots.{module}")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as missing:
        importlib.import_module("reports.plots.scores")
    message = str(missing.value)
    assert "matplotlib" in message and "seaborn" in message and "\n" not in message
    assert "pip install -r requirements.txt" in message
