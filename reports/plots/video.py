"""Plot of a video's scores over time."""

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
    palette,
    save,
    scale_labels,
)

MARKED = 60  # frames up to which each has a marker; more would form a band


@STYLE
def plot_video(
    times: Sequence[float],
    probabilities: Sequence[float],
    median: float,
    mean: float,
    save_path: Target,
    cut: float = 0.5,
    band: tuple[float, float] | None = None,
    attention: Sequence[Sequence[float] | None] | None = None,
    scales: Sequence[float] = (),
    title: str = "",
    duration: float | None = None,
    formats: Sequence[str] = (),
) -> Path:
    """Draw the probability of "generated" of each frame over time, and the attention below.

    Args:
        times: [N] seconds, rising.
        probabilities: [N] in [0, 1].
        median: probability of the median of the frames' logits.
        mean: probability of the mean of the frames' logits.
        save_path: file to write.
        cut: score above which a frame is generated; drawn without a band only.
        band: probabilities between which the verdict is "unsure"; None: not calibrated.
        attention: [N, S] in [0, 1], None for a model with one scale.
        scales: [S].
        title: heading of the figure.
        duration: end of the axis in seconds; None: the last frame.
        formats: of the files.

    Returns:
        The (first) file.
    """
    marker = {"marker": "o", "markersize": 4} if len(times) <= MARKED else {}
    panels = 1 if attention is None else 2
    figure = Figure(figsize=(10, 0.7 + 2.7 * panels), layout="constrained")
    upper, *lower = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    upper.plot(times, probabilities, color="0.3", linewidth=1, label="each frame", **marker)
    _draw_levels(upper, {"median": median, "mean": mean}, cut, band)
    for axes in lower:
        _draw_attention(axes, times, np.asarray(attention), scale_labels(scales), marker)
    for axes in (upper, *lower):
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9)
    start, end = min(0, times[0]), max(times[-1], duration or 0)
    pad = 0.02 * (end - start) or 0.5
    figure.axes[-1].set(xlabel="seconds since the first frame", xlim=(start - pad, end + pad))
    return save(figure, save_path, title, formats)


def _draw_levels(
    axes: Axes, means: dict[str, float], cut: float, band: tuple[float, float] | None
) -> None:
    """Draw horizontal lines at the means of the frames and at the cut, or the unsure band."""
    # colours that the lower panel hardly has
    for (name, value), colour in zip(means.items(), palette(10)[3:5], strict=True):
        axes.axhline(value, color=colour, linewidth=1.8, label=f"{name} of all: {value:.3f}")
    if band is None:
        axes.axhline(cut, label=f"generated above {cut:g}", zorder=1, **CHANCE_LINE)
        axes.set_ylabel("score (not calibrated)")
        return
    low, high = np.clip(band, 0, 1)
    axes.axhspan(low, high, color="0.9", label=f"unsure: {band[0]:.3g} to {band[1]:.3g}", zorder=0)
    axes.set_ylabel("probability of “generated”")


def _draw_attention(
    axes: Axes, times: Sequence[float], attention: Any, names: Sequence[str], marker: dict[str, Any]
) -> None:
    """Draw a line for each scale; attention is [N, S]."""
    for name, colour, weights in zip(names, palette(len(names)), attention.T, strict=True):
        label = f"{name}, mean {weights.mean():.2f}"
        axes.plot(times, weights, color=colour, linewidth=1, label=label, **marker)
    axes.axhline(1 / len(names), label="uniform", zorder=1, **CHANCE_LINE)
    axes.set_ylabel("attention of the scale")
