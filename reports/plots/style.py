"""The plotting libraries, the style and colours of all plots, and how they are saved.

Figures are made without pyplot: no display is needed, none stays open. Colours are safe for
colour-blind readers (seaborn's "colorblind", viridis); no text is below 8 points. Modules with
plots import matplotlib from here, so that one message says what is missing.
"""

import math
import os
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

try:
    import matplotlib
    import seaborn
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.text import Text
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
_USED_FAMILIES: list[str] = []  # of fonts beside the default one
_DRAWING = threading.RLock()  # re-entrant: a drawing function may call another


@contextmanager
def _style() -> Iterator[None]:
    """Draw in this style, one thread at a time: matplotlib's settings belong to the process."""
    with _DRAWING, matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    """Return text with codes for characters that no installed font has, and "?" for bytes of file
    names that are not UTF-8."""
    return "".join(
        "?" if not char.isprintable() else char if _family(char) is not None else ascii(char)[1:-1]
        for char in text
    )


@cache
def _family(character: str) -> str | None:
    """Return the font family that draws a character, "" for the default, None if none has it."""
    if _default_font().get_char_index(ord(character)):
        return ""
    family = _other_families().get(ord(character))
    if family is not None and family not in _USED_FAMILIES:
        _USED_FAMILIES.append(family)
    return family


@cache
def _default_font() -> FT2Font:
    return FT2Font(findfont(FontProperties()))


@cache
def _other_families() -> dict[int, str]:
    """Return an installed font's family for each character, upright regular sans serif first."""

    def order(font: FontEntry) -> tuple[Any, ...]:
        regular = str(font.weight) in ("400", "normal", "regular")
        return font.style != "normal", not regular, "Sans" not in font.name, font.name

    families: dict[int, str] = {}
    names = {""}
    for font in sorted(fontManager.ttflist, key=order):
        # the last resort has a box for every character
        if font.name not in names and not font.name.startswith("Last Resort"):
            names.add(font.name)
            with suppress(OSError, RuntimeError):
                for code in FT2Font(font.fname).get_charmap():
                    families.setdefault(code, font.name)
    return families


def name_inches(names: Iterable[str]) -> float:
    """Return the rough width of names beside a plot; the layout makes up for the difference."""
    return 0.085 * max(sum(1 + _is_wide(char) for char in name) for name in names)


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


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
    texts: list[Any] = figure.findobj(Text) if _USED_FAMILIES else []
    for label in texts:
        label.set_fontfamily([*label.get_fontfamily(), *_USED_FAMILIES])
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
