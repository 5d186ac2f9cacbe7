"""Plots of scores and comparisons: their axes show the given numbers, and texts can be read."""

import importlib
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from sklearn.metrics import roc_auc_score

from reports.plots.comparison import plot_comparison
from reports.plots.scores import (
    plot_control_changes,
    plot_robustness,
    plot_roc,
    plot_score_histograms,
)
from reports.plots.style import palette
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts, tick_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
NAMES = [
    "a$\\frac{$",  # as a formula it could not be parsed
    "_two\x07\nlines",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
    "Diffusion1kStep/a_generator/with_a_name_of_55_characters",
]
SHOWN = ["a$\\frac{$", "_two??lines", "caf?", NAMES[3]]


def score_sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return scores on a grid of 0.01, and so with ties."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    return {name: (labels, (rng.random(60) * 0.7 + 0.3 * labels).round(2)) for name in NAMES}


def test_roc_has_a_curve_per_set_of_both_classes(draw: Draw) -> None:
    sets = score_sets()
    figure = draw(plot_roc, sets | {"only real": (np.zeros(3), np.full(3, 0.5))})
    aucs = [roc_auc_score(*values) for values in sets.values()]
    entries = [f"{name} (AUC {auc:.3f})" for name, auc in zip(SHOWN, aucs, strict=True)]
    assert legend_texts(figure) == [*entries, "chance"]
    linear, logarithmic = figure.axes
    for curve, bent, auc in zip(linear.lines, logarithmic.lines, aucs, strict=False):
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(auc)
        assert np.trapezoid(bent.get_ydata(), bent.get_xdata()) == pytest.approx(auc, abs=0.01)
    assert logarithmic.get_xscale() == "log" and logarithmic.get_xlim()[0] == 1e-3


@pytest.mark.parametrize("threshold", [None, 0.123456])
def test_histograms_count_every_image(draw: Draw, threshold: float | None) -> None:
    sets = score_sets()
    # one class, and scores on the edges
    sets[NAMES[-1]] = (np.ones(4), np.array([0.0, 0.99, 1.0, 1.0]))
    figure = draw(plot_score_histograms, sets, threshold=threshold)
    assert [axes.get_title().replace("\n", "") for axes in figure.axes] == SHOWN
    for axes, (labels, scores) in zip(figure.axes, sets.values(), strict=True):
        outlines = [patch for patch in axes.patches if isinstance(patch, Polygon)]
        for outline, label in zip(outlines, np.unique(labels).astype(int), strict=True):
            counts = np.histogram(scores[labels == label], bins=30, range=(0, 1))[0]
            assert outline.get_xy()[:, 1].max() == pytest.approx(counts.max() / counts.sum())
            assert to_rgb(outline.get_edgecolor()) == palette(2)[label]
    note = [] if threshold is None else ["threshold of validation (0.123)"]
    assert legend_texts(figure) == ["real", "fake", "0.5", *note]


def test_comparison_has_a_bar_and_an_interval_per_measured_value(draw: Draw) -> None:
    rows: dict[str, dict[str, Any]] = {
        model: {name: (0.7, 0.65, 0.7 + i / 50) for i, name in enumerate(NAMES)} for model in "abc"
    }
    rows["a"][NAMES[0]] = None
    published = {NAMES[1]: 0.9, "a generator of others": 0.1}
    figure = draw(plot_comparison, rows, metric="AP", published=published)
    (axes,) = figure.axes
    assert tick_texts(axes.yaxis) == SHOWN
    bars = [
        bar.get_width() for group in axes.containers if group.get_label() in rows for bar in group
    ]
    assert np.isnan(bars[0]) and bars[1:] == [0.7] * 11
    ends = [
        segment[:, 0]
        for lines in axes.collections
        for segment in lines.get_segments()
        if len(segment)
    ]
    assert sorted(end[1] for end in ends) == sorted(
        bar[2] for row in rows.values() for bar in row.values() if bar
    )
    (diamonds,) = [line for line in axes.lines if line.get_label() == "published"]
    assert diamonds.get_xdata() == [0.9] and round(diamonds.get_ydata()[0]) == 1
    assert axes.get_xlim() == pytest.approx((0.45, 1.01))
    assert axes.get_xlabel() == "AP (axis starts at 0.45, not at 0; no bar: not measured)"
    assert legend_texts(figure) == ["a", "b", "c", "95 % interval", "published", "chance"]


def test_comparison_without_intervals_and_published_values(draw: Draw) -> None:
    rows = {"model": {"progan": (0.3, None, None)}}
    figure = draw(plot_comparison, rows, published={"other": 0.9})
    assert legend_texts(figure) == ["model", "chance"] and figure.axes[0].get_xlim()[0] < 0.3


FAMILIES = {
    "JPEG quality": [("none", "clean"), ("95", "jpeg:95"), ("30", "jpeg:30")],
    "a family with a name that is too long for its panel": [("none", "clean"), ("2", "blur:2")],
    "never measured": [("1", "noise:1")],
}


@pytest.mark.parametrize("count", [1, 4, 12])
def test_robustness_draws_every_value_and_their_mean(draw: Draw, count: int) -> None:
    names = [*NAMES, *(f"gan_{i}" for i in range(4, count))][:count]
    values: dict[str, dict[str, float | None]] = {
        name: {"clean": 0.9, "jpeg:95": 0.8, "jpeg:30": 0.7 - i / 100, "blur:2": 0.5}
        for i, name in enumerate(names)
    }
    values[names[0]] = {"clean": 0.2, "jpeg:30": None}
    figure = draw(plot_robustness, values | {"nothing": {"clean": None}}, FAMILIES)
    assert [axes.get_xlabel().replace("\n", " ") for axes in figure.axes] == list(FAMILIES)
    for axes, degrees in zip(figure.axes, FAMILIES.values(), strict=True):
        table = np.array([[row.get(c) for _, c in degrees] for row in values.values()], float)
        lines = [line for line in axes.lines if line.get_label() not in ("mean", "chance")]
        np.testing.assert_array_equal([line.get_ydata() for line in lines], table)
        assert len({line.get_color() for line in lines}) == (count if count <= 10 else 1)
        # the first generator lacks values, so it is in no point of the mean
        means = [line.get_ydata() for line in axes.lines if line.get_label() == "mean"]
        measured = count > 1 and not np.isnan(table).all()
        np.testing.assert_allclose(means, [table[1:].mean(axis=0)] if measured else [])
    assert [text.get_text() for text in figure.axes[2].texts] == ["not measured"]
    entries = [f"each of {count} generators"] if count > 10 else SHOWN[:count]
    assert legend_texts(figure) == [*entries, *["mean over generators"][: count - 1], "chance"]


def test_changes_stand_beside_zero(draw: Draw) -> None:
    changes = {"uniform": (-1.0, -1.5, -0.3), "mean": (0.5, -0.2, 1.0), "none": (-1.5, None, None)}
    (axes,) = draw(plot_control_changes, changes).axes
    interval, surely, _, unsure, without, _ = axes.lines
    np.testing.assert_allclose(interval.get_xydata(), [[-1.5, 0], [-0.3, 0]])
    hollow = [
        to_rgb(point.get_markerfacecolor()) == (1, 1, 1) for point in (surely, unsure, without)
    ]
    assert hollow == [False, True, True] and tick_texts(axes.yaxis) == list(changes)
    written = ["-1.00  [-1.50, -0.30]", "+0.50  [-0.20, +1.00]", "-1.50"]
    assert tick_texts(axes.child_axes[0].yaxis) == written


@pytest.mark.parametrize("name", ("matplotlib", "seaborn"))
def test_missing_library_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("scores", "style"):
        monkeypatch.delitem(sys.modules, f"reports.plots.{module}")
    monkeypatch.setitem(sys.modules, name, None)
    message = r"matplotlib and seaborn.*pip install -r requirements\.txt$"
    with pytest.raises(ImportError, match=message):
        importlib.import_module("reports.plots.scores")
