"""Attention's files and tables: their numbers, and names that are safe in all of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from evaluation.attention.controls import fused_logits
from evaluation.attention.findings import AttentionFindings, attention_findings
from evaluation.attention.statistics import POOLED
from evaluation.names import escaped
from evaluation.scores import Scores
from reports.attention_tables import (
    attention_sections,
    controls_table,
    generator_table,
    statistics_text,
    write_findings,
)
from reports.html import Page
from tests.helpers.attended_sets import make_scores

SCALES = (0.25, 0.5, 0.5)
LABELS = ("0.25x", "0.5x", "0.5x #2")
NAMES = ("one", escaped("=cmd()"), escaped("gan\udcff"))


def attended(name: str, seed: int, images: int = 60) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    weights = rng.dirichlet((3 + 9 * (seed % 2), 3, 3), images)
    branches = rng.normal(2 * labels[:, None] - 1, 1, (images, 3))
    scores = expit(fused_logits(weights, branches, 0, False))
    return make_scores(name, "s", labels, scores, weights, branches)


@pytest.fixture(scope="module")
def findings() -> AttentionFindings:
    sets = [attended(name, seed) for seed, name in enumerate(NAMES, 1)]
    findings = attention_findings(sets, SCALES, {"bias": 0.0, "residual": False}, resamples=50)
    assert findings is not None
    return findings


def test_files_hold_all_numbers_of_all_groups(findings: AttentionFindings, tmp_path: Path) -> None:
    write_findings(findings, tmp_path)
    document = json.loads((tmp_path / "attention.json").read_text())
    assert list(document) == ["verdicts", "leanings", "statistics", "controls"]
    assert document == json.loads(json.dumps(findings.to_dict()))
    statistics = document["statistics"]
    groups = {
        (generator["name"], name): group
        for generator in [*statistics["generators"], {"name": POOLED} | statistics["pooled"]]
        for name, group in generator["groups"].items()
        if group is not None
    }
    with open(tmp_path / "attention_statistics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(groups) and {row["generator"] for row in rows} == {*NAMES, POOLED}
    for row in rows:
        of_scale = groups[row["generator"], row["group"]]["scales"][row["scale"]]
        written = {name: float(row[name]) if row[name] else None for name in of_scale}
        assert written == of_scale
    pooled = [row for row in rows if (row["generator"], row["group"]) == (POOLED, "all")]
    within = [float(row["within_std"]) for row in pooled]
    assert within == list(statistics["pooled"]["within_std"].values())


def test_tables_have_every_generator_scale_and_control(findings: AttentionFindings) -> None:
    table = generator_table(findings.statistics)
    assert list(table.headers[3:6]) == list(LABELS)
    assert [row.cells[0].text for row in table.rows] == [*NAMES, POOLED]
    of_scale = findings.statistics["generators"][0]["groups"]["all"]["scales"]["0.5_2"]
    first, last = table.rows[0].cells, table.rows[-1].cells
    assert first[5].text == f"{of_scale['mean']:.3f} ± {of_scale['std']:.3f}"
    assert first[1].note == "30 real, 30 fake" and first[-1].text != "-" and last[-1].text == "-"
    table = controls_table(findings.controls)
    condition = findings.controls["conditions"][0]
    moved = f"{condition['logit_change_real']:+.2f}"
    assert [cell.text for cell in table.rows[0].cells[1:3]] == [condition["sentence"], moved]
    assert [row.cells[0].text for row in table.rows] == [
        "uniform", "mean", "shuffled within", "shuffled across",
        *(f"without {label}" for label in LABELS), *(f"only {label}" for label in LABELS),
        "per generator",
    ]  # fmt: skip
    page = Page("a", "b", attention_sections(findings, [])).render()
    for part in (*NAMES, "Rank correlation", "0.5x #2", "distance from the rest", "counts once"):
        assert part in page.replace("\n", " "), part


def test_text_of_statistics_worked_by_hand() -> None:
    weights = np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]])
    images = make_scores("x", "s", np.array([0, 0, 1]), np.zeros(3), weights)
    text = statistics_text([images], (0.5, 0.5))
    assert "images: x\n" in text and "all (3 images)" in text
    assert "real (2 images), entropy 0.3466 nats (uniform: 0.6931)" in text
    assert "  Scale 0.5x: 0.7500 ± 0.2500\n  Scale 0.5x #2: 0.2500 ± 0.2500\n" in text
    assert "fake (1 images)" in text
    fakes = make_scores("y", "s", np.ones(1), np.zeros(1), weights[2:])
    assert "images: all 2 generators" in statistics_text([images, fakes], (0.5, 0.5))
    assert "real" not in statistics_text([fakes], (0.5, 0.5))
