"""Tables of a comparison: for the terminal, as Markdown, LaTeX and CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.comparison.comparison import Comparison, warnings
from evaluation.comparison.published import published, sources
from evaluation.comparison.runs import Recipe, set_name
from evaluation.comparison.scales_control import scales_against_control
from evaluation.metrics import LABELS, LOWER_IS_BETTER
from evaluation.names import escaped, markdown
from evaluation.resampling import Interval
from reports.tables import LATEX_PACKAGES, grid, latex_table, protocol_name
from util import atomic_file

SUMMARY_HEADERS = (
    "recipe", "metric", "mean difference (points)", "improved on (generators)", "Wilcoxon p",
)  # fmt: skip


def metric_rows(
    comparison: Comparison, metric: str, methods: Sequence[str] = ()
) -> list[list[str]]:
    """Return a row per set, a column per recipe, then one per published method.

    A cell is 'mean ± std (gain [ends of its 95 % interval])', in per cent and percent points. The
    row after those with both classes is the mean over these sets, as far as the metric is defined
    for every recipe; sets with one class come last.
    """
    recipes, both = comparison.recipes, comparison.both
    keys = [*both, *(key for key in comparison.keys if key not in both)]
    others = [published(method, metric, keys) for method in methods]
    gains = [comparison.gain(recipe, metric) for recipe in recipes]
    rows = []
    for key in keys:
        cells = []
        for recipe, gain in zip(recipes, gains, strict=True):
            points = None if recipe is comparison.baseline else gain.points.get(key)
            mean, std = recipe.mean(key, metric), recipe.std(key, metric)
            cells.append(_cell(mean, std, points, gain.intervals.get(key)))
        rows.append([set_name(key), *cells, *(_cell(other.get(key)) for other in others)])
    common = [
        key for key in both if all(recipe.mean(key, metric) is not None for recipe in recipes)
    ]
    means = []
    for recipe, gain in zip(recipes, gains, strict=True):
        compared = recipe is not comparison.baseline and set(gain.points) & set(both) == set(common)
        mean, std = mean_over_sets(recipe, metric, common)
        means.append(_cell(mean, std, gain.mean if compared else None, gain.mean_interval))
    for other in others:
        known = common and set(common) <= set(other)
        means.append(_cell(sum(other[key] for key in common) / len(common) if known else None))
    return [*rows[: len(both)], [f"mean of {len(common)}", *means], *rows[len(both) :]]


def mean_over_sets(
    recipe: Recipe, metric: str, keys: Sequence[str]
) -> tuple[float | None, float | None]:
    """Return mean and standard deviation of a recipe's metric over sets.

    The standard deviation is over the runs that have all sets; None for fewer than two.
    """
    if not keys:
        return None, None
    mean = sum(recipe.mean(key, metric) or 0.0 for key in keys) / len(keys)
    per_run = []
    for result in recipe.results:
        values = [result.sets[key].get(metric) for key in keys if key in result.sets]
        known = [value for value in values if value is not None]
        if len(known) == len(keys):
            per_run.append(float(np.mean(known)))
    return mean, float(np.std(per_run, ddof=1)) if len(per_run) > 1 else None


def _cell(
    value: float | None,
    std: float | None = None,
    points: float | None = None,
    ends: Interval | None = None,
) -> str:
    if value is None:
        return "-"
    text = f"{100 * value:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")
    if points is None:
        return text
    return f"{text} ({points:+z.1f}{_ends(ends, 1)})"


def _ends(ends: Interval | None, digits: int) -> str:
    return "" if ends is None else f" [{ends[0]:+z.{digits}f}, {ends[1]:+z.{digits}f}]"


def summary_rows(comparison: Comparison, metrics: Sequence[str]) -> list[list[str]]:
    """Return a row of `SUMMARY_HEADERS` for each metric of all recipes but the first."""
    rows = []
    for recipe in comparison.recipes[1:]:
        for metric in metrics:
            gain = comparison.gain(recipe, metric)
            mean = "-" if gain.mean is None else f"{gain.mean:+z.2f}{_ends(gain.mean_interval, 2)}"
            p_value = "-" if gain.p_value is None else f"{gain.p_value:.3g}"
            improved = f"{gain.improved}/{gain.n_sets}"
            rows.append([recipe.label, LABELS[metric], mean, improved, p_value])
    return rows


def labels(comparison: Comparison, methods: Sequence[str], metric: str) -> list[str]:
    """Return the headings of the columns of `metric_rows`, without the first."""
    runs = [
        f"{recipe.label} (n={len(recipe.results)})" if len(recipe.results) > 1 else recipe.label
        for recipe in comparison.recipes
    ]
    return [*runs, *(f"{method} (published)" for method in methods if metric in ("acc", "ap"))]


def _tables(
    comparison: Comparison, metrics: Sequence[str], methods: Sequence[str], style: str
) -> list[tuple[str, str]]:
    """Return title and table of each metric and, of several recipes, of the summary."""
    tables = []
    for metric in metrics:
        chosen = methods_with(comparison, methods, metric)
        headers = ["generator", *labels(comparison, chosen, metric)]
        rows = metric_rows(comparison, metric, chosen)
        tables.append((_title(metric), _grid(headers, rows, style)))
    if len(comparison.recipes) > 1:
        title = f"Difference to {comparison.baseline.label}"
        tables.append((title, _grid(SUMMARY_HEADERS, summary_rows(comparison, metrics), style)))
    return tables


def _grid(headers: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> str:
    if style == "simple":  # names are long, numbers short
        headers = [header.replace("_", "_\n").replace(" (", "\n(") for header in headers]
        rows = [[row[0], *(cell.replace(" (", "\n(") for cell in row[1:])] for row in rows]
    return grid(headers, rows, style)


def _title(metric: str) -> str:
    better = ", lower is better" if metric in LOWER_IS_BETTER else ""
    return f"{LABELS[metric]} in % (difference in percent points{better}, 95 % interval)"


def report(
    comparison: Comparison,
    metrics: Sequence[str],
    methods: Sequence[str] = (),
    style: str = "simple",
) -> str:
    """Return the comparison as text: runs, a table per metric, the summary, warnings and notes.

    Args:
        comparison: the runs.
        metrics: names of the metrics.
        methods: published methods.
        style: 'simple' for the terminal or 'pipe' for Markdown.
    """
    as_markdown = style == "pipe"
    heading, item, clean = ("## ", "- ", markdown) if as_markdown else ("", "  ", str)
    parts = ["# Comparison of models\n"] if as_markdown else []
    parts += [f"baseline: {clean(comparison.baseline.label)}\n"]
    for recipe in comparison.recipes:
        paths = [path for result in recipe.results for path in result.paths]
        parts += [f"{item}{clean(f'{recipe.label}: {escaped(str(path))}')}" for path in paths]
    for title, table in _tables(comparison, metrics, methods, style):
        parts += [f"\n{heading}{clean(title)}\n", table]
    parts.append("")
    parts += [f"{item}{clean(m)}" for m in (*warnings(comparison), *notes(comparison, methods))]
    return "\n".join(parts).rstrip() + "\n"


def methods_with(comparison: Comparison, methods: Sequence[str], metric: str) -> list[str]:
    """Return the methods of which a metric was published for any of the compared sets."""
    return [method for method in methods if published(method, metric, comparison.keys)]


def notes(comparison: Comparison, methods: Sequence[str]) -> list[str]:
    """Return hints for reading the numbers, and the sources of published ones."""
    protocols: dict[str, list[str]] = {}
    for key in comparison.keys:
        protocols.setdefault(protocol_name(comparison.protocol(key)), []).append(set_name(key))
    lines = [f"protocol {name}: {', '.join(sets)}" for name, sets in protocols.items()]
    if any(len(recipe.results) > 1 for recipe in comparison.recipes):
        lines.append(
            "± is the standard deviation over the runs of a recipe (n of them, other seeds), not "
            "over images"
        )
    single = [recipe.label for recipe in comparison.recipes if len(recipe.results) == 1]
    if len(comparison.recipes) > 1 and single:
        which = "each recipe" if len(single) == len(comparison.recipes) else ", ".join(single)
        lines.append(
            f"one run of {which}: the intervals do not say what another seed would change; train "
            "with several"
        )
    if len(comparison.recipes) > 1:
        lines.append(
            "[...]: 95 % interval of the difference, paired bootstrap over the same images; "
            "p: Wilcoxon signed-rank test over generators, two-sided"
        )
    lines += scales_against_control(comparison)
    shown = {name for metric in ("acc", "ap") for name in methods_with(comparison, methods, metric)}
    for method in sorted(shown):
        origins = sources(method, comparison.keys)
        lines += [f"published, not measured here: {method}, {origin}" for origin in origins]
    return lines


def latex(comparison: Comparison, metrics: Sequence[str], methods: Sequence[str]) -> str:
    """Return a LaTeX table environment per metric and one of the summary."""
    tables = _tables(comparison, metrics, methods, "latex_booktabs")
    return "\n\n".join([LATEX_PACKAGES, *(latex_table(*table) for table in tables)]) + "\n"


def write_csv(
    comparison: Comparison, metrics: Sequence[str], methods: Sequence[str], path: Path
) -> None:
    """Write a line per recipe (or published method), set and metric.

    Metrics are in [0, 1], gains in percent points.
    """
    columns = ("recipe", "kind", "suite", "generator", "protocol", "metric", "runs", "mean", "std",
               "low", "high", "gain_points", "gain_low", "gain_high")  # fmt: skip
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for metric in metrics:
            for recipe in comparison.recipes:
                gain = comparison.gain(recipe, metric)
                for key in comparison.keys:
                    count = len(recipe.values(key, metric))
                    if not count:
                        continue
                    numbers = [recipe.mean(key, metric), recipe.std(key, metric)]
                    numbers += comparison.interval(recipe, key, metric) or (None, None)
                    if recipe is comparison.baseline:
                        numbers += [None] * 3
                    else:
                        ends = gain.intervals.get(key, (None, None))
                        numbers += [gain.points.get(key), *ends]
                    protocol = protocol_name(comparison.protocol(key))
                    about = [recipe.label, "measured", *key.split("/", 1), protocol, metric, count]
                    texts = ("" if number is None else repr(number) for number in numbers)
                    writer.writerow([*about, *texts])
            for method in methods_with(comparison, methods, metric):
                for key, value in published(method, metric, comparison.keys).items():
                    about = [method, "published", *key.split("/", 1), "", metric, "", repr(value)]
                    writer.writerow([*about, *[""] * 6])
