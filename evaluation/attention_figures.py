"""The figures of a model's attention that test.py and visualize_attention.py share.

Importing this raises ImportError where matplotlib or seaborn is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.attended import Attended, first_of_each
from evaluation.attention_findings import AttentionFindings, draw_findings
from evaluation.attention_plots import plot_attention_training
from evaluation.event_log import read_scalars
from evaluation.html import Picture
from evaluation.monitor import FIXED, VALIDATION
from evaluation.plots import plot_attention_distribution
from networks.npr import scale_keys
from util import log


def draw_attention(
    found: AttentionFindings, folder: Path, run_folder: Path | None, formats: Sequence[str] = ()
) -> list[Picture]:
    """Draw what the findings say (`draw_findings`), box and violin, and attention during training, into a folder.

    Args:
        run_folder: where the checkpoint lies; None, and a folder without a log of attention, for no picture of the training.
        formats: see `evaluation.plotting.save`.
    """
    pictures = [*draw_findings(found, folder, formats), draw_distribution(found.sets, found.scales, folder, formats)]
    return pictures + (draw_training(found.scales, folder, run_folder, formats) if run_folder else [])


def title_of(sets: Sequence[Attended]) -> str:
    """What the images of these sets are called together."""
    return sets[0].name if len(sets) == 1 else f"all {len(sets)} generators"


def images_once(sets: Sequence[Attended]) -> tuple[NDArray, NDArray]:
    """Weights [N, S] and labels [N] of the images of all sets, each once, also where generators share real images."""
    once = first_of_each(sets)
    weights, labels = np.concatenate([one.weights for one in sets]), np.concatenate([one.labels for one in sets])
    return weights[once], labels[once]


def draw_distribution(
    sets: Sequence[Attended], scales: Sequence[float], folder: Path, formats: Sequence[str] = ()
) -> Picture:
    """attention_distribution.png: box and violin of all images of the sets, each once."""
    picture = folder / "attention_distribution.png"
    path = plot_attention_distribution(*images_once(sets), scales, picture, title=title_of(sets), formats=formats)
    return Picture(path, "box plot and violin plot of the attention to every scale, real and generated images apart")


def draw_training(
    scales: Sequence[float], folder: Path, run_folder: Path, formats: Sequence[str] = ()
) -> list[Picture]:
    """attention_training.png: attention on the validation images after every epoch; none where the run's folder has no such log.

    Runs logged by earlier versions have it for a fixed batch of them only, by step. Epochs whose figures are not finite are
    left out.
    """
    try:
        logged = {tag: dict(values) for tag, values in read_scalars(run_folder / "val").items()}
    except OSError as error:
        log.warning("no picture of attention during training: %s", error)
        return []
    keys = scale_keys(tuple(scales))
    for images, time, what in ((VALIDATION, "epoch", "the validation images"), (FIXED, "step", "a fixed batch")):
        tags = [f"{images}/{name}_{key}" for name in ("mean", "std") for key in keys]
        columns = [logged.get(tag, {}) for tag in (f"{images}/entropy", *tags)]
        times = logged.get("epoch", {}) if time == "epoch" else {step: float(step) for step in columns[0]}
        history: dict[float, Any] = {}
        for step in sorted(set.intersection(set(times), *map(set, columns))):
            entropy, *moments = (column[step] for column in columns)
            if np.isfinite([entropy, *moments]).all():
                history[times[step]] = moments[: len(keys)], moments[len(keys) :], entropy
        if history:
            picture = folder / "attention_training.png"
            path = plot_attention_training(history, scales, picture, time, formats=formats)
            return [Picture(path, f"attention on {what} during training")]
    return []
