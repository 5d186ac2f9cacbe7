"""Published metrics of other methods, with their sources, from published_figures/figures.csv."""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data.benchmarks import plain

FILE = Path(__file__).parent / "published_figures" / "figures.csv"


@cache
def rows() -> tuple[dict[str, str], ...]:
    """Return all rows of the file."""
    with open(FILE, newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def methods() -> list[str]:
    """Return the names of the published methods, in the order of the file."""
    return list(dict.fromkeys(row["method"] for row in rows()))


def published(method: str, metric: str, keys: Iterable[str]) -> dict[str, float]:
    """Return the published metric of a method, for the keys that have one.

    Args:
        method: one of `methods`.
        metric: acc or ap; the others are not published.
        keys: "suite/generator" each.

    Returns:
        {key: metric in [0, 1]}.
    """
    values = {
        (row["suite"], plain(row["folder"])): float(row[metric]) / 100
        for row in rows()
        if row["method"] == method and row.get(metric)
    }
    pairs = {key: (key.split("/", 1)[0], plain(key.split("/", 1)[-1])) for key in keys}
    return {key: values[pair] for key, pair in pairs.items() if pair in values}


def sources(method: str, keys: Iterable[str]) -> list[str]:
    """Return the sources of a method's metrics for these sets, with its training data if known.

    Args:
        method: one of `methods`.
        keys: "suite/generator" each.
    """
    wanted = {(key.split("/", 1)[0], plain(key.split("/", 1)[-1])) for key in keys}
    chosen = (
        r for r in rows() if r["method"] == method and (r["suite"], plain(r["folder"])) in wanted
    )
    trained = (
        (row, f" (trained on {row['training']})" if row["training"] else "") for row in chosen
    )
    return list(
        dict.fromkeys(f"{row['suite']}: {row['source']}{training}" for row, training in trained)
    )
