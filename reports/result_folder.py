"""Write the folder of a test run: scores, metrics and tables first, then plots and the page."""

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
from reports.attention_plots import draw_attention
from reports.attention_tables import write_findings
from reports.drawing import Drawer
from reports.html import Picture
from reports.result_page import report_page
from reports.result_tables import latex_tables, markdown_tables, text_report, write_csv
from util import UserError, atomic_file, atomic_folder, log, writable_folder

# parts of metrics.json that are equal in two runs of one test; the later replaces the earlier
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


def write_results(
    run: TestRun, results_dir: Path, dataroot: Path, formats: Sequence[str] = ()
) -> Path:
    """Log the metrics, write `<model>_<dataset>/` and, beside it, `<model>_<dataset>.txt`.

    The folder appears when its scores, metrics and tables are complete. Plots and page are added
    to it afterwards, so that a failure there does not cost the numbers.

    Args:
        run: the test run.
        results_dir: parent of the folder.
        dataroot: folder of the tested images, for the name.
        formats: of every plot, see `reports.plots.style.save`.

    Returns:
        The folder. It replaces earlier results of the same checkpoint, data and settings
        (`SAME_RUN`). Other results stay: the name gets the suite and, if that is taken, a number.

    Raises:
        UserError: the folder cannot be written.
    """
    log.info("\n%s", text_report(run))
    writable_folder(results_dir)
    folder = _free_folder(run, results_dir, dataroot)
    attention = findings_of_run(run)
    try:
        with atomic_folder(folder) as unfinished:
            write_data(run, unfinished, folder.name, attention)
        with atomic_file(results_dir / f"{folder.name}.txt") as file:
            file.write(text_report(run))
        write_report(run, folder, folder.name, attention, formats)
    except OSError as error:
        raise UserError(
            f"--results_dir {results_dir}: cannot write there ({error.strerror})"
        ) from None
    log.info("written: %s", folder / "report.html")
    return folder


def write_data(
    run: TestRun, folder: Path, name: str, attention: AttentionFindings | None = None
) -> None:
    """Write the numbers of a run: scores, tables, attention's files and, last, metrics.json.

    Args:
        run: the test run.
        folder: an existing folder.
        name: of the text file, without its suffix.
        attention: `findings_of_run`.
    """
    texts = {
        f"{name}.txt": text_report(run),
        "tables.md": markdown_tables(run),
        "tables.tex": latex_tables(run),
    }
    for file_name, text in texts.items():
        with atomic_file(folder / file_name) as file:
            file.write(text)
    write_csv(run, folder / "tables.csv")
    if attention:
        write_findings(attention, folder)
    run.write_data(folder)


def write_report(
    run: TestRun,
    folder: Path,
    name: str,
    attention: AttentionFindings | None = None,
    formats: Sequence[str] = (),
) -> None:
    """Draw the plots of a run into its folder and write report.html, which holds them."""
    pictures = draw_plots(run, folder, attention, formats)
    page = report_page(run, pictures, name, attention).render()
    with atomic_file(folder / "report.html") as file:
        file.write(page)


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
                log.info("%s holds results of another run, so writing to %s", candidates[0], name)
            return results_dir / name
    raise UserError(
        f"--results_dir {results_dir}: too many results named {candidates[0]}; pass another"
    )


def _is_free(run: TestRun, folder: Path) -> bool:
    """Return True for a missing folder, or results of the same checkpoint, data and settings."""
    if not folder.exists():
        return not folder.with_name(folder.name + ".txt").exists()
    try:
        old = read_document(folder)
    except UserError:
        return False
    return all(old.get(key) == run.head[key] for key in SAME_RUN)


def draw_plots(
    run: TestRun,
    folder: Path,
    attention: AttentionFindings | None = None,
    formats: Sequence[str] = (),
) -> list[Picture]:
    """Draw ROC curves, score histograms, robustness and attention, as far as the run has them.

    A plot that cannot be drawn is skipped with a warning, because the metrics are written already.

    Args:
        run: the test run.
        folder: of the plots.
        attention: findings about the model's attention; None without attention.
        formats: of every plot, see `reports.plots.style.save`.
    """
    draw = Drawer()
    pictures: list[Picture] = []
    for plot in (_roc, _histograms, _robustness):
        pictures += draw(plot, run, folder, formats) or []
    if attention is not None:
        checkpoint = run.head["model"].get("path")
        run_folder = Path(unescaped(checkpoint)).parent if checkpoint else None
        pictures += draw_attention(draw, attention, folder, run_folder, formats)
    return pictures


def _roc(run: TestRun, folder: Path, formats: Sequence[str]) -> list[Picture]:
    if not _with_both_classes(run):
        return []
    from reports.plots.scores import plot_roc

    path = plot_roc(_labels_and_scores(run), folder / "roc.png", formats=formats)
    about = "ROC curve of each set, with linear and with logarithmic false-positive rate"
    return [Picture(path, about)]


def _histograms(run: TestRun, folder: Path, formats: Sequence[str]) -> list[Picture]:
    from reports.plots.scores import plot_score_histograms

    path = plot_score_histograms(
        _labels_and_scores(run),
        folder / "scores.png",
        threshold=run.head["threshold"],
        formats=formats,
    )
    return [Picture(path, "histograms of the scores of real and generated images of each set")]


def _robustness(run: TestRun, folder: Path, formats: Sequence[str]) -> list[Picture]:
    if not run.robustness:
        return []
    from reports.plots.scores import plot_robustness

    both, names = _with_both_classes(run), unique_names(run.sets)
    metric = "auc" if both else "acc"
    values = {
        names[key]: {
            condition: summary.sets[key].values[metric] if key in summary.sets else None
            for condition, summary in run.robustness_summaries.items()
        }
        for key in both or names
    }
    path = plot_robustness(
        values,
        {family: list(conditions.items()) for family, conditions in ROBUSTNESS.items()},
        folder / "robustness.png",
        metric=LABELS[metric],
        formats=formats,
    )
    return [Picture(path, f"{LABELS[metric]} of each set under growing degradations")]


def _labels_and_scores(run: TestRun) -> dict[str, Any]:
    names = unique_names(run.sets)
    return {names[scored.key]: (scored.labels, scored.scores) for scored in run.sets}


def _with_both_classes(run: TestRun) -> list[str]:
    """Return the keys of the sets that have real and generated images."""
    return [key for key, metrics in run.summary.metrics.items() if metrics.auc is not None]
