"""Findings about attention: the same from a run as from its files, on the page, and in the files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.attention.controls import fused_logits
from evaluation.attention.findings import attention_findings, findings_of_run
from evaluation.result_files import TestRun, read_run
from evaluation.scores import Scores
from reports.result_folder import write_results
from tests.helpers.attended_sets import make_scores
from tests.helpers.run_files import make_run

SCALES = [0.25, 0.5, 0.75]
FUSION = {"bias": 0.3, "residual": False}


def attended_set(name: str, top: int, seed: int) -> Scores:
    """Return 100 images whose attention prefers the scale `top`, and whose branch there tells the
    classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(100) % 2
    weights = rng.dirichlet(np.where(np.arange(3) == top, 12, 3), size=100)
    branches = rng.normal(size=(100, 3))
    branches[:, top] += 3 * (2 * labels - 1)
    logits = fused_logits(weights, branches, FUSION["bias"], False)
    paths = tuple(f"{name}/{label}_x/{index}.png" for index, label in enumerate(labels))
    return Scores("suite", name, paths, labels, logits, weights, branches)


@pytest.fixture(scope="module")
def run() -> TestRun:
    head = make_run("m", {}).head
    model = head["model"] | {"scales": SCALES, "model_type": "multiscale_attention"}
    sets = [attended_set("gan", 0, 1), attended_set("diffusion", 2, 2)]
    columns = tuple(f"attention_{scale}" for scale in SCALES)
    return TestRun(head | {"model": model, "fusion": FUSION}, sets, {}, columns)


@pytest.mark.usefixtures("blank_pictures")
def test_findings_are_those_of_the_files(run: TestRun, tmp_path: Path) -> None:
    folder = write_results(run, tmp_path, Path("data"))
    written = json.loads((folder / "attention.json").read_text())
    again = findings_of_run(read_run(folder))
    assert again is not None and json.loads(json.dumps(again.to_dict())) == written
    assert [verdict["kind"] for verdict in written["verdicts"]] == ["varies by generator"]
    leading = {row["generator"]: row["key"] for row in written["leanings"]}
    assert leading == {"gan": "0.25", "diffusion": "0.75"}
    page = (folder / "report.html").read_text()
    for part in ("varies by generator", "Does attention matter?", "0.25x leads for gan"):
        assert part in page
    changes = {
        (condition["name"], part["name"]): part["change"]
        for condition in written["controls"]["conditions"]
        for part in condition["by_generator"]
    }
    assert changes["without_0.25", "gan"] < -0.1 < changes["without_0.75", "gan"]
    plots = {path.stem.removeprefix("attention_") for path in folder.glob("attention_*.png")}
    assert plots == {"means", "heatmap", "controls", "distribution"}


def test_the_auc_has_the_interval_of_the_metrics(run: TestRun) -> None:
    """Also where logits were rounded (bf16), so that branch logits give them only nearly."""
    sets = [replace(scored, logits=scored.logits.round(1)) for scored in run.sets]
    rounded = replace(run, sets=sets[::-1])
    findings, metrics = findings_of_run(rounded), rounded.metrics()["suites"]["suite"]
    assert findings is not None and findings.controls is not None
    numbers = [findings.controls[name] for name in ("auc", "low", "high")]
    assert numbers == pytest.approx([metrics["auc"], *metrics["ci95"]["auc"]], abs=1e-12)


def test_without_branch_logits_scales_or_images_there_is_less_to_find() -> None:
    sets = [make_scores("gan", "s", np.arange(20) % 2, np.full(20, 0.5), np.full((20, 3), 1 / 3))]
    findings = attention_findings(sets, SCALES, FUSION, resamples=50)
    assert findings is not None and findings.controls is None
    assert findings.verdicts[0].kind == "uniform"
    assert attention_findings([sets[0].take(np.arange(0))], SCALES, None) is None
    single = make_scores("gan", "s", np.arange(20) % 2, np.full(20, 0.5), np.ones((20, 1)))
    assert attention_findings([single], [0.5], None) is None
