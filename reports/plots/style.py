"""The plotting libraries, the style and colours of all plots, and how they are saved.

Figures are made without pyplot: no display is needed, none stays open. Colours are safe for
colour-blind readers (seaborn's "colorblind", viridis); no text is below 8 points. Modules with
plots import matplotlib from here, so that one message says what is missing.
"""

import math
import os
import re
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

try:
    import matplotlib
    import seaborn
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.textpath import text_to_path
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "plots need matplotlib and seaborn: pip install -r requirements.txt"
    ) from error

from networks.npr import scale_keys, scale_label
from util import atomic_file

__all__ = [
    "CHANCE_LINE",
    "CLASSES",
    "STYLE",
    "Axes",
    "Figure",
    "Line2D",
    "MaxNLocator",
    "Normalize",
    "Page",
    "Patch",
    "Rectangle",
    "ScalarMappable",
    "Target",
    "array",
    "ink",
    "label_array",
    "left_limit",
    "legend_fit",
    "name_inches",
    "palette",
    "printable",
    "save",
    "scale_labels",
    "seaborn",
    "text_inches",
    "wrapped",
]

Target = str | os.PathLike[str]
CLASSES = ("real", "fake")  # by label
CHANCE_LINE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1}
# parse_math off: a "$" in a folder or run name is a character, not the start of a formula; 42:
# fonts that publishers take
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "text.parse_math": False,
    "pdf.fonttype": 42,
}
_DRAWING = threading.RLock()  # re-entrant: a drawing function may call another


@contextmanager
def _style() -> Iterator[None]:
    """Draw in this style, one thread at a time: matplotlib's settings belong to the process."""
    with (
        _DRAWING,
        matplotlib.rc_context(RC | {"axes.spines.top": False, "axes.spines.right": False}),
    ):
        yield


STYLE = _style()
"""Decorator of every function that draws."""


def array(values: Any, name: str, shape: tuple[int | None, ...], unit: bool = False) -> np.ndarray:
    """`values` as float64 of `shape` (None: any positive length), finite and, with `unit`, in [0,
    1]."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()  # NumPy knows no bfloat16
    array = np.asarray(values, dtype=float)
    fits = array.ndim == len(shape) and all(
        n in (want, None) if want else n > 0 for n, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(
            f"{name} has shape {list(array.shape)}, expected [{expected}] and not empty"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")
    if unit and (array.min() < -1e-3 or array.max() > 1 + 1e-3):
        raise ValueError(
            f"{name} spans {array.min():.3g} to {array.max():.3g}, expected values in 0..1"
        )
    return array


def label_array(labels: Any, name: str, count: int | None = None) -> np.ndarray:
    """`labels` as integers [count], each 0 (real) or 1 (fake)."""
    checked = array(labels, name, (count,))
    if not np.isin(checked, (0, 1)).all():
        raise ValueError(f"{name} must be 0 (real) or 1 (fake)")
    return checked.astype(int)


def palette(count: int) -> list[Any]:
    """Return distinct colours for up to ten, and steps of one colour scale for more."""
    return list(seaborn.color_palette("colorblind" if count <= 10 else "viridis", count))


def scale_labels(scales: Sequence[float]) -> list[str]:
    """Return names of the scales: '0.25x', and '0.25x #2' where 0.25 is repeated."""
    return [scale_label(key) for key in scale_keys(tuple(map(float, scales)))]


def left_limit(smallest: float) -> float:
    """Return the start of an axis that shows `smallest` and chance: a multiple of 0.05 in
    [0, 0.45]."""
    return max(0.0, min(0.45, math.floor(smallest * 20) / 20 - 0.05))


def ink(colour: Any) -> str:
    """Black or white, whichever has more contrast on `colour` (WCAG 2.1, relative luminance)."""
    return "black" if seaborn.utils.relative_luminance(colour) > 0.179 else "white"


def printable(text: str) -> str:
    """Return text with "?" for characters without a glyph, as in file names that are not UTF-8."""
    return "".join(character if character.isprintable() else "?" for character in text)


def text_inches(texts: Iterable[str], points: float = 10) -> float:
    """Width of the widest text, in inches."""
    font = FontProperties(size=points)
    sizes = [
        text_to_path.get_text_width_height_descent(printable(text) or " ", font, False)
        for text in texts
    ]
    return max(width for width, _, _ in sizes) / 72


def wrapped(text: str, inches: float, points: float = 10) -> str:
    """`text`, printable, on lines at most `inches` wide; they end after a space, "/", "_" or "-"
    where they can."""
    lines = [""]
    for piece in re.findall(r"[^\s/_-]+[\s/_-]?|[\s/_-]", printable(" ".join(text.split()))):
        if lines[-1] and text_inches([lines[-1] + piece.rstrip()], points) > inches:
            lines.append("")
        for character in piece:
            if lines[-1] and text_inches([(lines[-1] + character).rstrip()], points) > inches:
                lines.append("")
            lines[-1] += character
    return "\n".join(line.strip() for line in lines)


def legend_fit(texts: Iterable[str], width: float, points: float = 10) -> tuple[float, int, float]:
    """Inches of width that a legend needs (`width` or more), its columns and the inches of its
    height."""
    # each text has a line or a patch before it and a gap after it
    entries = np.array([text_inches([text], points) + 0.09 * points for text in texts])
    width = max(width, entries.max() + 0.2)
    for columns in range(len(entries), 0, -1):
        # as matplotlib splits
        if sum(column.max() for column in np.array_split(entries, columns)) <= width - 0.2:
            break
    return width, columns, 0.25 + 0.0215 * points * math.ceil(len(entries) / columns)


class Page:
    """A figure whose parts are placed by inches from its left and its top, under a title."""

    def __init__(self, width: float, height: float, title: str) -> None:
        """height: without the title."""
        text = wrapped(title, width - 0.3, 12)
        self.top = 0.12 + (0.22 * (text.count("\n") + 1) if title else 0)
        self.width, self.height = width, height + self.top
        self.figure = Figure(figsize=(self.width, self.height))
        if title:
            self.figure.suptitle(text, fontsize=12, y=1 - 0.06 / self.height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A panel; `left` and `top` from the corner below the title, all in inches."""
        top += self.top
        place = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(place)

    def text(self, x: float, y: float, text: str, points: float = 10, **look: Any) -> None:
        """`x` and `y` as in `axes`; `look` is matplotlib's."""
        self.figure.text(
            x / self.width, 1 - (y + self.top) / self.height, text, fontsize=points, **look
        )


def name_inches(names: Iterable[str]) -> float:
    """Return the rough width of names beside a plot; the layout makes up for the difference."""
    return 0.085 * max(map(len, names))


def save(figure: Figure, save_path: Target, title: str = "", formats: Sequence[str] = ()) -> Path:
    """Write the figure at 150 dpi, under its title, and return the (first) path.

    Args:
        figure: the figure.
        save_path: where to, PNG without a suffix; its folder is made.
        title: of the whole figure.
        formats: several files in place of one, such as ("png", "pdf"); their suffixes replace that
            of `save_path`.

    Raises:
        OSError: it cannot be written; an earlier file stays.
    """
    if title:
        # at 12 points a character takes about a tenth of an inch
        text = textwrap.fill(printable(title), round(10 * figure.get_figwidth()))
        figure.suptitle(text, fontsize=12)
    path = Path(save_path)
    suffixes = [f".{name.removeprefix('.')}" for name in formats] or [path.suffix or ".png"]
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, dict[str, Any]] = {
        # half the time of 6 for residuals, and hardly larger
        ".png": {"pil_kwargs": {"compress_level": 4}},
        # the same figure makes the same file
        ".pdf": {"metadata": {"CreationDate": None}},
    }
    for suffix in suffixes:
        kind = suffix.lower()
        with atomic_file(path.with_suffix(suffix), "wb") as file:
            figure.savefig(file, format=kind[1:], dpi=150, **options.get(kind, {}))
        figure.set_layout_engine("none")  # what follows is laid out alike
    return path.with_suffix(suffixes[0])
