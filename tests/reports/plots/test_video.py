"""The plot of a video: its axes show the given numbers, and every text can be read."""

import numpy as np
import pytest

from reports.plots.video import plot_video
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures


@pytest.mark.parametrize(
    ("count", "band", "scales"), [(1, None, ()), (80, (0.2, 1.2), (0.25, 0.5))]
)
def test_plot_shows_every_frame(
    draw: Draw, count: int, band: tuple[float, float] | None, scales: tuple[float, ...]
) -> None:
    rng, times = np.random.default_rng(0), np.arange(count) * 0.5
    values, attention = rng.random(count), rng.dirichlet(np.ones(2), count) if scales else None
    title = "a video's $name that is rather long " * 5
    figure = draw(
        plot_video, times, values, 0.3, 0.4, band=band, attention=attention, scales=scales,
        title=title, duration=200.0,
    )  # fmt: skip
    upper, *lower = figure.axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    limits = "unsure: 0.2 to 1.2" if band else "generated above 0.5"
    assert labels == ["each frame", "median of all: 0.300", "mean of all: 0.400", limits]
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), values)
    assert upper.get_xlim()[1] > 200 and ("not calibrated" in upper.get_ylabel()) == (band is None)
    weights = [line.get_ydata() for axes in lower for line in axes.lines[:2]]
    np.testing.assert_array_equal(weights, [] if attention is None else attention.T)
