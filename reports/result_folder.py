"""The folder that a test run leaves: scores, figures, tables, pictures, and one page that shows all
of it."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.degradations import ROBUSTNESS
from data.folders import folder_name
from data.image_sets import unique_names
from evaluation.attention.findings import AttentionFindings, findings_of_run
from evaluation.metrics import LABELS
from evaluation.names import escaped, unescaped
from evaluation.result_files import TestRun, read_document
from reports.attention_tables import attention_sections, write_findings
from reports.html import Card, Cell, Page, Picture, Section, Table, TableRow, plain_rows
from reports.tables import (
    LEGEND,
    Row,
    defined,
    latex_tables,
    left_out_rows,
    markdown_tables,
    pooled_row,
    protocol_name,
    remarks,
    robustness_tables,
    shown,
    suite_tables,
    text_report,
    write_csv,
)
from util import UserError, log, writable_folder

SAME_RUN = (
    "checkpoint_sha256",
    "dataroot",
    "protocol",
    "classes",
    "precision",
    "equalize",
    "grid",
    "bootstrap",
)
"""Parts of the head that agree between two runs of one test, which may then overwrite each other.
"""


def write_artefacts(
    run: TestRun, results_dir: Path, dataroot: Path, formats: Sequence[str] = ()
) -> Path:
    """Write `<model>_<dataset>/` and, beside it, `<model>_<dataset>.txt`; another run's results are
    not overwritten.

    The folder is made under another name and takes its place when it is complete.

    Args:
        formats: of every figure, see `reports.plots.style.save`.

    Returns:
        The folder. The same checkpoint, data and settings (see `SAME_RUN`) write to the same place
        again; otherwise the suite goes into the name, and if that is taken too, a number.

    Raises:
        UserError: the folder cannot be made or written.
    """
    writable_folder(results_dir)
    folder = _free_folder(run, results_dir, dataroot)
    unfinished, old = (
        folder.with_name(f".{folder.name}.{state}") for state in ("unfinished", "old")
    )
    try:
        for leftover in (unfinished, old):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        write_derived(run, unfinished, folder.name, formats)
        run.write_data(unfinished)
        if folder.exists():
            folder.rename(old)
        unfinished.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.copyfile(folder / f"{folder.name}.txt", results_dir / f"{folder.name}.txt")
    except OSError as error:
        raise UserError(
            f"--results_dir {results_dir}: cannot write there ({error.strerror})"
        ) from None
    return folder


def write_derived(run: TestRun, folder: Path, name: str, formats: Sequence[str] = ()) -> None:
    """What follows from the scores: <name>.txt, tables.md, tables.tex, tables.csv, attention's
    files, pictures and report.html.

    The picture of attention during training is the only one that needs more: the log beside the
    checkpoint; left out without it.
    """
    (folder / f"{name}.txt").write_text(text_report(run), encoding="utf-8")
    (folder / "tables.md").write_text(markdown_tables(run), encoding="utf-8")
    (folder / "tables.tex").write_text(latex_tables(run), encoding="utf-8")
    write_csv(run, folder / "tables.csv")
    attention = findings_of_run(run)
    if attention:
        write_findings(attention, folder)
    page = report_page(run, draw(run, folder, attention, formats), name, attention)
    (folder / "report.html").write_text(page.render(), encoding="utf-8")


def draw(
    run: TestRun,
    folder: Path,
    attention: AttentionFindings | None = None,
    formats: Sequence[str] = (),
) -> list[Picture]:
    """ROC curves, score histograms and, if there are, attention and the robustness grid; none,
    saying so, without matplotlib."""
    try:
        from reports.attention_page import draw_attention
        from reports.plots.scores import plot_robustness, plot_roc, plot_score_histograms
    except ImportError as error:
        log.warning("no pictures: %s", error)
        return []

    names = unique_names(run.sets)
    sets = {names[scored.key]: (scored.labels, scored.scores) for scored in run.sets}
    both = [scored.key for scored in run.sets if run.summary.metrics[scored.key].auc is not None]
    pictures = []
    if both:
        roc = plot_roc(sets, folder / "roc.png", formats=formats)
        pictures.append(
            Picture(
                roc, "ROC curve of each set, with linear and with logarithmic false-positive rate"
            )
        )
    threshold = run.head["threshold"]
    histograms = plot_score_histograms(
        sets, folder / "scores.png", threshold=threshold, formats=formats
    )
    pictures.append(
        Picture(histograms, "histograms of the scores of real and generated images of each set")
    )
    if run.robustness:
        metric = "auc" if both else "acc"
        keys = both or [scored.key for scored in run.sets]
        values = {
            names[key]: {
                condition: summary.sets[key].values[metric] if key in summary.sets else None
                for condition, summary in run.robustness_summaries.items()
            }
            for key in keys
        }
        families = {family: list(conditions.items()) for family, conditions in ROBUSTNESS.items()}
        target = folder / "robustness.png"
        curves = plot_robustness(values, families, target, metric=LABELS[metric], formats=formats)
        pictures.append(Picture(curves, f"{LABELS[metric]} of each set under growing degradations"))
    if attention:
        checkpoint = run.head["model"].get("path")
        run_folder = Path(unescaped(checkpoint)).parent if checkpoint else None
        pictures += draw_attention(attention, folder, run_folder, formats)
    return pictures


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


def _free_folder(run: TestRun, results_dir: Path, dataroot: Path) -> Path:
    model, dataset, suites = (
        run.name,
        escaped(folder_name(dataroot)),
        {scored.suite for scored in run.sets},
    )
    candidates = [f"{model}_{dataset}"]
    if len(run.sets) == 1 and suites - {"", dataset}:
        candidates.append(f"{model}_{suites.pop()}_{dataset}")
    candidates += [f"{model}_{dataset}_{number}" for number in range(2, 10_000)]
    for name in candidates:
        if _is_free(run, results_dir / name):
            if name != candidates[0]:
                log.info("%s holds another run's results: writing to %s", candidates[0], name)
            return results_dir / name
    raise UserError(f"--results_dir {results_dir}: too many results named {candidates[0]}")


def _is_free(run: TestRun, folder: Path) -> bool:
    """True if nothing is there, or results of the same checkpoint, data and settings."""
    if not folder.exists():
        return not folder.with_name(folder.name + ".txt").exists()
    try:
        old = read_document(folder)
    except UserError:
        return False
    return all(old.get(key) == run.head[key] for key in SAME_RUN)
