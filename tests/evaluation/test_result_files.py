"""The folder of a test run: what is in it, that its numbers follow from the scores, and that names
in it do no harm."""

import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import test as test_script
from evaluation.format_leak import is_leak, separability
from evaluation.metrics import LABELS, binary_metrics
from evaluation.names import escaped
from evaluation.predictions_file import read_predictions, write_predictions
from evaluation.result_files import TestRun, read_run
from networks.checkpoint_file import save_checkpoint
from reports.result_folder import write_report, write_results
from reports.result_tables import latex_tables, markdown_tables, text_report
from tests.conftest import make_set
from tests.helpers.run_files import make_run, scored_set, with_accuracy, write_run
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


def noisy(seed: int, count: int = 40) -> tuple[list[int], list[float]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return labels.tolist(), np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).tolist()


@pytest.fixture(scope="module")
def tested(trained: Path, dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact folder of a test with --robustness; one file cannot be read."""
    root = tmp_path_factory.mktemp("tested")
    shutil.copytree(dataroot / "test", root / "data" / "suite")
    (root / "data" / "suite" / "gan" / "0_real" / "bad.png").write_bytes(b"no")
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(root / "data" / "suite"),
        "--robustness",
    ]
    assert (
        test_script.main(
            [*argv, "--results_dir", str(root / "out"), "--num_threads", "0", "--gpu_ids", "-1"]
        )
        == 0
    )
    (folder,) = (path for path in (root / "out").iterdir() if path.is_dir())
    return folder


def test_what_is_in_the_folder(tested: Path) -> None:
    assert {path.name for path in tested.iterdir()} == {
        "metrics.json", "predictions.csv", "robustness_predictions.csv", "left_out.csv", "tables.md", "tables.tex",
        "tables.csv", "roc.png", "scores.png", "robustness.png", "report.html", f"{tested.name}.txt",
        "attention.json", "attention_statistics.csv",
        *(f"attention_{name}.png" for name in ("means", "heatmap", "controls", "distribution", "training")),
    }  # fmt: skip
    document = json.loads((tested / "metrics.json").read_text())
    wanted = {
        "schema",
        "model",
        "protocol",
        "checkpoint_sha256",
        "versions",
        "skipped",
        "sets",
        "suites",
        "pooled",
        "robustness",
    }
    assert wanted <= set(document)
    assert document["skipped"] == [
        {
            "path": "gan/0_real/bad.png",
            "reason": "not an image in one of the formats that are read: PNG, JPEG, WEBP, BMP, TIFF, GIF",
        }
    ]
    figures = document["sets"]["suite/gan"]
    assert (figures["n_real"], figures["n_fake"], figures["suite"], figures["generator"]) == (
        4,
        4,
        "suite",
        "gan",
    )
    assert set(LABELS) <= set(figures) and set(figures["ci95"]) <= set(LABELS)
    for name, (low, high) in figures["ci95"].items():
        assert 0 <= low <= high <= 1, name
    assert document["suites"]["suite"]["n_sets"] == 2
    aucs = [document["sets"][key]["auc"] for key in ("suite/gan", "suite/diffusion")]
    assert document["suites"]["suite"]["auc"] == pytest.approx(np.mean(aucs))
    assert (
        document["protocol"]["suite/gan"]["name"] == "native"
        and document["protocol"]["suite/gan"]["version"] == 1
    )
    assert document["robustness"]["clean"]["sets"]["suite/gan"]["auc"] == figures["auc"]


def test_every_number_is_recomputed_from_the_scores(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert recompute.main([str(tested), "--output", str(tmp_path / "again")]) == 0
    printed = capsys.readouterr().out
    assert int(re.search(r"(\d+) numbers computed, 0 differ", printed).group(1)) > 500
    for name in (
        "metrics.json",
        "predictions.csv",
        "robustness_predictions.csv",
        "tables.md",
        "tables.tex",
        "tables.csv",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (tested / name).read_bytes(), name


def test_figures_of_the_scores_are_scikit_learns(tested: Path) -> None:
    with open(tested / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    document = json.loads((tested / "metrics.json").read_text())
    labels, scores = (np.array([float(row[name]) for row in rows]) for name in ("label", "score"))
    pooled = binary_metrics(labels, scores, document["threshold"]).to_dict()
    assert {name: document["pooled"][name] for name in pooled} == pytest.approx(pooled)


def test_a_changed_score_is_noticed(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(tested, tmp_path / "changed")
    lines = (folder / "predictions.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[3] = "1" if cells[3] == "0" else "0"
    (folder / "predictions.csv").write_text(
        "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n"
    )
    assert recompute.main([str(folder)]) == 1
    assert "n_real: written 4, computed" in capsys.readouterr().out


def test_scores_alone_are_enough(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "scores").mkdir()
    shutil.copy(tested / "predictions.csv", tmp_path / "scores")
    assert (
        recompute.main(
            [str(tmp_path / "scores"), "--bootstrap", "0", "--output", str(tmp_path / "full")]
        )
        == 3
    )
    assert "not compared" in capsys.readouterr().out
    found = json.loads((tmp_path / "full" / "metrics.json").read_text())
    wanted = json.loads((tested / "metrics.json").read_text())
    assert found["sets"]["suite/gan"]["auc"] == wanted["sets"]["suite/gan"]["auc"]
    assert found["sets"]["suite/gan"]["acc_at_threshold"] is None
    assert found["sets"]["suite/gan"]["ci95"] == {}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a,s,g,2,0,0.5", "line 2: label 2"),
        ("a,s,g,1,0,1.5", "line 2: label 1 and score 1.5"),
        ("a,s,g,1,x,0.5", "line 2: could not convert"),
        ("a,s,g,1", "line 2: has 4 values, expected 6"),
        ("a,s,g,nan,0,0.5", "line 2: label nan"),
    ],
)
def test_a_damaged_line_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text(f"path,suite,generator,label,logit,score\n{line}\n")
    with pytest.raises(UserError, match=re.escape(complaint)):
        recompute.main([str(tmp_path)])


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "path,suite,generator,label,logit,score\n", None]
)
def test_a_file_without_scores_is_an_error(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "predictions.csv").write_text(content)
    with pytest.raises(UserError, match=r"predictions\.csv"):
        recompute.main([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        recompute.main([str(tmp_path / "nowhere")])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9
    ),
    st.data(),
)
def test_scores_come_back_bit_for_bit(
    rows: list[tuple[int, float, float]], data: st.DataObject
) -> None:
    import tempfile

    names = data.draw(st.lists(st.text(max_size=8).map(escaped), min_size=2, max_size=2))
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    scored = scored_set(
        f"{names[0].replace('/', '')}/{names[1]}",
        labels,
        scores,
        attention=np.c_[weights, 1 - weights],
        branch_logits=np.c_[-weights, scores / 3],
    )
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(
            Path(folder) / "p.csv", {None: [scored]}, ("attention_0.5", "attention_0.25")
        )
        conditions, attention = read_predictions(Path(folder) / "p.csv")
    (found,) = conditions[None]
    assert (found.suite, found.generator, found.paths) == (
        scored.suite,
        scored.generator,
        scored.paths,
    )
    assert attention == ("attention_0.5", "attention_0.25")
    for name in ("labels", "scores", "logits", "attention", "branch_logits"):
        assert np.array_equal(getattr(found, name), getattr(scored, name)), name


@pytest.fixture(scope="module")
def attended(trained: Path, dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test of a model with attention."""
    root = tmp_path_factory.mktemp("attended")
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(dataroot / "test"),
    ]
    argv += ["--precision", "fp32"]
    assert (
        test_script.main(
            [*argv, "--results_dir", str(root), "--num_threads", "0", "--gpu_ids", "-1"]
        )
        == 0
    )
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    return folder


@pytest.mark.usefixtures("without_pictures")
def test_logits_follow_from_attention_and_branch_logits(
    attended: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with open(attended / "predictions.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    keys = [name.removeprefix("attention_") for name in rows[0] if name.startswith("attention_")]
    assert len(keys) > 1 and [*rows[0]][-len(keys) :] == [f"branch_logit_{key}" for key in keys]
    fusion = json.loads((attended / "metrics.json").read_text())["fusion"]
    for row in rows:
        parts = [float(row[f"attention_{key}"]) * float(row[f"branch_logit_{key}"]) for key in keys]
        assert (
            float(row["logit"]) == pytest.approx(sum(parts) + fusion["bias"], abs=1e-4)
            and not fusion["residual"]
        )
    assert recompute.main([str(attended), "--output", str(tmp_path / "again")]) == 0
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (attended / name).read_bytes(), name
    changed = shutil.copytree(attended, tmp_path / "changed")
    most = max(keys, key=lambda key: float(rows[2][f"attention_{key}"]))
    rows[2][f"branch_logit_{most}"] = str(float(rows[2][f"branch_logit_{most}"]) + 1)
    with open(changed / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    capsys.readouterr()
    assert recompute.main([str(changed)]) == 1
    assert (
        f"1 logits do not follow from attention and branch logits\n  {rows[2]['path']}"
        in capsys.readouterr().out
    )
    unfused = shutil.copytree(attended, tmp_path / "unfused")
    document = json.loads((unfused / "metrics.json").read_text())
    del document["fusion"]
    (unfused / "metrics.json").write_text(json.dumps(document))
    assert recompute.main([str(unfused)]) == 1
    assert "no fusion" in capsys.readouterr().out


def test_attention_and_branch_logits_are_of_the_same_scales(attended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(attended, tmp_path / "other")
    header, *lines = (folder / "predictions.csv").read_text().splitlines()
    for wrong in (header.replace("branch_logit_", "branch_logit_9"), header + ",attention_9"):
        (folder / "predictions.csv").write_text("\n".join([wrong, *lines]) + "\n")
        with pytest.raises(UserError, match="not attention and branch logits of the same scales"):
            read_run(folder)


class Page(html.parser.HTMLParser):
    """Collects what a page would run or load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

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


def nasty_run() -> TestRun:
    sets = {f"suite/{escaped(name)}": noisy(number) for number, name in enumerate(NASTY)}
    skipped = [
        {"path": escaped(f"{name}.png"), "reason": name}
        for name in ("<img src=x onerror=alert(1)>", "a|b\n")
    ]
    return make_run(escaped(NASTY[0]), sets, skipped=skipped)


def test_report_is_one_harmless_page(tmp_path: Path) -> None:
    run = nasty_run()
    write_report(run, tmp_path, "x")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)
    assert page.sources and all(
        source.startswith(("data:image/png;base64,", "#")) for source in page.sources
    )
    for scored in run.sets:
        assert scored.generator in page.text
    assert "<img src=x onerror=alert(1)>.png" in page.text
    assert page.tags.count("img") == 2
    assert "http" not in page.text


def test_tables_hold_every_name_without_letting_it_act() -> None:
    run = nasty_run()
    latex, text = latex_tables(run), markdown_tables(run)
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


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path: Path) -> None:
    ends = (
        r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}",
        r"\end{document}",
    )
    (tmp_path / "x.tex").write_text(
        "\n".join([ends[0], latex_tables(nasty_run()), ends[1]]), encoding="utf-8"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", "x.tex"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0


def test_tables_csv_holds_all_figures(tested: Path) -> None:
    with open(tested / "tables.csv", newline="") as file:
        rows = {(row["kind"], row["suite"], row["generator"]): row for row in csv.DictReader(file)}
    document = json.loads((tested / "metrics.json").read_text())
    for where, figures in (
        (("set", "suite", "gan"), document["sets"]["suite/gan"]),
        (("suite mean", "suite", ""), document["suites"]["suite"]),
        (("pooled", "", ""), document["pooled"]),
    ):
        for name in LABELS:
            assert rows[where][name] == ("" if figures[name] is None else repr(figures[name]))
            low, high = figures["ci95"].get(name, ("", ""))
            assert (rows[where][f"{name}_low"], rows[where][f"{name}_high"]) == (
                str(low),
                str(high),
            )


def test_one_class_is_null_and_said(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, "m", {"s/reals": ([0] * 10, [0.1] * 9 + [0.9]), "s/both": noisy(0)}, threshold=0.3
    )
    figures = json.loads((folder / "metrics.json").read_text())["sets"]["s/reals"]
    assert figures["acc"] == figures["real_acc"] == 0.9 and figures["acc_at_threshold"] == 0.9
    for name in ("fake_acc", "balanced_acc", "ap", "auc", "eer", "tpr_at_fpr1", "tpr_at_fpr5"):
        assert figures[name] is None and name not in figures["ci95"]
    assert "undefined with one class: reals" in text_report(read_run(folder))


def test_figures_in_text_are_those_of_the_scores() -> None:
    run = make_run(
        "m",
        {
            "ForenSynths/progan": with_accuracy(0.925, 200),
            "ForenSynths/biggan": with_accuracy(0.7, 200),
        },
    )
    text = text_report(run)
    assert "Table 1 - ForenSynths" in text
    lines = {
        line.split()[0]: line.split()
        for line in text.splitlines()
        if line and line.split()[0] in ("progan", "Mean", "Pooled")
    }
    assert lines["progan"][1:4] == ["100", "100", "92.5"]
    assert lines["Mean"][1] == lines["Pooled"][3] == "81.2"  # equally large sets


def test_nothing_is_overwritten_and_a_full_folder_is_an_error(tmp_path: Path) -> None:
    first = make_run(
        "m",
        {"s/x": noisy(0)},
        checkpoint_sha256="1",
        precision="fp32",
        classes=[],
        equalize=None,
        grid=[],
    )
    data = tmp_path / "data"
    folder = write_results(first, tmp_path / "out", data)
    assert write_results(first, tmp_path / "out", data) == folder
    other = make_run(
        "m",
        {"s/x": noisy(1)},
        checkpoint_sha256="1",
        precision="fp32",
        classes=[],
        equalize="jpeg:90",
        grid=[],
    )
    assert write_results(other, tmp_path / "out", data).name == "m_s_data"
    assert json.loads((folder / "metrics.json").read_text())["equalize"] is None
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results_dir .*file: cannot write there"):
        write_results(first, tmp_path / "file", data)


def same_run(**scores: tuple[list[int], list[float]]) -> TestRun:
    sets = {f"s/{name}": values for name, values in scores.items()}
    return make_run(
        "m", sets, checkpoint_sha256="1", precision="fp32", classes=[], equalize=None, grid=[]
    )


def test_a_folder_takes_its_place_when_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    folder = write_results(same_run(x=noisy(0)), tmp_path, data)
    (folder / "stale.png").write_bytes(b"of an earlier run")
    before = (folder / "metrics.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(TestRun, "write_data", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_results(same_run(x=noisy(1)), tmp_path, data)
    assert (folder / "metrics.json").read_text() == before and recompute.main([str(folder)]) == 0
    assert write_results(same_run(x=noisy(1)), tmp_path, data) == folder
    assert not (folder / "stale.png").exists() and recompute.main([str(folder)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"m_data", "m_data.txt"}


@pytest.mark.parametrize(
    "error", [RuntimeError("no font"), MemoryError(), ImportError("no module")]
)
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
    folder = write_results(same_run(x=noisy(0)), tmp_path, tmp_path / "data")
    assert f"plots skipped ({type(error).__name__}: {error})" in caplog.text
    assert {path.name for path in folder.glob("*.png")} == {"scores.png"}
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 1 and recompute.main([str(folder)]) == 0


def test_numbers_are_in_place_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_run: TestRun, folder: Path, *_: Any) -> None:
        assert folder == tmp_path / "m_data"
        raise KeyboardInterrupt

    monkeypatch.setattr("reports.result_folder.draw_plots", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_results(same_run(x=noisy(0)), tmp_path, tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"m_data", "m_data.txt"}
    assert recompute.main([str(tmp_path / "m_data")]) == 0


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m_data").mkdir()
    (tmp_path / "m_data" / "notes").write_text("mine")
    assert write_results(same_run(x=noisy(0)), tmp_path, tmp_path / "data").name == "m_s_data"
    assert (tmp_path / "m_data" / "notes").read_text() == "mine"


def test_results_folder_protocol_and_equalisation_are_checked_first(
    trained: Path, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("evaluation.testing.load_model", lambda *_: pytest.fail("loaded"))
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(dataroot / "test"),
    ]
    for wrong in (
        ["--results_dir", str(tmp_path / "file")],
        ["--protocol", "foo"],
        ["--equalize", "noise:3"],
        ["--equalize", "jpeg:90.7"],
    ):
        with pytest.raises(UserError, match=wrong[0]):
            test_script.main([*argv, "--results_dir", str(tmp_path / "out"), *wrong])


def test_a_sorted_file_gives_the_same_numbers(tested: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tested, tmp_path / "sorted")
    lines = (folder / "predictions.csv").read_text().splitlines()
    by_score = sorted(lines[1:], key=lambda line: float(line.split(",")[5]))
    (folder / "predictions.csv").write_text("\n".join([lines[0], *by_score]) + "\n")
    assert recompute.main([str(folder)]) == 0


@pytest.mark.usefixtures("without_pictures")
def test_recomputing_does_not_certify_what_was_tampered_with(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(tested, tmp_path / "tampered")
    document = json.loads((folder / "metrics.json").read_text())
    document["pooled"]["acc"] = 0.123
    (folder / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="is the folder itself"):
        recompute.main([str(folder), "--output", str(folder)])
    assert recompute.main([str(folder), "--output", str(tmp_path / "again")]) == 1
    (folder / "robustness_predictions.csv").unlink()
    assert recompute.main([str(folder)]) == 1
    assert "robustness_predictions.csv is missing" in capsys.readouterr().out
    for change, complaint in (
        (lambda cells: [*cells[:4], "9.42", *cells[5:]], "is not the sigmoid"),
        (None, "occurs twice"),
    ):
        lines = (tested / "predictions.csv").read_text().splitlines()
        lines[1:2] = (
            [lines[1], lines[1]] if change is None else [",".join(change(lines[1].split(",")))]
        )
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(UserError, match=complaint):
            recompute.main([str(folder)])


def test_a_file_that_sets_share_counts_once_in_all_images_together() -> None:
    shared = [0.1, 0.9, 0.2]
    run = make_run(
        "m",
        {
            f"s/{g}": ([0, 0, 0, 1, 1], [*shared, 0.8, score])
            for g, score in (("a", 0.3), ("b", 0.7))
        },
    )
    sets = [
        dataclasses.replace(
            one, paths=tuple(f"real/{i}" if i < 3 else f"{one.generator}/{i}" for i in range(5))
        )
        for one in run.sets
    ]
    found = dataclasses.replace(run, sets=sets).summary
    assert (found.pooled_metrics.n_real, found.pooled_metrics.n_fake) == (3, 4)
    assert found.pooled_metrics.acc == pytest.approx(5 / 7)
    distinct = make_run("m", {"s/a": noisy(0), "s/b": noisy(1)}).summary
    assert distinct.pooled_metrics.n_real == 40
    assert distinct.pooled.intervals["auc"] not in [
        figures.intervals["auc"] for figures in distinct.sets.values()
    ]


@pytest.mark.usefixtures("without_pictures")
def test_scores_that_are_no_numbers_are_left_out_and_said(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    values = torch.load(trained / "model_epoch_last.pth")
    # finite, as weights have to be, but their sums are not
    values["model_state_dict"]["classifier.weight"][:] = 3e38
    save_checkpoint(tmp_path / "huge.pth", values)
    argv = [
        "--model_path",
        str(tmp_path / "huge.pth"),
        "--dataroot",
        str(dataroot / "test"),
        "--num_threads",
        "0",
    ]
    with pytest.raises(UserError, match="none of its images"):
        test_script.main([*argv, "--results_dir", str(tmp_path / "out"), "--gpu_ids", "-1"])


def test_without_intervals_none_are_promised() -> None:
    run = make_run("m", {"s/a": noisy(0), "s/b": noisy(1)})
    run.head["bootstrap"]["resamples"] = 0
    assert "95 %" not in latex_tables(run) and "95 % intervals:" not in markdown_tables(run)


def test_small_sets_are_not_warned_of_for_nothing() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        labels = np.arange(40) % 2
        alarms += is_leak(separability(rng.normal(size=(40, 4)), labels), 20, 20)
    assert alarms <= 10
    assert (
        is_leak(1.0, 5, 5)
        and is_leak(0.71, 50, 50)
        and not is_leak(0.65, 10, 10)
        and not is_leak(0.59, 10**4, 10**4)
    )


@pytest.mark.usefixtures("without_pictures")
def test_equalised_pictures_are_scored_as_if_they_had_been_saved_so(
    trained: Path, tmp_path: Path
) -> None:
    make_set(tmp_path / "a" / "x", 3, size=40)
    for path in sorted((tmp_path / "a" / "x").rglob("*.png")):
        target = tmp_path / "b" / "x" / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target, quality=80)
    scores: dict[str, Any] = {}
    for name, extra in (("a", ["--equalize", "jpeg:80"]), ("b", [])):
        out = tmp_path / f"out_{name}"
        argv = [
            "--model_path",
            str(trained / "model_epoch_last.pth"),
            "--dataroot",
            str(tmp_path / name / "x"),
        ]
        test_script.main(
            [*argv, "--results_dir", str(out), "--num_threads", "0", "--gpu_ids", "-1", *extra]
        )
        (folder,) = (path for path in out.iterdir() if path.is_dir())
        scores[name] = read_run(folder)
    assert np.array_equal(scores["a"].sets[0].logits, scores["b"].sets[0].logits)
    assert scores["a"].head["equalize"] == "jpeg:80"
    assert "re-encoded before scoring: jpeg:80" in text_report(scores["a"])
    with pytest.raises(UserError, match="--equalize png: .*jpeg:Q or webp:Q"):
        test_script.main([*argv, "--equalize", "png"])


@pytest.mark.usefixtures("without_pictures")
def test_test_warns_of_formats_that_give_the_class_away(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_set(tmp_path / "x", 12, size=40)
    for path in (tmp_path / "x" / "0_real").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(tmp_path / "x"),
        "--num_threads",
        "0",
    ]
    test_script.main([*argv, "--results_dir", str(tmp_path / "out"), "--gpu_ids", "-1"])
    printed = capsys.readouterr().out
    assert re.search(
        r"x: file format, size and compression alone tell real from fake with AUC 1\.00.*--equalize",
        printed,
    )
    assert json.loads(next((tmp_path / "out").glob("*/metrics.json")).read_text())[
        "format_leak"
    ] == {"/x": 1.0}


@pytest.mark.usefixtures("without_pictures")
def test_robustness_scores_are_those_of_degraded_files(
    tested: Path, trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    for path in sorted((dataroot / "test" / "gan").rglob("*.png")):
        target = tmp_path / "gan" / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(path)
        picture.resize((16, 16), Image.Resampling.BICUBIC).save(target)
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(tmp_path / "gan"),
        "--num_threads",
        "0",
    ]
    test_script.main([*argv, "--results_dir", str(tmp_path / "out"), "--gpu_ids", "-1"])
    by_hand = read_run(next(path for path in (tmp_path / "out").iterdir() if path.is_dir())).sets[0]
    grid = read_run(tested).robustness["resize:0.5:bicubic"]
    (found,) = (scored for scored in grid if scored.generator == "gan")
    assert found.logits == pytest.approx(by_hand.logits, abs=1e-5)
