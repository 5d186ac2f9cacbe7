"""Pictures of attention weights and of NPR residuals; what all pictures share is in `evaluation.plotting`.

Each `plot_*` function takes NumPy arrays, sequences or torch tensors (any device), makes the parent folder,
replaces `save_path` in one step and returns it; `formats` as in `evaluation.plotting.save`. ValueError names the
argument that does not fit.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.map_plots import plot_npr_maps
from evaluation.plotting import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Axes,
    Figure,
    MaxNLocator,
    Page,
    Patch,
    Target,
    array,
    ink,
    label_array,
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

    One colour range for all: from 0 to the next tenth above the largest weight, because eight scales would all be dark on 0 to 1.

    Args:
        mean_attentions: {generator: weights [S], each in [0, 1]}, S = len(scales); rows keep this order.
        groups: {generator: its family or suite}; rows of a group come together under its name, groups in the order in which
            they come first. A row loses the name of its group where it begins with it and "/". Generators without a group
            come first.
        real: {name: weights [S]}, rows for real images, before all others.
        formats: see `evaluation.plotting.save`.
    """
    if not mean_attentions:
        raise ValueError("mean_attentions is empty: expected at least one {generator: weights}")
    blocks: dict[str, list[tuple[str, np.ndarray]]] = {"real images": [], "": []}
    for name, weights in (real or {}).items():
        blocks["real images"].append((name, array(weights, f"real[{name!r}]", (len(scales),), unit=True)))
    for name, weights in mean_attentions.items():
        group = (groups or {}).get(name, "")
        row = array(weights, f"mean_attentions[{name!r}]", (len(scales),), unit=True)
        blocks.setdefault(group, []).append((name.removeprefix(f"{group}/") if group else name, row))
    rows: list[tuple[str, np.ndarray]] = []
    headings: list[int] = []
    for group, block in blocks.items():
        if block and (group or rows):  # a line of its own, empty between named rows and others
            headings.append(len(rows))
            rows.append((group, np.full(len(scales), np.nan)))
        rows += block
    names, table = [printable(name) for name, _ in rows], np.stack([row for _, row in rows])
    columns = scale_labels(scales)
    column, left = max(0.62, text_inches(columns) + 0.12), text_inches(names) * 1.1 + 0.25  # headings are bold
    size = max(2.0, column * len(scales)), max(1.2, 0.25 * len(rows))
    page = Page(max(3.5, left + size[0] + 1.15), size[1] + 0.55, title)
    axes = page.axes(left, 0, *size)
    colour_bar = page.axes(left + size[0] + 0.15, 0, 0.18, size[1])
    top = min(1.0, math.ceil(np.nanmax(table) * 10 - 1e-6) / 10) or 0.1
    look: dict[str, Any] = {"vmin": 0, "vmax": top, "cmap": "cividis", "linewidths": 0.5, "annot_kws": {"size": 9}}
    look |= {
        "cbar_ax": colour_bar,
        "cbar_kws": {"label": "attention weight", "ticks": MaxNLocator(4, steps=[1, 2, 5, 10])},
    }
    seaborn.heatmap(table, annot=True, fmt=".3f", xticklabels=columns, yticklabels=names, ax=axes, **look)
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
    """Box plot and violin plot, side by side, of the attention that each scale gets, real and fake apart.

    weights [N, S] in [0, 1]; labels [N], 0 real and 1 fake. The dashed line at 1/S is uniform attention.
    """
    weights, labels = _check_images(weights, labels, scales)
    # a density of values that differ by less than this would be numerically singular, and nobody could see it
    weights = weights.round(6)
    places, present = np.arange(len(scales)), np.unique(labels)
    figure = Figure(figsize=(2 * max(3.5, 0.95 * len(scales) + 0.6), 4.2), layout="constrained")
    box, violin = figure.subplots(1, 2)
    width = 0.7 / len(present)
    for i, label in enumerate(present):
        columns, colour = weights[labels == label], palette(2)[label]
        at: dict[str, Any] = {"positions": places + (i - (len(present) - 1) / 2) * (width + 0.04)}
        at["widths"] = width
        face = {"facecolor": (*colour, 0.5), "edgecolor": colour, "linewidth": 1.5}
        line = {"color": colour, "linewidth": 1.5}
        dots = {"marker": "o", "markersize": 2, "markeredgecolor": colour}
        look: dict[str, Any] = {f"{part}props": line for part in ("median", "whisker", "cap")}
        look |= {"flierprops": dots, "boxprops": face, "patch_artist": True, "manage_ticks": False}
        box.boxplot(columns, **look, **at)
        parts: dict[str, Any] = violin.violinplot(columns, showextrema=False, showmedians=True, **at)
        for body in parts["bodies"]:
            body.set(alpha=None, **face)
        parts["cmedians"].set(**line)
    for axes, name in ((box, "box plot"), (violin, "violin plot")):
        uniform = axes.axhline(1 / len(scales), label="uniform", zorder=0, **CHANCE_LINE)
        axes.set(ylim=(-0.02, 1.02), xlabel="scale", ylabel="attention weight", title=name)
        axes.set_xlim(-0.6, len(scales) - 0.4)
        axes.set_xticks(places, scale_labels(scales))
    patches = [Patch(color=palette(2)[label], label=CLASSES[label]) for label in present]
    figure.legend(handles=[*patches, uniform], loc="outside lower center", ncols=3)
    return save(figure, save_path, title, formats)


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
    """Attention pattern of every image as one stacked bar, over a strip with the score that the model gave.

    weights [N, S] in [0, 1]; labels [N], 0 real and 1 fake; scores [N] in [0, 1], the probability of fake.
    Real images come first; a class is grouped by the scale that dominates, its largest weights first.
    """
    weights, labels = _check_images(weights, labels, scales)
    count = len(labels)
    scores = array(scores, "scores", (count,), unit=True)
    order = np.lexsort((-weights.max(axis=1), weights.argmax(axis=1), labels))
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    bars, strip = figure.subplots(2, 1, sharex=True, height_ratios=[10, 1])
    bottom = np.zeros(count)
    tops = weights[order].cumsum(axis=1).T
    for name, top, colour in zip(scale_labels(scales), tops, palette(len(scales)), strict=True):
        bars.stairs(top, np.arange(count + 1), baseline=bottom, fill=True, color=colour, label=name)
        bottom = top
    colours: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1}
    shown = strip.imshow(scores[order][None], aspect="auto", extent=(0, count, 0, 1), **colours)
    bars.set(xlim=(0, count), ylim=(0, 1), ylabel="attention weight", xticks=[])
    strip.set(yticks=[0.5], yticklabels=["score"], xlabel="images, grouped by the scale that dominates")
    figure.colorbar(shown, ax=[bars, strip], label="score (0 real, 1 fake)", aspect=30, pad=0.02)
    _mark_classes(bars, strip, int((labels == 0).sum()), count)
    figure.legend(loc="outside lower center", ncols=8, title="scale")
    return save(figure, save_path, title, formats)


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


def _check_images(weights: Any, labels: Any, scales: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    weights = array(weights, "weights", (None, len(scales)), unit=True)
    return weights, label_array(labels, "labels", len(weights))
