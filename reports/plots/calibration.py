"""The reliability diagram of a calibration; what all pictures share is in `reports.plots.style`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.calibration import Mix, Reliability, share_of_label
from networks.calibration import Calibration
from reports.plots.style import (
    CHANCE_LINE,
    STYLE,
    Axes,
    Figure,
    Line2D,
    Patch,
    Target,
    legend_fit,
    palette,
    save,
)


@STYLE
def plot_reliability(
    panels: Mapping[str, Reliability],
    mix: Mix,
    save_path: Target,
    calibration: Calibration | None = None,
    title: str = "",
    formats: Sequence[str] = (),
) -> Path:
    """Reliability diagrams (DeGroot and Fienberg, The Statistician 1983), side by side, each over
    its histogram.

    A point is a bin: the mean probability of its images and the share of them that is generated,
    with its 95 % interval; a calibrated detector's lie on the diagonal. Below, how many real and
    generated images each bin has.

    Args:
        panels: {name: bins}. calibration: of the last panel, whose threshold and band are drawn.
            formats: see `plotting.save`.

    Returns:
        The (first) file.
    """
    if not panels:
        raise ValueError("panels is empty: expected {name: Reliability}")
    real, fake = palette(2)
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color="black",
            marker="o",
            linestyle="none",
            label="images of a bin, 95 % interval",
        ),
        Line2D([], [], label="calibrated", **CHANCE_LINE),
        Patch(color=real, label="real images"),
        Patch(color=fake, label="generated images"),
    ]
    if calibration is not None:
        handles.append(
            Line2D([], [], color="black", linestyle=":", linewidth=1.5, label="threshold")
        )
        handles.append(Patch(facecolor="0.85", label="unsure"))
    width, columns, below = legend_fit(
        [handle.get_label() for handle in handles], 3.9 * len(panels) + 0.5
    )
    figure = Figure(figsize=(width, 5.4 + below), layout="constrained")
    grid = figure.subplots(
        2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]
    )
    for (above, counts), (name, bins) in zip(grid.T, panels.items(), strict=True):
        _draw_bins(above, bins, mix)
        above.set_title(f"{name}: ECE {bins.ece:.3f}")
        for height, bottom, colour in ((bins.n_real, 0, real), (bins.n_fake, bins.n_real, fake)):
            counts.bar(
                bins.edges[:-1], height, np.diff(bins.edges), bottom, align="edge", color=colour
            )
        counts.set_xlabel("probability of generated")
    if calibration is not None:
        for axes in grid[:, -1]:
            shaded = np.clip([calibration.lower, calibration.upper], 0, 1)
            axes.axvspan(*shaded, color="0.85", linewidth=0, zorder=0)
            axes.axvline(
                calibration.threshold, color="black", linestyle=":", linewidth=1.5, zorder=1
            )
    of_all = "" if mix.prior == 0.5 else f" (of all: {100 * mix.prior:.3g} %)"
    grid[0, 0].set_ylabel(f"share that is generated{of_all}")
    grid[1, 0].set_ylabel("images")
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return save(figure, save_path, title, formats)


def _draw_bins(axes: Axes, bins: Reliability, mix: Mix) -> None:
    shares = [
        share_of_label(int(n_fake), int(n_fake + n_real), mix, 1)
        for n_real, n_fake in zip(bins.n_real, bins.n_fake, strict=True)
    ]
    for mean, share in zip(bins.mean, shares, strict=True):
        if share.value is not None and share.low is not None and share.high is not None:
            axes.plot([mean, mean], [share.low, share.high], color="0.45", linewidth=1.2, zorder=2)
            axes.plot(mean, share.value, color="black", marker="o", markersize=5, zorder=3)
    axes.plot([0, 1], [0, 1], zorder=1, **CHANCE_LINE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xticks(np.linspace(0, 1, 6))
