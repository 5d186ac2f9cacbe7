"""Pictures of differences: what their axes show, that every text is readable, and that bad input is
refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from reports.plots import differences as difference_plots
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures


def names(count: int) -> list[str]:
    return [
        f"UniversalFakeDetect/a_generator_with_a_long_name_{i}" if i % 3 else f"gan_{i}"
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 12, 38])
def test_changes_stand_beside_zero(draw: Draw, count: int) -> None:
    rng = np.random.default_rng(0)
    given = {
        f"without the scale {name}": (float(v), v - 0.5, v + 0.7)
        for name, v in zip(names(count), rng.normal(size=count), strict=True)
    }
    figure = draw(difference_plots.plot_control_changes, given, title="a model")
    (axes,) = figure.axes
    *lines, zero = axes.lines
    assert set(zero.get_xdata()) == {0}
    assert [text.get_text() for text in axes.get_yticklabels()] == list(given)
    for row, (value, low, high) in enumerate(given.values()):
        np.testing.assert_allclose(lines[2 * row].get_xydata(), [[low, row], [high, row]])
        np.testing.assert_allclose(lines[2 * row + 1].get_xydata(), [[value, row]])
        hollow = to_rgb(lines[2 * row + 1].get_markerfacecolor()) == (1, 1, 1)
        assert hollow == (low <= 0 <= high)
    written = [text.get_text() for text in figure.texts][-count:]
    assert written == [f"{v:+.2f}  [{low:+.2f}, {high:+.2f}]" for v, low, high in given.values()]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_change_without_an_interval_is_hollow(draw: Draw, nothing: float | None) -> None:
    figure = draw(
        difference_plots.plot_control_changes,
        {"uniform": (-1.5, nothing, nothing), "shuffled": (0, -1, 1)},
    )
    assert to_rgb(figure.axes[0].lines[1].get_markerfacecolor()) == (1, 1, 1)
    assert [text.get_text() for text in figure.texts] == ["-1.50", "+0.00  [-1.00, +1.00]"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "changes is empty"),
        ({"a": (1, 2, 1)}, "low <= high"),
        ({"a": (1, 2)}, "low <= high"),
        ({"a": (None, 1, 2)}, "NaN"),
    ],
)
def test_changes_that_do_not_fit_are_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        difference_plots.plot_control_changes(given, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def lengths(table: np.ndarray, order: list[int]) -> float:
    return sum(table[a, b] for a, b in itertools.pairwise(order))


@pytest.mark.parametrize("count", [1, 2, 3, 12, 38])
@pytest.mark.parametrize("marked", [False, True])
def test_matrix_holds_every_distance_once_more_in_its_order(
    draw: Draw, count: int, marked: bool
) -> None:
    places = np.random.default_rng(0).random(count)  # on a line
    table = np.abs(places[:, None] - places)
    significant = table > 0.3
    figure = draw(
        difference_plots.plot_distances,
        table,
        names(count),
        significant=significant if marked else None,
        title="a model",
    )
    axes = figure.axes[0]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == [text.get_text() for text in axes.get_xticklabels()]
    order = [names(count).index(name) for name in shown]
    assert sorted(order) == list(range(count))
    np.testing.assert_allclose(axes.images[0].get_array(), table[np.ix_(order, order)])
    dots = {
        (round(float(line.get_ydata()[0])), round(float(line.get_xdata()[0])))
        for line in axes.lines
    }
    expected = (
        set(zip(*np.nonzero(significant[np.ix_(order, order)]), strict=True)) if marked else set()
    )
    assert dots == expected
    if count <= 3:
        assert order == list(range(count))
    # generators on a line are put in their order there, or nearly: a tree cannot always be laid out
    # so
    else:
        assert lengths(table, order) < 2 * np.ptp(places) < lengths(table, list(range(count)))
    cells = [text.get_text() for text in axes.texts]
    ordered = table[np.ix_(order, order)].ravel()
    assert cells == (["0" if d == 0 else f"{d:.3f}"[1:] for d in ordered] if count <= 12 else [])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distances": [[0, 0.1], [0.2, 0]]}, "not symmetric"),
        ({"distances": [[0.1, 0.1], [0.1, 0]]}, "zeros on its diagonal"),
        ({"distances": [[0, 0.1]]}, r"shape \[1, 2\], expected \[2, 2\]"),
        ({"significant": [True, False]}, r"significant has shape \[2\]"),
    ],
)
def test_distances_that_do_not_fit_are_refused(changed: dict, message: str, tmp_path: Path) -> None:
    arguments = {"distances": [[0, 0.1], [0.1, 0]], "names": ["a", "b"]} | changed
    with pytest.raises(ValueError, match=message):
        difference_plots.plot_distances(**arguments, save_path=tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
