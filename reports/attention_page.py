"""Plots of a model's attention, and the page that shows them.

Importing this raises ImportError where matplotlib or seaborn is missing.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.decode import read_image
from evaluation.attention.findings import AttentionFindings
from evaluation.attention.images import ScaleMaps, images_once, typical_and_surprising
from evaluation.names import escaped
from evaluation.scores import Scores
from networks.npr import scale_keys
from reports.attention_tables import attention_sections
from reports.html import Page, Picture, Section
from reports.plots.attention import (
    plot_attention_distribution,
    plot_attention_heatmap,
    plot_attention_means,
    plot_attention_per_image,
    plot_attention_training,
    plot_control_changes,
)
from reports.plots.images import plot_image_sheet, plot_npr_maps
from training.event_log import VAL, read_metrics
from training.monitor import VALIDATION
from util import atomic_file, log

MAX_SHEETS, MAX_MAPS = 12, 6  # plots of single images on the page, which embeds every plot
SHEET_IMAGES = 6  # in a row of a sheet


def draw_attention(
    found: AttentionFindings, folder: Path, run_folder: Path | None, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw what test.py and visualize_attention.py share.

    Args:
        found: what to draw.
        folder: where to.
        run_folder: of the checkpoint, with the log of its training; None for no plot of that.
        formats: see `reports.plots.style.save`.
    """
    plots = [
        _draw_means(found, folder, formats),
        *_draw_heatmap(found, folder, formats),
        *_draw_controls(found, folder, formats),
        draw_distribution(found.sets, found.scales, folder, formats),
    ]
    return plots + (draw_training(found.scales, folder, run_folder, formats) if run_folder else [])


def _draw_means(found: AttentionFindings, folder: Path, formats: Sequence[str]) -> Picture:
    means = {
        one["name"]: {
            label: _with_interval(one["groups"][label])
            for label in ("real", "fake")
            if one["groups"][label]
        }
        for one in found.statistics["generators"]
    }
    target = folder / "attention_means.png"
    path = plot_attention_means(means, found.scales, target, formats=formats)
    return Picture(path, "mean attention to each scale with its 95 % interval, real and fake")


def _with_interval(group: dict[str, Any]) -> NDArray:
    """Return [3, S]: mean, low and high end of its interval, the mean itself where that is missing."""
    rows = []
    for one in group["scales"].values():
        low, high = (one["mean"] if one[end] is None else one[end] for end in ("low", "high"))
        # a constant's interval may miss it by a rounding error
        rows.append([one["mean"], min(low, one["mean"]), max(high, one["mean"])])
    return np.array(rows).T


def _draw_heatmap(found: AttentionFindings, folder: Path, formats: Sequence[str]) -> list[Picture]:
    generators = sorted(found.statistics["generators"], key=lambda one: one["family"])
    if len(generators) < 2:
        return []
    several = len({one["family"] for one in generators}) > 1
    rows = {}
    if real := found.statistics["pooled"]["groups"]["real"]:
        rows["real images of all generators"] = _with_interval(real)[0]
    for one in generators:
        name = f"{one['family']}/{one['name']}" if several else one["name"]
        rows[name] = _with_interval(one["groups"]["fake"] or one["groups"]["all"])[0]
    target = folder / "attention_heatmap.png"
    path = plot_attention_heatmap(rows, found.scales, target, formats=formats)
    return [Picture(path, "mean attention on the fake images of each generator")]


def _draw_controls(found: AttentionFindings, folder: Path, formats: Sequence[str]) -> list[Picture]:
    changes = {}
    for one in (found.controls or {}).get("conditions", []):
        if one["change"] is not None:
            points = [None if x is None else 100 * x for x in (one["low"], one["high"])]
            changes[one["label"]] = (100 * one["change"], points[0], points[1])
    if not changes:
        return []
    path = plot_control_changes(changes, folder / "attention_controls.png", formats=formats)
    alt = "change of the mean AUC when attention is replaced or branches are taken away"
    return [Picture(path, alt)]


def draw_distribution(
    sets: Sequence[Scores], scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_distribution.png: box and violin of all images of the sets, each once."""
    everything, target = images_once(sets), folder / "attention_distribution.png"
    path = plot_attention_distribution(
        everything.weights, everything.labels, scales, target, everything.generator, formats
    )
    return Picture(path, "box plot and violin plot of the attention to each scale, real and fake")


def draw_training(
    scales: Sequence[float], folder: Path, run_folder: Path, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw attention_training.png: attention on the validation images after each epoch.

    Nothing is drawn without a record of the training. Epochs with undefined attention are skipped.
    """
    try:
        lines = [line for line in read_metrics(run_folder) if line["split"] == VAL]
    except OSError as error:
        log.warning("attention during training is not drawn: %s", error)
        return []
    keys = scale_keys(tuple(scales))
    names = [f"{VALIDATION}/{name}_{key}" for name in ("mean", "std") for key in keys]
    history: dict[float, Any] = {}
    for line in lines:
        values = [line.get(name) for name in (f"{VALIDATION}/entropy", *names)]
        if all(isinstance(value, float) for value in values):
            entropy, *moments = values
            history[line["epoch"]] = moments[: len(keys)], moments[len(keys) :], entropy
    if not history:
        return []
    target = folder / "attention_training.png"
    path = plot_attention_training(history, scales, target, formats=formats)
    return [Picture(path, "attention on the validation images during training")]


def draw_images(
    one: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_per_image.png of one set."""
    path = plot_attention_per_image(
        one.weights, one.labels, one.scores, scales, folder / "attention_per_image.png",
        one.generator, formats,
    )  # fmt: skip
    return Picture(path, "attention to each scale on each image, and its score")


def draw_sheet(
    one: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_images.png of one set: its most typical and most surprising images, whose
    names are paths."""
    blocks = {}
    chosen = typical_and_surprising(one.weights, SHEET_IMAGES)
    for heading, rows in zip(("most typical", "most surprising"), chosen, strict=True):
        images = [(read_image(one.paths[i]), one.weights[i], one.scores[i], one.labels[i])
                  for i in rows]  # fmt: skip
        if images:
            blocks[heading] = images
    path = plot_image_sheet(blocks, scales, folder / "attention_images.png", one.generator, formats)
    return Picture(
        path, f"{one.generator}: images with the most typical and most surprising attention"
    )


def draw_maps(
    maps: Iterable[ScaleMaps],
    paths: Sequence[str],
    name: str,
    scales: Sequence[float],
    folder: Path,
    formats: Sequence[str] = (),
) -> list[Picture]:
    """Draw npr_artifacts/*.png of one set; the plots of fake and real images take turns.

    Args:
        maps: of each image.
        paths: of the images, by their index.
        name: of the set.
        scales: of the model.
        folder: where to.
        formats: see `reports.plots.style.save`.
    """
    plots: dict[str, list[Picture]] = {"fake": [], "real": []}
    for one in maps:
        kind = "fake" if one.label else "real"
        stem = escaped(Path(paths[one.index]).stem)[:80]  # a file name may have 255 bytes
        target = folder / "npr_artifacts" / f"{one.index:03d}_{kind}_{stem}.png"
        title = f"{kind}: {stem}, score {one.score:.3f}"
        path = plot_npr_maps(
            one.image, one.residuals, one.weights, scales, target, title,
            one.cams, one.adds, one.exact, formats,
        )  # fmt: skip
        plots[kind].append(Picture(path, f"residual maps of {name}, {kind}: {stem}"))
    pairs = zip_longest(plots["fake"], plots["real"])
    return [picture for pair in pairs for picture in pair if picture]


def write_page(
    found: AttentionFindings,
    title: str,
    data: str,
    plots: Sequence[Picture],
    sheets: Sequence[Picture],
    maps: Sequence[Sequence[Picture]],
    path: Path,
) -> None:
    """Write attention_report.html.

    Args:
        found: what to tell.
        title: of the page.
        data: name of the data.
        plots: of `draw_attention`.
        sheets: of `draw_sheet`, one per set; `MAX_SHEETS` are shown.
        maps: of `draw_maps`, for each set; `MAX_MAPS` are shown, at least one of each set.
        path: where to.
    """
    text = "Images whose attention is nearest to the mean of their generator, and the farthest."
    if len(sheets) > MAX_SHEETS:
        text += f" Shown: the first {MAX_SHEETS} of {len(sheets)} generators; each folder has its attention_images.png."
    sections = [
        *attention_sections(found, plots),
        Section("Typical and surprising images", text, pictures=sheets[:MAX_SHEETS]),
    ]
    count = sum(map(len, maps))
    if count:
        each = max(1, MAX_MAPS // len(maps))
        shown = [picture for of_set in maps for picture in of_set[:each]][:MAX_MAPS]
        text = "Single images: the residual at each scale, and where its evidence is."
        if len(shown) < count:
            text += f" Shown: {len(shown)} of {count}; npr_artifacts/ in the folder of each generator has all."
        sections.append(Section("Residual maps", text, pictures=shown))
    images = sum(len(one.labels) for one in found.sets)
    generators = f"{len(found.sets)} generator{'s' * (len(found.sets) != 1)}"
    page = Page(title, f"on {data}: {images:,} images of {generators}", sections)
    with atomic_file(path) as file:
        file.write(page.render())
