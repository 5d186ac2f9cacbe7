"""Lay out the page of a test run: metrics, plots, protocols and provenance."""

import shlex
from typing import Any

from data.image_sets import unique_names
from evaluation.attention.findings import AttentionFindings
from evaluation.metrics import LABELS
from evaluation.result_files import TestRun
from reports.attention_tables import attention_sections
from reports.html import Card, Cell, Page, Picture, Section, Table, TableRow, plain_rows
from reports.result_tables import (
    LEGEND,
    defined,
    pooled_table,
    robustness_tables,
    skipped_rows,
    suite_tables,
    warnings,
)
from reports.tables import Row, headers, protocol_name, shown
from util import counted


def report_page(
    run: TestRun, pictures: list[Picture], name: str, attention: AttentionFindings | None = None
) -> Page:
    """Return the page of a run.

    Args:
        run: the test run.
        pictures: its plots.
        name: of its folder.
        attention: findings about the model's attention; None without attention.
    """
    of_attention = [plot for plot in pictures if plot.path.stem.startswith("attention_")]
    robustness = [plot for plot in pictures if plot.path.stem == "robustness"]
    of_scores = [plot for plot in pictures if plot not in (*of_attention, *robustness)]
    small = "; small: 95 % intervals" if run.head["bootstrap"]["resamples"] else ""
    text = f"In %, ECE and Brier from 0 to 1{small}. {LEGEND}"
    sections = [
        Section("Metrics", text, _metric_tables(run)),
        Section("Scores", pictures=of_scores),
    ]
    if attention:
        sections += attention_sections(attention, of_attention)
    if run.robustness:
        tables = [
            Table(columns, plain_rows(rows), title)
            for title, columns, rows in robustness_tables(run)
        ]
        text = "Each degradation is applied in memory before the protocol, to real and fake alike."
        sections.append(Section("Robustness", text, tables, robustness))
    if run.head.get("protocol"):
        text = "Preprocessing of the images of each set."
        sections.append(Section("Protocols", text, [_protocol_table(run)]))
    if skipped := skipped_rows(run):
        table = Table(["file", "reason", "only under"], plain_rows(skipped), prose=True)
        text = f"{counted(len(skipped), 'image')} without a score."
        sections.append(Section("Skipped", text, [table]))
    command = (
        "# every number again, from the scores alone:\n"
        f"python -m tools.recompute {shlex.quote(name)}"
    )
    sections.append(Section("Provenance", tables=[_facts(run)], code=command))
    data, date = (run.head.get(key, f"unknown {key}") for key in ("dataroot", "date"))
    return Page(f"Test of {run.name}", f"on {data}, {date}", sections, _cards(run), warnings(run))


def _cards(run: TestRun) -> list[Card]:
    pooled, suites = run.summary.pooled_metrics, run.summary.suites
    cards = [
        Card(
            "images",
            f"{pooled.n_real + pooled.n_fake:,}",
            f"{pooled.n_real:,} real, {pooled.n_fake:,} generated",
        ),
        Card("sets", str(len(run.sets)), counted(len(suites), "suite")),
    ]
    for name in ("acc", "ap", "auc"):
        means = [mean for suite in suites.values() if (mean := suite.values[name]) is not None]
        if means:
            about = "macro mean of the suite" if len(means) == 1 else f"mean of {len(means)} suites"
            cards.append(Card(LABELS[name], shown(name, sum(means) / len(means)), about))
    cards.append(Card("AUC, all images", shown("auc", pooled.auc), "pooled"))
    return cards


def _metric_tables(run: TestRun) -> list[Table]:
    metrics = defined(run)
    tables = []
    for table in (*suite_tables(run), pooled_table(run)):
        rows = [_table_row(row, metrics, strong=row.n_real is None) for row in table.rows]
        tables.append(Table(headers(metrics), rows, table.title))
    return tables


def _table_row(row: Row, metrics: list[str], strong: bool) -> TableRow:
    cells = []
    texts = row.cells(metrics)
    for name, text in zip(["", "", "", *metrics], texts, strict=True):
        ends = row.estimates.intervals.get(name)
        cells.append(Cell(text, f"{shown(name, ends[0])} – {shown(name, ends[1])}" if ends else ""))
    return TableRow(cells, strong)


def _protocol_table(run: TestRun) -> Table:
    names, leaks = unique_names(run.sets), run.head.get("format_leak", {})
    rows = []
    for key, protocol in run.head["protocol"].items():
        resize, crop, leak = protocol["resize"], protocol["crop"], leaks.get(key)
        tiled = ", tiled" if protocol["tile"] else ""
        rows.append(
            [
                names.get(key, key),
                protocol_name(protocol),
                f"{resize}x{resize}" if resize else "native",
                f"{crop}{tiled}" if crop else "none",
                "-" if leak is None else f"{leak:.2f}",
            ]
        )
    columns = ["generator", "protocol", "resize", "crop", "AUC of file formats alone"]
    return Table(columns, plain_rows(rows))


def _facts(run: TestRun) -> Table:
    """Return the table of the model, the settings and the libraries, from metrics.json."""
    head, model = run.head, run.head["model"]
    scales = ", ".join(f"{scale:g}" for scale in model.get("scales", []))
    kind, backbone = model.get("model_type", "?"), model.get("backbone", "?")
    versions = [f"{name} {version}" for name, version in head.get("versions", {}).items()]
    bootstrap = "{resamples} bootstrap resamples, {method}, seed {seed}".format(**head["bootstrap"])
    facts: list[tuple[str, Any]] = [
        ("checkpoint", model.get("path")),
        ("sha256", head.get("checkpoint_sha256")),
        ("model", f"{kind}, scales {scales or '?'}, backbone {backbone}"),
        ("finished epochs", model.get("epoch")),
        ("validation threshold", None if head["threshold"] is None else f"{head['threshold']:.4f}"),
        ("precision", head.get("precision")),
        ("equalised", head.get("equalize") or "no"),
        ("command", head.get("command")),
        ("intervals", bootstrap),
        ("versions", ", ".join(versions)),
    ]
    rows = [[name, "unknown" if value is None else str(value)] for name, value in facts]
    return Table(["", ""], plain_rows(rows), prose=True)
