"""Sheets of images with the attention that they get, and which images to put on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.distance import jensenshannon

from reports.plots.style import (
    CLASSES,
    STYLE,
    Page,
    Patch,
    Rectangle,
    Target,
    array,
    ink,
    label_array,
    legend_fit,
    palette,
    printable,
    save,
    scale_labels,
    wrapped,
)

# inches: of a thumbnail, heights of what is below and above
SIDE, STRIP, TEXT, HEADING = 1.3, 0.12, 0.27, 0.32
COLUMNS = 6
PIXELS = 400  # a thumbnail's longer side: enough for print, and quick to draw


def typical_and_surprising(weights: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images whose attention is nearest to the mean of weights [N, S], and of those
    farthest from it.

    Near is a small Jensen-Shannon distance (Endres and Schindelin, IEEE Trans. Inf. Theory 2003).
    The nearest come first, and so do the farthest; among equals, those of lower index. Up to
    `count` each; no image is in both.
    """
    weights = array(weights, "weights", (None, None), unit=True).clip(0, 1)
    distances = jensenshannon(weights, weights.mean(axis=0, keepdims=True), axis=1)
    distances = np.nan_to_num(distances).round(9)  # rounding errors tell no images apart
    nearest = np.argsort(distances, kind="stable")[: min(count, (len(weights) + 1) // 2)]
    farthest = np.argsort(-distances, kind="stable")
    return nearest, farthest[~np.isin(farthest, nearest)][:count]


@STYLE
def plot_image_sheet(
    blocks: Mapping[str, Sequence[tuple[Any, Any, float, int]]],
    scales: Sequence[float],
    save_path: Target,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Thumbnails in rows of six under the heading of their block, each over its attention, a
    stacked strip, its class and score.

    The class is a frame in its colour and a word. blocks: {heading: [(image, weights [S] in [0, 1],
    score in [0, 1], label, 0 real and 1 fake), ...]}; an image is PIL's, or [3, H, W] in [0, 1]. A
    block without images is left out. Makes the parent folder, replaces `save_path` in one step and
    returns it; `formats` as in `reports.plots.style.save`. ValueError names what does not fit.
    """
    blocks = {printable(heading): list(items) for heading, items in blocks.items() if len(items)}
    if not blocks:
        raise ValueError(
            "blocks holds no image: expected at least one {heading: [(image, weights, score, label)]}"
        )
    columns = max(3, min(COLUMNS, max(len(items) for items in blocks.values())))
    rows = {heading: -(-len(items) // columns) for heading, items in blocks.items()}
    pitch = SIDE + 0.03 + STRIP + TEXT
    names = scale_labels(scales)
    width, entries, below = legend_fit(names, columns * (SIDE + 0.12) + 0.12)
    headings = {
        heading: wrapped(heading, 0.88 * (width - 0.24)) for heading in blocks
    }  # narrower, because they are bold
    heads = {heading: HEADING + 0.17 * text.count("\n") for heading, text in headings.items()}
    height = sum(heads[heading] + rows[heading] * pitch for heading in blocks)
    page = Page(width, height + below + 0.25, title)
    axes = page.axes(0, 0, width, height)  # one for all, in inches
    axes.set_axis_off()
    top = 0.0
    for heading, items in blocks.items():
        axes.text(
            0.12, top + heads[heading] - 0.08, headings[heading], va="bottom", fontweight="bold"
        )
        for i, (image, weights, score, label) in enumerate(items):
            one = f"image {i} of {heading!r}"
            left, upper = (
                0.12 + i % columns * (SIDE + 0.12),
                top + heads[heading] + i // columns * pitch,
            )
            picture = _picture(image, one)
            wide, tall = (SIDE * side / max(picture.size) for side in picture.size)
            picture.thumbnail((PIXELS, PIXELS))
            x, y = left + (SIDE - wide) / 2, upper + (SIDE - tall) / 2
            axes.imshow(picture, extent=(x, x + wide, y + tall, y))
            kind = int(label_array([label], f"label of {one}")[0])
            colour = palette(2)[kind]
            axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=colour, linewidth=2))
            shares = array(weights, f"weights of {one}", (len(scales),), unit=True) * SIDE
            strip = upper + SIDE + 0.03 + STRIP / 2
            parts = zip(left + shares.cumsum() - shares, shares, strict=True)
            axes.broken_barh(
                list(parts), (strip - STRIP / 2, STRIP), facecolors=palette(len(scales))
            )
            line: dict[str, Any] = {"y": strip + STRIP / 2 + 0.05, "va": "top", "fontsize": 9}
            badge = {"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
            axes.text(left + 0.02, s=CLASSES[kind], color=ink(colour), bbox=badge, **line)
            score = float(array(score, f"score of {one}", (), unit=True))
            axes.text(left + SIDE, s=f"score {score:.3f}", ha="right", **line)
        top += heads[heading] + rows[heading] * pitch
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    patches = [
        Patch(color=colour, label=name)
        for name, colour in zip(names, palette(len(scales)), strict=True)
    ]
    page.figure.legend(
        handles=patches, loc="lower center", ncols=entries, title="attention to scale"
    )
    return save(page.figure, save_path, formats=formats)


def _picture(image: Any, name: str) -> Image.Image:
    """A copy in RGB."""
    if not isinstance(image, Image.Image):
        pixels = array(image, name, (3, None, None), unit=True).clip(0, 1)
        image = Image.fromarray((pixels.transpose(1, 2, 0) * 255).round().astype(np.uint8))
    return image.convert("RGB")  # of an RGB image, too, a copy
