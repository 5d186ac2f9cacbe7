"""Attention's files and tables: their numbers, and names that no spreadsheet takes for a formula."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from evaluation.attention.controls import attention_controls, fused_logits
from evaluation.attention.findings import AttentionFindings, attention_findings
from evaluation.attention.statistics import POOLED, attention_statistics
from evaluation.names import unescaped
from evaluation.scores import Scores
from reports.attention_tables import (
    attention_sections,
    controls_table,
    generator_table,
    statistics_rows,
    statistics_text,
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


def test_findings_are_a_json_file_and_one_table(found: AttentionFindings, tmp_path: Path) -> None:
    write_findings(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "attention.json",
        "attention_statistics.csv",
    }
    document = json.loads((tmp_path / "attention.json").read_text())
    assert document == json.loads(json.dumps(found.to_dict()))
    assert list(document) == ["verdicts", "leanings", "statistics", "controls"]
    rows = read(tmp_path / "attention_statistics.csv")
    fakes = {
        (row["generator"], row["scale"]): float(row["mean"])
        for row in rows
        if row["group"] == "fake"
    }
    for one in document["statistics"]["generators"]:
        for key, of_scale in one["groups"]["fake"]["scales"].items():
            assert fakes[one["name"], key] == of_scale["mean"]


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


def test_table_of_controls() -> None:
    sets = [attended("a", 0), attended("b", 1), attended("c", 2)]
    controls = attention_controls(sets, SCALES, 0.1, False, resamples=40)
    table = controls_table(controls)
    first = controls["conditions"][0]
    moved = f"{first['logit_change_real']:+.2f}"
    assert [cell.text for cell in table.rows[0].cells[1:3]] == [first["sentence"], moved]
    shown = [row.cells[0].text for row in table.rows]
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
        and table.rows[0].cells[1].note == "30 real, 30 fake"
    )
    assert table.rows[0].cells[-1].text != "-" and table.rows[-1].cells[-1].text == "-"
    page = Page("a", "b", attention_sections(found, [])).render()
    for part in (
        "Rank correlation",
        "0.5x #2",
        "without 0.5x #2",
        "distance from the rest",
        "counts once",
    ):
        assert part in page.replace("\n", " "), part


def test_text_of_statistics_worked_by_hand() -> None:
    weights = np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]])
    one = make_scores("x", "s", np.array([0, 0, 1]), np.zeros(3), weights)
    text = statistics_text([one], (0.5, 0.5))
    assert "images: x\n" in text and "all (3 images)" in text
    assert "real (2 images), entropy 0.3466 nats (uniform: 0.6931)" in text
    assert "  Scale 0.5x: 0.7500 ± 0.2500\n  Scale 0.5x #2: 0.2500 ± 0.2500\n" in text
    assert "fake (1 images)" in text
    fakes = make_scores("y", "s", np.ones(1), np.zeros(1), weights[2:])
    assert "images: all 2 generators" in statistics_text([one, fakes], (0.5, 0.5))
    assert "real" not in statistics_text([fakes], (0.5, 0.5))
