"""A picture of a video's scores over time; what all pictures share is in `reports.plots.style`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Figure,
    Target,
    array,
    palette,
    save,
    scale_labels,
)

MARKED = 60
"""Frames up to which each has a point; more would be a band of points."""


@STYLE
def plot_video(
    times: Any,
    probabilities: Any,
    median: float,
    mean: float,
    save_path: Target,
    cut: float = 0.5,
    band: tuple[float, float] | None = None,
    attention: Any = None,
    scales: Sequence[float] = (),
    title: str = "",
    duration: float | None = None,
    formats: Sequence[str] = (),
) -> Path:
    """Probability of "generated" of every frame over time, with that of the video; below, the
    attention of the scales.

    Args:
        times: [N] seconds, rising. probabilities: [N] in [0, 1].
        median, mean: probabilities in [0, 1] that follow from the median and the mean of the
            frames' logits.
        cut: where the dashed line parts real from generated; not drawn with a band.
        band: probabilities between which the verdict is "unsure", shaded and named; None:
            uncalibrated, which the axis says.
        attention: [N, S] in [0, 1], or None: no such panel. scales: [S].
        duration: seconds, the end of the axis; None: at the last frame.
        formats: see `reports.plots.style.save`.
    """
    times = array(times, "times", (None,))
    probabilities = array(probabilities, "probabilities", (len(times),), unit=True)
    if (np.diff(times) <= 0).any():
        raise ValueError("times do not rise")
    weights = (
        None
        if attention is None
        else array(attention, "attention", (len(times), len(scales)), unit=True)
    )
    marker = {"marker": "o", "markersize": 4} if len(times) <= MARKED else {}
    panels = 1 if weights is None else 2
    figure = Figure(figsize=(10, 0.7 + 2.7 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    _draw_probabilities(axes[0], times, probabilities, (median, mean), band, cut, marker)
    if weights is not None:
        _draw_attention(axes[1], times, weights, scale_labels(scales), marker)
    for one in axes:
        one.set(ylim=(-0.03, 1.03))
        one.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9)
    end = max(times[-1], times[-1] if duration is None else duration)
    pad = 0.02 * (end - min(0, times[0])) or 0.5
    axes[-1].set(xlabel="seconds since the first frame", xlim=(min(0, times[0]) - pad, end + pad))
    return save(figure, save_path, title, formats)


def _draw_probabilities(
    axes: Axes,
    times: np.ndarray,
    probabilities: np.ndarray,
    lines: tuple[float, float],
    band: tuple[float, float] | None,
    cut: float,
    marker: dict[str, Any],
) -> None:
    """The upper panel, in colours that the lower one hardly has."""
    colours = palette(10)[3:]
    axes.plot(
        times, probabilities, color="0.3", linewidth=1, label="each frame", zorder=4, **marker
    )
    for name, value, colour, style in zip(
        ("median", "mean"), lines, colours, ("-", "--"), strict=False
    ):
        label = f"{name} of all: {value:.3f}"
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.8, label=label, zorder=3)
    if band is None:
        axes.axhline(cut, label=f"generated above {cut:g}", zorder=1, **CHANCE_LINE)
    else:
        label = f"unsure: {band[0]:.3g} to {band[1]:.3g}"
        axes.axhspan(max(0.0, band[0]), min(1.0, band[1]), color="0.9", label=label, zorder=0)
    axes.set_ylabel("probability of “generated”" if band else "score (uncalibrated)")


def _draw_attention(
    axes: Axes, times: np.ndarray, weights: np.ndarray, names: Sequence[str], marker: dict[str, Any]
) -> None:
    """The lower panel: a line for each scale."""
    for name, colour, of_scale in zip(names, palette(len(names)), weights.T, strict=True):
        label = f"{name}, mean {of_scale.mean():.2f}"
        axes.plot(times, of_scale, color=colour, linewidth=1, label=label, **marker)
    axes.axhline(1 / len(names), label="all alike", zorder=1, **CHANCE_LINE)
    axes.set_ylabel("attention of the scale")
