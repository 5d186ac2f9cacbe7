"""Render tables and numbers for the terminal, Markdown and LaTeX."""

import re
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

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


def shown_interval(name: str, estimates: Estimates) -> str:
    """Return a metric with its interval as text, such as '97.5 [96.1, 98.6]'."""
    value, ends = shown(name, estimates.values[name]), estimates.intervals.get(name)
    return value if ends is None else f"{value} [{shown(name, ends[0])}, {shown(name, ends[1])}]"


def protocol_name(protocol: dict[str, Any] | None) -> str:
    """Return name and version of a set's preprocessing, 'resize256 v1'; '?' if unknown."""
    return "?" if protocol is None else f"{protocol['name']} v{protocol['version']}"
