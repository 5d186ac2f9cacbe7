"""The plotting libraries, the style and colours of all plots, and how they are saved.

Figures are made without pyplot: no display is needed, none stays open. Colours are safe for
colour-blind readers (seaborn's "colorblind", viridis); no text is below 8 points. Modules with
plots import matplotlib from here, so that one message says what is missing.
"""

import math
import os
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import matplotlib
    import seaborn
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
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
    "Normalize",
    "Patch",
    "Rectangle",
    "ScalarMappable",
    "Target",
    "left_limit",
    "name_inches",
    "palette",
    "printable",
    "save",
    "scale_labels",
    "seaborn",
]

Target = str | os.PathLike[str]
CLASSES = ("real", "fake")  # by label
CHANCE_LINE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1}
# parse_math off: a "$" in a folder or run name is a character, not the start of a formula; 42:
# fonts that publishers take
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "axes.titlesize": 10,
    "text.parse_math": False,
    "pdf.fonttype": 42,
}
_DRAWING = threading.RLock()  # re-entrant: a drawing function may call another


@contextmanager
def _style() -> Iterator[None]:
    """Draw in this style, one thread at a time: matplotlib's settings belong to the process."""
    with _DRAWING, matplotlib.rc_context(RC):
        yield


STYLE = _style()
"""Decorator of every function that draws."""


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


def printable(text: str) -> str:
    """Return text with "?" for characters without a glyph, as in file names that are not UTF-8."""
    return "".join(character if character.isprintable() else "?" for character in text)


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
