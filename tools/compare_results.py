"""Compare result files of test.py: models against a baseline, generator by generator.

    python -m tools.compare_results results/baseline_*.json results/multiscale_3scales_*.json
    python -m tools.compare_results results/*.json --baseline control_1branch --metric acc --output comparison

Prints tables and writes comparison.md, comparison.csv (a line per model and generator) and comparison.png.
"""

import argparse
import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from options.base_options import OneLineParser
from tools._comparison import METRICS, ModelResults, all_sets, improvement, read_models, remarks, shown
from util import UserError, run_script


def metric_rows(models: Sequence[ModelResults], metric: str) -> list[list[str]]:
    """Rows of a table, generators down and models across: per cent, and the difference to the first model in points.

    The last row is the mean over the generators that are defined for every model.
    """
    table = [model.values(metric) for model in models]
    rows = [
        [shown(key), *(_cell(v.get(key), table[0].get(key), v is table[0]) for v in table)] for key in all_sets(models)
    ]
    common = [key for key in all_sets(models) if all(v.get(key) is not None for v in table)]
    means = [math.fsum(v[key] or 0.0 for key in common) / len(common) if common else None for v in table]
    rows.append([f"mean of {len(common)}", *(_cell(mean, means[0], i == 0) for i, mean in enumerate(means))])
    return rows


def _cell(value: float | None, reference: float | None, is_baseline: bool) -> str:
    if value is None:
        return "-"
    difference = "" if is_baseline or reference is None else f" ({100 * (value - reference):+z.1f})"
    return f"{100 * value:.1f}{difference}"


def summary_rows(models: Sequence[ModelResults], metrics: Sequence[str]) -> list[list[str]]:
    """Rows [model, metric, mean improvement in percent points, "k/n generators"] of all models but the first."""
    rows = []
    for model in models[1:]:
        for metric in metrics:
            gain = improvement(models[0].values(metric), model.values(metric))
            mean = "-" if gain.mean is None else f"{gain.mean:+z.2f}"
            rows.append([shown(model.label), METRICS[metric], mean, f"{gain.improved}/{len(gain.differences)}"])
    return rows


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    return re.sub(r"([\\`*\[\]<>|~&#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], markdown: bool) -> str:
    if markdown:
        rows = [[escape_markdown(cell) for cell in row] for row in rows]
        headers = [escape_markdown(cell) for cell in headers]
    else:
        headers = [header.replace("_", "_\n") for header in headers]  # run names are long, figures short
    align = ["left"] + ["right"] * (len(headers) - 1)
    # disable_numparse: a generator may be called 1e3
    return tabulate(rows, headers, "pipe" if markdown else "simple", colalign=align, disable_numparse=True)


def report(models: Sequence[ModelResults], metrics: Sequence[str], markdown: bool = False) -> str:
    """The whole comparison as text: the models, a table per metric, the summary, the remarks."""
    heading, item, clean = ("## ", "- ", escape_markdown) if markdown else ("", "  ", str)
    parts = ["# Comparison of models\n"] if markdown else []
    parts += [f"baseline: {clean(shown(models[0].label))}\n"]
    parts += [f"{item}{clean(shown(f'{model.label}: {model.path}'))}" for model in models]
    labels = [shown(model.label) for model in models]
    for metric in metrics:
        parts += [f"\n{heading}{METRICS[metric]} in % (difference in percent points)\n"]
        parts += [_table(metric_rows(models, metric), ["generator", *labels], markdown)]
    headers = ["model", "metric", "mean improvement (points)", "improved on (generators)"]
    parts += [f"\n{heading}summary\n", _table(summary_rows(models, metrics), headers, markdown)]
    parts += ["", *(f"{item}{clean(remark)}" for remark in remarks(models))]
    return "\n".join(parts).rstrip() + "\n"


def write_csv(models: Sequence[ModelResults], path: Path) -> None:
    """One line per model and generator; metrics in [0, 1], differences to the first model in percent points."""
    gains = [
        {metric: improvement(models[0].values(metric), m.values(metric)) for metric in METRICS} for m in models[1:]
    ]
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        differences = [f"{metric}_difference_points" for metric in METRICS]
        writer.writerow(["model", "suite", "generator", "n_real", "n_fake", *METRICS, *differences])
        for model, gain in zip(models, [None, *gains], strict=True):
            for key, figures in model.sets.items():
                values = [figures[column] for column in ("suite", "generator", "n_real", "n_fake", *METRICS)]
                writer.writerow(
                    [model.name, *values, *(gain[m].differences.get(key) if gain else None for m in METRICS)]
                )


def draw(models: Sequence[ModelResults], metric: str, path: Path) -> str | None:
    """Draw the picture; returns why there is none, None if there is."""
    path.unlink(missing_ok=True)  # a picture of an earlier comparison must not pass for this one's
    try:
        from evaluation.plots import plot_comparison
    except ImportError as error:
        return f"no picture: {error}"
    rows = {shown(m.label): {shown(key): value for key, value in m.values(metric).items()} for m in models}
    if all(value is None for values in rows.values() for value in values.values()):
        return f"no picture: {METRICS[metric]} is undefined for every generator"
    plot_comparison(rows, path, METRICS[metric])
    return None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    examples = (__doc__ or "").split("\n\n", 1)[1]
    made = OneLineParser(
        prog="python -m tools.compare_results",
        description="Compare result files of test.py with a baseline, generator by generator.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("results", nargs="+", type=Path, help="result files (.json) of test.py, the baseline first")
    made.add_argument("--baseline", metavar="NAME", help="model to compare with (default: that of the first file)")
    made.add_argument("--metric", choices=tuple(METRICS), help="only this one (default: all, and AUC in the picture)")
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write (default: comparison/ beside the first file)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns 0."""
    opt = parser().parse_args(argv)
    models = read_models(opt.results, opt.baseline)
    metrics = [opt.metric] if opt.metric else list(METRICS)
    folder = opt.output or opt.results[0].parent / "comparison"
    print(report(models, metrics))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(models, folder / "comparison.csv")
        no_picture = draw(models, opt.metric or "auc", folder / "comparison.png")
        link = "" if no_picture else f"\n![{METRICS[opt.metric or 'auc']} of each model](comparison.png)\n"
        text = report(models, metrics, markdown=True) + link
        (folder / "comparison.md").write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot write there ({error.strerror})") from None
    print(no_picture or f"written: {folder / 'comparison.png'}")
    print(f"written: {folder / 'comparison.md'}\nwritten: {folder / 'comparison.csv'}")
    return 0


if __name__ == "__main__":
    run_script(main)
