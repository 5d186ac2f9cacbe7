"""Write the folder of a test run: scores, metrics and tables first, then plots and the page."""

from collections.abc import Sequence
from pathlib import Path

from data.folders import folder_name
from evaluation.attention.findings import AttentionFindings, findings_of_run
from evaluation.names import escaped
from evaluation.result_files import TestRun, read_document
from reports.attention_tables import write_findings
from reports.result_page import report_page
from reports.result_plots import draw_plots
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
    """Draw the plots of a run into its folder and write report.html, which holds them.

    The plot of attention during training also needs the training log beside the checkpoint. It is
    skipped without that log.
    """
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
