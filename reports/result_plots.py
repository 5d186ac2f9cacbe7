"""Draw the plots of a test run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.degradations import ROBUSTNESS
from data.image_sets import unique_names
from evaluation.attention.findings import AttentionFindings
from evaluation.metrics import LABELS
from evaluation.names import unescaped
from evaluation.result_files import TestRun
from reports.html import Picture
from util import log


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
    plots: list[Callable[[], list[Picture]]] = [
        lambda: _roc(run, folder, formats),
        lambda: _histograms(run, folder, formats),
        lambda: _robustness(run, folder, formats),
        lambda: _attention(run, folder, attention, formats),
    ]
    pictures, failed = [], set[str]()
    for plot in plots:
        try:
            pictures += plot()
        except Exception as error:
            failed.add(f"{type(error).__name__}: {error}")
    for reason in sorted(failed):
        log.warning("plots skipped (%s)", reason)
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


def _attention(
    run: TestRun, folder: Path, attention: AttentionFindings | None, formats: Sequence[str]
) -> list[Picture]:
    if attention is None:
        return []
    from reports.attention_page import draw_attention

    checkpoint = run.head["model"].get("path")
    run_folder = Path(unescaped(checkpoint)).parent if checkpoint else None
    return draw_attention(attention, folder, run_folder, formats)


def _labels_and_scores(run: TestRun) -> dict[str, Any]:
    names = unique_names(run.sets)
    return {names[scored.key]: (scored.labels, scored.scores) for scored in run.sets}


def _with_both_classes(run: TestRun) -> list[str]:
    """Return the keys of the sets that have real and generated images."""
    return [key for key, metrics in run.summary.metrics.items() if metrics.auc is not None]
