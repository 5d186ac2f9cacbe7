"""The comparison of test runs: arithmetic against NumPy, pairing, grouping by recipe, and what
cannot be compared."""

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
from scipy.stats import wilcoxon

from evaluation.comparison.comparison import Comparison, warnings
from evaluation.comparison.grouping import read_recipes
from evaluation.comparison.published import methods, published, rows, sources
from evaluation.comparison.runs import Recipe, Result
from evaluation.comparison.scales_control import scales_against_control
from evaluation.metrics import binary_metrics
from evaluation.names import markdown
from reports.comparison_tables import mean_over_sets, metric_rows, report, summary_rows
from tests.helpers.run_files import with_accuracy, write_run
from tools.compare_results import main
from util import UserError

# the comparison example of the user's guide: accuracies of Table 1
BASELINE = [99.8, 96.3, 97.3, 87.5, 95.0, 99.7, 86.6, 77.4]
OURS = [99.9, 97.1, 98.0, 89.2, 96.3, 99.8, 88.1, 79.5]
GENERATORS = [
    "progan",
    "stylegan",
    "stylegan2",
    "biggan",
    "cyclegan",
    "stargan",
    "gaugan",
    "deepfake",
]
STAMP = "_2026_01_02_03_04_0"


def table_1(folder: Path, name: str, percent: list[float], **about: Any) -> Path:
    pairs = zip(GENERATORS, percent, strict=True)
    return write_run(
        folder,
        name,
        {f"ForenSynths/{generator}": with_accuracy(p / 100) for generator, p in pairs},
        **about,
    )


def noisy(seed: int, shift: float = 0.2, count: int = 60) -> tuple[list[int], list[float]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return labels.tolist(), np.clip(rng.normal(0.4 + shift * labels, 0.2), 0, 1).tolist()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(
    paths: list[Path], baseline: str | None = None, resamples: int = 0, **grouping: bool
) -> Comparison:
    return Comparison(read_recipes(paths, baseline, **grouping), resamples)


def test_the_guides_example_from_two_result_folders(tmp_path, capsys):
    folders = [table_1(tmp_path, "baseline", BASELINE), table_1(tmp_path, "ours", OURS)]
    assert main([*map(str, folders), "--metric", "acc"]) == 0
    gain = np.array(OURS) - np.array(BASELINE)
    printed = capsys.readouterr().out
    assert f"{gain.mean():+.2f}" in printed and "8/8" in printed
    ((label, metric, mean, improved, p_value),) = summary_rows(compare(folders), ["acc"])
    assert (label, metric, improved) == ("ours", "acc", "8/8")
    assert mean.split()[0] == f"{gain.mean():+.2f}"
    assert float(p_value) == pytest.approx(wilcoxon(gain).pvalue, rel=1e-2)
    found = {
        (row["recipe"], row["generator"]): row
        for row in read_csv(tmp_path / "comparison" / "comparison.csv")
    }
    for generator, before, after in zip(GENERATORS, BASELINE, OURS, strict=True):
        assert float(found["baseline", generator]["mean"]) == pytest.approx(before / 100)
        assert float(found["ours", generator]["gain_points"]) == pytest.approx(
            after - before, abs=1e-9
        )
        assert found["baseline", generator]["gain_points"] == ""
        assert float(found["NPR", generator]["mean"]) == pytest.approx(
            before / 100
        )  # the guide quotes the paper's table
        assert found["NPR", generator]["kind"] == "published"


values = st.one_of(st.none(), st.floats(0, 1))


def made_up(name: str, accuracies: list[float | None]) -> Recipe:
    sets = {f"s/{i}": {"acc": value} for i, value in enumerate(accuracies)}
    return Recipe(name, (Result(name, (Path(name) / "metrics.json",), sets, {}, {}),))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=8))
def test_gain_counts_exactly_what_is_defined_for_both(pairs):
    recipes = [made_up("a", [a for a, _ in pairs]), made_up("b", [b for _, b in pairs])]
    gain = Comparison(recipes, resamples=0).gain(recipes[1], "acc")
    table = (
        np.array([[np.nan if v is None else v for v in pair] for pair in pairs], dtype=float) * 100
    )
    difference = table[:, 1] - table[:, 0]
    assert gain.improved == (difference.round(9) > 0).sum()
    assert len(gain.points) == np.isfinite(difference).sum()
    if gain.mean is None:
        assert np.isnan(difference).all()
    else:
        assert gain.mean == pytest.approx(np.nanmean(difference), abs=1e-9)


def test_lower_is_better_for_errors():
    recipes = [
        Recipe(n, (Result(n, (Path(n),), {"s/x": {"eer": eer}}, {}, {}),))
        for n, eer in (("a", 0.2), ("b", 0.1))
    ]
    assert Comparison(recipes, 0).gain(recipes[1], "eer").improved == 1


def test_gains_of_the_same_pictures_are_paired(tmp_path):
    labels, scores = noisy(0)
    better = [min(1.0, s + 0.05 * label) for s, label in zip(scores, labels, strict=True)]
    comparison = compare(
        [write_run(tmp_path, n, {"s/x": (labels, s)}) for n, s in (("a", scores), ("b", better))],
        resamples=400,
    )
    gain = comparison.gain(comparison.recipes[1], "auc")
    low, high = gain.intervals["s/x"]
    own_low, own_high = comparison.interval(comparison.recipes[0], "s/x", "auc")
    assert 0 < low < gain.points["s/x"] < high
    assert high - low < 100 * (own_high - own_low) / 2, (
        "a paired gain is known better than either figure"
    )
    same = compare([write_run(tmp_path, n, {"s/x": (labels, scores)}) for n in "cd"], resamples=50)
    assert same.gain(same.recipes[1], "auc").intervals["s/x"] == (0, 0)


def test_order_of_the_files_does_not_matter(tmp_path):
    labels, scores = noisy(1)
    first = write_run(tmp_path, "a", {"s/x": (labels, scores)})
    second = write_run(tmp_path, "b", {"s/x": (labels, scores)})
    lines = (second / "predictions.csv").read_text().splitlines()
    (second / "predictions.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    comparison = compare([first, second], resamples=50)
    assert comparison.gain(comparison.recipes[1], "ap").intervals["s/x"] == (0, 0)


def test_other_pictures_have_no_paired_interval(tmp_path):
    paths = [
        write_run(tmp_path, "a", {"s/x": noisy(0)}),
        write_run(tmp_path, "b", {"s/x": noisy(1)}, prefix="other"),
    ]
    comparison = compare(paths, resamples=50)
    gain = comparison.gain(comparison.recipes[1], "auc")
    assert gain.points and not gain.intervals and gain.mean_interval is None
    assert all(comparison.interval(recipe, "s/x", "auc") for recipe in comparison.recipes)
    assert any(
        "same images, so gains have no intervals: b, s/x" in remark
        for remark in warnings(comparison)
    )


def test_runs_of_one_recipe_are_grouped(tmp_path):
    flags = {"lr": 0.1, "niter": 3}
    runs = [
        (f"three{'' if seed == 100 else f'_seed{seed}'}{STAMP}{seed - 99}", seed)
        for seed in (100, 101, 102)
    ]
    paths = [
        write_run(
            tmp_path,
            name,
            {"s/x": noisy(seed), "s/y": noisy(seed + 9)},
            training=flags | {"seed": seed, "name": name},
        )
        for name, seed in runs
    ]
    other = write_run(
        tmp_path,
        f"one{STAMP}4",
        {"s/x": noisy(7), "s/y": noisy(8)},
        training=flags | {"lr": 0.2, "seed": 100},
    )
    comparison = compare([other, *paths], resamples=50)
    assert [(recipe.label, len(recipe.results)) for recipe in comparison.recipes] == [
        ("one", 1),
        ("three", 3),
    ]
    aucs = np.array(
        [
            [binary_metrics(*map(np.array, noisy(seed + more))).auc for more in (0, 9)]
            for seed in (100, 101, 102)
        ]
    )
    three = comparison.recipes[1]
    assert three.mean("s/x", "auc") == pytest.approx(aucs[:, 0].mean())
    assert three.std("s/x", "auc") == pytest.approx(aucs[:, 0].std(ddof=1))
    mean, std = mean_over_sets(three, "auc", ["s/x", "s/y"])
    assert (mean, std) == (pytest.approx(aucs.mean()), pytest.approx(aucs.mean(axis=1).std(ddof=1)))
    text = report(comparison, ["auc"])
    assert (
        "(n=3)" in text
        and f"± {100 * aucs[:, 0].std(ddof=1):.1f}" in text
        and "standard deviation over the runs" in text
    )
    assert len(compare([other, *paths], grouped=False).recipes) == 4
    # one recipe and nothing to compare it with: its spread is still worth a table
    alone = compare(paths, resamples=50)
    assert "±" in report(alone, ["auc"]) and summary_rows(alone, ["auc"]) == []


def test_interval_of_a_recipe_is_that_of_its_mean(tmp_path):
    flags = {"lr": 1}
    paths = [
        write_run(
            tmp_path,
            f"r_seed{seed}{STAMP}{seed}",
            {"s/x": noisy(seed, count=300)},
            training=flags | {"seed": seed},
        )
        for seed in range(4)
    ]
    comparison = compare(paths, resamples=300)
    single = compare(paths, resamples=300, grouped=False)
    widths = [np.ptp(c.interval(c.recipes[0], "s/x", "auc")) for c in (comparison, single)]
    # four independent runs, half the standard error
    assert widths[0] == pytest.approx(widths[1] / 2, rel=0.4)


def test_other_flags_make_another_recipe(tmp_path):
    base = {"lr": 0.1, "seed": 1, "name": "a"}
    variants = [base, base | {"seed": 2}, base | {"lr": 0.2}, base | {"num_threads": 4}]
    paths = [
        write_run(tmp_path, f"a{STAMP}{i}", {"s/x": noisy(i)}, training=t)
        for i, t in enumerate(variants)
    ]
    paths.append(
        write_run(tmp_path, f"a{STAMP}8", {"s/x": noisy(8)}, training=base, equalize="jpeg:90")
    )
    assert [len(recipe.results) for recipe in read_recipes(paths)] == [3, 1, 1]
    assert len({recipe.label for recipe in read_recipes(paths)}) == 3


def test_a_set_of_one_class_counts_only_in_accuracy(tmp_path):
    fakes = [1, 1, 1, 1]
    paths = [
        write_run(
            tmp_path,
            "a",
            {
                "s/both": ([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8]),
                "s/fakes": (fakes, [0.9, 0.9, 0.1, 0.1]),
            },
        ),
        write_run(
            tmp_path,
            "b",
            {
                "s/both": ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.1]),
                "s/fakes": (fakes, [0.9, 0.9, 0.9, 0.1]),
            },
        ),
    ]
    comparison = compare(paths)
    assert metric_rows(comparison, "acc") == [
        ["s/both", "50.0", "75.0 (+25.0)"],
        ["s/fakes", "50.0", "75.0 (+25.0)"],
        ["mean of 2", "50.0", "75.0 (+25.0)"],
    ]
    assert metric_rows(comparison, "auc")[1:] == [
        ["s/fakes", "-", "-"],
        ["mean of 1", "50.0", "62.5 (+12.5)"],
    ]
    assert [row[3] for row in summary_rows(comparison, ["acc", "auc"])] == ["2/2", "1/1"]
    assert any("one class" in remark and "s/fakes" in remark for remark in warnings(comparison))


def test_names_what_cannot_be_compared_fairly(tmp_path):
    resized, native = (
        {"s/shared": {"name": "resize", "version": 1}},
        {"s/shared": {"name": "native", "version": 1}},
    )
    paths = [
        write_run(tmp_path, "a", {"s/shared": noisy(0), "s/only_a": noisy(1)}, protocol=resized),
        write_run(
            tmp_path,
            "b",
            {"s/shared": noisy(0, count=50), "s/only_b": noisy(2)},
            protocol=native,
            equalize="jpeg:90",
        ),
    ]
    (paths[1] / "predictions.csv").unlink()
    comparison = compare(paths, resamples=20)
    assert [row[3] for row in summary_rows(comparison, ["acc"])] in (["0/1"], ["1/1"])
    text = report(comparison, ["acc"])
    assert "a lacks s/only_b" in text and "b, equalize jpeg:90 lacks s/only_a" in text
    assert "different numbers of images: s/shared" in text
    assert "differently preprocessed images: s/shared" in text
    assert "re-encoded (--equalize) for some models only: s/shared" in text
    assert "no predictions.csv, so no intervals: b" in text
    assert {row[0]: row[1] for row in metric_rows(comparison, "acc")}["s/only_b"] == "-"


def test_without_a_common_set_there_is_no_mean(tmp_path):
    comparison = compare(
        [write_run(tmp_path, "a", {"s/x": noisy(0)}), write_run(tmp_path, "b", {"s/y": noisy(0)})]
    )
    assert summary_rows(comparison, ["acc"]) == [["b", "acc", "-", "0/0", "-"]]
    assert metric_rows(comparison, "acc")[-1] == ["mean of 0", "-", "-"]


def test_labels_lose_the_time_stamp_only_where_they_stay_unique(tmp_path):
    names = [f"run{STAMP}5", f"run{STAMP}6", f"other{STAMP}5_best"]
    paths = [write_run(tmp_path, name, {"s/x": noisy(0)}) for name in names]
    assert [recipe.label for recipe in read_recipes(paths)] == [*names[:2], "other_best"]


def test_folders_of_one_model_are_told_apart_by_their_path(tmp_path):
    paths = [
        write_run(tmp_path / p, "run", {"s/x": noisy(0)}, checkpoint_sha256=p)
        for p in ("one", "two")
    ]
    assert [recipe.label for recipe in read_recipes(paths)] == [f"run ({path})" for path in paths]
    with pytest.raises(UserError, match="given twice"):
        read_recipes([paths[0], paths[0] / "metrics.json"])


@pytest.mark.parametrize("name", ["b", f"b{STAMP}5"])
def test_baseline_can_be_named(tmp_path, name):
    paths = [
        write_run(tmp_path, n, {"s/x": with_accuracy(a, 10)})
        for n, a in (("a", 0.7), (f"b{STAMP}5", 0.5))
    ]
    assert summary_rows(compare(paths, name), ["acc"])[0][:4] == ["a", "acc", "+20.00", "1/1"]
    with pytest.raises(UserError, match="--baseline c: .*a, b"):
        read_recipes(paths, "c")


def test_one_checkpoint_is_one_run(tmp_path):
    flags = {"lr": 1, "seed": 0, "dataroot": "x/forensynths"}
    one = write_run(
        tmp_path / "1", f"m{STAMP}1", {"A/x": noisy(0)}, training=flags, checkpoint_sha256="1"
    )
    more = write_run(
        tmp_path / "2", f"m{STAMP}1", {"B/y": noisy(1)}, training=flags, checkpoint_sha256="1"
    )
    (recipe,) = read_recipes([one, more])
    assert len(recipe.results) == 1 and set(recipe.results[0].sets) == {"A/x", "B/y"} == set(
        recipe.results[0].scored
    )
    assert warnings(Comparison([recipe], 0)) == []
    again = write_run(
        tmp_path / "3", f"m{STAMP}1", {"A/x": noisy(0)}, training=flags, checkpoint_sha256="1"
    )
    with pytest.raises(UserError, match="same checkpoint.* A/x"):
        read_recipes([one, again])
    resized = {"A/x": {"name": "resize256", "version": 1}}
    other = write_run(
        tmp_path / "4",
        f"m{STAMP}1",
        {"A/x": noisy(0)},
        training=flags,
        checkpoint_sha256="1",
        protocol=resized,
    )
    assert [len(recipe.results) for recipe in read_recipes([one, other])] == [1, 1]
    elsewhere = flags | {"dataroot": "x/genimage", "seed": 1}
    third = write_run(
        tmp_path / "5", f"m{STAMP}2", {"A/x": noisy(2)}, training=elsewhere, checkpoint_sha256="2"
    )
    assert len(read_recipes([one, third])) == 2, (
        "trained on other data: no other seed of the same recipe"
    )
    moved = flags | {"seed": 1, "dataroot": "/y/forensynths"}
    fourth = write_run(
        tmp_path / "6", f"m{STAMP}3", {"A/x": noisy(3)}, training=moved, checkpoint_sha256="3"
    )
    assert [len(recipe.results) for recipe in read_recipes([one, fourth])] == [2]


def test_mean_interval_only_if_every_set_has_one(tmp_path):
    sets = {"s/x": noisy(0), "s/one": ([0, 1], [0.2, 0.7])}
    comparison = compare([write_run(tmp_path, n, sets) for n in "ab"], resamples=100)
    gain = comparison.gain(comparison.recipes[1], "acc")
    assert (
        set(gain.points) == {"s/x", "s/one"}
        and set(gain.intervals) == {"s/x"}
        and gain.mean_interval is None
    )


def test_equal_differences_are_ties_for_the_test(tmp_path):
    before, after = [0.61, 0.62, 0.63, 0.64, 0.65], [0.63, 0.64, 0.61, 0.66, 0.67]
    recipes = [made_up("a", before), made_up("b", after)]
    expected = wilcoxon([2, 2, -2, 2, 2]).pvalue
    assert Comparison(recipes, 0).gain(recipes[1], "acc").p_value == pytest.approx(
        expected, abs=1e-12
    )


def test_csv_is_a_table(tmp_path):
    paths = [
        table_1(tmp_path, "a", BASELINE),
        table_1(
            tmp_path, "b", OURS, protocol={"ForenSynths/progan": {"name": "native", "version": 1}}
        ),
    ]
    main([*map(str, paths), "--bootstrap", "100"])
    with open(tmp_path / "comparison" / "comparison.csv", newline="", encoding="utf-8") as file:
        widths = {len(row) for row in csv.reader(file)}
    assert len(widths) == 1
    assert read_csv(tmp_path / "comparison" / "comparison.csv")[0]["protocol"] == "native v1"
    assert (
        "protocol native v1: ForenSynths/progan"
        in (tmp_path / "comparison" / "comparison.md").read_text()
    )


def test_accuracy_at_the_threshold_has_intervals_too(tmp_path):
    comparison = compare(
        [write_run(tmp_path, n, {"s/x": noisy(0)}, threshold=0.45) for n in "ab"], resamples=100
    )
    low, high = comparison.interval(comparison.recipes[0], "s/x", "acc_at_threshold")
    assert low < comparison.recipes[0].mean("s/x", "acc_at_threshold") < high


def test_published_figures_are_marked_and_have_their_source(tmp_path):
    comparison = compare([table_1(tmp_path, n, p) for n, p in (("a", BASELINE), ("b", OURS))])
    text = report(comparison, ["acc", "auc"], ["NPR", "Ojha"])
    assert (
        "(published)" in text
        and "published, not measured here: NPR, ForenSynths: Tan et al., CVPR 2024, Table 1" in text
    )
    assert metric_rows(comparison, "acc", ["NPR"])[0][-1] == "99.8"
    assert metric_rows(comparison, "acc", ["NPR"])[-1][-1] == f"{np.mean(BASELINE):.1f}"
    assert published("NPR", "auc", comparison.keys) == {}
    assert published("NPR", "acc", ["AIGCDetectBenchmark/stable_diffusion_v_1_4"]) == {
        "AIGCDetectBenchmark/stable_diffusion_v_1_4": pytest.approx(0.974)
    }
    assert published("NPR", "ap", ["ForenSynths/mine", "own/progan"]) == {}
    assert sources("NPR", ["GenImage/mine"]) == [] and len(sources("NPR", ["GenImage/ADM"])) == 1


def test_published_means_are_those_of_the_rows():
    """The papers' own means, to their rounding: a typing error in a row would show."""
    for suite in {row["suite"] for row in rows()}:
        for method in methods():
            of_table = [row for row in rows() if (row["suite"], row["method"]) == (suite, method)]
            for metric in ("acc", "ap"):
                given_mean = [
                    float(row[metric])
                    for row in of_table
                    if row["folder"] == "Mean" and row[metric]
                ]
                others = [
                    float(row[metric])
                    for row in of_table
                    if row["folder"] != "Mean" and row[metric]
                ]
                if given_mean and others and method == "NPR":
                    assert np.mean(others) == pytest.approx(given_mean[0], abs=0.11), (
                        suite,
                        method,
                        metric,
                    )


def test_markdown_shows_names_as_they_are(tmp_path):
    paths = [
        write_run(tmp_path, n, {"s/a|b*c*`d`<e>": with_accuracy(0.5, 4)})
        for n in ("__a__", "b_b_b")
    ]
    assert main([*map(str, paths), "--output", str(tmp_path / "out dir"), "--bootstrap", "0"]) == 0
    text = (tmp_path / "out dir" / "comparison.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| s/"))
    cells = re.split(r"(?<!\\)\|", row)[1:-1]
    assert [cell.strip() for cell in cells] == [r"s/a\|b\*c\*\`d\`\<e\>", "50.0", "50.0 (+0.0)"]
    assert r"\_\_a\_\_" in text and "b_b_b" in text
    assert re.sub(r"\\(.)", r"\1", markdown("s/a|b\\c[d](e)")) == "s/a|b\\c[d](e)"
    assert {row["generator"] for row in read_csv(tmp_path / "out dir" / "comparison.csv")} == {
        "a|b*c*`d`<e>"
    }
    latex = (tmp_path / "out dir" / "comparison.tex").read_text(encoding="utf-8")
    assert r"\_\_a\_\_" in latex and "<e>" not in latex and latex.count(r"\begin{table}") == 4


def test_draws_a_picture_or_says_why_there_is_none(tmp_path, capsys, monkeypatch):
    paths = [
        str(table_1(tmp_path, name, p)) for name, p in (("baseline", BASELINE), ("ours", OURS))
    ]
    folder = tmp_path / "comparison"
    assert main([*paths, "--bootstrap", "100"]) == 0
    for metric in ("acc", "ap", "auc"):
        assert (folder / f"comparison_{metric}.png").read_bytes().startswith(b"\x89PNG")
        assert f"(comparison_{metric}.png)" in (folder / "comparison.md").read_text()
    for module in ("matplotlib", "reports.plots.comparison"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    capsys.readouterr()
    assert main([*paths, "--bootstrap", "0"]) == 0
    assert "plot skipped: " in capsys.readouterr().out
    assert not list(folder.glob("*.png")), "a picture of the earlier comparison is still there"
    assert ".png" not in (folder / "comparison.md").read_text()


def test_an_earlier_comparison_among_the_folders_is_passed_over(tmp_path):
    for name, percent in (("a", BASELINE), ("b", OURS)):
        table_1(tmp_path, name, percent)
    for _ in range(2):  # as results/*/ gives them
        assert (
            main([*sorted(map(str, tmp_path.iterdir())), "--bootstrap", "0", "--metric", "acc"])
            == 0
        )
    assert (tmp_path / "comparison" / "comparison.csv").exists()


def test_no_picture_of_a_metric_that_is_undefined_everywhere(tmp_path, capsys):
    paths = [str(write_run(tmp_path, n, {"s/x": ([1, 1], [0.3, 0.6])})) for n in "ab"]
    assert main(paths) == 0
    assert "AUC is undefined" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "schema None"),
        ('{"schema": "npr-results/1"}', "'npr-results/1', expected 'npr-results/2'"),
        ('{"schema": "npr-results/2", "sets": {}}', "KeyError 'model'"),
        ('{"schema": "npr-results/2", "model": {"name": "m"}, "sets": {}}', "no test sets"),
        (
            '{"schema": "npr-results/2", "model": {"name": "m"}, "sets": {"s/g": {"suite": "s"}}}',
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
    assert (
        str(bad) in str(caught.value)
        and complaint in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize("acc", [float("nan"), 99.8, -0.1, "0.5"])
def test_a_value_outside_0_to_1_is_refused(tmp_path, acc):
    good, bad = (
        table_1(tmp_path, "baseline", BASELINE),
        write_run(tmp_path, "bad", {"s/x": noisy(0)}),
    )
    document = json.loads((bad / "metrics.json").read_text())
    document["sets"]["s/x"]["acc"] = acc
    (bad / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"acc of s/x .*from 0 to 1"):
        main([str(good), str(bad)])


def test_wrong_command_lines(tmp_path, capsys):
    good, other = str(table_1(tmp_path, "baseline", BASELINE)), str(table_1(tmp_path, "ours", OURS))
    with pytest.raises(UserError, match="at least two"):
        main([good])
    for argv in (
        [],
        [good, other, "--metric", "f1"],
        [good, other, "--metrik", "acc"],
        [good, other, "--published", "me"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output .*file"):
        main([good, other, "--output", str(tmp_path / "file"), "--bootstrap", "0"])
    for folder in (good, other):
        with pytest.raises(UserError, match="--output .*one of the compared"):
            main([good, other, "--output", folder, "--bootstrap", "0"])


def scaled_runs(
    folder: Path, name: str, scales: list[float], aucs: list[float], **training: Any
) -> list[Path]:
    """A run per AUC, of other seeds, whose scores have just that AUC: real images at 0.5, fakes
    above or below."""
    written = []
    for seed, auc in enumerate(aucs):
        above = round(100 * auc)
        scores = [0.5] * 100 + [0.9] * above + [0.1] * (100 - above)
        flags = {"npr_scales": scales, "seed": seed, "lr": 0.001, **training}
        run = f"{name}_seed{seed}{STAMP}{seed}"
        model = {"name": run, "path": "x", "epoch": 1, "training": flags, "scales": scales}
        written.append(
            write_run(
                folder,
                run,
                {"s/a": ([0] * 100 + [1] * 100, scores)},
                model=model,
                checkpoint_sha256=run,
            )
        )
    return written


def change_document(path: Path, **values: Any) -> None:
    document = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps(document | values))


def test_scales_against_the_control_of_equal_capacity(tmp_path):
    """By hand: means 84 and 80, variances 4 and 1, so standard error sqrt(5/3) and Welch's 2.94
    degrees of freedom: t = 3.22."""
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.82, 0.84, 0.86])
    control = scaled_runs(tmp_path, "equal", [0.5, 0.5, 0.5], [0.79, 0.80, 0.81])
    (said,) = scales_against_control(compare([*ours, *control]))
    assert said.startswith(
        "three against its control of equal capacity, equal: AUC +4.00 points over 1 set ["
    )
    low, high = map(float, re.findall(r"\[(.*), (.*)\]", said)[0])
    assert (low, high) == pytest.approx(
        (4 - 3.22 * (5 / 3) ** 0.5, 4 + 3.22 * (5 / 3) ** 0.5), abs=0.02
    )
    assert said.endswith("over 3 and 3 seeds: no significant difference with these seeds")
    assert said in report(compare([*ours, *control]), ["auc"])
    better = scaled_runs(tmp_path / "b", "three", [0.25, 0.5, 0.75], [0.92, 0.94, 0.96])
    (said,) = scales_against_control(compare([*better, *control]))
    assert said.endswith("more than capacity explains")


def test_no_control_where_more_than_the_scales_differs(tmp_path):
    """Other images, another way of testing them, or another of the checkpoints."""
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.8, 0.9], dataroot="/data/one")
    elsewhere = scaled_runs(tmp_path, "data", [0.5, 0.5, 0.5], [0.7, 0.6], dataroot="/data/two")
    equalized, native = (
        scaled_runs(tmp_path, name, [0.5, 0.5, 0.5], [0.7, 0.6], dataroot="/data/one")
        for name in ("jpeg", "native")
    )
    for path in equalized:
        change_document(path, equalize="jpeg:50")
    for path in native:
        change_document(path, protocol={"s/a": {"name": "resize256", "version": 1}})
    for other in (elsewhere, equalized, native):
        assert scales_against_control(compare([*ours, *other])) == []
    best = scaled_runs(tmp_path, "b", [0.5] * 3, [0.7, 0.6])
    for path in best:
        model = json.loads((path / "metrics.json").read_text())["model"]
        change_document(path, model=model | {"name": f"{model['name']}_best"})
    plain = scaled_runs(tmp_path / "p", "three", [0.25, 0.5, 0.75], [0.8, 0.9])
    assert scales_against_control(compare([*plain, *best])) == []


def test_scales_without_their_control_or_with_one_seed(tmp_path):
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.8, 0.9])
    two = scaled_runs(tmp_path, "two", [0.5, 0.5], [0.8, 0.9])
    other = scaled_runs(tmp_path, "other", [0.5, 0.5, 0.5], [0.8, 0.9], lr=0.01)
    assert scales_against_control(compare([*ours, *two, *other])) == []
    single = scaled_runs(tmp_path / "s", "single", [0.5, 0.5, 0.5], [0.8])
    (said,) = scales_against_control(compare([*ours, *single]))
    assert "without an interval" in said
