"""Pictures of mean attention: of generators with intervals, and of a model while it trains.

Each `plot_*` function takes NumPy arrays, sequences or torch tensors, makes the parent folder,
replaces `save_path` in one step and returns it; `formats` as in `reports.plots.style.save`.
ValueError names the argument that does not fit.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import entropy

from reports.plots.style import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Figure,
    Target,
    array,
    legend_fit,
    palette,
    printable,
    save,
    scale_labels,
    text_inches,
    wrapped,
)

FEW = 6  # up to so many generators get a panel of bars each, more a row
INTERVAL: dict[str, Any] = {"ecolor": "0.15", "elinewidth": 1, "capsize": 2}
MARKERS = dict(zip(CLASSES, "os", strict=True))
COLOURS = dict(zip(CLASSES, palette(2), strict=True))


@STYLE
def plot_attention_means(
    means: Mapping[str, Mapping[str, Any]],
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Mean attention of every scale with its 95 % interval, real and fake apart, for every
    generator.

    Up to 6 generators get a panel of bars each; more share a panel per scale, with a row for each
    generator, so that the eye can run down a scale. The dashed line at 1/S is uniform attention.
    All panels have the same range, from 0.

    Args:
        means: {generator: {"real": x, "fake": x}}, x [3, S] the mean, the low and the high end of
            its interval, in [0, 1]; a generator may have one class.
    """
    names = scale_labels(scales)
    checked: dict[str, dict[str, np.ndarray]] = {}
    for name, classes in means.items():
        if not classes or set(classes) - set(CLASSES):
            raise ValueError(
                f"means[{name!r}] has classes {sorted(classes)}, expected 'real', 'fake' or both"
            )
        found = {
            k: array(classes[k], f"means[{name!r}][{k!r}]", (3, len(scales)), unit=True)
            for k in classes
        }
        if any((x[1] > x[0] + 1e-9).any() or (x[2] < x[0] - 1e-9).any() for x in found.values()):
            raise ValueError(f"means[{name!r}] holds an interval that does not contain its mean")
        checked[printable(name)] = {k: found[k] for k in CLASSES if k in found}
    if not checked:
        raise ValueError(
            "means is empty: expected at least one {generator: {class: [mean, low, high]}}"
        )
    top = _top(
        np.array([x[2] for classes in checked.values() for x in classes.values()]), len(scales)
    )
    figure = (_bars if len(checked) <= FEW else _rows)(checked, names, top)
    handles: dict[Any, Any] = {}
    for axes in figure.axes:
        line = axes.axhline if len(checked) <= FEW else axes.axvline
        handles["uniform"] = line(1 / len(scales), zorder=1, **CHANCE_LINE)
        handles |= {drawn.get_label(): drawn for drawn in axes.containers}
    order = [name for name in (*CLASSES, "uniform") if name in handles]
    figure.legend([handles[name] for name in order], order, loc="outside lower center", ncols=3)
    return save(figure, save_path, title, formats)


def _top(values: np.ndarray, scales: int) -> float:
    """End of an axis from 0 that shows the values, which are at most 1, and 1/S: just above a
    tenth."""
    return min(1.0, math.ceil(max(float(values.max()), 1 / scales) * 10 - 1e-6) / 10) + 0.02


def _bars(
    means: Mapping[str, Mapping[str, np.ndarray]], scales: Sequence[str], top: float
) -> Figure:
    columns = min(3, len(means))
    panel = max(3.6 if columns == 1 else 2.4, 0.5 + len(scales) * (text_inches(scales) + 0.12))
    rows = math.ceil(len(means) / columns)
    titles = [wrapped(name, panel - 0.5) for name in means]
    figure = Figure(figsize=(columns * panel + 0.4, rows * 2.4 + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(means) :]:
        axes.remove()
    for axes, name, classes in zip(panels, titles, means.values(), strict=False):
        for i, (label, (mean, low, high)) in enumerate(classes.items()):
            width = 0.8 / len(classes)
            places = np.arange(len(scales)) + (i - (len(classes) - 1) / 2) * width
            axes.bar(places, mean, width, color=COLOURS[label], label=label)
            axes.errorbar(places, mean, (mean - low, high - mean), fmt="none", **INTERVAL)
        axes.set(title=name, ylim=(0, top), xlim=(-0.6, len(scales) - 0.4))
        axes.set_xticks(range(len(scales)), scales)
    for axes in panels[: len(means)][::columns]:
        axes.set_ylabel("attention weight")
    for axes in panels[: len(means)][-columns:]:
        axes.set_xlabel("scale")
    return figure


def _rows(
    means: Mapping[str, Mapping[str, np.ndarray]], scales: Sequence[str], top: float
) -> Figure:
    panel, left = max(1.35, text_inches(scales) + 0.2), text_inches(means) + 0.2
    size = (left + len(scales) * panel + 0.2, 0.25 * len(means) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    places = np.arange(len(means))
    panels = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for s, (axes, scale) in enumerate(zip(panels, scales, strict=True)):
        for row in places[::2]:
            axes.axhspan(row - 0.5, row + 0.5, color="0.94", zorder=0)
        for label, offset in zip(CLASSES, (-0.18, 0.18), strict=True):
            rows = [row for row, classes in enumerate(means.values()) if label in classes]
            if not rows:
                continue
            mean, low, high = np.array([x[label][:, s] for x in means.values() if label in x]).T
            look: dict[str, Any] = INTERVAL | {
                "ecolor": COLOURS[label],
                "color": COLOURS[label],
                "markersize": 3.5,
            }
            look |= {"fmt": MARKERS[label], "label": label, "capsize": 0}
            axes.errorbar(mean, np.array(rows) + offset, xerr=(mean - low, high - mean), **look)
        axes.set(
            title=scale, xlim=(0, top), ylim=(len(means) - 0.5, -0.5), xlabel="attention weight"
        )
        axes.locator_params(axis="x", nbins=3)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, list(means))
    return figure


@STYLE
def plot_attention_training(
    history: Mapping[float, Any],
    scales: Sequence[float],
    save_path: Target,
    time: str = "epoch",
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Attention while a model trains: mean and standard deviation over the images per scale, and
    entropy below.

    The entropy is in units of ln S: 1 is uniform attention, 0 attention to one scale. Dashed is the
    entropy of the mean attention: where it is higher than the mean over the images of theirs,
    images differ in what they attend to. One scale has no entropy, and no such panel.

    Args:
        history: {epoch or step: (mean [S] and standard deviation [S] of the weights over images,
            mean entropy in nats)}.
        time: what the keys are.
    """
    if not history:
        raise ValueError("history is empty: expected at least one {epoch: weights}")
    moments = sorted(history)
    mean, spread = (
        np.array(
            [
                array(history[m][part], f"history[{m!r}][{part}]", (len(scales),), unit=True)
                for m in moments
            ]
        )
        for part in (0, 1)
    )
    names = scale_labels(scales)
    count = 1 + (len(scales) > 1)
    _, columns, below = legend_fit(names, 6.5)
    figure = Figure(figsize=(7, 0.4 + 2.6 * count + below), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False).ravel()
    marker = "o" if len(moments) < 30 else ""
    looks = zip(names, mean.T, spread.T, palette(len(scales)), strict=True)
    for name, middle, around, colour in looks:
        panels[0].plot(moments, middle, color=colour, marker=marker, markersize=3, label=name)
        panels[0].fill_between(
            moments,
            middle - around,
            middle + around,
            color=colour,
            alpha=0.15 if len(scales) < 5 else 0.06,
            linewidth=0,
        )
    panels[0].axhline(1 / len(scales), zorder=1, **CHANCE_LINE)
    panels[0].set(ylim=(0, _top(mean + spread, len(scales))), ylabel="attention weight")
    if count == 2:
        each = np.array([float(history[m][2]) for m in moments]) / math.log(len(scales))
        panels[1].plot(
            moments, each, color="0.2", marker=marker, markersize=3, label="mean over images"
        )
        of_mean = entropy(mean, axis=1) / math.log(len(scales))
        panels[1].plot(moments, of_mean, color="0.2", linestyle="--", label="of the mean attention")
        panels[1].set(ylim=(-0.02, 1.05), ylabel="entropy / ln S")
        panels[1].legend(loc="best", frameon=False)
    panels[-1].set_xlabel(time)
    if all(float(moment).is_integer() for moment in moments):
        panels[-1].locator_params(axis="x", integer=True)
    figure.legend(
        handles=panels[0].lines[: len(scales)],
        loc="outside lower center",
        ncols=columns,
        title="scale",
    )
    return save(figure, save_path, title, formats)
