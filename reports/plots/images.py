"""Plots of single images: maps of a model's evidence in them, and their attention.

Each `plot_*` function makes the parent folder, replaces `save_path` and returns it; title and
formats are those of `reports.plots.style.save`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

from reports.plots.style import (
    CHANCE_LINE,
    CLASSES,
    STYLE,
    Figure,
    Normalize,
    Patch,
    Rectangle,
    ScalarMappable,
    Target,
    palette,
    save,
    scale_labels,
)

ZOOM = 24  # side of the enlarged square in pixels
THUMBNAIL = 400  # longer side of an image on a sheet in pixels


@STYLE
def plot_npr_maps(
    image: ArrayLike,
    npr_maps: Mapping[str, ArrayLike],
    weights: ArrayLike | None,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    cams: ArrayLike | None = None,
    adds: ArrayLike | None = None,
    exact: bool = True,
    formats: Sequence[str] = (),
) -> Path:
    """Draw an image with its attention, and a row of maps per scale.

    A row has the residual, pixels of it, its strength, and the evidence. The residual is the mean
    over the channels; its strength is the mean of the absolute values. A column has one colour
    range for all scales, residuals up to the 99.5th percentile. The pixels are those of the square,
    marked in the image, in which the residuals are strongest.

    Args:
        image: [3, H, W] in [0, 1].
        npr_maps: {any key: residual [3, H, W]} in the order of `scales`.
        weights: attention [S]; None for a model without.
        scales: S scales.
        save_path: file to write.
        title: above the plot.
        cams: class-activation maps [S, h, w] in units of the logit, positive towards fake (see
            `networks.cam`), drawn over the image; None for no such column.
        adds: [S] contributions of the scales to the logit, for the labels.
        exact: True if the means of `cams` are `adds`; otherwise the maps are called Grad-CAM.
        formats: of the files.
    """
    pixels = np.asarray(image, dtype=np.float32).clip(0, 1).transpose(1, 2, 0)
    residuals = np.stack([np.asarray(residual, dtype=np.float32) for residual in npr_maps.values()])
    signed, strength = residuals.mean(axis=1), np.abs(residuals).mean(axis=1)
    top, left, rows, columns = square = _strongest(strength.mean(axis=0))
    inside = np.s_[:, top : top + rows, left : left + columns]
    reach = _limit(np.abs(signed))
    range_of_residuals = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
    range_of_strength = ScalarMappable(Normalize(0, _limit(strength)), "cividis")
    parts = [
        ("residual", signed, range_of_residuals),
        (f"{columns} x {rows} px of it", signed[inside], range_of_residuals),
        ("mean |residual|", strength, range_of_strength),
    ]
    if cams is not None:
        cams = np.asarray(cams, dtype=np.float32)
        furthest = _limit(np.abs(cams), 100)
        range_of_cams = ScalarMappable(Normalize(-furthest, furthest), "PuOr_r")
        parts.append(("evidence" if exact else "Grad-CAM", cams, range_of_cams))

    height, width = pixels.shape[:2]
    side = float(np.clip(2.3 * height / width, 1, 3))
    size = 1.5 + 2.3 * len(parts), 0.8 + (side + 0.1) * (1 + len(scales))
    figure = Figure(figsize=size, layout="constrained")
    heights = [1] * (1 + len(scales)) + [0.08]  # the last row is for colour bars
    grid = figure.add_gridspec(len(heights), len(parts), height_ratios=heights)
    _draw_image(figure.add_subplot(grid[0, 0]), pixels, square)
    if weights is not None:
        _draw_attention(figure.add_subplot(grid[0, 1:]), np.asarray(weights), scale_labels(scales))
    labels = _row_labels(scales, weights, adds)
    for column, (heading, values, colours) in enumerate(parts):
        panels = [figure.add_subplot(grid[row + 1, column]) for row in range(len(scales))]
        for axes, shown in zip(panels, values, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            look: dict[str, Any] = {"cmap": colours.cmap, "norm": colours.norm}
            if column == 1:
                look["interpolation"] = "nearest"
            if values is cams:
                axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=-0.3, vmax=1)
                look |= {"interpolation": "bilinear", "alpha": 0.7}
                look["extent"] = (-0.5, width - 0.5, height - 0.5, -0.5)
            axes.imshow(shown, **look)
        panels[0].set_title(heading)
        if column == 0:
            for axes, label in zip(panels, labels, strict=True):
                axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        if column != 1:
            unit = "logit (real < 0 < fake)" if values is cams else heading
            bar = figure.add_subplot(grid[-1, column])
            figure.colorbar(colours, cax=bar, orientation="horizontal", label=unit)
    return save(figure, save_path, title, formats)


def _strongest(strength: NDArray) -> tuple[int, int, int, int]:
    """Return first row, first column, height and width of the strongest square of the image.

    Its sides have `ZOOM` pixels, or those of a smaller image. It has the largest mean of strength
    [H, W].
    """
    height, width = strength.shape
    rows, columns = min(ZOOM, height), min(ZOOM, width)
    # index i holds the mean from i - rows // 2 on
    means = uniform_filter(strength.astype(float), (rows, columns))
    inside = means[rows // 2 :, columns // 2 :][: height - rows + 1, : width - columns + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return int(top), int(left), rows, columns


def _limit(values: NDArray, percentile: float = 99.5) -> float:
    """Return the end of a colour range, above zero also for values that are nearly all zero."""
    return float(np.percentile(values, percentile)) or float(values.max()) or 1.0


def _row_labels(
    scales: Sequence[float], weights: ArrayLike | None, adds: ArrayLike | None
) -> list[str]:
    labels = scale_labels(scales)
    for name, values in (("attention {:.3f}", weights), ("adds {:+.3f}", adds)):
        if values is not None:
            numbers = np.asarray(values).tolist()
            labels = [
                f"{label}\n{name.format(x)}" for label, x in zip(labels, numbers, strict=True)
            ]
    return labels


def _draw_image(axes: Any, pixels: NDArray, square: tuple[int, int, int, int]) -> None:
    axes.imshow(pixels)
    axes.set_axis_off()
    top, left, rows, columns = square
    for colour, thickness in (("black", 2.5), ("white", 1)):
        look: dict[str, Any] = {
            "fill": False,
            "edgecolor": colour,
            "linewidth": thickness,
            "clip_on": False,
        }
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, **look))


def _draw_attention(axes: Any, weights: NDArray, names: Sequence[str]) -> None:
    axes.barh(names, weights, color=palette(1)[0])
    axes.axvline(1 / len(names), label="uniform", **CHANCE_LINE)
    axes.set(xlim=(0, 1), xlabel="attention weight", ylim=(len(names) - 0.5, -0.5))
    axes.legend(frameon=False)


@STYLE
def plot_image_sheet(
    blocks: Mapping[str, Sequence[tuple[Image.Image, NDArray, float, int]]],
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Draw a row of images per block, each with class, score, and attention as a stacked strip.

    Args:
        blocks: {heading: [(image, weights [S], score in [0, 1], label, 0 real, 1 fake), ...]}.
        scales: S scales.
        save_path: file to write.
        title: above the plot.
        formats: of the files.
    """
    columns = max(3, *map(len, blocks.values()))
    figure = Figure(figsize=(0.6 + 1.6 * columns, 1 + 2 * len(blocks)), layout="constrained")
    shape: dict[str, Any] = {"height_ratios": (10, 1) * len(blocks), "squeeze": False}
    panels = figure.subplots(2 * len(blocks), columns, **shape)
    colours = palette(len(scales))
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, (heading, items) in enumerate(blocks.items()):
        panels[2 * row, 0].set_ylabel(heading)
        pairs = zip(panels[2 * row], panels[2 * row + 1], items, strict=False)
        for axes, strip, (image, weights, score, label) in pairs:
            thumbnail = image.convert("RGB")  # a copy
            thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
            axes.imshow(thumbnail)
            colour = palette(2)[label]
            axes.spines[:].set(visible=True, color=colour, linewidth=2)
            axes.set_title(f"{CLASSES[label]}, {score:.3f}", fontsize=9)
            strip.barh([0] * len(scales), weights, left=np.cumsum(weights) - weights, color=colours)
            strip.set(xlim=(0, 1))
    patches = [Patch(color=c, label=n) for c, n in zip(colours, scale_labels(scales), strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, title="attention to scale")
    return save(figure, save_path, title, formats)
