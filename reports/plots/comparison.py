"""Bars that compare models, generator by generator; see `reports.plots.style` for what all pictures
share."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Figure,
    Target,
    array,
    left_limit,
    legend_fit,
    palette,
    printable,
    save,
    text_inches,
    wrapped,
)


@STYLE
def plot_comparison(
    rows: Mapping[str, Mapping[str, tuple[float, float | None, float | None] | None]],
    save_path: Target,
    metric: str = "AUC",
    published: Mapping[str, float] | None = None,
    published_label: str = "published",
) -> Path:
    """Bars of a metric in [0, 1], grouped by generator, a bar per model and a line across it for
    its 95 % interval.

    rows: {model: {generator: (value, low, high)}}; low and high are None without an interval; None
    in place of the three, a value that is None or NaN, or no entry is not measured and gets no bar.
    published: {generator: value in [0, 1]}, what others report: a hollow diamond below the bars;
    other generators than those of `rows` are left out. The label of an axis that does not start at
    0 says so. Many generators are drawn in columns side by side.
    """
    generators = list(dict.fromkeys(name for values in rows.values() for name in values))
    table = _values_and_intervals(rows, generators, metric)
    reported = {name: value for name, value in (published or {}).items() if name in generators}
    outside = (
        array(list(reported.values()), "published", (None,), unit=True)
        if reported
        else np.array([])
    )
    thick = max(0.075, min(0.16, 0.24 / len(rows)))  # inches of a bar
    group = thick * len(rows) + (0.14 if reported else 0)
    pitch = max(0.25, group + 0.12)
    entries = [*(printable(name) for name in rows), "95 % interval", published_label, "chance"]
    columns = min(2, math.ceil(len(generators) * pitch / 16))
    per_column = math.ceil(len(generators) / columns)
    pitch = max(pitch, 0.4 / per_column)
    width, across, above = legend_fit(entries, columns * (4.8 + text_inches(generators)))
    figure = Figure(figsize=(width, above + 0.6 + pitch * per_column), layout="constrained")
    left = left_limit(min([np.nanmin(table), *outside]))
    notes = [f"axis starts at {left:.2f}, not at 0"] if left > 0 else []
    notes += ["no bar: not measured"] if np.isnan(table[..., 0]).any() else []
    label = wrapped(f"{metric} ({'; '.join(notes)})" if notes else metric, 4.8)
    handles: dict[Any, Any] = {}  # by label
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        shown = range(column * per_column, min((column + 1) * per_column, len(generators)))
        places = np.arange(len(shown))
        for row in places[::2]:
            axes.axhspan(row - 0.5, row + 0.5, color="0.94", zorder=0)
        for i, (name, colour) in enumerate(zip(rows, palette(len(rows)), strict=True)):
            height = places + ((i + 0.5) * thick - group / 2) / pitch
            values, low, high = table[i, shown].T
            bars = axes.barh(height, values, thick / pitch, color=colour, label=printable(name))
            handles.setdefault(i, bars)
            known = ~np.isnan(low)
            if known.any():
                middle, half = (low + high)[known] / 2, (high - low)[known] / 2
                line: dict[str, Any] = {
                    "fmt": "none",
                    "ecolor": "0.15",
                    "elinewidth": 0.9,
                    "capsize": 1.5,
                }
                drawn = axes.errorbar(
                    middle, height[known], xerr=half, label="95 % interval", **line
                )
                handles.setdefault("interval", drawn)
        theirs = [
            (reported[generators[k]], row)
            for row, k in enumerate(shown)
            if generators[k] in reported
        ]
        if theirs:
            hollow: dict[str, Any] = {
                "linestyle": "none",
                "marker": "D",
                "markersize": 5,
                "color": "black",
            }
            hollow |= {"markerfacecolor": "white", "label": published_label, "zorder": 4}
            x, y = np.array(theirs).T
            handles.setdefault("published", *axes.plot(x, y + (group / 2 - 0.07) / pitch, **hollow))
        handles["chance"] = axes.axvline(0.5, label="chance", **CHANCE_LINE)
        axes.set_yticks(places, [printable(generators[k]) for k in shown])
        axes.set(xlim=(left, 1.01), ylim=(per_column - 0.5, -0.5), xlabel=label)
    order = [
        *range(len(rows)),
        *(key for key in ("interval", "published", "chance") if key in handles),
    ]
    figure.legend(handles=[handles[key] for key in order], loc="outside upper center", ncols=across)
    return save(figure, save_path)


def _values_and_intervals(
    rows: Mapping[str, Mapping[str, Any]], generators: list[str], metric: str
) -> np.ndarray:
    """[models, generators, 3]: value, low and high in [0, 1]; all NaN without a value, the last two
    without both."""
    nothing = (math.nan, math.nan, math.nan)
    triples = [[values.get(name) or nothing for name in generators] for values in rows.values()]
    table = np.array(triples, dtype=float).reshape(len(rows), len(generators), 3)
    if np.isnan(table[..., :1]).all():
        raise ValueError(
            f"rows holds no {metric} to draw: expected {{model: {{generator: (value, low, high)}}}}"
        )
    table[np.isnan(table[..., 0])] = math.nan
    table[np.isnan(table).any(axis=2), 1:] = math.nan
    array(table[~np.isnan(table)], f"{metric} in rows", (None,), unit=True)
    if (table[..., 1] > table[..., 2]).any():
        raise ValueError(f"rows holds an interval of {metric} whose low is above its high")
    return table
