"""Render tables and numbers for the terminal, Markdown and LaTeX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from evaluation.metrics import LABELS
from evaluation.names import markdown
from evaluation.summary import Estimates

UNIT_SCALE = ("ece", "brier")  # shown from 0 to 1; other metrics in per cent
LATEX_PACKAGES = r"% needs \usepackage{booktabs}"


def grid(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], style: str = "simple", text: bool = False
) -> str:
    """Return a table as text.

    Args:
        headers: of the columns.
        rows: cells, printable on one line; what the style itself understands is escaped here.
        style: 'simple' for the terminal, 'pipe' for Markdown, 'latex_booktabs'.
        text: align all columns to the left; else all but the first hold numbers.
    """
    if style == "pipe":
        headers = [markdown(header) for header in headers]
        rows = [[markdown(str(cell)) for cell in row] for row in rows]
    align = ["left"] + ["left" if text else "right"] * (len(headers) - 1)
    # disable_numparse: a generator may be called 1e3
    table = tabulate(rows, headers, style, colalign=align, disable_numparse=True)
    if style.startswith("latex"):
        # after the \\ of a row, a name that begins so would be taken for its options
        table = re.sub(r"^(\s*)(?=[\[*])", r"\1{}", table, flags=re.MULTILINE)
        table = table.replace("±", r"$\pm$")
    return table


def latex_table(caption: str, tabular: str, note: str = "") -> str:
    """Return a tabular in a table environment, see `LATEX_PACKAGES`.

    Args:
        caption: plain text.
        tabular: of `grid`.
        note: LaTeX in small print below.
    """
    # tabulate escapes a cell; the caption is escaped alike
    cell = tabulate([[caption]], tablefmt="latex", disable_numparse=True).splitlines()[2]
    escaped_caption = cell.strip().removesuffix(r"\\").strip().replace("±", r"$\pm$")
    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{escaped_caption}}}", tabular]
    if note:
        lines.append(rf"\par\smallskip{{\footnotesize {note}}}")
    return "\n".join([*lines, r"\end{table}"])


def shown(name: str, value: float | None) -> str:
    """Return a metric as tables show it, '-' if it is undefined."""
    if value is None:
        return "-"
    return f"{value:.3f}" if name in UNIT_SCALE else f"{100 * value:.1f}"


def protocol_name(protocol: dict[str, Any] | None) -> str:
    """Return name and version of a set's preprocessing, 'resize256 v1'; '?' if unknown."""
    return "?" if protocol is None else f"{protocol['name']} v{protocol['version']}"


@dataclass(frozen=True)
class Row:
    """A line of a table; the numbers of images are None for a mean."""

    name: str
    n_real: int | None
    n_fake: int | None
    estimates: Estimates

    def cells(self, metrics: Sequence[str], intervals: bool = False) -> list[str]:
        """Return name, numbers of images and these metrics, such as '97.5 [96.1, 98.6]'."""
        counts = ["" if count is None else str(count) for count in (self.n_real, self.n_fake)]
        cells = [self.name, *counts]
        for metric in metrics:
            text = shown(metric, self.estimates.values[metric])
            if intervals and (ends := self.estimates.intervals.get(metric)):
                text += f" [{shown(metric, ends[0])}, {shown(metric, ends[1])}]"
            cells.append(text)
        return cells


@dataclass(frozen=True)
class MetricTable:
    """The sets of a suite, the macro mean of those with both classes, then those with one.

    Args:
        title: with the published table and the protocol.
        rows: a line per set.
        skipped: number of files of these sets without a score.
    """

    title: str
    rows: list[Row]
    skipped: int = 0

    def render(self, metrics: Sequence[str], style: str, intervals: bool = False) -> str:
        """Return the table as text, with 95 % intervals on request; `style` as for `grid`."""
        return grid(headers(metrics), [row.cells(metrics, intervals) for row in self.rows], style)


def headers(metrics: Sequence[str]) -> list[str]:
    """Return the headings of the columns of `Row.cells`."""
    return ["generator", "real", "fake", *(LABELS[name] for name in metrics)]
