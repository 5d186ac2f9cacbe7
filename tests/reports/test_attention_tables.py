"""Everything that attention.json says is in tables too, with names that no spreadsheet takes for a
formula."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from evaluation.attention.controls import attention_controls, fused_logits
from evaluation.attention.findings import AttentionFindings, attention_findings
from evaluation.attention.statistics import POOLED, attention_statistics
from evaluation.attention.verdict import Verdict, attention_verdicts
from evaluation.names import unescaped
from evaluation.scores import Scores
from reports.attention_tables import (
    attention_sections,
    comparison_rows,
    controls_rows,
    controls_table,
    correlation_rows,
    generator_table,
    statistics_rows,
    verdict_rows,
    write_findings,
)
from reports.html import Page
from tests.helpers.attended_sets import make_scores

SCALES = (0.25, 0.5, 0.5)
LABELS = ("0.25x", "0.5x", "0.5x #2")


def attended(name: str, seed: int, images: int = 60) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    weights = rng.dirichlet((3 + 9 * (seed % 2), 3, 3), images)
    branches = rng.normal(2 * labels[:, None] - 1, 1, (images, 3))
    return make_scores(
        name, "s", labels, expit(fused_logits(weights, branches, 0, False)), weights, branches
    )


@pytest.fixture(scope="module")
def found() -> AttentionFindings:
    sets = [attended("one", 1), attended("=cmd()", 2), attended("gan\udcff", 3)]
    findings = attention_findings(sets, SCALES, {"bias": 0.0, "residual": False}, resamples=50)
    assert findings is not None
    return findings


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(document: Any) -> set[float]:
    """All numbers that are not whole, wherever in a document."""
    if isinstance(document, dict | list):
        return set().union(
            *map(numbers, document.values() if isinstance(document, dict) else document), ()
        )
    return {document} if isinstance(document, float) and document != round(document) else set()


def test_every_figure_of_the_json_file_is_in_a_table(
    found: AttentionFindings, tmp_path: Path
) -> None:
    write_findings(found, tmp_path)
    written: set[float] = set()
    for path in tmp_path.glob("*.csv"):
        for row in read(path):
            for cell in row.values():
                try:
                    written.add(float(cell))
                except ValueError:
                    assert not cell.startswith(("=", "+", "-", "@")), cell
    document = json.loads((tmp_path / "attention.json").read_text())
    del (
        document["statistics"]["scales"],
        document["statistics"]["confidence"],
        document["controls"]["confidence"],
    )
    # in the verdicts' evidence, and from within_std
    summed = document["statistics"]["pooled"].pop("within_spread")
    # auc less change of any condition
    base = {name: document["controls"].pop(name) for name in ("auc", "low", "high")}
    assert summed and base
    assert not numbers(document) - written
    assert {path.name for path in tmp_path.iterdir()} == {
        "attention.json", *(f"attention_{n}.csv" for n in ("statistics", "tests", "correlations", "verdicts", "controls")),
    }  # fmt: skip


def test_names_are_safe_everywhere_and_say_what_they_mean(
    found: AttentionFindings, tmp_path: Path
) -> None:
    write_findings(found, tmp_path)
    names = {row["generator"] for row in read(tmp_path / "attention_statistics.csv")}
    assert {unescaped(name) for name in names} == {"one", "=cmd()", "gan\udcff", POOLED}
    page = Page("a", "b", attention_sections(found, [])).render()
    page.encode()
    assert r"\x3dcmd()" in page
    # names that are safe already stay
    again = attention_findings(found.sets, SCALES, None, resamples=50)
    assert again is not None and [one.generator for one in again.sets] == [
        one.generator for one in found.sets
    ]


def test_rows_of_statistics() -> None:
    found = attention_statistics(
        [attended("a", 0), attended("b", 1)], SCALES, resamples=10, permutations=10
    )
    rows = statistics_rows(found)
    groups = sum(
        group is not None
        for one in [*found["generators"], found["pooled"]]
        for group in one["groups"].values()
    )
    assert len(rows) == 3 * groups and len({tuple(row) for row in rows}) == 1
    assert {row["group"] for row in rows} >= {
        "all",
        "real_correct",
        "real_wrong",
        "fake_correct",
        "fake_wrong",
    }
    assert rows[0]["generator"] == "a" and rows[-1]["generator"] == POOLED
    assert (
        rows[1]["scale"] == "0.5"
        and rows[1]["mean"] == found["generators"][0]["groups"]["all"]["scales"]["0.5"]["mean"]
    )
    within = [
        row["within_std"] for row in rows if row["generator"] == POOLED and row["group"] == "all"
    ]
    assert within == list(found["pooled"]["within_std"].values())
    assert all(
        value is None or isinstance(value, str | float | int)
        for row in rows
        for value in row.values()
    )


def test_rows_of_tests_and_correlations() -> None:
    found = attention_statistics(
        [attended("a", 0), attended("b", 1), attended("c", 2)], SCALES, 0, 10, 10
    )
    rows = comparison_rows(found)
    kinds = [(row["test"], row["of"]) for row in rows]
    assert kinds == [("overall", "fake"), *[("from rest", "fake")] * 3, *[("pair", "fake")] * 3, ("overall", "real"),
                     *[("from rest", "real")] * 3, ("class", "real and fake")]  # fmt: skip
    assert (rows[4]["a"], rows[4]["b"]) == ("s/a", "s/b") and rows[1]["a"] == "s/a"
    correlations = correlation_rows(found)
    assert len(correlations) == 4 * 2 * 3 + 3
    assert correlations[0] | found["generators"][0]["with_score"]["real"]["0.25"] == correlations[0]
    # three generators are too few
    assert correlations[-1]["with"] == "accuracy" and "rho" not in correlations[-1]
    single = attention_statistics([attended("a", 0)], SCALES, 0, 10, 10)
    assert [row["test"] for row in comparison_rows(single)] == ["class"]


def test_rows_of_verdicts_begin_with_no_flag() -> None:
    statistics = attention_statistics(
        [attended("a", 1, 200)], SCALES, resamples=20, permutations=20
    )
    verdicts = [*attention_verdicts(statistics), Verdict("too few images", "few")]
    rows = verdict_rows(verdicts)
    assert sum("evidence" in row for row in rows) == sum(
        len(verdict.evidence) for verdict in verdicts
    )
    advice = [row["advice"] for row in rows if "advice" in row]
    assert advice and all(one.startswith("try --") for one in advice)
    assert rows[-1] == {"kind": "too few images", "sentence": "few"}


def test_rows_and_table_of_controls() -> None:
    sets = [attended("a", 0), attended("b", 1), attended("c", 2)]
    controls = attention_controls(sets, SCALES, 0.1, False, resamples=40)
    rows = controls_rows(controls)
    assert len(rows) == 10 * 4 + 1
    assert all(isinstance(value, str | float) for row in rows for value in row.values())
    assert rows[0]["generator"] == "mean" and rows[0]["auc"] == pytest.approx(
        np.mean([row["auc"] for row in rows[1:4]])
    )
    assert rows[-1]["change"] == controls["per_generator"]["change"]
    shown = [row.cells[0].text for row in controls_table(controls).rows]
    assert shown == [
        "uniform", "mean", "shuffled within", "shuffled across", *(f"without {label}" for label in LABELS),
        *(f"only {label}" for label in LABELS), "per generator",
    ]  # fmt: skip


def test_the_page_has_figures_of_every_generator_and_correlations(found: AttentionFindings) -> None:
    table = generator_table(found.statistics)
    assert list(table.headers[3:6]) == list(LABELS)
    assert [row.cells[0].text for row in table.rows] == ["one", r"\x3dcmd()", "gan\\udcff", POOLED]
    first = found.statistics["generators"][0]["groups"]
    mean, std = (first["all"]["scales"]["0.5_2"][name] for name in ("mean", "std"))
    assert (
        table.rows[0].cells[5].text == f"{mean:.3f} ± {std:.3f}"
        and table.rows[0].cells[1].note == "30 real, 30 generated"
    )
    assert table.rows[0].cells[-1].text != "-" and table.rows[-1].cells[-1].text == "-"
    page = Page("a", "b", attention_sections(found, [])).render()
    for part in (
        "Rank correlation",
        "0.5x #2",
        "without 0.5x #2",
        "distance from the rest",
        "each once",
    ):
        assert part in page.replace("\n", " "), part
