"""Pictures of scores and of the figures computed from them; what all pictures share is in
`reports.plots.style`.

Each `plot_*` function makes the parent folder, replaces `save_path` in one step and returns it;
`formats` as in `reports.plots.style.save`. ValueError names the argument that does not fit.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import auc, roc_curve

from reports.plots.style import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Axes,
    Figure,
    Line2D,
    Patch,
    Target,
    array,
    label_array,
    left_limit,
    legend_fit,
    palette,
    printable,
    save,
    text_inches,
    wrapped,
)

LOWEST_RATE = 1e-3  # false-positive rate where the logarithmic axis starts
MARKED_RATES = (0.01, 0.05)
BINS = 30
GREY = {"color": "0.72", "linewidth": 0.8}


@STYLE
def plot_roc(
    sets: Mapping[str, tuple[Any, Any]],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """ROC curves, one per set, on a linear and on a logarithmic axis of the false-positive rate
    (from 0.001).

    sets: {name: (labels [N], 0 real and 1 fake; scores [N] in [0, 1], the probability of fake)}. A
    set with one class has no curve and is left out. Rates below one in the number of real images
    are interpolated, not measured.
    """
    curves = {}
    for name, (labels, scores) in _checked(sets).items():
        if len(np.unique(labels)) == 2:
            curves[name] = roc_curve(labels, scores)[:2]
    if not curves:
        raise ValueError(
            "sets holds none with both classes: a ROC curve needs real and generated images"
        )
    names = [f"{printable(name)} (AUC {auc(fpr, tpr):.3f})" for name, (fpr, tpr) in curves.items()]
    points = 10 if len(names) <= 10 else 8
    width, columns, below = legend_fit([*names, "chance"], 10, points)
    figure = Figure(figsize=(width, 4.6 + below), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    looks = ((style, colour) for style in cycle(("-", "--", ":", "-.")) for colour in palette(10))
    for name, (fpr, tpr), (style, colour) in zip(names, curves.values(), looks, strict=False):
        look: dict[str, Any] = {
            "color": colour,
            "linestyle": style,
            "linewidth": 1.3,
            "label": name,
        }
        linear.plot(fpr, tpr, **look)
        logarithmic.plot(*_from_lowest_rate(fpr, tpr), **look)
    rates = np.geomspace(LOWEST_RATE, 1, 200)
    chance = linear.plot([0, 1], [0, 1], label="chance", zorder=1, **CHANCE_LINE)
    logarithmic.plot(rates, rates, label="chance", zorder=1, **CHANCE_LINE)
    for rate in MARKED_RATES:
        logarithmic.axvline(rate, color="0.4", linewidth=0.8, zorder=1)
    for axes in (linear, logarithmic):
        axes.set(ylim=(-0.02, 1.02), ylabel="true-positive rate (generated found)")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    linear.set(xlim=(-0.02, 1.02), xlabel="false-positive rate (real taken for generated)")
    logarithmic.set(xlim=(LOWEST_RATE, 1.05), xscale="log")
    logarithmic.set_xticks(
        [LOWEST_RATE, *MARKED_RATES, 0.1, 1], ["0.1 %", "1 %", "5 %", "10 %", "100 %"]
    )
    logarithmic.set_xlabel("false-positive rate, logarithmic (lines: 1 % and 5 %)")
    handles = [*linear.lines[: len(names)], *chance]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=points, handlelength=3
    )
    return save(figure, save_path, title, formats)


def _from_lowest_rate(fpr: np.ndarray, tpr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve from `LOWEST_RATE` on, with points between: its straight pieces are bent on a
    logarithmic axis."""
    between = np.setdiff1d(np.geomspace(LOWEST_RATE, 1, 200), fpr)
    places = np.searchsorted(fpr, between)
    dense = np.insert(tpr, places, np.interp(between, fpr, tpr))
    rates = np.insert(fpr, places, between)
    shown = rates >= LOWEST_RATE
    return rates[shown], dense[shown]


@STYLE
def plot_score_histograms(
    sets: Mapping[str, tuple[Any, Any]],
    save_path: Target,
    threshold: float | None = None,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Histogram of the scores of every set, a panel each: the share of a class's images in 30 bins
    over 0..1.

    sets: {name: (labels [N], 0 real and 1 fake; scores [N] in [0, 1], the probability of fake)}; a
    set may hold one class. The dashed line is 0.5, the dotted line the threshold in [0, 1] that
    validation chose. Each panel has its own vertical axis.
    """
    checked = _checked(sets)
    if not checked:
        raise ValueError("sets is empty: expected at least one {name: (labels, scores)}")
    look: dict[int, dict[str, Any]] = {}
    for label, colour in enumerate(palette(2)):
        look[label] = {"facecolor": (*colour, 0.5), "edgecolor": colour, "linewidth": 1}
    handles: list[Any] = [Patch(label=name, **look[label]) for label, name in enumerate(CLASSES)]
    lines: list[tuple[float, dict[str, Any]]] = [(0.5, CHANCE_LINE | {"label": "0.5"})]
    if threshold is not None:
        threshold = float(array(threshold, "threshold", (), unit=True))
        name = f"threshold of validation ({threshold:.3g})"
        lines.append(
            (threshold, {"color": "black", "linestyle": ":", "linewidth": 2, "label": name})
        )
    handles += [Line2D([], [], **line) for _, line in lines]
    columns = min(6, max(math.ceil(len(checked) ** 0.5), min(3, len(checked))))
    rows = math.ceil(len(checked) / columns)
    panel = max(2.4, 5 / columns)
    titles = [wrapped(name, panel - 0.6) for name in checked]
    heights = [
        1.6 + 0.17 * max(t.count("\n") for t in titles[i * columns :][:columns])
        for i in range(rows)
    ]
    width, entries, below = legend_fit([handle.get_label() for handle in handles], columns * panel)
    figure = Figure(figsize=(width, sum(heights) + 0.7 + below), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel()
    for axes in panels[len(checked) :]:
        axes.remove()
    for axes, name, (labels, scores) in zip(panels, titles, checked.values(), strict=False):
        for label in np.unique(labels):
            counts, edges = np.histogram(
                scores[labels == label].clip(0, 1), bins=BINS, range=(0, 1)
            )
            axes.stairs(counts / counts.sum(), edges, fill=True, **look[label])
        for place, line in lines:
            axes.axvline(place, **line)
        axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.5, 1], title=name)
        axes.locator_params(axis="y", nbins=4)
    for axes in panels[: len(checked)][-columns:]:  # the lowest panel of every column
        axes.set_xlabel("score (0 real, 1 fake)")
    figure.supylabel("share of the class's images", fontsize=10)
    figure.legend(handles=handles, loc="outside lower center", ncols=entries)
    return save(figure, save_path, title, formats)


def _checked(sets: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (labels [N] as integers, scores [N])}"""
    checked = {}
    for name, (labels, scores) in sets.items():
        known = label_array(labels, f"labels of {name!r}")
        checked[name] = known, array(scores, f"scores of {name!r}", (len(known),), unit=True)
    return checked


@STYLE
def plot_robustness(
    values: Mapping[str, Mapping[str, float | None]],
    families: Mapping[str, Sequence[tuple[str, str]]],
    save_path: Target,
    metric: str = "AUC",
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Lines of a metric in [0, 1] over degrees of degradation, a panel per family and a line per
    generator.

    values: {generator: {condition: value}}; a value that is None, NaN or left out leaves a gap, and
    a generator without any is left out. families: {name: [(tick label, condition), ...]} in the
    order of the axis. Up to ten generators have colours, more are grey. The bold line is the mean
    over the generators that have a value wherever one has any in the panel: each of its points is a
    mean over the same generators. One generator has no such line.
    """
    known = {
        name: {c: v for c, v in row.items() if v is not None and v == v}
        for name, row in values.items()
    }
    known = {name: row for name, row in known.items() if row}
    ticks = {name: list(pairs) for name, pairs in families.items()}
    tables = {
        family: np.array(
            [[row.get(condition, math.nan) for _, condition in pairs] for row in known.values()]
        )
        for family, pairs in ticks.items()
        if pairs
    }
    measured = np.concatenate(
        [table[~np.isnan(table)] for table in tables.values()] or [np.array([])]
    )
    if measured.size == 0:
        raise ValueError(f"values holds no {metric} for the conditions of families")
    array(measured, f"{metric} in values", (None,), unit=True)
    coloured = len(known) <= 10
    widest = max(
        len(ticks[family]) * (text_inches(label for label, _ in ticks[family]) + 0.15)
        for family in tables
    )
    panel = max(2.6, widest) + 0.25
    columns = min(len(tables), max(1, int(16 / panel)), 4)
    rows = math.ceil(len(tables) / columns)
    columns = math.ceil(len(tables) / rows)
    entries = (
        [printable(name) for name in known] if coloured else [f"each of {len(known)} generators"]
    )
    width, across, below = legend_fit(
        [*entries, "mean over generators", "chance"], max(5.0, columns * panel + 0.6)
    )
    figure = Figure(figsize=(width, rows * 3.1 + 0.4 + below), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in panels[len(tables) :]:
        axes.remove()
    handles: dict[Any, Any] = {}
    for axes, (family, table) in zip(panels, tables.items(), strict=False):
        handles |= _draw_family(axes, table, entries, coloured)
        axes.set_xticks(range(table.shape[1]), [printable(label) for label, _ in ticks[family]])
        axes.set(xlim=(-0.3, table.shape[1] - 0.7), xlabel=wrapped(family, panel - 0.3))
    for axes in panels[::columns]:
        axes.set(ylim=(left_limit(measured.min()) - 0.02, 1.02), ylabel=metric)
    order = [*range(len(entries)), *(key for key in ("mean", "chance") if key in handles)]
    figure.legend(handles=[handles[key] for key in order], loc="outside lower center", ncols=across)
    return save(figure, save_path, title, formats)


def _draw_family(
    axes: Axes, table: np.ndarray, entries: Sequence[str], coloured: bool
) -> dict[Any, Any]:
    """Draw the lines of table [generators, conditions] and return what the legend shows, by number
    or name."""
    handles: dict[Any, Any] = {}
    places = np.arange(table.shape[1])
    looks = zip(palette(10), "osD^vPX<>*", strict=True)
    for i, (row, (colour, marker)) in enumerate(zip(table, cycle(looks), strict=False)):
        label = entries[i if coloured else 0]
        look: dict[str, Any] = {"color": colour, "linewidth": 1.3} if coloured else GREY
        (line,) = axes.plot(
            places, row, marker=marker if coloured else ".", markersize=4, label=label, **look
        )
        handles.setdefault(i if coloured else 0, line)
    complete = ~np.isnan(table[:, ~np.isnan(table).all(axis=0)]).any(axis=1)
    if len(table) > 1 and complete.any() and not np.isnan(table).all():
        look = {"color": "black", "linewidth": 3, "label": "mean over generators", "zorder": 4}
        (handles["mean"],) = axes.plot(places, table[complete].mean(axis=0), **look)
    if np.isnan(table).all():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="bottom")
    handles["chance"] = axes.axhline(0.5, label="chance", zorder=1, **CHANCE_LINE)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    return handles
