"""Pictures of attention weights and of NPR residuals; what all pictures share is in
`reports.plots.style`.

Each `plot_*` function takes NumPy arrays, sequences or torch tensors (any device), makes the parent
folder, replaces `save_path` in one step and returns it; `formats` as in `reports.plots.style.save`.
ValueError names the argument that does not fit.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.plots.maps import plot_npr_maps
from reports.plots.style import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Axes,
    MaxNLocator,
    Page,
    Patch,
    Target,
    array,
    ink,
    label_array,
    legend_fit,
    palette,
    printable,
    save,
    scale_labels,
    seaborn,
    text_inches,
)

__all__ = [
    "plot_attention_distribution",
    "plot_attention_heatmap",
    "plot_attention_per_image",
    "plot_npr_maps",
    "scale_labels",
]

LEFT = 0.7  # inches beside a panel for its axis


@STYLE
def plot_attention_heatmap(
    mean_attentions: Mapping[str, Any],
    scales: Sequence[float],
    save_path: Target,
    groups: Mapping[str, str] | None = None,
    real: Mapping[str, Any] | None = None,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Heat map of mean attention, a row per generator and a column per scale.

    One colour range for all: from 0 to the next tenth above the largest weight, because eight
    scales would all be dark on 0 to 1.

    Args:
        mean_attentions: {generator: weights [S], each in [0, 1]}, S = len(scales); rows keep this
            order.
        groups: {generator: its family or suite}; rows of a group come together under its name,
            groups in the order in which they come first. A row loses the name of its group where it
            begins with it and "/". Generators without a group come first.
        real: {name: weights [S]}, rows for real images, before all others.
        formats: see `reports.plots.style.save`.
    """
    if not mean_attentions:
        raise ValueError("mean_attentions is empty: expected at least one {generator: weights}")
    blocks: dict[str, list[tuple[str, np.ndarray]]] = {"real images": [], "": []}
    for name, weights in (real or {}).items():
        blocks["real images"].append(
            (name, array(weights, f"real[{name!r}]", (len(scales),), unit=True))
        )
    for name, weights in mean_attentions.items():
        group = (groups or {}).get(name, "")
        row = array(weights, f"mean_attentions[{name!r}]", (len(scales),), unit=True)
        blocks.setdefault(group, []).append(
            (name.removeprefix(f"{group}/") if group else name, row)
        )
    rows: list[tuple[str, np.ndarray]] = []
    headings: list[int] = []
    for group, block in blocks.items():
        if block and (group or rows):  # a line of its own, empty between named rows and others
            headings.append(len(rows))
            rows.append((group, np.full(len(scales), np.nan)))
        rows += block
    names, table = [printable(name) for name, _ in rows], np.stack([row for _, row in rows])
    columns = scale_labels(scales)
    # headings are bold
    column, left = max(0.62, text_inches(columns) + 0.12), text_inches(names) * 1.1 + 0.25
    size = max(2.0, column * len(scales)), max(1.2, 0.25 * len(rows))
    page = Page(max(3.5, left + size[0] + 1.15), size[1] + 0.55, title)
    axes = page.axes(left, 0, *size)
    colour_bar = page.axes(left + size[0] + 0.15, 0, 0.18, size[1])
    top = min(1.0, math.ceil(np.nanmax(table) * 10 - 1e-6) / 10) or 0.1
    look: dict[str, Any] = {
        "vmin": 0,
        "vmax": top,
        "cmap": "cividis",
        "linewidths": 0.5,
        "annot_kws": {"size": 9},
    }
    look |= {
        "cbar_ax": colour_bar,
        "cbar_kws": {"label": "attention weight", "ticks": MaxNLocator(4, steps=[1, 2, 5, 10])},
    }
    seaborn.heatmap(
        table, annot=True, fmt=".3f", xticklabels=columns, yticklabels=names, ax=axes, **look
    )
    for text, value in zip(axes.texts, table[~np.isnan(table)], strict=True):
        text.set_color(ink(axes.collections[0].to_rgba(value)))
    axes.tick_params(axis="both", rotation=0)
    axes.tick_params(axis="y", length=0)
    for heading in headings:
        axes.get_yticklabels()[heading].set_fontweight("bold")
    axes.set_xlabel("scale")
    return save(page.figure, save_path, formats=formats)


@STYLE
def plot_attention_distribution(
    weights: Any,
    labels: Any,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Box plot and violin plot, side by side, of the attention that each scale gets, real and fake
    apart.

    weights [N, S] in [0, 1]; labels [N], 0 real and 1 fake. The dashed line at 1/S is uniform
    attention. A box spans the quartiles, its whiskers the values within 1.5 of its heights from it
    (Tukey, Exploratory Data Analysis, 1977). A violin is a Gaussian kernel density, cut off at the
    smallest and the largest value, with lines at the quartiles; real is its left half, fake its
    right one. Where all values of a scale are the same, there is a line in its place.
    """
    weights, labels = _check_images(weights, labels, scales)
    count, present, names = (
        len(scales),
        [int(label) for label in np.unique(labels)],
        scale_labels(scales),
    )
    panel = max(3.0, count * max(0.68, text_inches(names) + 0.15))
    page = Page(2 * (panel + LEFT) + 0.15, 4.2, title)
    table = {
        "scale": np.tile(np.arange(count), len(labels)),
        "label": np.repeat(labels, count),
        # a density of values that differ by less than this would be numerically singular, and
        # nobody could see it
        "weight": weights.round(6).ravel(),
    }
    colours = {label: palette(2)[label] for label in present}
    look: dict[str, Any] = {
        "data": table,
        "x": "scale",
        "y": "weight",
        "hue": "label",
        "hue_order": present,
    }
    look |= {
        "order": range(count),
        "palette": colours,
        "saturation": 1,
        "legend": False,
        "fill": False,
    }
    box, violin = (page.axes(LEFT + i * (panel + LEFT), 0.25, panel, 3.1) for i in range(2))
    seaborn.boxplot(ax=box, gap=0.15, linewidth=1.5, fliersize=2.5, **look)
    halves: dict[str, Any] = {
        "split": len(present) == 2,
        "gap": 0.06,
        "inner": "quart",
        "density_norm": "width",
    }
    seaborn.violinplot(ax=violin, cut=0, linewidth=1.5, **halves, **look)
    for body in violin.collections:
        body.set_facecolor((np.asarray(body.get_edgecolor()) * [1, 1, 1, 0.3]).tolist())
    for axes, name in ((box, "box plot"), (violin, "violin plot")):
        uniform = axes.axhline(1 / count, label="uniform", zorder=0, **CHANCE_LINE)
        axes.set(
            xlim=(-0.6, count - 0.4),
            ylim=(-0.02, 1.02),
            xlabel="scale",
            ylabel="attention weight",
            title=name,
        )
        axes.set_xticks(range(count), names)
    patches = [
        Patch(facecolor=(*c, 0.3), edgecolor=c, label=CLASSES[label])
        for label, c in colours.items()
    ]
    page.figure.legend(handles=[*patches, uniform], loc="lower center", ncols=3)
    return save(page.figure, save_path, formats=formats)


@STYLE
def plot_attention_per_image(
    weights: Any,
    labels: Any,
    scores: Any,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Attention pattern of every image as one stacked bar, over a strip with the score that the
    model gave.

    weights [N, S] in [0, 1]; labels [N], 0 real and 1 fake; scores [N] in [0, 1], the probability
    of fake. Real images come first; a class is grouped by the scale that dominates, its largest
    weights first.
    """
    weights, labels = _check_images(weights, labels, scales)
    count = len(labels)
    scores = array(scores, "scores", (count,), unit=True)
    order = np.lexsort((-weights.max(axis=1), weights.argmax(axis=1), labels))
    names = scale_labels(scales)
    width, columns, below = legend_fit(names, 10)
    # rows of the legend about as long as each other
    columns = math.ceil(len(names) / math.ceil(len(names) / columns))
    page, real = Page(width, 3.9 + below, title), int((labels == 0).sum())
    # a divider near the edge has the name of the few real images beside it
    left = LEFT if real > 0.1 * count else 1.1
    bars, strip = (
        page.axes(left, top, width - left - 0.95, height)
        for top, height in ((0.25, 2.9), (3.25, 0.29))
    )
    steps = weights[[*order, order[-1]]].T  # the last image ends where another would begin
    bands = bars.stackplot(
        range(count + 1), steps, colors=palette(len(scales)), labels=names, step="post", linewidth=0
    )
    colours: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1}
    shown = strip.imshow(scores[order][None], aspect="auto", extent=(0, count, 0, 1), **colours)
    bars.set(xlim=(0, count), ylim=(0, 1), ylabel="attention weight", xticks=[])
    strip.set(
        xticks=[],
        yticks=[0.5],
        yticklabels=["score"],
        xlabel="images, grouped by the scale that dominates",
    )
    page.figure.colorbar(
        shown, cax=page.axes(width - 0.85, 0.25, 0.12, 3.29), label="score (0 real, 1 fake)"
    )
    _mark_classes(bars, strip, real, count)
    page.figure.legend(handles=bands, loc="lower center", ncols=columns, title="scale")
    return save(page.figure, save_path, formats=formats)


def _mark_classes(bars: Axes, strip: Axes, real: int, count: int) -> None:
    """Name the two classes on either side of a divider, or the only class there is."""
    texts = [f"real (n={real})", f"fake (n={count - real})"]
    above: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "va": "bottom",
    }
    if real in (0, count):
        bars.annotate(texts[0 if real else 1], (count / 2, 1), (0, 4), ha="center", **above)
        return
    for axes in (bars, strip):
        axes.axvline(real, color="white", linewidth=4)
        axes.axvline(real, **CHANCE_LINE)
    bars.annotate("← " + texts[0], (real, 1), (-4, 4), ha="right", **above)
    bars.annotate(texts[1] + " →", (real, 1), (4, 4), ha="left", **above)


def _check_images(
    weights: Any, labels: Any, scales: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    weights = array(weights, "weights", (None, len(scales)), unit=True)
    return weights, label_array(labels, "labels", len(weights))
