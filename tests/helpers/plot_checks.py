"""Helpers of the tests of plots: drawing to a file, and whether every text of the figure can be
read.

A test module takes the fixtures over by name: `texts, draw = plot_checks.texts, plot_checks.draw`.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

Draw = Callable[..., Figure]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[Text, Bbox]:
    """Every text that matplotlib has drawn and the box, in inches, where it was drawn last."""
    drawn: dict[Text, Bbox] = {}
    text_draw = Text.draw

    def record(text: Text, renderer: RendererBase) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn[text] = Bbox(
                text.get_window_extent(renderer).get_points() / text.get_figure(True).dpi
            )
        text_draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    return drawn


@pytest.fixture
def draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[Text, Bbox]
) -> Iterator[Draw]:
    """Call a plot function with a `save_path`, check the file and the texts, and return the saved
    figure."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def record(figure: Figure, *args: object, **kwargs: object) -> None:
        figures.append(figure)
        savefig(figure, *args, **kwargs)

    def call(plot: Callable[..., Path], *args: object, **kwargs: object) -> Figure:
        path = tmp_path / "new" / "folder" / "picture.png"
        texts.clear()
        assert plot(*args, save_path=path, **kwargs) == path
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert 200 <= picture.height <= 4000 and 400 <= picture.width <= 3000
        # nothing unfinished beside it
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert_readable(figures[-1], texts)
        return figures[-1]

    monkeypatch.setattr(Figure, "savefig", record)
    yield call
    assert pyplot.get_fignums() == []


def assert_readable(figure: Figure, texts: dict[Text, Bbox]) -> None:
    """Every text is inside the figure, at least 8 points tall, and over no other text and no other
    panel."""
    width, height = figure.get_size_inches()
    panels = {
        axes: Bbox(axes.get_position().get_points() * [width, height]) for axes in figure.axes
    }
    assert len(texts) > 3, "a figure has labelled axes"
    for text, box in texts.items():
        assert text.get_fontsize() >= 8
        inside = (
            box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
        )
        assert inside, f"{text.get_text()!r} is cut at the edge of the figure"
        for axes, panel in panels.items():
            assert text.axes is axes or not overlap(box, panel), (
                f"{text.get_text()!r} runs into a panel"
            )
    for (one, a), (other, b) in itertools.combinations(texts.items(), 2):
        assert not overlap(a, b), f"{one.get_text()!r} runs into {other.get_text()!r}"


def overlap(a: Bbox, b: Bbox) -> bool:
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 0.01 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.01


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def tick_texts(axis: Axis) -> list[str]:
    return [text.get_text() for text in axis.get_ticklabels()]
