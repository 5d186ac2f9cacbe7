"""Compare test runs: recipes against a baseline, generator by generator, and beside them what
others published.

    python -m tools.compare_results results/baseline_*/ results/multiscale_3scales_*/ python -m
    tools.compare_results results/*/ --baseline control_1branch --metric acc --published NPR,Ojha
    --output comparison

Give the folders that test.py wrote. Runs that differ only in their seed count as one recipe: mean
and standard deviation. Gains come with 95 % intervals (paired bootstrap over the same pictures) and
a Wilcoxon test over the generators. Prints tables and writes comparison.md, comparison.tex,
comparison.csv and comparison_<metric>.png.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from evaluation.comparison.comparison import Comparison
from evaluation.comparison.published import methods, published
from evaluation.comparison.runs import read_recipes, shown
from evaluation.metrics import LABELS
from evaluation.result_files import METRICS_FILE
from options.base_options import OneLineParser
from options.flags import comma_list, one_of, resamples
from reports.comparison_tables import labels, latex, methods_with, report, write_csv
from util import UserError, run_script

METRICS = ("acc", "ap", "auc")


def draw(
    comparison: Comparison, metric: str, methods_shown: Sequence[str], path: Path
) -> str | None:
    """Draw the bars of a metric; returns why there are none, None if there are."""
    path.unlink(missing_ok=True)  # a picture of an earlier comparison must not pass for this one's
    try:
        from reports.plots.comparison import plot_comparison
    except ImportError as error:
        return f"no picture: {error}"
    rows: dict[str, dict[str, tuple[float, float | None, float | None] | None]] = {}
    for recipe, label in zip(comparison.recipes, labels(comparison, (), metric), strict=True):
        values = {key: recipe.mean(key, metric) for key in comparison.keys}
        ends = {
            key: comparison.interval(recipe, key, metric) or (None, None) for key in comparison.keys
        }
        rows[label] = {
            shown(key): None if value is None else (value, *ends[key])
            for key, value in values.items()
        }
    if all(bar is None for bars in rows.values() for bar in bars.values()):
        return f"no picture: {LABELS[metric]} is undefined for every generator"
    first = published(methods_shown[0], metric, comparison.keys) if methods_shown else {}
    others = {shown(key): value for key, value in first.items()}
    plot_comparison(
        rows,
        path,
        LABELS[metric],
        others or None,
        f"{methods_shown[0]} (published)" if others else "",
    )
    return None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = OneLineParser(
        prog="python -m tools.compare_results",
        description="Compare test runs with a baseline, generator by generator.",
        epilog=f"examples:\n{(__doc__ or '').split(chr(10) * 2, 1)[1]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "results",
        nargs="+",
        type=Path,
        help="folders of test.py (or their metrics.json), the baseline first",
    )
    made.add_argument(
        "--baseline",
        metavar="NAME",
        help="recipe to compare with (default: that of the first folder)",
    )
    made.add_argument("--metric", choices=tuple(LABELS), metavar="METRIC",
                      help=f"only this one, of {', '.join(LABELS)} (default: {', '.join(METRICS)})")  # fmt: skip
    made.add_argument(
        "--no_groups",
        action="store_true",
        help="show every run, also those that differ only in their seed",
    )
    known = f"of {', '.join(methods())}"
    made.add_argument("--published", type=comma_list(one_of("none", *methods())), default=("NPR",), metavar="METHODS",
                      help=f"published acc and AP to show beside, {known}; none for none (default: NPR)")  # fmt: skip
    made.add_argument(
        "--bootstrap",
        type=resamples,
        default=1000,
        metavar="N",
        help="resamples behind the intervals (default: 1000; 0 = none)",
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write (default: comparison/ beside the first)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns 0."""
    opt = parser().parse_args(argv)
    given = [path for path in opt.results if not _is_other(path)]
    comparison = Comparison(read_recipes(given, opt.baseline, not opt.no_groups), opt.bootstrap)
    metrics = [opt.metric] if opt.metric else list(METRICS)
    chosen = [] if "none" in opt.published else list(opt.published)
    print(report(comparison, metrics, chosen))
    folders = [path.parent for result in comparison.results for path in result.paths]
    folder = opt.output or folders[0].parent / "comparison"
    if folder.resolve() in [one.resolve() for one in folders]:
        raise UserError(f"--output {folder}: is one of the compared folders; give another")
    notes: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(comparison, metrics, chosen, folder / "comparison.csv")
        (folder / "comparison.tex").write_text(latex(comparison, metrics, chosen), encoding="utf-8")
        pictures = []
        for metric in metrics:
            name = f"comparison_{metric}.png"
            no_picture = draw(
                comparison, metric, methods_with(comparison, chosen, metric), folder / name
            )
            notes.append(no_picture or f"written: {folder / name}")
            pictures += [] if no_picture else [f"\n![{LABELS[metric]} of each recipe]({name})\n"]
        text = report(comparison, metrics, chosen, "pipe") + "".join(pictures)
        (folder / "comparison.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot write there ({error.strerror})") from None
    print(
        "\n".join(
            [
                *notes,
                *(f"written: {folder / f'comparison.{kind}'}" for kind in ("md", "tex", "csv")),
            ]
        )
    )
    return 0


def _is_other(path: Path) -> bool:
    """True for what results/* finds besides folders of test.py: an earlier comparison, and the .txt
    files."""
    return path.suffix == ".txt" or (
        not (path / METRICS_FILE).exists() and (path / "comparison.csv").exists()
    )


if __name__ == "__main__":
    run_script(main)
