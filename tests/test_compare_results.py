"""The comparison of result files: arithmetic against NumPy, and what it says about sets that cannot be compared."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools._comparison import improvement, read_models, remarks
from tools.compare_results import escape_markdown, main, metric_rows, report, summary_rows
from util import UserError

BASELINE = [99.8, 96.3, 97.3, 87.5, 95.0, 99.7, 86.6, 77.4]
OURS = [99.9, 97.1, 98.0, 89.2, 96.3, 99.8, 88.1, 79.5]
GENERATORS = ["progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "deepfake"]


def figures(acc: float, ap: float | None = 0.9, auc: float | None = 0.8, n: tuple[int, int] = (5, 5)) -> dict[str, Any]:
    return {"acc": acc, "ap": ap, "auc": auc, "n_real": n[0], "n_fake": n[1]}


def write(
    folder: Path, name: str, sets: dict[str, dict[str, Any]], file: str | None = None, protocol: Any = None
) -> Path:
    document = {
        "schema": "npr-results/1",
        "model": {"name": name, "path": f"checkpoints/{name}/model_epoch_last.pth"},
        "protocol": protocol or {},
        "sets": {
            key: {"suite": key.split("/")[0], "generator": key.split("/", 1)[1], "table": None, **values}
            for key, values in sets.items()
        },
    }
    path = folder / (file or f"{name}_set.json")
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def table_1(folder: Path, name: str, percent: list[float]) -> Path:
    pairs = zip(GENERATORS, percent, strict=True)
    return write(folder, name, {f"ForenSynths/{generator}": figures(p / 100) for generator, p in pairs})


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_gives_the_mean_and_the_count_that_numpy_gives(tmp_path, capsys):
    files = [table_1(tmp_path, "baseline", BASELINE), table_1(tmp_path, "ours", OURS)]
    assert main([*map(str, files), "--metric", "acc"]) == 0
    gain = np.array(OURS) - np.array(BASELINE)
    assert f"{gain.mean():+.2f}" in capsys.readouterr().out
    models = read_models(files)
    assert summary_rows(models, ["acc"]) == [["ours", "accuracy", f"{gain.mean():+.2f}", f"{(gain > 0).sum()}/8"]]
    rows = {(row["model"], row["generator"]): row for row in read_csv(tmp_path / "comparison" / "comparison.csv")}
    assert len(rows) == 16
    for generator, expected in zip(GENERATORS, gain, strict=True):
        assert float(rows["ours", generator]["acc_difference_points"]) == pytest.approx(expected, abs=1e-9)
        assert rows["baseline", generator]["acc_difference_points"] == ""


values = st.one_of(st.none(), st.floats(0, 1))


@given(st.lists(st.tuples(values, values), max_size=8))
def test_improvement_counts_exactly_what_is_defined_for_both(pairs):
    gain = improvement({str(i): a for i, (a, _) in enumerate(pairs)}, {str(i): b for i, (_, b) in enumerate(pairs)})
    table = np.array([[np.nan if v is None else v for v in pair] for pair in pairs], dtype=float).reshape(-1, 2) * 100
    difference = table[:, 1] - table[:, 0]
    assert gain.improved == (difference > 0).sum()
    assert len(gain.differences) == np.isfinite(difference).sum()
    if gain.mean is None:
        assert np.isnan(difference).all()
    else:
        assert gain.mean == pytest.approx(np.nanmean(difference), abs=1e-9)


def test_a_set_of_one_class_counts_only_in_accuracy(tmp_path):
    one_class = {"acc": 0.5, "ap": None, "auc": None, "n_real": 0, "n_fake": 4}
    models = read_models(
        [
            write(tmp_path, "a", {"s/both": figures(0.5, 0.5, 0.5), "s/fakes": one_class}),
            write(tmp_path, "b", {"s/both": figures(0.6, 0.4, 0.5), "s/fakes": one_class | {"acc": 0.75}}),
        ]
    )
    assert metric_rows(models, "acc")[1] == ["s/fakes", "50.0", "75.0 (+25.0)"]
    assert metric_rows(models, "ap")[1] == ["s/fakes", "-", "-"]
    assert metric_rows(models, "acc")[-1] == ["mean of 2", "50.0", "67.5 (+17.5)"]
    assert metric_rows(models, "auc")[-1] == ["mean of 1", "50.0", "50.0 (+0.0)"]
    assert [row[2:] for row in summary_rows(models, ["acc", "ap", "auc"])] == [
        ["+17.50", "2/2"],
        ["-10.00", "0/1"],
        ["+0.00", "0/1"],
    ]
    assert any("one class" in remark and "s/fakes" in remark for remark in remarks(models))


def test_names_what_cannot_be_compared_fairly(tmp_path):
    resized, native = {"s/shared": {"name": "resize"}}, {"s/shared": {"name": "native"}}
    models = read_models(
        [
            write(tmp_path, "a", {"s/shared": figures(0.5), "s/only_a": figures(0.9)}, protocol=resized),
            write(tmp_path, "b", {"s/shared": figures(0.6, n=(5, 4)), "s/only_b": figures(0.1)}, protocol=native),
        ]
    )
    assert summary_rows(models, ["acc"]) == [["b", "accuracy", "+10.00", "1/1"]]
    text = report(models, ["acc"])
    assert "a lacks s/only_b" in text and "b lacks s/only_a" in text
    assert "different numbers of images: s/shared" in text
    assert "differently preprocessed images: s/shared" in text
    assert {row[0]: row[1:] for row in metric_rows(models, "acc")}["s/only_b"] == ["-", "10.0"]


def test_without_a_common_set_there_is_no_mean(tmp_path):
    models = read_models([write(tmp_path, "a", {"s/x": figures(0.5)}), write(tmp_path, "b", {"s/y": figures(0.6)})])
    assert summary_rows(models, ["acc"]) == [["b", "accuracy", "-", "0/0"]]
    assert metric_rows(models, "acc")[-1] == ["mean of 0", "-", "-"]


def test_labels_lose_the_time_stamp_only_where_they_stay_unique(tmp_path):
    sets = {"s/x": figures(0.5)}
    first, second = "run_2026_01_02_03_04_05", "run_2026_01_02_03_04_06"
    other = write(tmp_path, "other_2026_01_02_03_04_05_best", sets)
    paths = [write(tmp_path, first, sets), write(tmp_path, second, sets), other]
    assert [model.label for model in read_models(paths)] == [first, second, "other_best"]


def test_files_of_one_model_are_told_apart_by_their_path(tmp_path):
    sets = {"s/x": figures(0.5)}
    paths = [write(tmp_path, "run", sets, "one.json"), write(tmp_path, "run", sets, "two.json")]
    assert [model.label for model in read_models(paths)] == [f"run ({path})" for path in paths]
    with pytest.raises(UserError, match="given twice"):
        read_models([paths[0], tmp_path / "." / "one.json"])


@pytest.mark.parametrize("name", ["b", "b_2026_01_02_03_04_05"])
def test_baseline_can_be_named(tmp_path, name):
    paths = [write(tmp_path, n, {"s/x": figures(a)}) for n, a in (("a", 0.7), ("b_2026_01_02_03_04_05", 0.5))]
    assert summary_rows(read_models(paths, name), ["acc"]) == [["a", "accuracy", "+20.00", "1/1"]]
    with pytest.raises(UserError, match="--baseline c: .*there are a, b"):
        read_models(paths, "c")


def test_markdown_shows_names_as_they_are(tmp_path):
    paths = [write(tmp_path, n, {"s/a|b*c*`d`<e>": figures(0.5)}) for n in ("__a__", "b_b_b")]
    assert main([*map(str, paths), "--output", str(tmp_path / "out dir")]) == 0
    text = (tmp_path / "out dir" / "comparison.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| s/"))
    cells = re.split(r"(?<!\\)\|", row)[1:-1]
    assert [cell.strip() for cell in cells] == [r"s/a\|b\*c\*\`d\`\<e\>", "50.0", "50.0 (+0.0)"]
    assert r"\_\_a\_\_" in text and "b_b_b" in text
    assert re.sub(r"\\(.)", r"\1", escape_markdown("s/a|b\\c[d](e)")) == "s/a|b\\c[d](e)"
    rows = read_csv(tmp_path / "out dir" / "comparison.csv")
    assert [row["generator"] for row in rows] == ["a|b*c*`d`<e>"] * 2


def test_draws_a_picture_or_says_why_there_is_none(tmp_path, capsys, monkeypatch):
    paths = [str(table_1(tmp_path, name, p)) for name, p in (("baseline", BASELINE), ("ours", OURS))]
    picture = tmp_path / "comparison" / "comparison.png"
    assert main([*paths]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "(comparison.png)" in picture.with_suffix(".md").read_text()
    for module in ("matplotlib", "evaluation.plots"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    capsys.readouterr()
    assert main([*paths]) == 0
    assert "no picture: " in capsys.readouterr().out
    assert not picture.exists(), "the picture of the earlier comparison is still there"
    assert "comparison.png" not in picture.with_suffix(".md").read_text()


def test_no_picture_of_a_metric_that_is_undefined_everywhere(tmp_path, capsys):
    paths = [str(write(tmp_path, n, {"s/x": figures(0.5, None, None, n=(0, 3))})) for n in "ab"]
    assert main(paths) == 0
    assert "no picture: AUC is undefined" in capsys.readouterr().out


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path, capsys):
    paths = [str(write(tmp_path, n, {"s/x\x1b[2J": figures(0.5)})) for n in "ab"]
    assert main([*paths, "--metric", "acc"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "schema None"),
        ('{"schema": "npr-results/0"}', "'npr-results/0', expected 'npr-results/1'"),
        ('{"schema": "npr-results/1", "sets": {}}', "KeyError 'model'"),
        ('{"schema": "npr-results/1", "model": {"name": "m"}, "sets": {}}', "no test sets"),
        (
            '{"schema": "npr-results/1", "model": {"name": "m"}, "sets": {"s/g": {"suite": "s"}}}',
            "'generator'",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path, content, complaint):
    good, bad = table_1(tmp_path, "baseline", BASELINE), tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    with pytest.raises(UserError) as caught:
        main([str(good), str(bad)])
    assert str(bad) in str(caught.value) and complaint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("acc", [float("nan"), 99.8, -0.1, "0.5"])
def test_a_value_outside_0_to_1_is_refused(tmp_path, acc):
    good, bad = table_1(tmp_path, "baseline", BASELINE), write(tmp_path, "bad", {"s/x": figures(acc)})
    with pytest.raises(UserError, match=r"acc of s/x is .*expected a number from 0 to 1"):
        main([str(good), str(bad)])


def test_wrong_command_lines(tmp_path, capsys):
    good = str(table_1(tmp_path, "baseline", BASELINE))
    with pytest.raises(UserError, match="at least two"):
        main([good])
    for argv in ([], [good, good, "--metric", "f1"], [good, good, "--metrik", "acc"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    (tmp_path / "file").write_text("")
    other = str(table_1(tmp_path, "ours", OURS))
    with pytest.raises(UserError, match="--output .*file"):
        main([good, other, "--output", str(tmp_path / "file")])
