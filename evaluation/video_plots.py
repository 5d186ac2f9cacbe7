"""A picture of a video's scores over time; what all pictures share is in `evaluation.plotting`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.plotting import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Figure,
    Target,
    array,
    legend_fit,
    palette,
    save,
    scale_labels,
)

MARKED = 60
"""Frames up to which each has a point; more would be a band of points."""
WIDTH = 9.0


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
    """Probability of "generated" of every frame over time, with that of the video; below, the attention of the scales.

    Args:
        times: [N] seconds, rising. probabilities: [N] in [0, 1].
        median, mean: probabilities in [0, 1] that follow from the median and the mean of the frames' logits.
        cut: where the dashed line parts real from generated; not drawn with a band.
        band: probabilities between which the verdict is "unsure", shaded and named; None: uncalibrated, which the axis says.
        attention: [N, S] in [0, 1], or None: no such panel. scales: [S].
        duration: seconds, the end of the axis; None: at the last frame.
        formats: see `evaluation.plotting.save`.
    """
    times = array(times, "times", (None,))
    probabilities = array(probabilities, "probabilities", (len(times),), unit=True)
    if (np.diff(times) <= 0).any():
        raise ValueError("times do not rise")
    weights = None if attention is None else array(attention, "attention", (len(times), len(scales)), unit=True)
    marker = {"marker": "o", "markersize": 4} if len(times) <= MARKED else {}
    names = [f"median of all frames {median:.3f}", f"mean of all frames {mean:.3f}", "a frame"]
    names += [f"unsure: {band[0]:.3g} to {band[1]:.3g}"] if band else [f"real below, generated above {cut:g}"]
    width, columns, legend = legend_fit(names, WIDTH)
    panels = 1 if weights is None else 2
    figure = Figure(figsize=(width, legend + 2.9 + (2.6 if panels == 2 else 0)), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    handles = _draw_probabilities(axes[0], times, probabilities, (median, mean), band, cut, marker, names)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    if weights is not None:
        _draw_attention(axes[1], times, weights, scale_labels(scales), marker)
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
    names: Sequence[str],
) -> list[Any]:
    """The upper panel; returns what belongs into the legend."""
    colours = palette(3)
    handles: list[Any] = [
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.5, label=name)
        for value, colour, style, name in zip(lines, colours[1:], ("-", "-."), names, strict=False)
    ]
    handles += axes.plot(times, probabilities, color=colours[0], linewidth=1, label=names[2], zorder=3, **marker)
    if band is None:
        handles.append(axes.axhline(cut, label=names[3], zorder=1, **CHANCE_LINE))
    else:
        low, high = max(0.0, band[0]), min(1.0, band[1])
        handles.append(axes.axhspan(low, high, color="0.88", label=names[3], zorder=0))
    kind = "probability" if band else "score, uncalibrated,"
    axes.set(ylim=(-0.03, 1.03), ylabel=f"{kind} of\n“generated”")
    return handles


def _draw_attention(
    axes: Axes, times: np.ndarray, weights: np.ndarray, names: Sequence[str], marker: dict[str, Any]
) -> None:
    """The lower panel: a line for each scale, named with its mean at the right."""
    for name, colour, of_scale in zip(names, palette(len(names)), weights.T, strict=True):
        label = f"{name}, mean {of_scale.mean():.2f}"
        axes.plot(times, of_scale, color=colour, linewidth=1, label=label, **marker)
    axes.axhline(1 / len(names), label="all alike", zorder=1, **CHANCE_LINE)
    axes.set(ylim=(-0.03, 1.03), ylabel="attention of scale")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
