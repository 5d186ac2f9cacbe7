"""Plots of attention weights: of generators, of images, and during training.

Each `plot_*` function makes the parent folder, replaces `save_path` and returns it; title and
formats are those of `reports.plots.style.save`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

from reports.plots.style import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Figure,
    Patch,
    Target,
    name_inches,
    palette,
    printable,
    save,
    scale_labels,
    seaborn,
)

COLOURS = dict(zip(CLASSES, palette(2), strict=True))
LEGEND: dict[str, Any] = {"loc": "outside lower center", "ncols": 4}


@STYLE
def plot_attention_heatmap(
    mean_attentions: Mapping[str, NDArray],
    scales: Sequence[float],
    save_path: Target,
    formats: Sequence[str] = (),
) -> Path:
    """Draw mean attention as a heat map, a row per generator and a column per scale.

    Args:
        mean_attentions: {generator: weights [S], each in [0, 1]}, in the order of the rows.
        scales: S scales.
        save_path: file to write.
        formats: of the files.
    """
    table, names = np.stack(list(mean_attentions.values())), list(map(printable, mean_attentions))
    size = 2.8 + 0.7 * len(scales) + name_inches(names), 1.3 + 0.26 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    # eight scales would all be dark on a range up to 1
    look = {"vmin": 0, "vmax": min(1, math.ceil(table.max() * 10) / 10), "cmap": "cividis"}
    seaborn.heatmap(
        table, ax=figure.subplots(), annot=True, fmt=".3f", annot_kws={"size": 9}, linewidths=0.5,
        xticklabels=scale_labels(scales), yticklabels=names, cbar_kws={"label": "attention weight"},
        **look,
    )  # fmt: skip
    figure.axes[0].tick_params(rotation=0, length=0)
    figure.axes[0].set_xlabel("scale")
    return save(figure, save_path, formats=formats)


@STYLE
def plot_attention_means(
    means: Mapping[str, Mapping[str, NDArray]],
    scales: Sequence[float],
    save_path: Target,
    formats: Sequence[str] = (),
) -> Path:
    """Draw mean attention with its confidence interval: a panel per scale, a row per generator.

    The dashed line at 1/S is uniform attention.

    Args:
        means: {generator: {"real": x, "fake": x}}, x [3, S] the mean, the low and the high end of
            its interval; a generator may have one class.
        scales: S scales.
        save_path: file to write.
        formats: of the files.
    """
    names = list(map(printable, means))
    size = 1.2 + 1.5 * len(scales) + name_inches(names), 1.4 + 0.3 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(scales), sharex=True, sharey=True, squeeze=False)[0]
    largest = max(float(ends.max()) for classes in means.values() for ends in classes.values())
    for column, (axes, scale) in enumerate(zip(panels, scale_labels(scales), strict=True)):
        axes.axvline(1 / len(scales), label="uniform", **CHANCE_LINE)
        for kind, shift, marker in zip(CLASSES, (-0.15, 0.15), "os", strict=True):
            rows = [row for row, classes in enumerate(means.values()) if kind in classes]
            if rows:
                mean, low, high = np.array(
                    [classes[kind][:, column] for classes in means.values() if kind in classes]
                ).T
                axes.errorbar(
                    mean, np.array(rows) + shift, xerr=(mean - low, high - mean), fmt=marker,
                    color=COLOURS[kind], label=kind, markersize=4, capsize=2,
                )  # fmt: skip
        axes.set(title=scale, xlabel="weight", ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="x", rotation=90)
    panels[0].set_xlim(0, 1.05 * max(largest, 1 / len(scales)))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, **LEGEND)
    return save(figure, save_path, formats=formats)


@STYLE
def plot_attention_distribution(
    weights: NDArray,
    labels: NDArray,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Draw the attention to each scale as box plot and violin plot, real and fake apart.

    The dashed line at 1/S is uniform attention. The violins end at the smallest and the largest
    weight and have lines at the quartiles.

    Args:
        weights: [N, S].
        labels: [N], 0 real, 1 fake.
        scales: S scales.
        save_path: file to write.
        title: above the plot.
        formats: of the files.
    """
    count, present = len(scales), np.unique(labels).astype(int).tolist()
    figure = Figure(figsize=(5 + 1.4 * count, 4.5), layout="constrained")
    box, violin = figure.subplots(1, 2, sharey=True)
    table = {
        "scale": np.tile(np.arange(count), len(labels)),
        "label": np.repeat(labels, count),
        # the density of values that differ by less would be singular
        "weight": np.asarray(weights, dtype=float).round(6).ravel(),
    }
    look: dict[str, Any] = {
        "data": table, "x": "scale", "y": "weight", "hue": "label", "hue_order": present,
        "palette": {label: COLOURS[CLASSES[label]] for label in present},
        "saturation": 1, "legend": False, "fill": False, "linewidth": 1.5,
    }  # fmt: skip
    seaborn.boxplot(ax=box, gap=0.15, fliersize=2.5, **look)
    seaborn.violinplot(
        ax=violin, cut=0, split=len(present) == 2, gap=0.06, inner="quart", density_norm="width",
        **look,
    )  # fmt: skip
    for axes, name in ((box, "box plot"), (violin, "violin plot")):
        uniform = axes.axhline(1 / count, label="uniform", zorder=0, **CHANCE_LINE)
        axes.set(title=name, xlabel="scale", ylabel="attention weight", ylim=(-0.02, 1.02))
        axes.set_xticks(range(count), scale_labels(scales), rotation=45 if count > 4 else 0)
    patches = [Patch(color=COLOURS[CLASSES[i]], fill=False, label=CLASSES[i]) for i in present]
    figure.legend(handles=[*patches, uniform], **LEGEND)
    return save(figure, save_path, title, formats)


@STYLE
def plot_attention_per_image(
    weights: NDArray,
    labels: NDArray,
    scores: NDArray,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Draw the attention of every image as a stacked bar, over a strip with its score.

    Real images come first; a class is grouped by the scale with the largest weight.

    Args:
        weights: [N, S].
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1].
        scales: S scales.
        save_path: file to write.
        title: above the plot.
        formats: of the files.
    """
    order, count = np.lexsort((-weights.max(axis=1), weights.argmax(axis=1), labels)), len(labels)
    real = int((labels == 0).sum())
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    bars, strip = figure.subplots(2, 1, sharex=True, height_ratios=(8, 1))
    tops = np.cumsum(weights[order], axis=1)
    for column, colour in enumerate(palette(len(scales))):
        label, shares = scale_labels(scales)[column], weights[order, column]
        below = tops[:, column] - shares
        bars.bar(np.arange(count) + 0.5, shares, 1, bottom=below, color=colour, label=label)
    shown = strip.imshow(
        scores[order][None], cmap="cividis", vmin=0, vmax=1, aspect="auto", extent=(0, count, 0, 1)
    )
    for axes in (bars, strip):
        axes.axvline(real, **CHANCE_LINE)
    bars.set(ylabel="attention weight", ylim=(0, 1), title=f"{real} real, {count - real} fake")
    strip.set(yticks=[], xlim=(0, count), xlabel="images: real, then fake; by the leading scale")
    figure.colorbar(shown, ax=(bars, strip), label="score (0 real, 1 fake)")
    figure.legend(*bars.get_legend_handles_labels(), title="scale", **LEGEND)
    return save(figure, save_path, title, formats)


@STYLE
def plot_attention_training(
    history: Mapping[float, tuple[Sequence[float], Sequence[float], float]],
    scales: Sequence[float],
    save_path: Target,
    formats: Sequence[str] = (),
) -> Path:
    """Draw attention while a model trains: mean and standard deviation per scale, entropy below.

    The entropy is in units of ln S: 1 is uniform attention, 0 attention to one scale. Where that of
    the mean attention is higher than the mean over the images, images attend to different scales.

    Args:
        history: {epoch: (mean [S] and standard deviation [S] of the weights over images,
            mean entropy in nats)}.
        scales: S scales.
        save_path: file to write.
        formats: of the files.
    """
    epochs = sorted(history)
    mean, spread, nats = map(np.array, zip(*(history[epoch] for epoch in epochs), strict=True))
    rows = 2 if len(scales) > 1 else 1  # one scale has no entropy
    figure = Figure(figsize=(7, 1 + 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False).ravel()
    looks = zip(scale_labels(scales), mean.T, spread.T, palette(len(scales)), strict=True)
    for name, middle, around, colour in looks:
        panels[0].plot(epochs, middle, ".-", color=colour, label=name)
        band = {"color": colour, "alpha": 0.1, "linewidth": 0}
        panels[0].fill_between(epochs, middle - around, middle + around, **band)
    panels[0].axhline(1 / len(scales), label="uniform", **CHANCE_LINE)
    panels[0].set(ylabel="attention weight", ylim=(0, None))
    if len(scales) > 1:
        largest = math.log(len(scales))
        panels[1].plot(epochs, nats / largest, ".-", color="0.2", label="mean over images")
        of_mean = entropy(mean, axis=1) / largest
        panels[1].plot(epochs, of_mean, "--", color="0.2", label="of the mean attention")
        panels[1].set(ylabel="entropy / ln S", ylim=(-0.02, 1.05))
        panels[1].legend()
    panels[-1].set_xlabel("epoch")
    figure.legend(*panels[0].get_legend_handles_labels(), title="scale", **LEGEND)
    return save(figure, save_path, formats=formats)
