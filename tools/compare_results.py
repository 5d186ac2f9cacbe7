"""Compare test runs with a baseline, generator by generator.

    python -m tools.compare_results results/baseline_*/ results/multiscale_3scales_*/
    python -m tools.compare_results results/*/ --baseline control_1branch --metric acc \\
        --published NPR,Ojha --output comparison

Pass the folders that test.py wrote. Runs that differ only in their seed count as one recipe, shown
with mean and standard deviation. Gains come with 95 % intervals (paired bootstrap over the same
images) and a Wilcoxon test over the generators. Published results stand beside them. Prints tables
and writes comparison.md, comparison.tex, comparison.csv and comparison_<metric>.png.
"""

from collections.abc import Sequence
from pathlib import Path

from evaluation.comparison.comparison import Comparison
from evaluation.comparison.grouping import read_recipes
from evaluation.comparison.published import methods, published
from evaluation.comparison.runs import set_name
from evaluation.metrics import LABELS
from evaluation.result_files import METRICS_FILE
from options.flags import OneLineParser, comma_list, one_of, resamples, tool_parser
from reports.comparison_tables import labels, latex, methods_with, report, write_csv
from util import UserError, atomic_file, run_script

METRICS = ("acc", "ap", "auc")


def draw(
    comparison: Comparison, metric: str, methods_shown: Sequence[str], path: Path
) -> str | None:
    """Draw the bars of a metric; return why it cannot be drawn, None if it is."""
    # a plot of an earlier comparison must not pass for this one's
    path.unlink(missing_ok=True)
    bars: dict[str, dict[str, tuple[float, float | None, float | None] | None]] = {}
    for recipe, label in zip(comparison.recipes, labels(comparison, (), metric), strict=True):
        bars[label] = {}
        for key in comparison.keys:
            mean = recipe.mean(key, metric)
            ends = comparison.interval(recipe, key, metric) or (None, None)
            bars[label][set_name(key)] = None if mean is None else (mean, *ends)
    if all(bar is None for of_recipe in bars.values() for bar in of_recipe.values()):
        return f"{LABELS[metric]} is undefined for every generator"
    first = published(methods_shown[0], metric, comparison.keys) if methods_shown else {}
    others = {set_name(key): value for key, value in first.items()}
    name = f"{methods_shown[0]} (published)" if others else ""
    try:
        from reports.plots.comparison import plot_comparison

        plot_comparison(bars, path, LABELS[metric], others or None, name)
    # the numbers are written already
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("compare_results", __doc__)
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        help="folders of test.py (or their metrics.json), the baseline first",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="recipe to compare with (default: that of the first folder)",
    )
    parser.add_argument(
        "--metric",
        choices=tuple(LABELS),
        metavar="METRIC",
        help=f"only this one, of {', '.join(LABELS)} (default: {', '.join(METRICS)})",
    )
    parser.add_argument(
        "--no_groups",
        action="store_true",
        help="show every run, also those that differ only in their seed",
    )
    known = f"of {', '.join(methods())}"
    parser.add_argument(
        "--published",
        type=comma_list(one_of("none", *methods())),
        default=("NPR",),
        metavar="METHODS",
        help=f"published acc and AP to show beside, {known}; none for none (default: NPR)",
    )
    parser.add_argument(
        "--bootstrap",
        type=resamples,
        default=1000,
        metavar="N",
        help="resamples behind the intervals (default: 1000; 0 = none)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write (default: comparison/ beside the first)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return 0."""
    opt = parser().parse_args(argv)
    paths = [path for path in opt.results if not _is_other(path)]
    comparison = Comparison(read_recipes(paths, opt.baseline, not opt.no_groups), opt.bootstrap)
    metrics = [opt.metric] if opt.metric else list(METRICS)
    chosen = [] if "none" in opt.published else list(opt.published)
    print(report(comparison, metrics, chosen))
    folders = [path.parent for result in comparison.results for path in result.paths]
    folder = opt.output or folders[0].parent / "comparison"
    if folder.resolve() in [path.resolve() for path in folders]:
        raise UserError(f"--output {folder}: is one of the compared folders; pass another")
    try:
        write(comparison, metrics, chosen, folder)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot write there ({error.strerror})") from None
    return 0


def write(
    comparison: Comparison, metrics: Sequence[str], methods_shown: Sequence[str], folder: Path
) -> None:
    """Write the tables, then the plots, and print what is written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(comparison, metrics, methods_shown, folder / "comparison.csv")
    with atomic_file(folder / "comparison.tex") as file:
        file.write(latex(comparison, metrics, methods_shown))
    text = report(comparison, metrics, methods_shown, "pipe")
    for metric in metrics:
        path = folder / f"comparison_{metric}.png"
        problem = draw(comparison, metric, methods_with(comparison, methods_shown, metric), path)
        if problem:
            print(f"plot skipped: {path} ({problem})")
        else:
            text += f"\n![{LABELS[metric]} of each recipe]({path.name})\n"
            print(f"written: {path}")
    with atomic_file(folder / "comparison.md") as file:
        file.write(text)
    for kind in ("md", "tex", "csv"):
        print(f"written: {folder / f'comparison.{kind}'}")


def _is_other(path: Path) -> bool:
    """Return True for other matches of results/*: an earlier comparison, and the .txt files."""
    return path.suffix == ".txt" or (
        not (path / METRICS_FILE).exists() and (path / "comparison.csv").exists()
    )


if __name__ == "__main__":
    run_script(main)
