"""Tables of a test run: for the terminal and the .txt file, as Markdown, LaTeX and CSV."""

import csv
from pathlib import Path
from typing import Any

from data.benchmarks import SUITES
from data.image_sets import unique_names
from evaluation.format_leak import is_leak
from evaluation.metrics import LABELS
from evaluation.names import markdown
from evaluation.result_files import TestRun
from evaluation.summary import Estimates, suites_of
from reports.tables import LATEX_PACKAGES, MetricTable, Row, grid, latex_table, protocol_name, shown
from util import atomic_file, counted

BRIEF = ("acc", "real_acc", "fake_acc", "ap", "auc")
WITH_INTERVAL = ("acc", "balanced_acc", "ap", "auc", "eer")
LEGEND = (
    "acc, real acc, fake acc, bal. (balanced) acc: accuracy at 0.5; AP: average precision; "
    "AUC: area under the ROC curve; "
    "EER: equal error rate; TPR@1%, TPR@5%: generated images found at that rate of false alarms; "
    "ECE: expected calibration error (15 bins); Brier: mean squared error of the score; "
    "acc@val: accuracy at the threshold chosen on validation data. "
    "Mean: over the sets with both classes; all images together: "
    "each file once, also where sets share it."
)


def suite_tables(run: TestRun) -> list[MetricTable]:
    """Return a table per suite, the published ones first."""
    names, summary = _names(run), run.summary
    protocols, skipped = run.head.get("protocol", {}), run.head.get("left_out", {})
    tables = []
    for suite, sets in suites_of(run.sets).items():
        rows: list[Row] = []
        one_class: list[Row] = []
        for scored in sets:
            key, counts = scored.key, summary.metrics[scored.key]
            row = Row(names[key], counts.n_real, counts.n_fake, summary.sets[key])
            (one_class if counts.auc is None else rows).append(row)
        if rows:
            rows.append(Row("Mean", None, None, summary.suites[suite]))
        rows += one_class
        table = SUITES[suite].table if suite in SUITES else None
        title = " - ".join(filter(None, (table, suite or sets[0].generator)))
        used = sorted({protocol_name(protocols.get(scored.key)) for scored in sets})
        count = sum(skipped.get(scored.key, 0) for scored in sets)
        tables.append(MetricTable(f"{title} (protocol {', '.join(used)})", rows, count))
    return tables


def _names(run: TestRun) -> dict[str, str]:
    """Return a name for each set, by key; it says where a set has one class."""
    metrics, names = run.summary.metrics, unique_names(run.sets)
    classes = {key: "fake" if counts.n_fake else "real" for key, counts in metrics.items()}
    return {
        key: name if metrics[key].auc is not None else f"{name} ({classes[key]} only)"
        for key, name in names.items()
    }


def pooled_table(run: TestRun) -> MetricTable:
    """Return the table of all images of all sets as one set."""
    pooled = run.summary.pooled_metrics
    row = Row("Pooled", pooled.n_real, pooled.n_fake, run.summary.pooled)
    return MetricTable("all images together", [row])


def all_tables(run: TestRun) -> list[MetricTable]:
    """Return the tables of the suites and, for several sets, that of all images together."""
    return suite_tables(run) + ([pooled_table(run)] if len(run.sets) > 1 else [])


def defined(run: TestRun) -> list[str]:
    """Return the metrics that any set of a run has, in the order of `LABELS`."""
    return [
        name
        for name in LABELS
        if any(estimates.values[name] is not None for estimates in run.summary.sets.values())
    ]


def warnings(run: TestRun) -> list[str]:
    """Return the warnings that belong to the metrics."""
    names, messages = unique_names(run.sets), []
    one_class = [names[key] for key, metrics in run.summary.metrics.items() if metrics.auc is None]
    if one_class:
        messages.append(
            "AP, AUC and all that compares the classes are undefined with one class: "
            f"{', '.join(one_class)} (not in the means)"
        )
    counts = {key: (metrics.n_real, metrics.n_fake) for key, metrics in run.summary.metrics.items()}
    leaks = [
        f"{names[key]} (AUC {auc:.2f})"
        for key, auc in run.head.get("format_leak", {}).items()
        if key in counts and is_leak(auc, *counts[key])
    ]
    if leaks:
        listed = ", ".join(leaks)
        messages.append(f"file format, size and compression alone tell real from fake: {listed}")
    if run.head.get("equalize"):
        messages.append(f"every image was re-encoded before scoring: {run.head['equalize']}")
    if run.head["threshold"] is None:
        messages.append(
            "the checkpoint holds no validation threshold, so there is no accuracy at one"
        )
    return messages


def text_report(run: TestRun) -> str:
    """Return the metrics of all suites, warnings and skipped files as text."""
    parts = [f"model: {run.name}", f"data: {run.head.get('dataroot', '?')}"]
    for table in suite_tables(run):
        parts += ["", f"{table.title}, metrics in %", table.render(BRIEF, "simple")]
    if len(run.sets) > 1:
        pooled = pooled_table(run)
        parts += ["", pooled.title, pooled.render(BRIEF, "simple")]
    for title, columns, rows in robustness_tables(run):
        parts += ["", title, grid(columns, rows)]
    parts += ["", *warnings(run), f"skipped: {_skipped(run)}"]
    parts += [
        f"  {path}: {reason}" for path, reason, condition in skipped_rows(run) if not condition
    ]
    return "\n".join(parts) + "\n"


def _skipped(run: TestRun) -> str:
    return counted(sum("condition" not in file for file in run.head["skipped"]), "file")


def skipped_rows(run: TestRun) -> list[list[str]]:
    """Return [file, reason, degradation] of all files without a score.

    The degradation is '' for a file that has no score without degradation either.
    """
    skipped = run.head["skipped"]
    return [[file["path"], file["reason"], file.get("condition", "")] for file in skipped]


def markdown_tables(run: TestRun) -> str:
    """Return all metrics by suite, the 95 % intervals, robustness and skipped files as Markdown."""
    parts = [f"# {markdown(run.name)}", ""]
    parts += [f"- {markdown(warning)}" for warning in warnings(run)]
    for table in all_tables(run):
        parts += ["", f"## {markdown(table.title)}", "", table.render(defined(run), "pipe")]
        if run.head["bootstrap"]["resamples"]:
            intervals = table.render(WITH_INTERVAL, "pipe", intervals=True)
            parts += ["", "95 % intervals:", "", intervals]
    for title, columns, rows in robustness_tables(run):
        parts += ["", f"## {title}", "", grid(columns, rows, "pipe")]
    parts += [
        "",
        f"In %, ECE and Brier from 0 to 1. {LEGEND}",
        "",
        f"Skipped: {_skipped(run)}.",
        "",
    ]
    if rows := skipped_rows(run):
        parts += [grid(["file", "reason", "only under"], rows, "pipe", text=True), ""]
    return "\n".join(parts)


def latex_tables(run: TestRun) -> str:
    """Return a LaTeX table environment per suite, metrics in % with their 95 % intervals.

    Skipped files are counted under a suite's table, and named in comments at the end.
    """
    parts = [LATEX_PACKAGES]
    ends = " with 95 % intervals" if run.head["bootstrap"]["resamples"] else ""
    for table in all_tables(run):
        tabular = table.render(WITH_INTERVAL, "latex_booktabs", intervals=True)
        note = f"skipped: {counted(table.skipped, 'file')}" if table.skipped else ""
        parts += ["", latex_table(f"{table.title}: {run.name}, in %{ends}", tabular, note)]
    for title, columns, rows in robustness_tables(run):
        tabular = grid(columns, rows, "latex_booktabs")
        parts += ["", latex_table(f"{title}: {run.name}", tabular)]
    parts += ["", f"% skipped: {_skipped(run)}"]
    parts += [f"%   {': '.join(filter(None, row))}" for row in skipped_rows(run)]
    return "\n".join(parts) + "\n"


def robustness_tables(run: TestRun) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, headers and rows of AUC and of accuracy at 0.5 under degradations.

    A line per degradation, a column per set with both classes, then their mean, and columns of sets
    with one class for which the metric is defined. Empty without degradations.
    """
    names, tables = _names(run), []
    both = [key for key, metrics in run.summary.metrics.items() if metrics.auc is not None]
    for metric in ("auc", "acc") if run.robustness else ():
        defined_in = run.summary.sets.items()
        keys = [key for key, means in defined_in if means.values[metric] is not None]
        keys = [*both, *(key for key in keys if key not in both)]
        rows = []
        for condition, summary in run.robustness_summaries.items():
            values = [
                summary.sets[key].values[metric] if key in summary.sets else None for key in keys
            ]
            measured = [value for value in values[: len(both)] if value is not None]
            mean = sum(measured) / len(both) if len(measured) == len(both) > 0 else None
            values.insert(len(both), mean)
            rows.append([condition, *(shown(metric, value) for value in values)])
        if keys:
            columns = ["degradation", *(names[key] for key in keys)]
            columns.insert(1 + len(both), "mean")
            tables.append((f"{LABELS[metric]} in % under degradations", columns, rows))
    return tables


def write_csv(run: TestRun, path: Path) -> None:
    """Write a line per set, per suite and for all images pooled.

    Metrics and the ends of their 95 % intervals are in [0, 1], empty where undefined.
    """
    summary, pooled = run.summary, run.summary.pooled_metrics
    protocols, skipped = run.head.get("protocol", {}), run.head.get("left_out", {})
    lines: list[tuple[list[Any], Estimates]] = []
    for scored in run.sets:
        key, counts = scored.key, summary.metrics[scored.key]
        protocol = protocol_name(protocols.get(key))
        about = ["set", scored.suite, scored.generator, protocol, counts.n_real, counts.n_fake]
        lines.append(([*about, skipped.get(key, "")], summary.sets[key]))
    for suite, means in summary.suites.items():
        lines.append((["suite mean", suite, "", "", "", "", ""], means))
    count = sum("condition" not in file for file in run.head["skipped"])
    lines.append((["pooled", "", "", "", pooled.n_real, pooled.n_fake, count], summary.pooled))
    columns = ["kind", "suite", "generator", "protocol", "n_real", "n_fake", "left_out"]
    columns += [f"{name}{end}" for name in LABELS for end in ("", "_low", "_high")]
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for about, estimates in lines:
            for name in LABELS:
                ends = estimates.intervals.get(name, (None, None))
                numbers = (estimates.values[name], *ends)
                about += ["" if number is None else repr(number) for number in numbers]
            writer.writerow(about)
