"""The page that shows all of a test run: metrics, plots, protocols and provenance."""

import shlex
from typing import Any

from data.image_sets import unique_names
from evaluation.attention.findings import AttentionFindings
from evaluation.metrics import LABELS
from evaluation.result_files import TestRun
from reports.attention_tables import attention_sections
from reports.html import Card, Cell, Page, Picture, Section, Table, TableRow, plain_rows
from reports.tables import (
    LEGEND,
    Row,
    defined,
    left_out_rows,
    pooled_row,
    protocol_name,
    remarks,
    robustness_tables,
    shown,
    suite_tables,
)


def report_page(
    run: TestRun, pictures: list[Picture], name: str, attention: AttentionFindings | None = None
) -> Page:
    """The page that shows all of a run; `name` is that of its folder."""
    head = run.head
    of_attention = [picture for picture in pictures if picture.path.stem.startswith("attention_")]
    pictures = [picture for picture in pictures if picture not in of_attention]
    skipped = left_out_rows(run)
    small = "; small: 95 % intervals" if head["bootstrap"]["resamples"] else ""
    sections = [
        Section(
            "Figures", f"In %, ECE and Brier from 0 to 1{small}. {LEGEND}", _figure_tables(run)
        ),
        Section(
            "Scores",
            "",
            pictures=[picture for picture in pictures if picture.path.stem != "robustness"],
        ),
    ]
    if attention:
        sections += attention_sections(attention, of_attention)
    if run.robustness:
        curves = [picture for picture in pictures if picture.path.stem == "robustness"]
        tables = [
            Table(headers, plain_rows(body), title)
            for title, headers, body in robustness_tables(run)
        ]
        text = "Each degradation is applied in memory before the protocol, to real and generated pictures alike."
        sections.append(Section("Robustness", text, tables, curves))
    if head.get("protocol"):
        sections.append(
            Section(
                "Protocols",
                "How the pictures of each set were preprocessed.",
                [_protocol_table(run)],
            )
        )
    if skipped:
        table = Table(["file", "reason", "only under"], plain_rows(skipped), prose=True)
        sections.append(
            Section("Left out", f"{_counted(len(skipped), 'picture')} without a score.", [table])
        )
    sections.append(
        Section(
            "How it came about",
            "",
            [_facts(run)],
            code=f"# every number again, from the scores alone:\npython -m tools.recompute {shlex.quote(name)}",
        )
    )
    data = head.get("dataroot", "unknown data")
    return Page(
        f"Test of {run.name}",
        f"on {data}, {head.get('date', 'date unknown')}",
        sections,
        _cards(run),
        remarks(run),
    )


def _cards(run: TestRun) -> list[Card]:
    pooled, metrics = run.summary.pooled, run.summary.pooled_metrics
    images = Card(
        "images",
        f"{metrics.n_real + metrics.n_fake:,}",
        f"{metrics.n_real:,} real, {metrics.n_fake:,} generated",
    )
    cards = [images, Card("sets", str(len(run.sets)), _counted(len(run.summary.suites), "suite"))]
    for name in ("acc", "ap", "auc"):
        means = [
            figures.values[name]
            for figures in run.summary.suites.values()
            if figures.values[name] is not None
        ]
        if means:
            suites = (
                "macro mean of the suite" if len(means) == 1 else f"mean of {len(means)} suites"
            )
            cards.append(
                Card(
                    LABELS[name],
                    shown(name, sum(m for m in means if m is not None) / len(means)),
                    suites,
                )
            )
    cards.append(Card("AUC, all images", shown("auc", pooled.values["auc"]), "pooled"))
    return cards


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _figure_tables(run: TestRun) -> list[Table]:
    names = defined(run)
    headers = ["generator", "real", "fake", *(LABELS[name] for name in names)]
    tables = [
        Table(
            headers,
            [_table_row(row, names, row is table.rows[-1]) for row in table.rows],
            table.title,
        )
        for table in suite_tables(run)
    ]
    return [*tables, Table(headers, [_table_row(pooled_row(run), names)], "all images together")]


def _table_row(row: Row, names: list[str], strong: bool = False) -> TableRow:
    cells = [Cell(row.name), *(Cell("" if n is None else str(n)) for n in (row.n_real, row.n_fake))]
    for name in names:
        ends = row.figures.intervals.get(name)
        note = f"{shown(name, ends[0])} – {shown(name, ends[1])}" if ends else ""
        cells.append(Cell(shown(name, row.figures.values[name]), note))
    return TableRow(cells, strong)


def _protocol_table(run: TestRun) -> Table:
    names, leaks = unique_names(run.sets), run.head.get("format_leak", {})
    rows = []
    for key, protocol in run.head["protocol"].items():
        size = f"{protocol['resize']}x{protocol['resize']}" if protocol["resize"] else "native"
        crop = (
            f"{protocol['crop']}{', tiled' if protocol['tile'] else ''}"
            if protocol["crop"]
            else "none"
        )
        leak = leaks.get(key)
        rows.append(
            [
                names.get(key, key),
                protocol_name(run, key),
                size,
                crop,
                "-" if leak is None else f"{leak:.2f}",
            ]
        )
    return Table(
        ["generator", "protocol", "resize", "crop", "AUC of file formats alone"], plain_rows(rows)
    )


def _facts(run: TestRun) -> Table:
    """What metrics.json says about the model, the settings and the libraries."""
    head, model = run.head, run.head["model"]
    scales = ", ".join(f"{scale:g}" for scale in model.get("scales", []))
    facts: list[tuple[str, Any]] = [
        ("checkpoint", model.get("path")),
        ("sha256", head.get("checkpoint_sha256")),
        (
            "model",
            f"{model.get('model_type', '?')}, scales {scales or '?'}, backbone {model.get('backbone', '?')}",
        ),
        ("finished epochs", model.get("epoch")),
        ("validation threshold", None if head["threshold"] is None else f"{head['threshold']:.4f}"),
        ("precision", head.get("precision")),
        ("equalised", head.get("equalize") or "no"),
        ("command", head.get("command")),
        (
            "intervals",
            "{resamples} bootstrap resamples, {method}, seed {seed}".format(**head["bootstrap"]),
        ),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in head.get("versions", {}).items()),
        ),
    ]
    return Table(
        ["", ""],
        plain_rows([[name, "unknown" if value is None else str(value)] for name, value in facts]),
        prose=True,
    )
