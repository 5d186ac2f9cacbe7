"""The figures of a model's attention that test.py and visualize_attention.py share.

Importing this raises ImportError where matplotlib or seaborn is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.attention.findings import AttentionFindings
from evaluation.attention.verdict import SIGNIFICANT
from evaluation.scores import Scores, pool
from networks.npr import scale_keys
from reports.html import Picture
from reports.plots.attention import plot_attention_training
from reports.plots.weights import plot_attention_distribution
from training.event_log import VAL, read_metrics
from training.monitor import VALIDATION
from util import log


def draw_attention(
    found: AttentionFindings, folder: Path, run_folder: Path | None, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw what the findings say (`draw_findings`), box and violin, and attention during training,
    into a folder.

    Args:
        run_folder: where the checkpoint lies; None, and a folder without a log of attention, for no
            picture of the training.
        formats: see `reports.plots.style.save`.
    """
    pictures = [
        *draw_findings(found, folder, formats),
        draw_distribution(found.sets, found.scales, folder, formats),
    ]
    return pictures + (
        draw_training(found.scales, folder, run_folder, formats) if run_folder else []
    )


def title_of(sets: Sequence[Scores]) -> str:
    """What the images of these sets are called together."""
    return sets[0].generator if len(sets) == 1 else f"all {len(sets)} generators"


def images_once(sets: Sequence[Scores]) -> tuple[NDArray, NDArray]:
    """Return attention [N, S] and labels [N] of the images of all sets, each once, also where
    generators share real images."""
    together = pool(sets)
    assert together.attention is not None
    return together.attention, together.labels


def draw_distribution(
    sets: Sequence[Scores], scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """attention_distribution.png: box and violin of all images of the sets, each once."""
    picture = folder / "attention_distribution.png"
    path = plot_attention_distribution(
        *images_once(sets), scales, picture, title=title_of(sets), formats=formats
    )
    return Picture(
        path,
        "box plot and violin plot of the attention to every scale, real and generated images apart",
    )


def draw_training(
    scales: Sequence[float], folder: Path, run_folder: Path, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw attention_training.png: attention on the validation images after every epoch.

    Epochs whose attention is undefined are left out.

    Returns:
        The plot; empty where the run's folder has no such metrics.
    """
    try:
        lines = [line for line in read_metrics(run_folder) if line["split"] == VAL]
    except OSError as error:
        log.warning("no picture of attention during training: %s", error)
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
    path = folder / "attention_training.png"
    path = plot_attention_training(history, scales, path, "epoch", formats=formats)
    return [Picture(path, "attention on the validation images during training")]


def draw_findings(
    found: AttentionFindings, folder: Path, formats: Sequence[str] = ()
) -> list[Picture]:
    """Means with intervals; of several generators also heat map and distances; with controls, what
    they change.

    Raises:
        ImportError: matplotlib or seaborn is missing.
    """
    from reports.plots.attention import plot_attention_means
    from reports.plots.differences import plot_control_changes
    from reports.plots.weights import plot_attention_heatmap

    statistics, scales = found.statistics, found.scales
    generators = {one["name"]: one for one in statistics["generators"]}
    path = plot_attention_means(
        {
            name: {
                label: _means(one["groups"][label])
                for label in ("real", "fake")
                if one["groups"][label]
            }
            for name, one in generators.items()
        },
        scales,
        folder / "attention_means.png",
        formats=formats,
    )
    pictures = [
        Picture(
            path,
            "mean attention of every scale with its 95 % interval, real and generated images apart",
        )
    ]
    if len(generators) > 1:
        fakes = {n: one["groups"]["fake"] or one["groups"]["all"] for n, one in generators.items()}
        real = statistics["pooled"]["groups"]["real"]
        path = plot_attention_heatmap(
            {name: _means(group)[0] for name, group in fakes.items()},
            scales,
            folder / "attention_heatmap.png",
            groups={name: one["family"] for name, one in generators.items()},
            real={"of all generators": _means(real)[0]} if real else None,
            formats=formats,
        )
        pictures.append(Picture(path, "mean attention on the generated images of each generator"))
        pictures += _distances(found, folder, formats)
    if found.controls:
        changes = {
            one["label"]: (100 * one["change"], _points(one["low"]), _points(one["high"]))
            for one in found.controls["conditions"]
            if one["change"] is not None
        }
        if changes:
            path = plot_control_changes(changes, folder / "attention_controls.png", formats=formats)
            pictures.append(
                Picture(
                    path,
                    "change of the mean AUC when attention is replaced, or branches are left out",
                )
            )
    return pictures


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _means(group: dict[str, Any]) -> NDArray:
    """[3, S]: mean, and the ends of its interval (the mean itself where there is none)."""
    rows = [(one["mean"], one["low"], one["high"]) for one in group["scales"].values()]
    return np.array(
        [
            [m, m if low is None else min(low, m), m if high is None else max(high, m)]
            for m, low, high in rows
        ]
    ).T


def _distances(found: AttentionFindings, folder: Path, formats: Sequence[str]) -> list[Picture]:
    from reports.plots.differences import plot_distances

    pairs = found.statistics["between"]["pairs"]
    keys = list(dict.fromkeys(key for pair in pairs for key in (pair["a"], pair["b"])))
    if not keys:
        return []
    names = {one.key: one.generator for one in found.sets}
    table, significant = (
        np.zeros((len(keys), len(keys))),
        np.zeros((len(keys), len(keys)), dtype=bool),
    )
    for pair in pairs:
        a, b = keys.index(pair["a"]), keys.index(pair["b"])
        table[a, b] = table[b, a] = pair["distance"]
        significant[a, b] = significant[b, a] = pair["p_holm"] < SIGNIFICANT
    path = plot_distances(
        table,
        [names[key] for key in keys],
        folder / "attention_distances.png",
        significant,
        formats=formats,
    )
    return [
        Picture(
            path,
            "Jensen-Shannon distance between the generators' mean attention; dots: significant",
        )
    ]
