"""Pictures of where in an image a model looks; what all pictures share is in `reports.plots.style`.

Panels are placed by inches: to lay out so many of them automatically takes longer than to draw
them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Normalize,
    Page,
    Rectangle,
    ScalarMappable,
    Target,
    array,
    palette,
    save,
    scale_labels,
    text_inches,
)

ZOOM = 24  # pixels of the enlarged square's side
GAP = 0.12  # inches between panels
LABEL = 9  # points
RESIDUAL, STRENGTH, EVIDENCE = "RdBu_r", "cividis", "PuOr_r"


@STYLE
def plot_npr_maps(
    image: Any,
    npr_maps: Mapping[str, Any],
    weights: Any,
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    cams: Any = None,
    adds: Any = None,
    exact: bool = True,
    formats: Sequence[str] = (),
) -> Path:
    """One image, the attention to its scales, and a row per scale: NPR residual, pixels of it, its
    strength, the evidence.

    The residual is its mean over the channels, with its sign; its strength is the mean of its
    absolute values. Each has one colour range for all scales, up to the 99.5th percentile, and so
    can be compared. The pixels are those of the square of at most 24 x 24 where the strengths of
    all scales add up to most; the square is marked in the image.

    Args:
        image: [3, H, W] in [0, 1].
        npr_maps: {any key: residual [3, H, W]} in the order of `scales`.
        weights: attention [S] in [0, 1], S = len(scales); None for a model without, of which none
            is shown.
        cams: class-activation maps [S, h, w] of any size in units of the logit, positive towards
            generated (`networks.cam`), drawn over the image with one colour range for all scales.
            None: no such column.
        adds: what each scale adds to the logit, [S], for the labels; None for no such numbers.
        exact: whether `cams` add up to that; otherwise their column is called Grad-CAM.
        formats: see `reports.plots.style.save`.
    """
    image = array(image, "image", (3, None, None), unit=True).clip(0, 1)
    if len(npr_maps) != len(scales):
        raise ValueError(
            f"npr_maps has {len(npr_maps)} maps, expected one for each of {len(scales)} scales"
        )
    signed, strength = np.empty((2, len(scales), *image.shape[1:]), np.float32)
    for i, (key, residual) in enumerate(npr_maps.items()):
        residual = array(residual, f"npr_maps[{key!r}]", image.shape)
        signed[i], strength[i] = residual.mean(axis=0), np.abs(residual).mean(axis=0)
    reach = _limit(np.abs(signed))
    colours = [(RESIDUAL, Normalize(-reach, reach)), (STRENGTH, Normalize(0, _limit(strength)))]
    labels = scale_labels(scales)
    if weights is not None:
        weights = array(weights, "weights", (len(scales),), unit=True)
        labels = [f"{name}\nattention {w:.3f}" for name, w in zip(labels, weights, strict=True)]
    if cams is not None:
        cams = array(cams, "cams", (len(scales), None, None))
        furthest = float(np.abs(cams).max()) or 1.0
        colours.append((EVIDENCE, Normalize(-furthest, furthest)))
    if adds is not None:
        adds = array(adds, "adds", (len(scales),))
        labels = [f"{label}\nadds {part:+.3f}" for label, part in zip(labels, adds, strict=True)]

    _, height, width = image.shape
    top, left, rows, columns = square = _strongest(strength.mean(axis=0))
    page = _MapPage(width / height, labels, len(colours), title)
    _draw_head(page, image.transpose(1, 2, 0), square, weights, scale_labels(scales))
    for row, label in enumerate(labels):
        page.label(row, label)
        pixels = signed[row, top : top + rows, left : left + columns]
        for column, values in enumerate((signed[row], pixels, strength[row])):
            cmap, norm = colours[column // 2]
            smooth = "nearest" if column == 1 else "auto"
            page.panel(row, column).imshow(values, cmap=cmap, norm=norm, interpolation=smooth)
        if cams is not None:
            axes, (cmap, norm) = page.panel(row, 3), colours[2]
            axes.imshow(image.mean(axis=0), cmap="gray", vmin=-0.3, vmax=1)
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            axes.imshow(
                cams[row], cmap=cmap, norm=norm, extent=extent, interpolation="bilinear", alpha=0.7
            )
    headings = [
        "residual",
        f"{columns} x {rows} px of it",
        "mean |residual|",
        "evidence" if exact else "Grad-CAM",
    ]
    units = ["residual", "mean |residual|", "logit (real < 0 < fake)"]
    page.head_columns(headings[: len(colours) + 1])
    for column, unit, (cmap, norm) in zip((0, 2, 3), units, colours, strict=False):
        page.colour_bar(column, unit, ScalarMappable(norm, cmap))
    return save(page.figure, save_path, formats=formats)


def _strongest(strength: np.ndarray) -> tuple[int, int, int, int]:
    """First row and column, height and width of the square (cut to the image) with the largest mean
    of strength [H, W]."""
    height, width = strength.shape
    rows, columns = min(ZOOM, height), min(ZOOM, width)
    # place i holds the mean from i - rows // 2 on
    means = uniform_filter(strength.astype(float), (rows, columns))
    inside = means[rows // 2 :, columns // 2 :][: height - rows + 1, : width - columns + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return int(top), int(left), rows, columns


def _limit(values: np.ndarray) -> float:
    """End of a colour range: values that are zero nearly everywhere, or everywhere, still need one."""
    return float(np.percentile(values, 99.5)) or float(values.max()) or 1.0


class _MapPage(Page):
    """Head, headings, rows of panels behind their labels, and colour bars."""

    def __init__(self, aspect: float, labels: Sequence[str], ranges: int, title: str) -> None:
        """aspect: width / height of the image; ranges: how many colour ranges there are, one panel
        has none of its own."""
        self.picture = min(2.3, 2.3 * aspect), min(2.3, 2.3 / aspect)  # width and height
        if aspect > 2:
            self.picture = min(3.4, 1.15 * aspect), min(3.4, 1.15 * aspect) / aspect
        self.row = max(1.0, self.picture[1])
        zoom = min(self.row, 1.9)
        wide = max(1.6, self.picture[0])
        self.widths = [wide, zoom, wide, wide][: ranges + 1]
        self.names = 0.12 + text_inches(
            (line for label in labels for line in label.split("\n")), LABEL
        )
        self.head = max(self.picture[1] + 0.1, 0.8 + 0.2 * len(labels))
        self.first = self.head + 0.35  # top of the first row
        height = self.first + len(labels) * (self.row + GAP) + 0.55
        super().__init__(self.names + sum(self.widths) + (ranges + 2) * GAP, height, title)

    def left(self, column: int) -> float:
        return self.names + GAP + sum(self.widths[:column]) + column * GAP

    def panel(self, row: int, column: int) -> Axes:
        top = self.first + row * (self.row + GAP)
        axes = self.axes(self.left(column), top, self.widths[column], self.row)
        axes.set_axis_off()
        return axes

    def label(self, row: int, text: str) -> None:
        self.text(
            0.12, self.first + row * (self.row + GAP) + self.row / 2, text, LABEL, va="center"
        )

    def head_columns(self, texts: Sequence[str]) -> None:
        for column, text in enumerate(texts):
            middle = self.left(column) + self.widths[column] / 2
            self.text(middle, self.first - 0.06, text, 10, ha="center", va="bottom")

    def colour_bar(self, column: int, unit: str, mapped: ScalarMappable) -> None:
        axes = self.axes(self.left(column), self.height - self.top - 0.53, self.widths[column], 0.1)
        self.figure.colorbar(mapped, cax=axes, orientation="horizontal")
        low, high = mapped.get_clim()
        ticks = [low, 0, high] if low else [0, high]
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks], fontsize=8)
        texts = axes.get_xticklabels()  # the ends stay above the bar
        texts[0].set_horizontalalignment("left")
        texts[-1].set_horizontalalignment("right")
        axes.set_xlabel(unit, fontsize=LABEL, labelpad=1)


def _draw_head(
    page: _MapPage,
    image: np.ndarray,
    square: Sequence[int],
    weights: np.ndarray | None,
    names: Sequence[str],
) -> None:
    """The image [H, W, 3] with the square (first row and column, height, width) over the first
    column, beside it any attention."""
    axes = page.axes(page.left(0), 0, page.widths[0], page.head - 0.1)
    axes.imshow(image)
    axes.set_axis_off()
    top, left, rows, columns = square
    # around what would be too small to be seen
    more = max(0.0, 0.05 * max(image.shape[:2]) - ZOOM) / 2
    for colour, thickness in (("black", 2.5), ("white", 1)):
        look: dict[str, Any] = {
            "fill": False,
            "edgecolor": colour,
            "linewidth": thickness,
            "clip_on": False,
        }
        axes.add_patch(
            Rectangle(
                (left - 0.5 - more, top - 0.5 - more), columns + 2 * more, rows + 2 * more, **look
            )
        )
    if weights is None:
        return
    start = page.left(1) + text_inches(names) + 0.2
    chart = page.axes(
        start, 0.22, page.width - start - 0.2, min(page.head - 0.75, 0.4 * len(names) + 0.1)
    )
    chart.barh(names, weights, color=palette(1)[0])
    chart.invert_yaxis()
    chart.axvline(1 / len(names), label="uniform", **CHANCE_LINE)
    chart.set(xlim=(0, 1), xlabel="attention weight")
    chart.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, borderpad=0)
