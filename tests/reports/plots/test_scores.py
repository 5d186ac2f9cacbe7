"""Pictures of scores: what their axes show, that every text is readable, and that bad input is
refused."""

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from reports.plots import comparison as comparison_plots
from reports.plots import scores as score_plots
from reports.plots import style as plotting
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
HARD_NAMES = [
    "a$\\frac{$",  # as a formula it could not be parsed
    "_two\x07\nlines",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
    "a/name/of_forty_characters/exactly_as_lo",
    "W" * 40,
]
SHOWN_NAMES = ["a$\\frac{$", "_two??lines", "caf?", *HARD_NAMES[3:]]


def names(count: int) -> list[str]:
    return [f"Diffusion1kStep/generator_{i}" if i % 3 else f"gan_{i}" for i in range(count)]


def score_sets(set_names: list[str], images: int = 60) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores on a grid of 0.01, and so with ties."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    return {
        name: (labels, (rng.random(images) * 0.7 + 0.3 * labels).round(2)) for name in set_names
    }


def distance(point: list[float], line: np.ndarray) -> float:
    """From a point to the nearest place on the straight pieces between the points of line [K, 2]."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), 1e-30)
    along = (((point - starts) * steps).sum(axis=1) / lengths).clip(0, 1)
    return float(np.hypot(*(starts + along[:, None] * steps - point).T).min())


def rate(scores: np.ndarray, threshold: float) -> float:
    return float((scores >= threshold).mean())


@pytest.mark.parametrize("count", [1, 5, 38])
def test_roc_draws_the_rates_at_every_threshold(draw: Draw, count: int) -> None:
    sets = score_sets(names(count)) | {"only real": (np.zeros(3), np.full(3, 0.5))}
    figure = draw(score_plots.plot_roc, sets, title="suite")
    linear, logarithmic = figure.axes
    curves = {line.get_label(): line.get_xydata() for line in linear.lines}
    np.testing.assert_array_equal(curves.pop("chance"), [[0, 0], [1, 1]])
    assert len(curves) == count and legend_texts(figure) == [*curves, "chance"]
    for (name, (labels, scores)), (entry, drawn) in zip(sets.items(), curves.items(), strict=False):
        real, fake = scores[labels == 0], scores[labels == 1]
        # AUC as Mann and Whitney count it
        won = (fake[:, None] > real).mean() + (fake[:, None] == real).mean() / 2
        assert entry == f"{name} (AUC {won:.3f})"
        for threshold in [0.25, 0.5, 0.66, 1.0]:
            assert distance([rate(real, threshold), rate(fake, threshold)], drawn) < 1e-9
    marks = [line.get_xdata()[0] for line in logarithmic.lines if len(set(line.get_xdata())) == 1]
    assert marks == [0.01, 0.05]
    assert logarithmic.get_xscale() == "log" and logarithmic.get_xlim()[0] == 1e-3
    looks = {(to_rgb(line.get_color()), line.get_linestyle()) for line in linear.lines}
    assert len(looks) == count + 1


def test_logarithmic_roc_is_the_linear_one(draw: Draw) -> None:
    """All scores are tied: the curve is the diagonal, which a line between two points on a log axis
    would not be."""
    figure = draw(score_plots.plot_roc, {"tied": ([0, 1, 1], [0.5, 0.5, 0.5])})
    fpr, tpr = figure.axes[1].lines[0].get_xydata().T
    np.testing.assert_allclose(fpr, tpr)
    assert len(fpr) > 100 and fpr.min() == pytest.approx(1e-3) and fpr.max() == 1


@pytest.mark.parametrize("sets", [{}, {"a": ([0, 0], [0.1, 0.2]), "b": ([1], [0.9])}])
def test_roc_without_two_classes_is_refused(
    sets: dict[str, tuple[list[int], list[float]]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="none with both classes"):
        score_plots.plot_roc(sets, tmp_path / "roc.png")


@pytest.mark.parametrize(("count", "threshold"), [(1, None), (2, 0.5), (5, 0.123456), (38, 1.0)])
def test_histograms_count_every_image(draw: Draw, count: int, threshold: float | None) -> None:
    sets = score_sets(names(count))
    last = list(sets)[-1]
    sets[last] = (np.ones(4), np.array([0.0, 0.99, 1.0, 1.0]))  # one class, and scores on the edges
    figure = draw(score_plots.plot_score_histograms, sets, threshold=threshold, title="suite")
    assert len(figure.axes) == count
    for axes, (name, (labels, scores)) in zip(figure.axes, sets.items(), strict=True):
        assert axes.get_title().replace("\n", "") == name
        stairs = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        present = np.unique(labels).astype(int)
        assert [to_rgb(patch.get_edgecolor()) for patch in stairs] == [
            plotting.palette(2)[i] for i in present
        ]
        for patch, label in zip(stairs, present, strict=True):
            shares, edges, _ = patch.get_data()
            np.testing.assert_allclose(edges, np.arange(31) / 30)
            assert shares.sum() == pytest.approx(1)
            below = (scores[labels == label] < edges[15]).mean()
            assert shares[:15].sum() == pytest.approx(below)
        assert [line.get_xdata()[0] for line in axes.lines] == [
            0.5,
            *([] if threshold is None else [threshold]),
        ]
    last_shares = stairs[0].get_data().values
    assert (last_shares[0], last_shares[-1]) == (0.25, 0.75)
    note = [] if threshold is None else [f"threshold of validation ({threshold:.3g})"]
    assert legend_texts(figure) == ["real", "fake", "0.5", *note]


def comparison(
    models: list[str], generators: list[str], low: float = 0.5
) -> dict[str, dict[str, Any]]:
    """{model: {generator: (value, low, high)}}; where both are even numbered, without an interval."""
    values = np.random.default_rng(3).uniform(low, 1, (len(models), len(generators), 3))
    values.sort(axis=2)
    return {
        model: {
            name: (values[m, g, 1], *((None, None) if (m + g) % 2 == 0 else values[m, g, ::2]))
            for g, name in enumerate(generators)
        }
        for m, model in enumerate(models)
    }


@pytest.mark.parametrize(
    ("models", "generators", "low"),
    [
        *itertools.product([1, 3, 10], [1, 5], [0.6]),
        (3, 5, 0.0),
        (1, 38, 0.6),
        (3, 38, 0.1),
        (10, 38, 0.6),
    ],
)
def test_comparison_has_a_bar_and_an_interval_per_measured_value(
    draw: Draw, models: int, generators: int, low: float
) -> None:
    rows = comparison(
        [f"multiscale_{m}_2025_01_02_03_04_05" for m in range(models)], names(generators), low
    )
    first = next(iter(rows))
    missing = models > 1
    if missing:
        rows[first]["gan_0"] = None
        rows[first].pop("Diffusion1kStep/generator_1", None)
    published = dict.fromkeys(names(generators)[::2], 0.9) | {"a generator of others": 0.1}
    figure = draw(comparison_plots.plot_comparison, rows, metric="AP", published=published)
    bars: dict[str, dict[str, float]] = {name: {} for name in rows}
    intervals: list[Any] = []
    diamonds: dict[str, float] = {}
    for axes in figure.axes:
        shown = [text.get_text() for text in axes.get_yticklabels()]
        for group in axes.containers:
            if group.get_label() in rows:
                for bar in group:
                    # its length is its value
                    assert isinstance(bar, Rectangle) and bar.get_x() == 0
                    place = bar.get_y() + bar.get_height() / 2
                    assert abs(place - round(place)) < 0.5
                    if not np.isnan(bar.get_width()):
                        bars[group.get_label()][shown[round(place)]] = bar.get_width()
        for lines in axes.collections:
            intervals += [segment[:, 0] for segment in lines.get_segments()]
        for line in axes.lines:
            if line.get_label() == "published":
                assert line.get_marker() == "D" and line.get_markerfacecolor() == "white"
                diamonds |= {shown[round(float(y))]: float(x) for x, y in line.get_xydata()}
        assert [set(line.get_xdata()) for line in axes.lines if line.get_label() == "chance"] == [
            {0.5}
        ]
        left, right = axes.get_xlim()
        assert right == pytest.approx(1.01) and left <= 0.45
        label = axes.get_xlabel().replace("\n", " ")
        assert ("not at 0" in label) == (left > 0) and ("not measured" in label) == missing
    expected = [triple for row in rows.values() for triple in row.values() if triple is not None]
    assert bars == {
        model: {name: triple[0] for name, triple in row.items() if triple is not None}
        for model, row in rows.items()
    }
    ends = sorted((t[1], t[2]) for t in expected if t[1] is not None)
    np.testing.assert_allclose(sorted(map(tuple, intervals)), ends)
    assert diamonds == {
        name: value for name, value in published.items() if name in names(generators)
    }
    assert legend_texts(figure) == [
        *rows,
        *(["95 % interval"] if ends else []),
        "published",
        "chance",
    ]


def test_comparison_without_published_figures_has_no_diamonds(draw: Draw) -> None:
    figure = draw(
        comparison_plots.plot_comparison,
        {"model": {"progan": (0.8, 0.7, 0.9)}},
        published={"other": 0.9},
    )
    assert legend_texts(figure) == ["model", "95 % interval", "chance"]


FAMILIES = {
    "JPEG quality": [("none", "clean"), *((str(q), f"jpeg:{q}") for q in (95, 90, 75, 50, 30))],
    "blur, standard deviation": [("none", "clean"), ("1", "blur:1"), ("2", "blur:2")],
    "a family with a name that is too long for its panel": [
        ("none", "clean"),
        ("0.5", "resize:0.5"),
    ],
    "noise": [("none", "clean"), ("5", "noise:5")],
    "WebP quality": [("none", "clean"), ("80", "webp:80")],
}


def conditions(generators: list[str]) -> dict[str, dict[str, float | None]]:
    rng = np.random.default_rng(4)
    every = sorted({condition for pairs in FAMILIES.values() for _, condition in pairs})
    return {name: {condition: rng.uniform(0.3, 1) for condition in every} for name in generators}


@pytest.mark.parametrize(("count", "families"), [(1, 1), (5, 2), (10, 5), (11, 3), (38, 5)])
def test_robustness_draws_every_value_and_their_mean(draw: Draw, count: int, families: int) -> None:
    values = conditions(names(count))
    chosen = dict(list(FAMILIES.items())[:families])
    if count > 1:
        values["gan_0"]["jpeg:30"] = None
        del values["gan_0"]["jpeg:50"]
    figure = draw(score_plots.plot_robustness, values, chosen, title="model")
    assert len(figure.axes) == families
    for axes, (family, pairs) in zip(figure.axes, chosen.items(), strict=True):
        assert axes.get_xlabel().replace("\n", " ") == family
        assert [text.get_text() for text in axes.get_xticklabels()] == [label for label, _ in pairs]
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        lines = [
            line
            for line in axes.lines
            if line.get_label() not in ("chance", "mean over generators")
        ]
        table = np.array([[row.get(c) for _, c in pairs] for row in values.values()], dtype=float)
        np.testing.assert_array_equal([line.get_ydata() for line in lines], table)
        assert len({line.get_color() for line in lines}) == (count if count <= 10 else 1)
        mean = [line for line in axes.lines if line.get_label() == "mean over generators"]
        if count > 1:  # where gan_0 lacks values it is in no point of the mean
            of = table[1:] if family == "JPEG quality" else table
            np.testing.assert_allclose(mean[0].get_ydata(), of.mean(axis=0))
        assert len(mean) == (count > 1)
        assert [set(line.get_ydata()) for line in axes.lines if line.get_label() == "chance"] == [
            {0.5}
        ]
    lines_named = [f"each of {count} generators"] if count > 10 else list(values)
    assert legend_texts(figure) == [
        *lines_named,
        *(["mean over generators"] if count > 1 else []),
        "chance",
    ]


def test_robustness_says_what_was_not_measured(draw: Draw, texts: dict[Text, Bbox]) -> None:
    values = {"progan": {"clean": 0.9}, "stylegan": {"clean": None}}
    figure = draw(
        score_plots.plot_robustness,
        values,
        {"JPEG": [("none", "clean")], "blur": [("1", "blur:1")]},
    )
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        [],
        ["not measured"],
    ]
    assert legend_texts(figure) == ["progan", "chance"]


def test_hard_names_are_drawn_as_they_are_or_with_question_marks(draw: Draw) -> None:
    sets = score_sets(HARD_NAMES)
    figure = draw(score_plots.plot_roc, sets, title=HARD_NAMES[0])
    assert [text.rsplit(" (", 1)[0] for text in legend_texts(figure)] == [*SHOWN_NAMES, "chance"]
    figure = draw(score_plots.plot_score_histograms, sets, threshold=0.2)
    panels = [axes.get_title().replace("\n", "") for axes in figure.axes]
    # a line break is a space there
    assert panels == [name.replace("??", "? ") for name in SHOWN_NAMES]
    figure = draw(comparison_plots.plot_comparison, comparison(HARD_NAMES, HARD_NAMES))
    assert legend_texts(figure)[:5] == SHOWN_NAMES
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == SHOWN_NAMES
    figure = draw(
        score_plots.plot_robustness,
        conditions(HARD_NAMES),
        {HARD_NAMES[2]: [(HARD_NAMES[0], "clean")]},
    )
    assert legend_texts(figure)[:5] == SHOWN_NAMES


@given(
    st.text("aW_/- $\\", max_size=60),
    st.floats(0.5, 3),
)
def test_wrapped_text_fits_and_loses_nothing(text: str, inches: float) -> None:
    lines = plotting.wrapped(text, inches).split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert plotting.text_inches(lines) <= inches


def test_sets_may_be_tensors(draw: Draw) -> None:
    scores = torch.tensor([0.25, 0.75], dtype=torch.bfloat16, requires_grad=True)
    figure = draw(score_plots.plot_roc, {"set": (torch.tensor([0, 1]), scores)})
    assert legend_texts(figure)[0] == "set (AUC 1.000)"


ROC, HISTOGRAMS = score_plots.plot_roc, score_plots.plot_score_histograms
COMPARISON, ROBUSTNESS = comparison_plots.plot_comparison, score_plots.plot_robustness
FAMILY = {"JPEG": [("none", "clean")]}


@pytest.mark.parametrize(
    ("plot", "arguments", "message"),
    [
        (ROC, {"sets": {"a": ([0, 1], [0.5])}}, r"scores of 'a' has shape \[1\], expected \[2\]"),
        (ROC, {"sets": {"a": ([0, 2], [0.5, 0.5])}}, "labels of 'a' must be 0"),
        (ROC, {"sets": {"a": ([0, 1], [0.5, np.nan])}}, "NaN"),
        (HISTOGRAMS, {"sets": {}}, "sets is empty"),
        (HISTOGRAMS, {"sets": {"a": ([], [])}}, "labels of 'a' has shape"),
        (HISTOGRAMS, {"sets": {"a": ([0], [-2.5])}}, "scores of 'a' spans -2.5"),
        (HISTOGRAMS, {"sets": {"a": ([0], [0.5])}, "threshold": 50}, "threshold spans 50"),
        (COMPARISON, {"rows": {}}, "no AUC to draw"),
        (COMPARISON, {"rows": {"model": {}}}, "no AUC to draw"),
        (COMPARISON, {"rows": {"model": {"progan": None}}}, "no AUC to draw"),
        (
            COMPARISON,
            {"rows": {"model": {"progan": (97.0, None, None)}}},
            "expected values in 0..1",
        ),
        (COMPARISON, {"rows": {"model": {"progan": (0.9, 0.8, 1.1)}}}, "expected values in 0..1"),
        (COMPARISON, {"rows": {"model": {"progan": (0.9, 0.95, 0.8)}}}, "low is above its high"),
        (
            COMPARISON,
            {"rows": {"m": {"a": (0.9, None, None)}}, "published": {"a": 93}},
            "published spans 93",
        ),
        (ROBUSTNESS, {"values": {}, "families": FAMILY}, "no AUC for the conditions"),
        (
            ROBUSTNESS,
            {"values": {"a": {"clean": 0.5}}, "families": {}},
            "no AUC for the conditions",
        ),
        (
            ROBUSTNESS,
            {"values": {"a": {"other": 0.5}}, "families": FAMILY},
            "no AUC for the conditions",
        ),
        (
            ROBUSTNESS,
            {"values": {"a": {"clean": 90.0}}, "families": FAMILY},
            "expected values in 0..1",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    plot: Callable[..., Path], arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plot(**arguments, save_path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


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
