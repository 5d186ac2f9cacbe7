"""Plots of a model's attention that test.py and visualize_attention.py share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.attention.findings import AttentionFindings
from evaluation.attention.groups import VALIDATION
from evaluation.scores import Scores, images_once
from networks.npr import scale_keys
from reports.drawing import Drawer
from reports.html import Picture
from training.event_log import VAL, read_metrics
from util import log


def draw_attention(
    draw: Drawer,
    findings: AttentionFindings,
    folder: Path,
    run_folder: Path | None,
    formats: Sequence[str] = (),
) -> list[Picture]:
    """Draw the plots that test.py and visualize_attention.py share; return them.

    Args:
        draw: skips those that fail.
        findings: numbers to draw.
        folder: of the plots.
        run_folder: of the checkpoint, with its training log; None skips the plot of the training.
        formats: see `reports.plots.style.save`.
    """
    pictures: list[Picture] = []
    for plot in (_draw_means, _draw_heatmap, _draw_controls):
        pictures += draw(plot, findings, folder, formats) or []
    sets, scales = findings.sets, findings.scales
    pictures += draw(draw_distribution, sets, scales, folder, formats) or []
    if run_folder is not None:
        pictures += draw(draw_training, scales, folder, run_folder, formats) or []
    return pictures


def _draw_means(findings: AttentionFindings, folder: Path, formats: Sequence[str]) -> list[Picture]:
    from reports.plots.attention import plot_attention_means

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
    return [Picture(path, "mean attention to each scale with its 95 % interval, real and fake")]


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
    from reports.plots.attention import plot_attention_heatmap

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
        row = f"{family}/{name}" if several else name
        rows[row] = _with_interval(groups["fake"] or groups["all"])[0]
    target = folder / "attention_heatmap.png"
    path = plot_attention_heatmap(rows, findings.scales, target, formats=formats)
    return [Picture(path, "mean attention on the fake images of each generator")]


def _draw_controls(
    findings: AttentionFindings, folder: Path, formats: Sequence[str]
) -> list[Picture]:
    from reports.plots.scores import plot_control_changes

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
) -> list[Picture]:
    """Draw attention_distribution.png: box and violin of all images of the sets, each once."""
    from reports.plots.attention import plot_attention_distribution

    everything, target = images_once(sets), folder / "attention_distribution.png"
    path = plot_attention_distribution(
        everything.weights, everything.labels, scales, target, everything.generator, formats
    )
    return [Picture(path, "box plot and violin plot of the attention to each scale, real and fake")]


def draw_training(
    scales: Sequence[float], folder: Path, run_folder: Path, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw attention_training.png: attention on the validation images after each epoch.

    Nothing is drawn without a record of the training. Epochs with undefined attention are skipped.
    """
    from reports.plots.attention import plot_attention_training

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
