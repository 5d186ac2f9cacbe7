"""Tables of a test run: for the terminal and the .txt file, as Markdown, LaTeX and CSV."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from data.benchmarks import SUITES
from data.image_sets import unique_names
from evaluation.format_leak import is_leak
from evaluation.metrics import LABELS
from evaluation.names import markdown
from evaluation.result_files import TestRun
from evaluation.summary import Estimates, suites_of
from util import atomic_file

BRIEF = ("acc", "real_acc", "fake_acc", "ap", "auc")
WITH_INTERVAL = ("acc", "balanced_acc", "ap", "auc", "eer")
UNIT_SCALE = ("ece", "brier")
"""Estimates that are shown as they are; the others are shown in per cent."""
LATEX_PACKAGES = r"% needs \usepackage{booktabs} and \usepackage{graphicx}"
LEGEND = (
    "acc, real acc, fake acc, bal. (balanced) acc: accuracy at 0.5; AP: average precision; AUC: area under the ROC curve; "
    "EER: equal error rate; TPR@1%, TPR@5%: generated images found at that rate of false alarms; "
    "ECE: expected calibration error (15 bins); Brier: mean squared error of the score; "
    "acc@val: accuracy at the threshold chosen on validation data. Mean: over the sets that have the figure; all images together: "
    "each file once, also where sets share it."
)


@dataclass(frozen=True)
class Row:
    """One line of a table; images are None where they mean nothing (a mean)."""

    name: str
    n_real: int | None
    n_fake: int | None
    figures: Estimates


@dataclass(frozen=True)
class SuiteTable:
    """The sets of a suite, and their macro mean last; the title names the published table and the
    protocol."""

    title: str
    rows: list[Row]
    left_out: int = 0  # files of these sets without a score


def suite_tables(run: TestRun) -> list[SuiteTable]:
    """A table per suite, the published ones first."""
    names, summary = unique_names(run.sets), run.summary
    tables = []
    for suite, sets in suites_of(run.sets).items():
        rows = [
            Row(
                names[s.key],
                summary.metrics[s.key].n_real,
                summary.metrics[s.key].n_fake,
                summary.sets[s.key],
            )
            for s in sets
        ]
        rows.append(Row("Mean", None, None, summary.suites[suite]))
        table = SUITES[suite].table if suite in SUITES else None
        title = " - ".join(filter(None, (table, suite or sets[0].generator)))
        protocols = sorted({protocol_name(run, scored.key) for scored in sets})
        left_out = sum(run.head.get("left_out", {}).get(scored.key, 0) for scored in sets)
        tables.append(SuiteTable(f"{title} (protocol {', '.join(protocols)})", rows, left_out))
    return tables


def protocol_name(run: TestRun, key: str) -> str:
    """Name and version of the preprocessing of a set, 'resize256 v1'; '?' where scores came alone."""
    protocol = run.head.get("protocol", {}).get(key)
    return f"{protocol['name']} v{protocol.get('version', 1)}" if protocol else "?"


def pooled_row(run: TestRun) -> Row:
    """All images of all sets as one set."""
    pooled = run.summary.pooled_metrics
    return Row("Pooled", pooled.n_real, pooled.n_fake, run.summary.pooled)


def shown(name: str, value: float | None) -> str:
    """A figure as tables show it, '-' where it is undefined."""
    if value is None:
        return "-"
    return f"{value:.3f}" if name in UNIT_SCALE else f"{100 * value:.1f}"


def shown_interval(name: str, figures: Estimates) -> str:
    """'97.5 [96.1, 98.6]', without brackets where there is no interval."""
    value, ends = shown(name, figures.values[name]), figures.intervals.get(name)
    return value if ends is None else f"{value} [{shown(name, ends[0])}, {shown(name, ends[1])}]"


def defined(run: TestRun) -> list[str]:
    """The figures that any set of a run has, in the order of `LABELS`."""
    return [
        name
        for name in LABELS
        if any(f.values[name] is not None for f in run.summary.sets.values())
    ]


def remarks(run: TestRun) -> list[str]:
    """What a reader must know beside the figures."""
    names, found = unique_names(run.sets), []
    one_class = [names[key] for key, metrics in run.summary.metrics.items() if metrics.auc is None]
    if one_class:
        found.append(
            f"AP, AUC and all that compares the classes are undefined with one class: {', '.join(one_class)}"
        )
    counts = {key: (metrics.n_real, metrics.n_fake) for key, metrics in run.summary.metrics.items()}
    leaks = {
        k: auc
        for k, auc in run.head.get("format_leak", {}).items()
        if k in counts and is_leak(auc, *counts[k])
    }
    if leaks:
        listed = ", ".join(f"{names[key]} (AUC {auc:.2f})" for key, auc in leaks.items())
        found.append(f"file format, size and compression alone tell real from fake: {listed}")
    if run.head.get("equalize"):
        found.append(f"every picture was re-encoded before scoring: {run.head['equalize']}")
    if run.head["threshold"] is None:
        found.append("the checkpoint holds no validation threshold, so there is no accuracy at one")
    return found


def text_report(run: TestRun) -> str:
    """The figures of all suites, what was tested how, and what was left out."""
    parts = [f"model: {run.name}", f"data: {run.head.get('dataroot', '?')}"]
    for table in suite_tables(run):
        parts += ["", f"{table.title}, figures in %", _grid(table.rows, BRIEF, "simple")]
    if len(run.sets) > 1:
        parts += ["", "all images together", _grid([pooled_row(run)], BRIEF, "simple")]
    for title, headers, body in robustness_tables(run):
        parts += ["", title, tabulate(body, headers, "simple", disable_numparse=True)]
    parts += ["", *remarks(run), f"left out: {_left_out(run)} files"]
    parts += [
        f"  {one['path']}: {one['reason']}" for one in run.head["skipped"] if "condition" not in one
    ]
    return "\n".join(parts) + "\n"


def _left_out(run: TestRun) -> int:
    return sum("condition" not in one for one in run.head["skipped"])


def left_out_rows(run: TestRun) -> list[list[str]]:
    """Rows [file, reason, degradation or ''] of all files without a score; the degradation is named
    where it alone has none."""
    return [[one["path"], one["reason"], one.get("condition", "")] for one in run.head["skipped"]]


def _grid(rows: Sequence[Row], names: Sequence[str], style: str, intervals: bool = False) -> str:
    """A table of rows in one of tabulate's styles; names are harmless already, but for what a style
    itself understands."""
    clean = markdown if style == "pipe" else str
    cell = shown_interval if intervals else lambda name, figures: shown(name, figures.values[name])
    table = [
        [
            clean(row.name),
            *("" if n is None else n for n in (row.n_real, row.n_fake)),
            *(cell(n, row.figures) for n in names),
        ]
        for row in rows
    ]
    headers = ["generator", "real", "fake", *(LABELS[name] for name in names)]
    align = ["left"] + ["right"] * (len(headers) - 1)
    # disable_numparse: a generator may be called 1e3
    return tabulate(table, headers, style, colalign=align, disable_numparse=True)


def markdown_tables(run: TestRun) -> str:
    """All figures by suite, then those with 95 % intervals; under degradations, where they were
    tried."""
    parts = [f"# {markdown(run.name)}", ""]
    parts += [f"- {markdown(remark)}" for remark in remarks(run)]
    for table in suite_tables(run):
        parts += ["", f"## {markdown(table.title)}", "", _grid(table.rows, defined(run), "pipe")]
        if run.head["bootstrap"]["resamples"]:
            parts += [
                "",
                "95 % intervals:",
                "",
                _grid(table.rows, WITH_INTERVAL, "pipe", intervals=True),
            ]
    if len(run.sets) > 1:
        parts += ["", "## All images together", "", _grid([pooled_row(run)], defined(run), "pipe")]
        if run.head["bootstrap"]["resamples"]:
            parts += [
                "",
                "95 % intervals:",
                "",
                _grid([pooled_row(run)], WITH_INTERVAL, "pipe", intervals=True),
            ]
    for title, headers, body in robustness_tables(run):
        grid = tabulate(
            body, [markdown(header) for header in headers], "pipe", disable_numparse=True
        )
        parts += ["", f"## {title}", "", grid]
    parts += [
        "",
        f"In %, ECE and Brier from 0 to 1. {LEGEND}",
        "",
        f"Left out: {_left_out(run)} files.",
        "",
    ]
    if rows := [[markdown(cell) for cell in row] for row in left_out_rows(run)]:
        parts += [
            tabulate(rows, ["file", "reason", "only under"], "pipe", disable_numparse=True),
            "",
        ]
    return "\n".join(parts)


def latex_tables(run: TestRun) -> str:
    r"""A `table` environment per suite, see `LATEX_PACKAGES`; figures in % with their 95 % intervals.

    How many files were left out stands under a suite's table, and which, in comments at the end.
    """
    parts = [LATEX_PACKAGES]
    together = [SuiteTable("all images together", [pooled_row(run)])] if len(run.sets) > 1 else []
    ends = " with 95 % intervals" if run.head["bootstrap"]["resamples"] else ""
    for table in [*suite_tables(run), *together]:
        grid = _grid(table.rows, WITH_INTERVAL, "latex_booktabs", intervals=True)
        note = f"left out: {table.left_out} files" if table.left_out else ""
        parts += ["", latex_table(f"{table.title}: {run.name}, in %{ends}", grid, note)]
    for title, headers, body in robustness_tables(run):
        grid = tabulate(body, headers, "latex_booktabs", disable_numparse=True)
        parts += ["", latex_table(f"{title}: {run.name}", grid)]
    parts += ["", f"% left out: {_left_out(run)} files"]
    parts += [f"%   {': '.join(filter(None, row))}" for row in left_out_rows(run)]
    return "\n".join(parts) + "\n"


def latex_table(caption: str, grid: str, note: str = "") -> str:
    """A table environment around a tabular; the caption is escaped as tabulate escapes a cell, the
    tabular made harmless.

    Args:
        note: stands small below, as LaTeX.
    """
    cell = tabulate([[caption]], tablefmt="latex", disable_numparse=True).splitlines()[2]
    text = cell.strip().removesuffix(r"\\").strip()
    # after the \\ of a row, a name that begins so would be taken for its options
    grid = re.sub(r"^(\s*)(?=[\[*])", r"\1{}", grid, flags=re.MULTILINE)
    # no wider than the page, and not enlarged to it
    fitted = [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%", grid + "}"]
    below = [rf"\par\smallskip{{\footnotesize {note}}}"] if note else []
    return "\n".join(
        [r"\begin{table}", r"\centering", rf"\caption{{{text}}}", *fitted, *below, r"\end{table}"]
    )


def robustness_tables(run: TestRun) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, headers and rows of AUC and of accuracy at 0.5: a degradation down, the sets across,
    then their mean.

    Sets for which the figure is undefined are left out; empty without degradations.
    """
    names, tables = unique_names(run.sets), []
    for metric in ("auc", "acc") if run.robustness else ():
        keys = [
            scored.key
            for scored in run.sets
            if run.summary.sets[scored.key].values[metric] is not None
        ]
        body = []
        for condition, summary in run.robustness_summaries.items():
            values = [
                summary.sets[key].values[metric] if key in summary.sets else None for key in keys
            ]
            measured = [value for value in values if value is not None]
            mean = sum(measured) / len(measured) if len(measured) == len(keys) > 0 else None
            body.append(
                [condition, *(shown(metric, value) for value in values), shown(metric, mean)]
            )
        if keys:
            headers = ["degradation", *(names[key] for key in keys), "mean"]
            tables.append((f"{LABELS[metric]} in % under degradations", headers, body))
    return tables


def write_csv(run: TestRun, path: Path) -> None:
    """One line per set, suite and all images pooled; figures and ends of their 95 % intervals in
    [0, 1], empty if undefined."""
    headers = [f"{name}{end}" for name in LABELS for end in ("", "_low", "_high")]
    summary, pooled = run.summary, run.summary.pooled_metrics
    lines: list[tuple[list[Any], Estimates]] = []
    for scored in run.sets:
        counts, protocol = summary.metrics[scored.key], protocol_name(run, scored.key)
        left_out = run.head.get("left_out", {}).get(scored.key, "")
        about = [
            "set",
            scored.suite,
            scored.generator,
            protocol,
            counts.n_real,
            counts.n_fake,
            left_out,
        ]
        lines.append((about, summary.sets[scored.key]))
    lines += [
        (["suite mean", suite, "", "", "", "", ""], figures)
        for suite, figures in summary.suites.items()
    ]
    lines.append(
        (["pooled", "", "", "", pooled.n_real, pooled.n_fake, _left_out(run)], summary.pooled)
    )
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["kind", "suite", "generator", "protocol", "n_real", "n_fake", "left_out", *headers]
        )
        for about, figures in lines:
            numbers = [
                n
                for name in LABELS
                for n in (figures.values[name], *figures.intervals.get(name, (None, None)))
            ]
            writer.writerow(
                [*about, *("" if number is None else repr(number) for number in numbers)]
            )
