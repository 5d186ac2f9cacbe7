"""Pictures of differences: what controls change, and how far the attention to generators is apart.

Each `plot_*` function makes the parent folder, replaces `save_path` in one step and returns it;
`formats` as in `reports.plots.style.save`. ValueError names the argument that does not fit.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Normalize,
    Page,
    Target,
    array,
    ink,
    palette,
    printable,
    save,
    text_inches,
    wrapped,
)


@STYLE
def plot_control_changes(
    changes: Mapping[str, tuple[float, float | None, float | None]],
    save_path: Target,
    label: str = "change of AUC (points)",
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """What every control changes: a point with its 95 % interval per condition, a line at zero, and
    the figures at the right.

    A filled point has an interval without zero; a hollow one has zero in it, or has no interval.

    Args:
        changes: {condition: (value, low, high)} in the unit of `label`, a row each in this order;
            low and high None or NaN without an interval.
    """
    if not changes:
        raise ValueError("changes is empty: expected at least one {condition: (value, low, high)}")
    names = [printable(name) for name in changes]
    table = np.array(
        [[math.nan if x is None else float(x) for x in three] for three in changes.values()]
    )
    if table.shape != (len(names), 3) or (table[:, 1] > table[:, 2]).any():
        raise ValueError("changes holds what is not (value, low, high) with low <= high")
    array(table[:, 0], "the values of changes", (len(names),))
    table[np.isnan(table).any(axis=1), 1:] = math.nan
    figures = [
        f"{value:+.2f}" + ("" if low != low else f"  [{low:+.2f}, {high:+.2f}]")
        for value, low, high in table
    ]
    left, right, height = (
        text_inches(names) + 0.3,
        text_inches(figures, 9) + 0.25,
        max(0.8, 0.3 * len(names)),
    )
    page = Page(left + 4.0 + right, height + 0.6, title)
    axes, colour = page.axes(left, 0, 4.0, height), palette(1)[0]
    for row, (value, low, high) in enumerate(table):
        axes.plot([low, high], [row, row], color=colour, linewidth=1.5, solid_capstyle="butt")
        face = colour if low > 0 or high < 0 else "white"
        axes.plot(value, row, "o", markersize=6, color=colour, markerfacecolor=face)
        page.text(left + 4.1, (row + 0.5) * height / len(names), figures[row], 9, va="center")
    axes.axvline(0, zorder=1, **CHANCE_LINE)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=label)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    return save(page.figure, save_path, formats=formats)


@STYLE
def plot_distances(
    distances: Any,
    names: Sequence[str],
    save_path: Target,
    significant: Any = None,
    label: str = "Jensen-Shannon distance of attention",
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Distances between generators as a matrix; more than three are ordered so that close ones
    stand together.

    The order is that of the leaves of average linkage with optimal leaf ordering (Bar-Joseph et
    al., Bioinformatics 2001). Up to 12 generators have their values in the cells. A dot marks a
    significant distance.

    Args:
        distances: [G, G], symmetric, in [0, 1], zero on the diagonal.
        significant: [G, G], true where a distance is.
    """
    table = array(distances, "distances", (len(names), len(names)), unit=True)
    if not np.allclose(table, table.T, atol=1e-6) or np.abs(np.diag(table)).max() > 1e-6:
        raise ValueError("distances is not symmetric with zeros on its diagonal")
    marks = (
        np.zeros(table.shape, bool) if significant is None else np.asarray(significant).astype(bool)
    )
    if marks.shape != table.shape:
        raise ValueError(f"significant has shape {list(marks.shape)}, expected {list(table.shape)}")
    if len(names) > 3:
        order = leaves_list(
            linkage(squareform(table, checks=False), "average", optimal_ordering=True)
        )
        table, marks, names = (
            table[np.ix_(order, order)],
            marks[np.ix_(order, order)],
            [names[i] for i in order],
        )
    shown = [printable(name) for name in names]
    few = len(names) <= 12
    cell, margin = (0.52 if few else 0.24), text_inches(shown) + 0.15
    side = max(1.6, cell * len(names))
    label = wrapped(label, side)
    page = Page(
        max(4.0, margin + side + 1.1 + 0.17 * label.count("\n")), side + margin + 0.35, title
    )
    axes = page.axes(margin, 0, side, side)
    norm = Normalize(0, float(table.max()) or 1.0)
    cells = axes.imshow(table, cmap="cividis", norm=norm, aspect="auto")
    for y, x in np.argwhere(np.ones_like(marks)):
        colour = ink(cells.to_rgba(table[y, x]))
        if few:
            text = f"{table[y, x]:.3f}".removeprefix("0") if y != x else "0"
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
        if marks[y, x] and x != y:
            axes.plot(x, y + (0.33 if few else 0), ".", color=colour, markersize=5)
    axes.set_xticks(range(len(names)), shown, rotation=90)
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = page.axes(margin + side + 0.15, 0, 0.18, side)
    page.figure.colorbar(cells, cax=bar, label=label)
    if significant is not None:
        page.text(
            page.width - 0.1, side + margin + 0.1, "● significant", 9, ha="right", va="bottom"
        )
    return save(page.figure, save_path, formats=formats)
