"""Result files of a test run: the table by suite for people, scores as CSV and figures as JSON for programs."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from data.benchmarks import SUITES
from data.layouts import folder_name, unique_names
from evaluation.evaluate import SetResult, pooled_metrics, relative_path
from evaluation.metrics import mean_metrics
from networks.checkpoint import LoadedModel
from networks.factory import MULTISCALE
from networks.npr import scale_keys
from networks.trainer import versions
from options.base_options import CheckpointOptions
from util import UserError, log

SCHEMA = "npr-results/1"
COLUMNS = {"acc": "acc", "real_acc": "real acc", "fake_acc": "fake acc", "ap": "AP", "auc": "AUC"}


def by_suite(results: Sequence[SetResult]) -> dict[str, list[SetResult]]:
    """Results of each suite, the published tables first and in their order."""
    order = list(SUITES)
    suites = sorted({r.images.suite for r in results}, key=lambda s: (order.index(s) if s in order else len(order), s))
    return {suite: [result for result in results if result.images.suite == suite] for suite in suites}


def suite_table(results: Sequence[SetResult], names: dict[str, str]) -> str:
    """One suite's table in per cent, with a mean row; '-' where a figure is undefined."""
    rows: list[list[Any]] = []
    for result in results:
        m = result.metrics
        rows.append([names[result.images.key], m.n_real, m.n_fake, *(_percent(getattr(m, key)) for key in COLUMNS)])
    mean = mean_metrics([result.metrics for result in results])
    rows.append(["Mean", "", "", *(_percent(mean[key]) for key in COLUMNS)])
    return tabulate(rows, ["generator", "real", "fake", *COLUMNS.values()], stralign="right", disable_numparse=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def text_report(loaded: LoadedModel, dataroot: Path, results: Sequence[SetResult]) -> str:
    """The tables of all suites, what was tested how, and what was left out."""
    names = unique_names([result.images for result in results])
    parts = [f"model: {loaded.name} ({loaded.path})", f"data: {dataroot}"]
    for suite, of_suite in by_suite(results).items():
        title = " - ".join(part for part in (of_suite[0].images.table, suite or folder_name(dataroot)) if part)
        protocols = ", ".join(sorted({result.protocol.name for result in of_suite}))
        parts += ["", f"{title} (protocol {protocols}; figures in %)", suite_table(of_suite, names)]
    one_class = [names[r.images.key] for r in results if r.metrics.auc is None]
    if one_class:
        parts += ["", f"AP and AUC are undefined with one class: {', '.join(one_class)}"]
    left_out = {path: why for result in results for path, why in result.predictions.left_out.items()}
    parts += ["", f"left out: {len(left_out)} files"]
    parts += [f"  {relative_path(path, dataroot)}: {why}" for path, why in left_out.items()]
    return "\n".join(parts) + "\n"


def metrics_document(loaded: LoadedModel, dataroot: Path, results: Sequence[SetResult]) -> dict[str, Any]:
    """The JSON document of a run: what was tested, how, on which files, with which outcome; figures in [0, 1]."""
    skipped = [
        {"path": relative_path(path, dataroot), "reason": why}
        for result in results
        for path, why in result.predictions.left_out.items()
    ]
    return {
        "schema": SCHEMA,
        "model": {"name": loaded.name, "path": str(loaded.path), "epoch": loaded.epoch, **loaded.config.to_dict()},
        "dataroot": str(dataroot),
        "protocol": {result.images.key: result.protocol.to_dict() for result in results},
        "checkpoint_sha256": loaded.sha256,
        "versions": versions(),
        "skipped": skipped,
        "sets": {
            result.images.key: {
                "suite": result.images.suite,
                "generator": result.images.generator,
                "table": result.images.table,
                **result.metrics.to_dict(),
            }
            for result in results
        },
        "suites": {suite: mean_metrics([r.metrics for r in rows]) for suite, rows in by_suite(results).items()},
        "pooled": pooled_metrics(list(results)).to_dict(),
    }


def write_scores(path: Path, loaded: LoadedModel, dataroot: Path, results: Sequence[SetResult]) -> None:
    """CSV, one line per image: path, suite, generator, label, logit, score, and attention_<scale> where there is attention."""
    has_attention = loaded.config.model_type == MULTISCALE
    attention = [f"attention_{key}" for key in scale_keys(loaded.config.scales)] if has_attention else []
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "suite", "generator", "label", "logit", "score", *attention])
        for result in results:
            said, images = result.predictions, result.images
            for row, index in enumerate(said.indices):
                weights = [] if said.attention_weights is None else said.attention_weights[row]
                writer.writerow(
                    [
                        relative_path(images.paths[index], dataroot),
                        images.suite,
                        images.generator,
                        said.labels[row],
                        *(repr(float(value)) for value in (said.logits[row], said.scores[row], *weights)),
                    ]
                )


def write_results(
    results_dir: Path, loaded: LoadedModel, dataroot: Path, results: Sequence[SetResult], opt: CheckpointOptions
) -> Path:
    """Write `<model_name>_<dataset>.txt`, `.csv` and `.json`; another run's results of that name are not overwritten.

    Returns:
        Path of the .txt file. The same checkpoint, data, protocol and precision write to the same place again; otherwise the suite
        goes into the name, and if that is taken too, a number.

    Raises:
        UserError: the folder cannot be made or written.
    """
    document = metrics_document(loaded, dataroot, results)
    document |= {"classes": list(opt.classes), "precision": opt.precision}
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        base = _free_name(results_dir, loaded.name, dataroot, results, document)
        text = base.with_name(base.name + ".txt")
        text.write_text(text_report(loaded, dataroot, results), encoding="utf-8", errors="surrogateescape")
        write_scores(base.with_name(base.name + ".csv"), loaded, dataroot, results)
        base.with_name(base.name + ".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--results_dir {results_dir}: cannot write there ({error.strerror})") from None
    return text


def _free_name(
    results_dir: Path, model: str, dataroot: Path, results: Sequence[SetResult], document: dict[str, Any]
) -> Path:
    dataset = folder_name(dataroot)
    suite = results[0].images.suite
    candidates = [f"{model}_{dataset}"]
    if suite and suite != dataset and len(results) == 1:
        candidates.append(f"{model}_{suite}_{dataset}")
    candidates += [f"{model}_{dataset}_{number}" for number in range(2, 10_000)]
    for name in candidates:
        if _same_run(results_dir / f"{name}.json", document):
            if name != candidates[0]:
                log.info("%s holds another run's results: writing to %s", candidates[0], name)
            return results_dir / name
    raise UserError(f"--results_dir {results_dir}: too many results named {candidates[0]}")


def _same_run(path: Path, document: dict[str, Any]) -> bool:
    """True if the file is not there yet, or holds results of the same checkpoint, data and protocol."""
    if not path.exists():
        return not path.with_suffix(".txt").exists()
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    what = ("checkpoint_sha256", "dataroot", "protocol", "classes", "precision")
    return all(old.get(key) == document[key] for key in what)
