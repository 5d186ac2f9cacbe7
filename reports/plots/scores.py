"""Plots of scores, and of metrics under degradations and other attention.

Each `plot_*` function makes the parent folder, replaces `save_path` and returns it; formats are
those of `reports.plots.style.save`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
    left_limit,
    name_inches,
    palette,
    printable,
    save,
)

Sets = Mapping[str, tuple[NDArray, NDArray]]
"""{name: (labels [N], 0 real and 1 fake; scores [N] in [0, 1])}"""
LOWEST_RATE = 1e-3  # false-positive rate where the logarithmic axis starts
MARKED_RATES = (0.01, 0.05)
MOST_COLOURS = 10  # with more generators, their lines are grey


@STYLE
def plot_roc(sets: Sets, save_path: Target, formats: Sequence[str] = ()) -> Path:
    """Draw a ROC curve for each set, with a linear and a logarithmic false-positive rate.

    Rates below one in the number of real images are interpolated, not measured.

    Args:
        sets: those with one class have no curve and are skipped; at least one has both.
        save_path: file to write.
        formats: of the files.
    """
    curves = {
        name: roc_curve(labels, scores)[:2]
        for name, (labels, scores) in sets.items()
        if len(np.unique(labels)) == 2
    }
    size = 10.5 + name_inches(curves), max(5, 1 + 0.17 * len(curves))
    figure = Figure(figsize=size, layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    # straight pieces of a curve are bent on a logarithmic axis
    rates = np.geomspace(LOWEST_RATE, 1, 500)
    looks = cycle(product(("-", "--", ":", "-."), palette(MOST_COLOURS)))
    for (name, (fpr, tpr)), (line, colour) in zip(curves.items(), looks, strict=False):
        label = f"{printable(name)} (AUC {auc(fpr, tpr):.3f})"
        look: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.3}
        linear.plot(fpr, tpr, label=label, **look)
        logarithmic.plot(rates, np.interp(rates, fpr, tpr), **look)
    linear.plot([0, 1], [0, 1], label="chance", zorder=1, **CHANCE_LINE)
    logarithmic.plot(rates, rates, zorder=1, **CHANCE_LINE)
    for rate in MARKED_RATES:
        logarithmic.axvline(rate, color="0.4", linewidth=0.8, zorder=1)
    for axes in (linear, logarithmic):
        axes.set(ylim=(-0.02, 1.02), ylabel="true-positive rate (fake found)")
        axes.grid(color="0.92")
    linear.set(xlim=(-0.02, 1.02), xlabel="false-positive rate (real called fake)")
    logarithmic.set(xlim=(LOWEST_RATE, 1.05), xscale="log")
    logarithmic.set_xlabel("false-positive rate, logarithmic (lines: 1 % and 5 %)")
    logarithmic.set_xticks(
        [LOWEST_RATE, *MARKED_RATES, 0.1, 1], ["0.1 %", "1 %", "5 %", "10 %", "100 %"]
    )
    figure.legend(handles=linear.lines, loc="outside right upper", fontsize=8, handlelength=3)
    return save(figure, save_path, formats=formats)


@STYLE
def plot_score_histograms(
    sets: Sets,
    save_path: Target,
    threshold: float | None = None,
    formats: Sequence[str] = (),
) -> Path:
    """Draw a histogram of the scores of each set: the share of a class's images in 30 bins.

    Args:
        sets: at least one; a set may hold one class.
        save_path: file to write.
        threshold: chosen on validation images, in [0, 1], None if there is none.
        formats: of the files.
    """
    lines = [(0.5, Line2D([], [], label="0.5", **CHANCE_LINE))]
    if threshold is not None:
        name = f"threshold of validation ({threshold:.3g})"
        lines.append((threshold, Line2D([], [], color="black", linestyle=":", label=name)))
    looks = [
        {"facecolor": (*colour, 0.5), "edgecolor": colour, "label": name}
        for name, colour in zip(CLASSES, palette(2), strict=True)
    ]
    columns = min(len(sets), max(3, math.ceil(len(sets) ** 0.5)), 6)
    rows = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(3 + 2.7 * columns, 1 + 1.9 * rows), layout="constrained")
    for place, (name, (labels, scores)) in enumerate(sets.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for label in np.unique(labels).astype(int):
            of_class = scores[labels == label]
            share = np.full(len(of_class), 1 / len(of_class))
            how: dict[str, Any] = {"bins": 30, "range": (0, 1), "histtype": "stepfilled"}
            axes.hist(of_class, weights=share, **how, **looks[label])
        for value, line in lines:
            axes.axvline(value, color="black", linestyle=line.get_linestyle(), linewidth=1.2)
        axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.5, 1], title=fill(printable(name), 26))
        axes.locator_params(axis="y", nbins=4)
    figure.supxlabel("score (0 real, 1 fake)", fontsize=10)
    figure.supylabel("share of the class's images", fontsize=10)
    handles = [*(Patch(**look) for look in looks), *(line for _, line in lines)]
    figure.legend(handles=handles, loc="outside right upper")
    return save(figure, save_path, formats=formats)


@STYLE
def plot_robustness(
    values: Mapping[str, Mapping[str, float | None]],
    families: Mapping[str, Sequence[tuple[str, str]]],
    save_path: Target,
    metric: str = "AUC",
    formats: Sequence[str] = (),
) -> Path:
    """Draw a metric over degrees of degradation, a panel for each family, a line for each generator.

    The bold line is the mean over the generators that have a value wherever one has any in the
    panel, so that each of its points is a mean over the same generators.

    Args:
        values: {generator: {condition: value in [0, 1]}}; a missing value or None leaves a gap, and
            a generator without any value is skipped.
        families: {name: [(tick label, condition), ...]} in the order of the axis.
        save_path: file to write.
        metric: name of the metric.
        formats: of the files.
    """
    known = {
        printable(name): row
        for name, row in values.items()
        if any(value is not None for value in row.values())
    }
    tables = {
        family: np.array(
            [[row.get(condition) for _, condition in degrees] for row in known.values()], float
        )
        for family, degrees in families.items()
    }
    lowest = min(np.nanmin(table) for table in tables.values() if not np.isnan(table).all())
    columns = min(len(families), 3)
    rows = math.ceil(len(families) / columns)
    handles = {look["label"]: Line2D([], [], **look) for look in _looks(known)}
    if len(known) > 1:
        handles["mean"] = Line2D([], [], color="black", linewidth=3, label="mean over generators")
    handles["chance"] = Line2D([], [], label="chance", **CHANCE_LINE)
    width = 1 + 3.6 * columns + name_inches(handles)
    height = max(1 + 2.8 * rows, 1 + 0.23 * len(handles))
    figure = Figure(figsize=(width, height), layout="constrained")
    for place, (family, degrees) in enumerate(families.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _draw_family(axes, tables[family], _looks(known))
        characters = 36 // len(degrees)  # of a tick label, on one line
        axes.set_xticks(range(len(degrees)), [fill(label, characters) for label, _ in degrees])
        axes.set(xlim=(-0.3, len(degrees) - 0.7), xlabel=fill(printable(family), 36))
        axes.set(ylim=(left_limit(lowest) - 0.02, 1.02), ylabel=metric)
    figure.legend(handles=list(handles.values()), loc="outside right upper")
    return save(figure, save_path, formats=formats)


@STYLE
def plot_control_changes(
    changes: Mapping[str, tuple[float, float | None, float | None]],
    save_path: Target,
    formats: Sequence[str] = (),
) -> Path:
    """Draw the effect of each control with its confidence interval, and a line at no change.

    A filled point has an interval without zero.

    Args:
        changes: {control: (change of the AUC in points, low, high)}; low and high None without an
            interval.
        save_path: file to write.
        formats: of the files.
    """
    names, texts = list(map(printable, changes)), []
    figure = Figure(figsize=(6 + name_inches(names), 1.2 + 0.3 * len(names)), layout="constrained")
    axes, colour = figure.subplots(), palette(1)[0]
    for row, (change, low, high) in enumerate(changes.values()):
        texts.append(f"{change:+.2f}")
        face = "white"
        if low is not None and high is not None:
            texts[-1] += f"  [{low:+.2f}, {high:+.2f}]"
            axes.plot([low, high], [row, row], color=colour)
            face = colour if low > 0 or high < 0 else "white"
        axes.plot(change, row, "o", color=colour, markerfacecolor=face)
    axes.axvline(0, **CHANCE_LINE)
    axes.set(xlabel="change of AUC (points)", ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(names)), texts)
    numbers.spines[:].set_visible(False)
    numbers.tick_params(length=0)
    return save(figure, save_path, formats=formats)


def _looks(names: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield colour, marker and label of the line of each generator."""
    if len(names) > MOST_COLOURS:
        label = f"each of {len(names)} generators"
        yield from ({"color": "0.72", "marker": ".", "label": label} for _ in names)
        return
    for name, colour, marker in zip(names, palette(MOST_COLOURS), "osD^vPX<>*", strict=False):
        yield {"color": colour, "marker": marker, "label": name}


def _draw_family(axes: Axes, table: NDArray, looks: Iterator[dict[str, Any]]) -> None:
    """Draw the lines of table [generators, degrees], NaN where not measured, and their mean."""
    for row, look in zip(table, looks, strict=True):
        axes.plot(row, markersize=4, linewidth=1.2, **look)
    measured = ~np.isnan(table)
    complete = measured[:, measured.any(axis=0)].all(axis=1)
    if len(table) > 1 and measured.any() and complete.any():
        axes.plot(table[complete].mean(axis=0), color="black", linewidth=3, label="mean", zorder=4)
    if not measured.any():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="bottom")
    axes.axhline(0.5, label="chance", zorder=1, **CHANCE_LINE)
    axes.grid(axis="y", color="0.92")
