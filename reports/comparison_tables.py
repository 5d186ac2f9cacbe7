"""A comparison as text: tables for the terminal, Markdown and LaTeX, and everything as CSV."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from evaluation.comparison.comparison import Comparison, remarks
from evaluation.comparison.published import published, sources
from evaluation.comparison.runs import Recipe, shown
from evaluation.comparison.scales_control import scales_against_control
from evaluation.metrics import LABELS, LOWER_IS_BETTER
from evaluation.names import escaped, markdown
from evaluation.resampling import Interval
from reports.tables import LATEX_PACKAGES, latex_table


def metric_rows(
    comparison: Comparison, metric: str, methods: Sequence[str] = ()
) -> list[list[str]]:
    """Rows of a table, sets down and recipes across, then published methods: in per cent, and the
    gain in percent points.

    A cell is 'mean ± std (gain [ends of its 95 % interval])'. The last row is the mean over the
    sets that are defined for every recipe.
    """
    recipes, keys = comparison.recipes, comparison.keys
    others = [published(method, metric, keys) for method in methods]
    gains = [comparison.gain(recipe, metric) for recipe in recipes]
    rows = []
    for key in keys:
        cells = []
        for recipe, gain in zip(recipes, gains, strict=True):
            points = None if recipe is comparison.baseline else gain.points.get(key)
            cells.append(
                _cell(
                    recipe.mean(key, metric),
                    recipe.std(key, metric),
                    points,
                    gain.intervals.get(key),
                )
            )
        rows.append([shown(key), *cells, *(_cell(of_method.get(key)) for of_method in others)])
    common = [
        key for key in keys if all(recipe.mean(key, metric) is not None for recipe in recipes)
    ]
    means = []
    for recipe, gain in zip(recipes, gains, strict=True):
        mean, std = mean_over_sets(recipe, metric, common)
        whole = (
            None if recipe is comparison.baseline or set(gain.points) != set(common) else gain.mean
        )
        means.append(_cell(mean, std, whole, gain.mean_interval))
    known = [of_method if set(common) <= set(of_method) else {} for of_method in others]
    published_means = [
        _cell(sum(of[key] for key in common) / len(common) if of and common else None)
        for of in known
    ]
    return [*rows, [f"mean of {len(common)}", *means, *published_means]]


def mean_over_sets(
    recipe: Recipe, metric: str, keys: Sequence[str]
) -> tuple[float | None, float | None]:
    """Mean over sets of a recipe's figure, and the standard deviation of that mean over its runs."""
    if not keys:
        return None, None
    mean = sum(recipe.mean(key, metric) or 0.0 for key in keys) / len(keys)
    whole = Recipe(
        "",
        tuple(
            r
            for r in recipe.results
            if all(k in r.sets and r.sets[k].get(metric) is not None for k in keys)
        ),
    )
    per_run = [
        sum(result.sets[key][metric] for key in keys) / len(keys) for result in whole.results
    ]
    if len(per_run) < 2:
        return mean, None
    average = sum(per_run) / len(per_run)
    return mean, (sum((value - average) ** 2 for value in per_run) / (len(per_run) - 1)) ** 0.5


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
    """Rows [recipe, metric, mean gain in percent points with its 95 % interval, 'k/n' sets, p] of
    all recipes but the first."""
    rows = []
    for recipe in comparison.recipes[1:]:
        for metric in metrics:
            gain = comparison.gain(recipe, metric)
            mean = "-" if gain.mean is None else f"{gain.mean:+z.2f}{_ends(gain.mean_interval, 2)}"
            p_value = "-" if gain.p_value is None else f"{gain.p_value:.3g}"
            rows.append(
                [recipe.label, LABELS[metric], mean, f"{gain.improved}/{len(gain.points)}", p_value]
            )
    return rows


SUMMARY_HEADERS = (
    "recipe",
    "metric",
    "mean difference (points)",
    "improved on (generators)",
    "Wilcoxon p",
)


def labels(comparison: Comparison, methods: Sequence[str], metric: str) -> list[str]:
    """Headings of the columns of `metric_rows`."""
    runs = [
        f"{r.label} (n={len(r.results)})" if len(r.results) > 1 else r.label
        for r in comparison.recipes
    ]
    return [*runs, *(f"{method} (published)" for method in methods if metric in ("acc", "ap"))]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], style: str) -> str:
    if style == "pipe":
        rows, headers = (
            [[markdown(cell) for cell in row] for row in rows],
            [markdown(cell) for cell in headers],
        )
    elif style == "simple":
        headers = [
            header.replace("_", "_\n").replace(" (", "\n(") for header in headers
        ]  # names are long, figures short
        rows = [[row[0], *(cell.replace(" (", "\n(") for cell in row[1:])] for row in rows]
    align = ["left"] + ["right"] * (len(headers) - 1)
    # disable_numparse: a generator may be called 1e3
    return tabulate(rows, headers, style, colalign=align, disable_numparse=True)


def report(
    comparison: Comparison,
    metrics: Sequence[str],
    methods: Sequence[str] = (),
    style: str = "simple",
) -> str:
    """The whole comparison as text: the runs, a table per metric, the summary, the remarks; style
    'simple' or 'pipe'."""
    as_markdown = style == "pipe"
    heading, item, clean = ("## ", "- ", markdown) if as_markdown else ("", "  ", str)
    parts = ["# Comparison of models\n"] if as_markdown else []
    parts += [f"baseline: {clean(comparison.baseline.label)}\n"]
    parts += [
        f"{item}{clean(f'{r.label}: {escaped(str(path))}')}"
        for r in comparison.recipes
        for one in r.results
        for path in one.paths
    ]
    for metric in metrics:
        shown_methods = methods_with(comparison, methods, metric)
        parts += [f"\n{heading}{_title(metric)}\n"]
        rows = metric_rows(comparison, metric, shown_methods)
        parts += [_table(rows, ["generator", *labels(comparison, shown_methods, metric)], style)]
    if len(comparison.recipes) > 1:
        parts += [
            f"\n{heading}summary\n",
            _table(summary_rows(comparison, metrics), SUMMARY_HEADERS, style),
        ]
    parts += [
        "",
        *(
            f"{item}{clean(remark)}"
            for remark in [*remarks(comparison), *notes(comparison, methods)]
        ),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _title(metric: str) -> str:
    better = ", lower is better" if metric in LOWER_IS_BETTER else ""
    return f"{LABELS[metric]} in % (difference in percent points{better}, 95 % interval)"


def methods_with(comparison: Comparison, methods: Sequence[str], metric: str) -> list[str]:
    """The methods of which a figure was published for any of the compared sets."""
    return [method for method in methods if published(method, metric, comparison.keys)]


def notes(comparison: Comparison, methods: Sequence[str]) -> list[str]:
    """How to read the figures, and where those that are marked as published come from."""
    found = [
        f"protocol {name}: {', '.join(map(shown, keys))}"
        for name, keys in _protocols(comparison).items()
    ]
    if any(len(recipe.results) > 1 for recipe in comparison.recipes):
        found.append(
            "± is the standard deviation over the runs of a recipe (n of them, other seeds), not over pictures"
        )
    single = [recipe.label for recipe in comparison.recipes if len(recipe.results) == 1]
    if len(comparison.recipes) > 1 and single:
        which = "each recipe" if len(single) == len(comparison.recipes) else ", ".join(single)
        found.append(
            f"one run of {which}: the intervals do not say what another seed would change; train with several"
        )
    if len(comparison.recipes) > 1:
        found.append(
            "[...]: 95 % interval of the difference, paired bootstrap over the same pictures; "
            "p: Wilcoxon signed-rank test over generators, two-sided"
        )
    found += scales_against_control(comparison)
    shown_methods = {
        m for metric in ("acc", "ap") for m in methods_with(comparison, methods, metric)
    }
    for method in sorted(shown_methods):
        found += [
            f"published, not measured here: {method}, {source}"
            for source in sources(method, comparison.keys)
        ]
    return found


def protocol_name(comparison: Comparison, key: str) -> str:
    """Name and version of the preprocessing of a set, as the first run that has it says."""
    protocol = next(
        (result.protocols[key] for result in comparison.results if result.protocols.get(key)), None
    )
    return f"{protocol['name']} v{protocol.get('version', 1)}" if protocol else "?"


def _protocols(comparison: Comparison) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for key in comparison.keys:
        by_name.setdefault(protocol_name(comparison, key), []).append(key)
    return by_name


def latex(comparison: Comparison, metrics: Sequence[str], methods: Sequence[str]) -> str:
    r"""A `table` environment per metric and one of the summary, see `LATEX_PACKAGES`."""
    parts = [LATEX_PACKAGES]
    for metric in metrics:
        chosen = methods_with(comparison, methods, metric)
        grid = _table(
            metric_rows(comparison, metric, chosen),
            ["generator", *labels(comparison, chosen, metric)],
            "latex_booktabs",
        )
        parts += ["", latex_table(_title(metric), grid)]
    if len(comparison.recipes) > 1:
        grid = _table(summary_rows(comparison, metrics), SUMMARY_HEADERS, "latex_booktabs")
        parts += ["", latex_table(f"Difference to {comparison.baseline.label}", grid)]
    return re.sub("±", r"$\\pm$", "\n".join(parts)) + "\n"


def write_csv(
    comparison: Comparison, metrics: Sequence[str], methods: Sequence[str], path: Path
) -> None:
    """One line per recipe (or published method), set and metric: figures in [0, 1], gains in
    percent points."""
    columns = [
        "recipe",
        "kind",
        "suite",
        "generator",
        "protocol",
        "metric",
        "runs",
        "mean",
        "std",
        "low",
        "high",
    ]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "gain_points", "gain_low", "gain_high"])
        for metric in metrics:
            for recipe in comparison.recipes:
                gain = comparison.gain(recipe, metric)
                for key in comparison.keys:
                    values = recipe.values(key, metric)
                    if not values:
                        continue
                    ends = comparison.interval(recipe, key, metric) or (None, None)
                    is_baseline = recipe is comparison.baseline
                    points = (
                        (None,) * 3
                        if is_baseline
                        else (gain.points.get(key), *gain.intervals.get(key, (None, None)))
                    )
                    numbers = [recipe.mean(key, metric), recipe.std(key, metric), *ends, *points]
                    first = [
                        recipe.label,
                        "measured",
                        *key.split("/", 1),
                        protocol_name(comparison, key),
                        metric,
                        len(values),
                    ]
                    writer.writerow(
                        [*first, *("" if number is None else repr(number) for number in numbers)]
                    )
            for method in methods_with(comparison, methods, metric):
                for key, value in published(method, metric, comparison.keys).items():
                    writer.writerow(
                        [
                            method,
                            "published",
                            *key.split("/", 1),
                            "",
                            metric,
                            "",
                            repr(value),
                            *[""] * 6,
                        ]
                    )
