"""Plot of a metric of several models, generator by generator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Figure,
    Target,
    left_limit,
    name_inches,
    palette,
    printable,
    save,
)

Bar = tuple[float, float | None, float | None]
"""A value and the ends of its confidence interval, which may be missing."""
NOT_MEASURED = (None, None, None)


@STYLE
def plot_comparison(
    rows: Mapping[str, Mapping[str, Bar | None]],
    save_path: Target,
    metric: str = "AUC",
    published: Mapping[str, float] | None = None,
    published_label: str = "published",
) -> Path:
    """Draw bars of a metric, grouped by generator, one for each model with its 95 % interval.

    The label of an axis that does not start at 0 says so.

    Args:
        rows: {model: {generator: (value, low, high)}}, all in [0, 1]; a missing entry or None is
            not measured and gets no bar. At least one is measured.
        save_path: file to write.
        metric: name of the metric.
        published: {generator: value in [0, 1]} that others report, drawn as a hollow diamond;
            generators that are not in `rows` are skipped.
        published_label: its name in the legend.
    """
    generators = list(dict.fromkeys(name for bars in rows.values() for name in bars))
    # [models, generators, 3]: value, low, high; NaN where missing
    table = np.array(
        [[bars.get(name) or NOT_MEASURED for name in generators] for bars in rows.values()], float
    )
    others = {name: value for name, value in (published or {}).items() if name in generators}
    places, thick = np.arange(len(generators)), 0.8 / (len(rows) + bool(others))
    height = 1.5 + 0.21 * len(rows) + len(generators) * (0.2 + 0.04 * len(rows))
    size = 6 + max(name_inches(generators), name_inches(rows) - 4), height
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for row in places[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="0.94", zorder=0)
    handles = _draw_bars(axes, dict(zip(rows, table, strict=True)), thick)
    if others:
        at = np.array([generators.index(name) for name in others]) + 0.4 - thick / 2
        handles += axes.plot(
            list(others.values()), at, linestyle="none", marker="D", markersize=5, color="black",
            markerfacecolor="white", label=published_label,
        )  # fmt: skip
    handles.append(axes.axvline(0.5, label="chance", **CHANCE_LINE))
    left = left_limit(min([np.nanmin(table), *others.values()]))
    notes = [f"axis starts at {left:.2f}, not at 0"] if left > 0 else []
    if np.isnan(table[..., 0]).any():
        notes.append("no bar: not measured")
    axes.set_yticks(places, [printable(name) for name in generators])
    axes.set(xlim=(left, 1.01), ylim=(len(generators) - 0.5, -0.5))
    axes.set_xlabel(f"{metric} ({'; '.join(notes)})" if notes else metric)
    short = all(len(str(handle.get_label())) <= 24 for handle in handles)  # three fit side by side
    figure.legend(handles=handles, loc="outside upper center", ncols=3 if short else 1)
    return save(figure, save_path)


def _draw_bars(axes: Axes, models: Mapping[str, NDArray], thick: float) -> list[Any]:
    """Draw the bars of models with their intervals, and return the entries of the legend.

    Args:
        axes: with a generator at each integer.
        models: {name: [generators, 3]}: value, low, high; NaN where missing.
        thick: height of a bar.
    """
    handles: list[Any] = []
    for i, (name, colour) in enumerate(zip(models, palette(len(models)), strict=True)):
        values, low, high = models[name].T
        at = np.arange(len(values)) - 0.4 + (i + 0.5) * thick
        handles.append(axes.barh(at, values, thick, color=colour, label=printable(name)))
        errors = [values - low, high - values]
        interval = axes.errorbar(
            values, at, xerr=errors, fmt="none", ecolor="0.15", elinewidth=0.9, capsize=1.5,
            label="95 % interval",
        )  # fmt: skip
    if not all(np.isnan(table[:, 1]).all() for table in models.values()):
        handles.append(interval)
    return handles
