"""The folder of a test run: what is in it, that its numbers follow from the scores, and that names
in it do no harm."""

import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

import test as test_script
from evaluation import testing
from evaluation.metrics import LABELS, binary_metrics
from evaluation.names import escaped
from evaluation.predictions_file import read_predictions, write_predictions
from evaluation.result_files import TestRun, read_run
from evaluation.scores import Scores
from networks.checkpoint_file import save_checkpoint
from reports.result_folder import write_report, write_results
from reports.result_page import report_page
from reports.result_tables import (
    latex_tables,
    markdown_tables,
    robustness_tables,
    text_report,
)
from tests.conftest import make_set
from tests.helpers.run_files import make_run, scored_set, with_accuracy
from tools import recompute
from util import UserError, log

NASTY = [
    "a&b_c%$#{}~^\\",
    "<script>alert(1)</script>",
    "=HYPERLINK('x')",
    "[x]|`*_y_*",
    "new\nline",
    "b\udcffytes",
    "'\";--",
]
LabelledScores = tuple[list[int], list[float]]


def noisy(seed: int, count: int = 40) -> LabelledScores:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return labels.tolist(), np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).tolist()


def results_of(checkpoint: Path, dataroot: Path, out: Path, *flags: str) -> Path:
    """Run test.py on a checkpoint, and return the folder of its results."""
    argv = ["--model_path", str(checkpoint), "--dataroot", str(dataroot), "--num_threads", "0"]
    assert test_script.main([*argv, "--gpu_ids", "-1", "--results_dir", str(out), *flags]) == 0
    return next(path for path in out.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def model(trained: Path) -> Path:
    return trained / "model_epoch_last.pth"


@pytest.fixture(scope="module")
def tested(model: Path, dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test with --robustness; one file cannot be read."""
    root = tmp_path_factory.mktemp("tested")
    data = shutil.copytree(dataroot / "test", root / "data" / "suite")
    (data / "gan" / "0_real" / "bad.png").write_bytes(b"no")
    flags = ("--robustness", "--precision", "fp32", "--bootstrap", "100")
    with pytest.MonkeyPatch.context() as patch:
        # rendering takes longest, and no test looks at these plots
        patch.setattr(
            Figure, "savefig", lambda _, file, **__: Image.new("L", (1, 1)).save(file, "PNG")
        )
        return results_of(model, data, root / "out", *flags)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_in_the_folder(tested: Path) -> None:
    assert {path.name for path in tested.iterdir()} == {
        "metrics.json", "predictions.csv", "robustness_predictions.csv", "left_out.csv",
        "tables.md", "tables.tex", "tables.csv", "roc.png", "scores.png", "robustness.png",
        "report.html", f"{tested.name}.txt", "attention.json", "attention_statistics.csv",
        *(f"attention_{name}.png"
          for name in ("means", "heatmap", "controls", "distribution", "training")),
    }  # fmt: skip
    document = read_json(tested / "metrics.json")
    assert {"schema", "model", "checkpoint_sha256", "versions"} <= set(document)
    (skipped,) = document["skipped"]
    assert skipped["path"] == "gan/0_real/bad.png"
    assert skipped["reason"].startswith("not an image in one of the formats that are read: PNG, ")
    metrics, protocol = document["sets"]["suite/gan"], document["protocol"]["suite/gan"]
    assert (metrics["n_real"], metrics["n_fake"]) == (4, 4)
    assert (metrics["suite"], metrics["generator"]) == ("suite", "gan")
    assert (protocol["name"], protocol["version"]) == ("native", 1)
    aucs = [document["sets"][key]["auc"] for key in ("suite/gan", "suite/diffusion")]
    assert document["suites"]["suite"]["auc"] == pytest.approx(np.mean(aucs))
    assert document["suites"]["suite"]["n_sets"] == 2
    assert document["robustness"]["clean"]["sets"]["suite/gan"]["auc"] == metrics["auc"]


def test_metrics_and_tables_are_those_of_the_scores(tested: Path) -> None:
    document, rows = read_json(tested / "metrics.json"), read_csv(tested / "predictions.csv")
    labels, scores = (np.array([float(row[name]) for row in rows]) for name in ("label", "score"))
    paths = [row["path"] for row in rows if row["generator"] == "gan"]
    assert paths == sorted(paths)
    pooled = binary_metrics(labels, scores, document["threshold"]).to_dict()
    assert {name: document["pooled"][name] for name in pooled} == pytest.approx(pooled)
    table = {
        (row["kind"], row["suite"], row["generator"]): row
        for row in read_csv(tested / "tables.csv")
    }
    for key, metrics in (
        (("set", "suite", "gan"), document["sets"]["suite/gan"]),
        (("suite mean", "suite", ""), document["suites"]["suite"]),
        (("pooled", "", ""), document["pooled"]),
    ):
        for name in LABELS:
            low, high = metrics["ci95"].get(name, ("", ""))
            assert low == high == "" or 0 <= low <= high <= 1
            cells = [table[key][f"{name}{end}"] for end in ("", "_low", "_high")]
            value = "" if metrics[name] is None else repr(metrics[name])
            assert cells == [value, str(low), str(high)], name


@pytest.mark.usefixtures("blank_pictures")
def test_every_number_is_recomputed_from_the_scores(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In whatever order their lines are."""
    folder = shutil.copytree(tested, tmp_path / "sorted")
    header, *lines = (folder / "predictions.csv").read_text().splitlines()
    lines.sort(key=lambda line: float(line.split(",")[5]))
    (folder / "predictions.csv").write_text("\n".join([header, *lines]) + "\n")
    for path, output in ((folder, []), (tested, ["--output", str(tmp_path / "again")])):
        assert recompute.main([str(path), *output]) == 0
        printed = re.search(r"(\d+) numbers computed, 0 differ", capsys.readouterr().out)
        assert printed is not None and int(printed.group(1)) > 500
    names = ("metrics.json", "predictions.csv", "robustness_predictions.csv")
    for name in (*names, "tables.md", "tables.tex", "tables.csv", "attention.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tested / name).read_bytes(), name


def test_scores_alone_are_enough(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "scores").mkdir()
    shutil.copy(tested / "predictions.csv", tmp_path / "scores")
    argv = [str(tmp_path / "scores"), "--bootstrap", "0", "--output", str(tmp_path / "full")]
    assert recompute.main(argv) == 3
    assert "not compared" in capsys.readouterr().out
    metrics = read_json(tmp_path / "full" / "metrics.json")["sets"]["suite/gan"]
    assert metrics["auc"] == read_json(tested / "metrics.json")["sets"]["suite/gan"]["auc"]
    assert metrics["acc_at_threshold"] is None and metrics["ci95"] == {}


def edit_scores(folder: Path, name: str, change: Callable[[float], float]) -> None:
    """Change the columns with this name in the third line of predictions.csv."""
    rows = read_csv(folder / "predictions.csv")
    rows[2] |= {key: str(change(float(text))) for key, text in rows[2].items() if name in key}
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def edit_json(path: Path, part: str, change: Callable[[Any], object]) -> None:
    document = read_json(path)
    change(document[part])
    path.write_text(json.dumps(document))


CHANGES: dict[str, Callable[[Path], None]] = {
    "n_real: written 4, computed": lambda folder: edit_scores(folder, "label", lambda x: 1 - x),
    "1 logits do not follow from attention and branch logits": lambda folder: edit_scores(
        folder, "branch_logit_", lambda logit: logit + 1
    ),
    "pooled acc: written 0.123": lambda folder: edit_json(
        folder / "metrics.json", "pooled", lambda metrics: metrics.update(acc=0.123)
    ),
    "no fusion": lambda folder: edit_json(
        folder / "metrics.json", "fusion", lambda fusion: fusion.clear()
    ),
    "statistics count: written 3": lambda folder: edit_json(
        folder / "attention.json", "statistics", lambda statistics: statistics.update(count=3)
    ),
    "robustness_predictions.csv is missing": lambda folder: (
        folder / "robustness_predictions.csv"
    ).unlink(),
}
"""{what recompute says: a change of the folder}"""


@pytest.mark.parametrize("complaint", CHANGES)
def test_what_was_changed_is_noticed(
    complaint: str, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(tested, tmp_path / "changed")
    CHANGES[complaint](folder)
    assert recompute.main([str(folder)]) == 1
    assert complaint in capsys.readouterr().out
    with pytest.raises(UserError, match="is the folder itself"):
        recompute.main([str(folder), "--output", str(folder)])


HEADER = "path,suite,generator,label,logit,score"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"{HEADER}\na,s,g,2,0,0.5", "line 2: label 2"),
        (f"{HEADER}\na,s,g,nan,0,0.5", "line 2: label nan"),
        (f"{HEADER}\na,s,g,1,0,1.5", "line 2: label 1 and score 1.5"),
        (f"{HEADER}\na,s,g,1,x,0.5", "line 2: could not convert"),
        (f"{HEADER}\na,s,g,1", "line 2: has 4 values, expected 6"),
        (f"{HEADER}\na,s,g,1,9.42,0.5", "line 2: score 0.5 is not the sigmoid"),
        (f"{HEADER}\na,s,g,1,0,0.5\na,s,g,1,0,0.5", "a occurs twice in s/g"),
        (f"{HEADER},attention_0.5,branch_logit_0.25\n", "branch logits of the same scales"),
        (f"{HEADER},attention_0.5\n", "branch logits of the same scales"),
        (f"{HEADER}\n", "predictions.csv: holds no scores"),
        ("a,b\n1,2", "predictions.csv: has the columns a,b, expected"),
        (None, "predictions.csv: cannot be read"),
    ],
)
def test_a_damaged_file_is_named(text: str | None, complaint: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(complaint)):
        recompute.main([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        recompute.main([str(tmp_path / "nowhere")])


@pytest.mark.parametrize("encoding", ("utf-8-sig", "utf-16"))
def test_scores_that_another_program_saved_are_read(encoding: str, tmp_path: Path) -> None:
    text = f"{HEADER}\n一.png,s,g,1,0,0.5\n"
    (tmp_path / "predictions.csv").write_text(text, encoding=encoding)
    assert read_run(tmp_path).sets[0].paths == ("一.png",)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9
    ),
    st.text(max_size=8).map(escaped),
)
def test_scores_come_back_bit_for_bit(rows: list[tuple[int, float, float]], name: str) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    attention, branches = np.c_[weights, 1 - weights], np.c_[-weights, scores / 3]
    scored = scored_set(f"s/{name}", labels, scores, "", attention, branches)
    columns = ("attention_0.5", "attention_0.25")
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder) / "p.csv", {None: [scored]}, columns)
        conditions, names = read_predictions(Path(folder) / "p.csv")
    (again,) = conditions[None]
    assert names == columns
    assert (again.suite, again.generator, again.paths) == ("s", name, scored.paths)
    for part in ("labels", "scores", "logits", "attention", "branch_logits"):
        assert np.array_equal(getattr(again, part), getattr(scored, part)), part


def test_logits_follow_from_attention_and_branch_logits(tested: Path) -> None:
    fusion, rows = (
        read_json(tested / "metrics.json")["fusion"],
        read_csv(tested / "predictions.csv"),
    )
    keys = [name.removeprefix("attention_") for name in rows[0] if name.startswith("attention_")]
    assert len(keys) > 1 and [*rows[0]][-len(keys) :] == [f"branch_logit_{key}" for key in keys]
    for row in rows:
        parts = [float(row[f"attention_{key}"]) * float(row[f"branch_logit_{key}"]) for key in keys]
        assert float(row["logit"]) == pytest.approx(sum(parts) + fusion["bias"], abs=1e-4)


class Page(html.parser.HTMLParser):
    """Collects what a page would run or load, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [
            value or ""
            for name, value in attributes
            if name in ("src", "href", "srcset", "data", "action")
        ]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def nasty_run() -> TestRun:
    sets = {f"suite/{escaped(name)}": noisy(number) for number, name in enumerate(NASTY)}
    skipped = [
        {"path": escaped(f"{name}.png"), "reason": name}
        for name in ("<img src=x onerror=alert(1)>", "a|b\n")
    ]
    return make_run(escaped(NASTY[0]), sets, skipped=skipped)


def test_report_is_one_harmless_page(nasty_run: TestRun, tmp_path: Path) -> None:
    write_report(nasty_run, tmp_path, "x")
    page = Page(tmp_path / "report.html")
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)
    assert page.sources and all(
        source.startswith(("data:image/png;base64,", "#")) for source in page.sources
    )
    for text in (*map(escaped, NASTY), "<img src=x onerror=alert(1)>.png"):
        assert text in page.text
    assert page.tags.count("img") == 2 and "http" not in page.text


def test_tables_hold_every_name_without_letting_it_act(nasty_run: TestRun) -> None:
    latex, text = latex_tables(nasty_run), markdown_tables(nasty_run)
    for raw in ("<script>", "`*_y_*"):
        assert raw not in latex and raw not in text
    body = [
        line
        for line in latex.splitlines()
        if line.rstrip().endswith(r"\\") and "generator" not in line
    ]
    assert len(body) == len(NASTY) + 2  # and the mean, and all images together
    for line in body:
        assert not line.lstrip().startswith(("[", "*")) and len(re.findall(r"(?<!\\)&", line)) == 7
    rows = [line for line in text.splitlines() if line.startswith("|") and "script" in line]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) in (9, 15) for row in rows)


def test_means_are_over_sets_of_both_classes() -> None:
    """Sets of one class stand apart, below the mean; a suite of such sets has no mean."""
    sets = {"s/gan": with_accuracy(0.9, 20), "s/sd": with_accuracy(0.6, 20)}
    one_class = {"s/photos": ([0, 0], [0.9, 0.1]), "fakes/a": ([1, 1], [0.9, 0.9])}
    run = make_run("m", one_class | sets)
    run.robustness["jpeg"] = list(run.sets)
    suites = run.metrics()["suites"]
    assert suites["s"]["acc"] == pytest.approx(0.75) and suites["s"]["n_sets"] == 2
    assert suites["fakes"]["acc"] is None and suites["fakes"]["n_sets"] == 0
    text = text_report(run)
    names = re.findall(r"^(gan|sd|Mean|photos) ", text, re.MULTILINE)
    assert names[:4] == ["gan", "sd", "Mean", "photos"] and names.count("Mean") == 1
    assert "photos (real only)" in text and "a (fake only)" in text
    (*_, (_, columns, ((_, *cells),))) = robustness_tables(run)
    assert columns == ["degradation", "gan", "sd", "mean", "photos (real only)", "a (fake only)"]
    assert cells == ["90.0", "60.0", "75.0", "50.0", "100.0"]
    page = report_page(run, [], "m", None).render()
    assert re.findall(r"<tr class=\"mean\">\s*<td[^>]*>([^<]*)", page) == ["Mean"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(nasty_run: TestRun, tmp_path: Path) -> None:
    packages = r"\usepackage[utf8]{inputenc}\usepackage{booktabs}"
    start = rf"\documentclass{{article}}{packages}\begin{{document}}"
    text = "\n".join([start, latex_tables(nasty_run), r"\end{document}"])
    (tmp_path / "x.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "x.tex"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_metrics_in_text_are_those_of_the_scores() -> None:
    sets = {"progan": with_accuracy(0.925, 200), "biggan": with_accuracy(0.7, 200)}
    run = make_run("m", {f"ForenSynths/{name}": scores for name, scores in sets.items()})
    text = text_report(run)
    assert "Table 1 - ForenSynths" in text
    lines = {words[0]: words for line in text.splitlines() if (words := line.split())}
    assert lines["progan"][1:4] == ["100", "100", "92.5"]
    assert len(lines["progan"]) == 8  # name, images, five metrics without intervals
    assert lines["Mean"][1] == lines["Pooled"][3] == "81.2"  # equally large sets
    assert "95 % intervals:" in markdown_tables(run) and r"95 \%" in latex_tables(run)
    run.head["bootstrap"]["resamples"] = 0
    assert "95 % intervals:" not in markdown_tables(run) and r"95 \%" not in latex_tables(run)


def same_run(scores: LabelledScores, equalize: str | None = None) -> TestRun:
    settings = {"checkpoint_sha256": "1", "precision": "fp32", "classes": [], "grid": []}
    return make_run("m", {"s/x": scores}, equalize=equalize, **settings)


@pytest.mark.usefixtures("without_pictures")
def test_only_results_of_the_same_test_are_replaced(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    folder = write_results(same_run(noisy(0)), out, data)
    (folder / "stale.png").write_bytes(b"of an earlier run")
    assert write_results(same_run(noisy(1)), out, data) == folder
    assert not (folder / "stale.png").exists()
    before = (folder / "metrics.json").read_bytes()
    assert write_results(same_run(noisy(1), "jpeg:90"), out, data).name == "m_s_data"
    (out / "m_data_2").mkdir()
    assert write_results(same_run(noisy(1), "webp:90"), out, data).name == "m_data_3"
    assert (folder / "metrics.json").read_bytes() == before
    assert not list((out / "m_data_2").iterdir())  # somebody else's
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results_dir .*file: cannot write there"):
        write_results(same_run(noisy(0)), tmp_path / "file", data)


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("without_pictures")
def test_a_folder_takes_its_place_when_its_numbers_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    folder = write_results(same_run(noisy(0)), tmp_path, data)
    before = (folder / "metrics.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TestRun, "write_data", interrupt)
        write_results(same_run(noisy(1)), tmp_path, data)
    assert (folder / "metrics.json").read_bytes() == before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reports.result_folder.draw_plots", interrupt)
        write_results(same_run(noisy(1)), tmp_path, data)
    assert (folder / "metrics.json").read_bytes() != before and recompute.main([str(folder)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"m_data", "m_data.txt"}


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no module")])
def test_a_plot_that_cannot_be_drawn_is_skipped_with_a_warning(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("reports.plots.scores.plot_roc", fail)
    monkeypatch.setattr(log, "propagate", True)
    folder = write_results(same_run(noisy(0)), tmp_path, tmp_path / "data")
    assert f"plots skipped ({type(error).__name__}: {error})" in caplog.text
    assert {path.name for path in folder.glob("*.png")} == {"scores.png"}
    assert Page(folder / "report.html").tags.count("img") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--results_dir", __file__),
        ("--protocol", "foo"),
        ("--equalize", "noise:3"),
        ("--equalize", "jpeg:90.7"),
        ("--equalize", "png"),
    ],
)
def test_wrong_flags_are_named_before_a_model_is_loaded(
    flags: tuple[str, str],
    model: Path,
    dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluation.testing.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=flags[0]):
        results_of(model, dataroot / "test", tmp_path, *flags)


def test_a_file_that_sets_share_counts_once_in_all_images_together() -> None:
    sets = {
        f"s/{name}": ([0, 0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8, x])
        for name, x in zip("ab", (0.3, 0.7), strict=True)
    }
    run = make_run("m", sets)
    shared = [
        dataclasses.replace(scored, paths=("r0", "r1", "r2", *scored.paths[3:]))
        for scored in run.sets
    ]
    summary = dataclasses.replace(run, sets=shared).summary
    assert (summary.pooled_metrics.n_real, summary.pooled_metrics.n_fake) == (3, 4)
    assert summary.pooled_metrics.acc == pytest.approx(5 / 7)
    distinct = make_run("m", {"s/a": noisy(0), "s/b": noisy(1)}).summary
    assert distinct.pooled_metrics.n_real == 40
    pooled = distinct.pooled.intervals["auc"]
    assert pooled not in [metrics.intervals["auc"] for metrics in distinct.sets.values()]


@pytest.mark.usefixtures("without_pictures")
def test_scores_that_are_not_finite_are_skipped(
    model: Path, dataroot: Path, tmp_path: Path
) -> None:
    values = torch.load(model)
    # finite, as weights have to be, but their sums are not
    values["model_state_dict"]["classifier.weight"][:] = 3e38
    save_checkpoint(tmp_path / "huge.pth", values)
    with pytest.raises(
        UserError, match="0 of 8 images can be used: 8 not usable, such as .*not finite"
    ):
        results_of(tmp_path / "huge.pth", dataroot / "test", tmp_path / "out")


def resave(
    folder: Path, target: Path, suffix: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    """Save changed copies of a set's images in another folder."""
    for path in folder.rglob("*.png"):
        copy = target / path.relative_to(folder).with_suffix(suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(path)).save(copy, quality=80)


@pytest.mark.usefixtures("without_pictures")
def test_equalised_images_are_scored_as_if_they_had_been_saved_so(
    model: Path, dataroot: Path, tmp_path: Path
) -> None:
    resave(dataroot / "test" / "gan", tmp_path / "gan", ".jpg", lambda image: image)
    flags = ("--equalize", "jpeg:80")
    equalized = read_run(results_of(model, dataroot / "test" / "gan", tmp_path / "a", *flags))
    saved = read_run(results_of(model, tmp_path / "gan", tmp_path / "b"))
    assert np.array_equal(equalized.sets[0].logits, saved.sets[0].logits)
    assert equalized.head["equalize"] == "jpeg:80"
    assert "re-encoded before scoring: jpeg:80" in text_report(equalized)


@pytest.mark.usefixtures("without_pictures")
def test_robustness_scores_are_those_of_degraded_files(
    tested: Path, model: Path, dataroot: Path, tmp_path: Path
) -> None:
    def smaller(image: Image.Image) -> Image.Image:
        return image.resize((16, 16), Image.Resampling.BICUBIC)

    resave(dataroot / "test" / "gan", tmp_path / "gan", ".png", smaller)
    by_hand = read_run(results_of(model, tmp_path / "gan", tmp_path / "out")).sets[0]
    grid = read_run(tested).robustness["resize:0.5:bicubic"]
    (degraded,) = (scored for scored in grid if scored.generator == "gan")
    assert degraded.logits == pytest.approx(by_hand.logits, abs=1e-5)


@pytest.mark.usefixtures("without_pictures")
def test_an_image_without_a_clean_score_counts_in_no_degradation(
    model: Path, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_variants = testing.predict_variants

    def without_first(*args: Any) -> list[Scores]:
        clean, *others = predict_variants(*args)
        readable, skipped = np.arange(1, len(clean.paths)), {clean.paths[0]: "damaged"}
        return [dataclasses.replace(clean.take(readable), skipped=skipped), *others]

    monkeypatch.setattr(testing, "predict_variants", without_first)
    flags = ("--robustness", "--bootstrap", "0")
    run = read_run(results_of(model, dataroot / "test" / "gan", tmp_path, *flags))
    paths = {scored.paths for sets in run.robustness.values() for scored in sets}
    assert paths == {run.sets[0].paths} and len(run.sets[0].paths) == 7


@pytest.mark.usefixtures("without_pictures")
def test_test_warns_of_formats_that_give_the_class_away(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_set(tmp_path / "x", 12)
    for path in (tmp_path / "x" / "0_real").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    folder = results_of(model, tmp_path / "x", tmp_path / "out")
    warning = (
        r"x: file format, size and compression alone tell real from fake with AUC 1\.00.*--equalize"
    )
    assert re.search(warning, capsys.readouterr().out)
    assert read_json(folder / "metrics.json")["format_leak"] == {"/x": 1.0}
