"""Draw the reliability diagram of a calibration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.calibration import Measured
from evaluation.reliability import Reliability
from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Figure,
    Line2D,
    Patch,
    Target,
    palette,
    save,
)


@STYLE
def plot_reliability(
    measured: Measured, save_path: Target, title: str = "", formats: Sequence[str] = ()
) -> Path:
    """Draw reliability diagrams (DeGroot and Fienberg, The Statistician 1983), before and after.

    A point is a bin: the mean probability of its images against the share of generated ones, with
    its 95 % confidence interval. Points of a calibrated detector lie on the diagonal. Histograms
    below count the real and generated images of each bin. Threshold and unsure band are drawn after
    calibration.

    Args:
        measured: numbers to draw.
        save_path: file to write.
        title: heading of the figure.
        formats: see `reports.plots.style.save`.

    Returns:
        The file; the first of several formats.
    """
    real, fake = palette(2)
    figure = Figure(figsize=(8.3, 6.2), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1])
    panels = {"before": measured.before, "after": measured.after}
    for (points, histogram), (name, values) in zip(grid.T, panels.items(), strict=True):
        _draw_bins(points, values)
        points.set_title(f"{name}: ECE {values.ece:.3f}")
        starts = [bin_.start for bin_ in values.bins]
        widths = [bin_.end - bin_.start for bin_ in values.bins]
        n_real = [bin_.n_real for bin_ in values.bins]
        n_fake = [bin_.n_fake for bin_ in values.bins]
        histogram.bar(starts, n_real, widths, align="edge", color=real)
        histogram.bar(starts, n_fake, widths, n_real, align="edge", color=fake)
        histogram.set_xlabel("probability of generated")
    calibration = measured.calibration
    band = np.clip([calibration.lower, calibration.upper], 0, 1)
    for axes in grid[:, 1]:
        axes.axvspan(*band, color="0.85", linewidth=0, zorder=0)
        axes.axvline(calibration.threshold, color="black", linestyle=":", linewidth=1.5, zorder=1)
    grid[0, 0].set_ylabel("share of generated images")
    grid[1, 0].set_ylabel("images")
    bin_label = "bin, 95 % confidence interval"
    handles = [
        Line2D([], [], color="black", marker="o", linestyle="none", label=bin_label),
        Line2D([], [], label="calibrated", **CHANCE_LINE),
        Line2D([], [], color="black", linestyle=":", linewidth=1.5, label="threshold"),
        Patch(color=real, label="real images"),
        Patch(color=fake, label="generated images"),
        Patch(facecolor="0.85", label="unsure"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return save(figure, save_path, title, formats)


def _draw_bins(axes: Axes, values: Reliability) -> None:
    filled = [bin_ for bin_ in values.bins if bin_.mean is not None]
    means = np.array([bin_.mean for bin_ in filled])
    low, share, high = np.array(
        [(bin_.generated.low, bin_.generated.value, bin_.generated.high) for bin_ in filled]
    ).T
    spread = (share - low, high - share)
    axes.errorbar(means, share, spread, fmt="o", color="black", ecolor="0.45", markersize=5)
    axes.plot([0, 1], [0, 1], zorder=1, **CHANCE_LINE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
