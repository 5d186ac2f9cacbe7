"""Render one self-contained HTML page from sections of tables and images.

The page needs neither network nor scripts. All text is escaped.
"""

import base64
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image


@dataclass(frozen=True)
class Cell:
    """A table cell, with a note in small print below it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class TableRow:
    """Cells of a row; `strong` for a row in bold, such as a mean."""

    cells: Sequence[Cell]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `prose` for columns of text rather than numbers."""

    headers: Sequence[str]
    rows: Sequence[TableRow]
    title: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Picture:
    """An image file that becomes part of the page; `alt` describes it."""

    path: Path
    alt: str

    @property
    def width(self) -> int:
        """Return the width in CSS pixels (96 to the inch) that keeps the drawn size of text."""
        with Image.open(self.path) as image:
            return round(96 * image.width / image.info.get("dpi", (96, 96))[0])

    @property
    def source(self) -> str:
        """Return the file as a data URL."""
        kind = mimetypes.guess_type(self.path.name)[0] or "image/png"
        return f"data:{kind};base64,{base64.b64encode(self.path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `code` is shown as it is."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""

    @property
    def id(self) -> str:
        """Return the anchor that links to the section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Card:
    """A number in large print at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """The content of a report, in its order; `remarks` are the warnings below the cards."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    cards: Sequence[Card] = ()
    remarks: Sequence[str] = ()

    def render(self) -> str:
        """Return the page as HTML."""
        folder = Path(__file__).parent / "templates"
        environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        return environment.get_template("report.html").render(vars(self))


def plain_rows(rows: Sequence[Sequence[str]]) -> list[TableRow]:
    """Return rows of text as table rows."""
    return [TableRow([Cell(text) for text in row]) for row in rows]
