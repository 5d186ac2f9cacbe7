"""Other people's figures, carried as data (evaluation/comparison/published_figures/figures.csv,
with their sources)."""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data.benchmarks import plain

FILE = Path(__file__).parent / "published_figures" / "figures.csv"


@cache
def rows() -> tuple[dict[str, str], ...]:
    """All published rows."""
    with open(FILE, newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def methods() -> list[str]:
    """Names of the published methods, in the order of the file."""
    return list(dict.fromkeys(row["method"] for row in rows()))


def published(method: str, metric: str, keys: Iterable[str]) -> dict[str, float]:
    """{"suite/generator": figure in [0, 1]} of a method, for those of the keys for which it was
    published; acc and ap only."""
    found = {
        (row["suite"], plain(row["folder"])): float(row[metric]) / 100
        for row in rows()
        if row["method"] == method and row.get(metric)
    }
    pairs = {key: (key.split("/", 1)[0], plain(key.split("/", 1)[-1])) for key in keys}
    return {key: found[pair] for key, pair in pairs.items() if pair in found}


def sources(method: str, keys: Iterable[str]) -> list[str]:
    """Return the sources of a method's metrics for these sets, and its training data where stated."""
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
