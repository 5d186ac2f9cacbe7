"""Plots of single images: maps of a model's evidence in them, and their attention.

Each `plot_*` function makes the parent folder, replaces `save_path` and returns it; title and
formats are those of `reports.plots.style.save`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    Axes,
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
    title: str,
    cams: ArrayLike,
    adds: ArrayLike,
    exact: bool = True,
    formats: Sequence[str] = (),
) -> Path:
    """Draw an image with its attention, and a row of maps per scale; one scale is in one row.

    A row has the residual, pixels of it, its strength, and the evidence. The residual is the mean
    over the channels; its strength is the mean of the absolute values. A column has one colour
    range for all scales, residuals up to the 99.5th percentile. The pixels are those of the square,
    marked in the image, in which the residuals are strongest.

    Args:
        image: [3, H, W] in [0, 1].
        npr_maps: {any key: residual [3, H, W]} in the order of `scales`.
        weights: attention [S]; None for a model with one scale.
        scales: S scales.
        save_path: file to write.
        title: above the plot.
        cams: class-activation maps [S, h, w] in units of the logit, positive towards fake (see
            `networks.cam`), drawn over the image.
        adds: [S] contributions of the scales to the logit, for the labels.
        exact: True if the means of `cams` are `adds`; otherwise the maps are called Grad-CAM.
        formats: of the files.
    """
    pixels = np.asarray(image, dtype=np.float32).clip(0, 1).transpose(1, 2, 0)
    residuals = np.stack([np.asarray(residual, dtype=np.float32) for residual in npr_maps.values()])
    square = _strongest(np.abs(residuals).mean(axis=1).mean(axis=0))
    columns = _residual_columns(residuals, square)
    cams = np.asarray(cams, dtype=np.float32)
    furthest = _limit(np.abs(cams), 100)
    colours = ScalarMappable(Normalize(-furthest, furthest), "PuOr_r")
    heading, unit = "evidence" if exact else "Grad-CAM", "logit (real < 0 < fake)"
    columns.append(_Column(heading, cams, colours, unit, behind=pixels.mean(axis=2)))

    height, width = pixels.shape[:2]
    side = float(np.clip(2.3 * height / width, 1, 3))
    # the image is above the maps, beside its attention, or left of them
    above, left = (0, 1) if weights is None else (1, 0)
    rows, wide = above + len(scales), left + len(columns)
    size = 1.5 + 2.3 * wide, 0.8 + (side + 0.1) * rows
    figure = Figure(figsize=size, layout="constrained")
    heights = [1] * rows + [0.08]  # the last row is for colour bars
    grid = figure.add_gridspec(len(heights), wide, height_ratios=heights)
    _draw_image(figure.add_subplot(grid[0, 0]), pixels, square)
    if weights is not None:
        _draw_attention(figure.add_subplot(grid[0, 1:]), np.asarray(weights), scale_labels(scales))
    for position, column in enumerate(columns):
        place = left + position
        panels = [figure.add_subplot(grid[above + row, place]) for row in range(len(scales))]
        _draw_column(panels, column)
        if position == 0:
            for axes, label in zip(panels, _row_labels(scales, weights, adds), strict=True):
                axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        if column.unit:
            bar = figure.add_subplot(grid[-1, place])
            figure.colorbar(column.colours, cax=bar, orientation="horizontal", label=column.unit)
    return save(figure, save_path, title, formats)


@dataclass(frozen=True)
class _Column:
    """Maps of one kind, a panel per scale.

    Args:
        heading: above the first panel.
        maps: [S, h, w].
        colours: of all panels.
        unit: label of the colour bar; "" for a column without one.
        enlarged: True to show each pixel as a square.
        behind: image [H, W] in [0, 1] to draw the maps over; None for maps alone.
    """

    heading: str
    maps: NDArray
    colours: ScalarMappable
    unit: str
    enlarged: bool = False
    behind: NDArray | None = None


def _residual_columns(residuals: NDArray, square: tuple[int, int, int, int]) -> list[_Column]:
    """Return the columns of residuals [S, 3, H, W]; the square is that of `_strongest`."""
    signed, strength = residuals.mean(axis=1), np.abs(residuals).mean(axis=1)
    top, left, rows, columns = square
    reach = _limit(np.abs(signed))
    of_residuals = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
    of_strength = ScalarMappable(Normalize(0, _limit(strength)), "cividis")
    pixels = signed[:, top : top + rows, left : left + columns]
    heading = f"{columns} x {rows} px of it"
    return [
        _Column("residual", signed, of_residuals, "residual"),
        _Column(heading, pixels, of_residuals, "", enlarged=True),
        _Column("mean |residual|", strength, of_strength, "mean |residual|"),
    ]


def _draw_column(panels: Sequence[Axes], column: _Column) -> None:
    look: dict[str, Any] = {"cmap": column.colours.cmap, "norm": column.colours.norm}
    if column.enlarged:
        look["interpolation"] = "nearest"
    for axes, shown in zip(panels, column.maps, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if column.behind is not None:
            axes.imshow(column.behind, cmap="gray", vmin=-0.3, vmax=1)
            height, width = column.behind.shape
            look |= {"interpolation": "bilinear", "alpha": 0.7}
            look["extent"] = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(shown, **look)
    panels[0].set_title(column.heading)


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


def _row_labels(scales: Sequence[float], weights: ArrayLike | None, adds: ArrayLike) -> list[str]:
    labels = scale_labels(scales)
    if weights is not None:
        numbers = np.asarray(weights).tolist()
        labels = [f"{label}\nattention {x:.3f}" for label, x in zip(labels, numbers, strict=True)]
    numbers = np.asarray(adds).tolist()
    return [f"{label}\nadds {x:+.3f}" for label, x in zip(labels, numbers, strict=True)]


def _draw_image(axes: Axes, pixels: NDArray, square: tuple[int, int, int, int]) -> None:
    axes.imshow(pixels)
    axes.set_axis_off()
    top, left, rows, columns = square
    for colour, thickness in (("black", 2.5), ("white", 1)):
        frame = Rectangle(
            (left - 0.5, top - 0.5), columns, rows,
            fill=False, edgecolor=colour, linewidth=thickness, clip_on=False,
        )  # fmt: skip
        axes.add_patch(frame)


def _draw_attention(axes: Axes, weights: NDArray, names: Sequence[str]) -> None:
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
