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

# plots of single images on the page, which embeds every plot
MAX_SHEETS = 12
MAX_MAPS = 6
SHEET_IMAGES = 6  # in a row of a sheet
MAX_STEM = 80  # characters of an image's name in that of its plot; file names may have 255 bytes


def draw_attention(
    findings: AttentionFindings, folder: Path, run_folder: Path | None, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw the plots that test.py and visualize_attention.py share; return them.

    Args:
        findings: numbers to draw.
        folder: of the plots.
        run_folder: of the checkpoint, with its training log; None skips the plot of the training.
        formats: see `reports.plots.style.save`.
    """
    plots = [
        _draw_means(findings, folder, formats),
        *_draw_heatmap(findings, folder, formats),
        *_draw_controls(findings, folder, formats),
        draw_distribution(findings.sets, findings.scales, folder, formats),
    ]
    return plots + (
        draw_training(findings.scales, folder, run_folder, formats) if run_folder else []
    )


def _draw_means(findings: AttentionFindings, folder: Path, formats: Sequence[str]) -> Picture:
    means = {
        generator["name"]: {
            label: _with_interval(generator["groups"][label])
            for label in ("real", "fake")
            if generator["groups"][label]
        }
        for generator in findings.statistics["generators"]
    }
    target = folder / "attention_means.png"
    path = plot_attention_means(means, findings.scales, target, formats=formats)
    return Picture(path, "mean attention to each scale with its 95 % interval, real and fake")


def _with_interval(group: dict[str, Any]) -> NDArray:
    """Return [3, S]: mean, low and high end of its interval; the mean where that is missing."""
    rows = []
    for scale in group["scales"].values():
        mean = scale["mean"]
        low, high = (mean if scale[end] is None else scale[end] for end in ("low", "high"))
        # a constant's interval may miss it by a rounding error
        rows.append([mean, min(low, mean), max(high, mean)])
    return np.array(rows).T


def _draw_heatmap(
    findings: AttentionFindings, folder: Path, formats: Sequence[str]
) -> list[Picture]:
    generators = sorted(
        findings.statistics["generators"], key=lambda generator: generator["family"]
    )
    if len(generators) < 2:
        return []
    several = len({generator["family"] for generator in generators}) > 1
    rows = {}
    if real := findings.statistics["pooled"]["groups"]["real"]:
        rows["real images of all generators"] = _with_interval(real)[0]
    for generator in generators:
        family, name, groups = (generator[key] for key in ("family", "name", "groups"))
        rows[f"{family}/{name}" if several else name] = _with_interval(
            groups["fake"] or groups["all"]
        )[0]
    target = folder / "attention_heatmap.png"
    path = plot_attention_heatmap(rows, findings.scales, target, formats=formats)
    return [Picture(path, "mean attention on the fake images of each generator")]


def _draw_controls(
    findings: AttentionFindings, folder: Path, formats: Sequence[str]
) -> list[Picture]:
    changes = {}
    for condition in (findings.controls or {}).get("conditions", []):
        if condition["change"] is not None:
            ends = condition["low"], condition["high"]
            low, high = (None if end is None else 100 * end for end in ends)
            changes[condition["label"]] = (100 * condition["change"], low, high)
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
    scored: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_per_image.png of one set."""
    path = plot_attention_per_image(
        scored.weights, scored.labels, scored.scores, scales, folder / "attention_per_image.png",
        scored.generator, formats,
    )  # fmt: skip
    return Picture(path, "attention to each scale on each image, and its score")


def draw_sheet(
    scored: Scores, scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """Draw attention_images.png of one set: its most typical and most surprising images.

    Args:
        scored: the set; the names of its images are paths.
        scales: S scales.
        folder: of the plot.
        formats: see `reports.plots.style.save`.
    """
    blocks = {}
    chosen = typical_and_surprising(scored.weights, SHEET_IMAGES)
    for heading, rows in zip(("most typical", "most surprising"), chosen, strict=True):
        images = [
            (read_image(scored.paths[i]), scored.weights[i], scored.scores[i], scored.labels[i])
            for i in rows
        ]
        if images:
            blocks[heading] = images
    path = plot_image_sheet(
        blocks, scales, folder / "attention_images.png", scored.generator, formats
    )
    return Picture(
        path, f"{scored.generator}: images with the most typical and most surprising attention"
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
        folder: of the plots.
        formats: see `reports.plots.style.save`.
    """
    plots: dict[str, list[Picture]] = {"fake": [], "real": []}
    for image in maps:
        kind = "fake" if image.label else "real"
        stem = escaped(Path(paths[image.index]).stem)[:MAX_STEM]
        target = folder / "npr_artifacts" / f"{image.index:03d}_{kind}_{stem}.png"
        title = f"{kind}: {stem}, score {image.score:.3f}"
        path = plot_npr_maps(
            image.image, image.residuals, image.weights, scales, target, title,
            image.cams, image.adds, image.exact, formats,
        )  # fmt: skip
        plots[kind].append(Picture(path, f"residual maps of {name}, {kind}: {stem}"))
    pairs = zip_longest(plots["fake"], plots["real"])
    return [plot for pair in pairs for plot in pair if plot]


def write_page(
    findings: AttentionFindings,
    title: str,
    data: str,
    plots: Sequence[Picture],
    sheets: Sequence[Picture],
    maps: Sequence[Sequence[Picture]],
    path: Path,
) -> None:
    """Write attention_report.html.

    Args:
        findings: numbers to show.
        title: of the page.
        data: name of the data.
        plots: of `draw_attention`.
        sheets: of `draw_sheet`, one per set; `MAX_SHEETS` are shown.
        maps: of `draw_maps`, for each set; `MAX_MAPS` are shown, at least one of each set.
        path: of the page.
    """
    text = "Images whose attention is nearest to the mean of their generator, and the farthest."
    if len(sheets) > MAX_SHEETS:
        text += (
            f" Shown: the first {MAX_SHEETS} of {len(sheets)} generators; each folder has its"
            " attention_images.png."
        )
    sections = [
        *attention_sections(findings, plots),
        Section("Typical and surprising images", text, pictures=sheets[:MAX_SHEETS]),
    ]
    count = sum(map(len, maps))
    if count:
        each = max(1, MAX_MAPS // len(maps))
        shown = [plot for of_set in maps for plot in of_set[:each]][:MAX_MAPS]
        text = "Single images: the residual at each scale, and where its evidence is."
        if len(shown) < count:
            text += (
                f" Shown: {len(shown)} of {count}; npr_artifacts/ in the folder of each generator"
                " has all."
            )
        sections.append(Section("Residual maps", text, pictures=shown))
    images = sum(len(scored.labels) for scored in findings.sets)
    generators = f"{len(findings.sets)} generator{'s' * (len(findings.sets) != 1)}"
    page = Page(title, f"on {data}: {images:,} images of {generators}", sections)
    with atomic_file(path) as file:
        file.write(page.render())
