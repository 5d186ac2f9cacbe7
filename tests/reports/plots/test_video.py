"""The plot of a video: its axes show the given numbers, and every text can be read."""

import numpy as np
import pytest

from reports.plots.video import plot_video
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
EIGHT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@pytest.mark.parametrize(
    ("count", "band", "scales"), [(1, None, ()), (3, (0.2, 1.2), (0.25, 0.5)), (300, None, EIGHT)]
)
def test_plot_shows_every_frame(
    draw: Draw, count: int, band: tuple[float, float] | None, scales: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(0)
    times, values = np.arange(count) * 0.5, rng.random(count)
    attention = rng.dirichlet(np.ones(len(scales)), count) if scales else None
    figure = draw(
        plot_video,
        times,
        values,
        0.3,
        0.4,
        band=band,
        attention=attention,
        scales=scales,
        title="a video's $name that is rather long " * 5,
        duration=200.0,
    )
    upper, *lower = figure.axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    limits = "unsure: 0.2 to 1.2" if band else "generated above 0.5"
    assert labels == ["each frame", "median of all: 0.300", "mean of all: 0.400", limits]
    np.testing.assert_allclose(upper.lines[0].get_xydata(), np.stack([times, values], axis=1))
    assert [line.get_ydata()[0] for line in upper.lines[1:3]] == [0.3, 0.4]
    assert upper.get_xlim()[1] > 200 and ("not calibrated" in upper.get_ylabel()) == (band is None)
    assert len(lower) == bool(scales)
    for axes in lower:
        weights = [line.get_ydata() for line in axes.lines[: len(scales)]]
        np.testing.assert_allclose(np.transpose(weights), attention)
