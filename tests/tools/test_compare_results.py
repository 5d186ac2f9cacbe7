"""The comparison of test runs: arithmetic against NumPy, pairing, grouping by recipe, and what
cannot be compared."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from evaluation.comparison.comparison import Comparison, warnings
from evaluation.comparison.grouping import read_recipes
from evaluation.comparison.published import published, rows, sources
from evaluation.comparison.runs import Recipe, Result
from evaluation.comparison.scales_control import scales_against_control
from evaluation.metrics import binary_metrics
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
    keys = [f"ForenSynths/{generator}" for generator in GENERATORS]
    sets = {key: with_accuracy(p / 100) for key, p in zip(keys, percent, strict=True)}
    return write_run(folder, name, sets, **about)


@pytest.fixture(scope="module")
def written_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs of the user's guide."""
    folder = tmp_path_factory.mktemp("runs")
    for name, percent in (("baseline", BASELINE), ("ours", OURS)):
        table_1(folder, name, percent)
    return folder


@pytest.fixture
def two_runs(written_runs: Path, tmp_path: Path) -> list[str]:
    """Return copies of these runs, the baseline first."""
    return sorted(str(shutil.copytree(run, tmp_path / run.name)) for run in written_runs.iterdir())


def noisy(seed: int, shift: float = 0.2, count: int = 60) -> tuple[list[int], list[float]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return labels.tolist(), np.clip(rng.normal(0.4 + shift * labels, 0.2), 0, 1).tolist()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(
    paths: Sequence[str | Path], baseline: str | None = None, resamples: int = 0, **grouping: bool
) -> Comparison:
    return Comparison(read_recipes(list(map(Path, paths)), baseline, **grouping), resamples)


@pytest.mark.usefixtures("blank_pictures")
def test_the_guides_example_from_two_result_folders(two_runs, tmp_path, capsys):
    assert main([*two_runs, "--metric", "acc"]) == 0
    gain = np.array(OURS) - np.array(BASELINE)
    printed = capsys.readouterr().out
    assert f"{gain.mean():+.2f}" in printed and "8/8" in printed
    ((label, metric, mean, improved, p_value),) = summary_rows(compare(two_runs), ["acc"])
    assert (label, metric, improved) == ("ours", "acc", "8/8")
    assert mean.split()[0] == f"{gain.mean():+.2f}"
    assert float(p_value) == pytest.approx(wilcoxon(gain).pvalue, rel=1e-2)
    table = read_csv(tmp_path / "comparison" / "comparison.csv")
    cells = {(row["recipe"], row["generator"]): row for row in table}
    for generator, before, after in zip(GENERATORS, BASELINE, OURS, strict=True):
        # the guide's baseline is the paper's table
        for recipe, percent in (("baseline", before), ("ours", after), ("NPR", before)):
            assert float(cells[recipe, generator]["mean"]) == pytest.approx(percent / 100)
        gained = float(cells["ours", generator]["gain_points"])
        assert gained == pytest.approx(after - before, abs=1e-9)
    assert cells["baseline", "progan"]["gain_points"] == ""
    assert cells["NPR", "progan"]["kind"] == "published"


values = st.one_of(st.none(), st.floats(0, 1))


def made_up(name: str, accuracies: list[float | None]) -> Recipe:
    counts = {"n_real": 5, "n_fake": 5}
    sets = {f"s/{i}": {"acc": value} | counts for i, value in enumerate(accuracies)}
    return Recipe(name, (Result(name, (Path(name) / "metrics.json",), sets, {}, {}),))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=8))
def test_gain_counts_exactly_what_is_defined_for_both(pairs):
    recipes = [made_up("a", [a for a, _ in pairs]), made_up("b", [b for _, b in pairs])]
    gain = Comparison(recipes, resamples=0).gain(recipes[1], "acc")
    # None becomes NaN
    before, after = 100 * np.array(pairs, dtype=float).T
    difference = after - before
    assert gain.improved == (difference.round(9) > 0).sum()
    assert len(gain.points) == np.isfinite(difference).sum()
    assert (gain.mean is None) == np.isnan(difference).all()
    assert gain.mean is None or gain.mean == pytest.approx(np.nanmean(difference), abs=1e-9)


def test_gains_of_the_same_pictures_are_paired(tmp_path):
    labels, scores = noisy(0)
    better = [min(1.0, s + 0.05 * label) for s, label in zip(scores, labels, strict=True)]
    paths = [
        write_run(tmp_path, n, {"s/x": (labels, s)}) for n, s in (("a", scores), ("b", better))
    ]
    comparison = compare(paths, resamples=400)
    gain = comparison.gain(comparison.recipes[1], "auc")
    low, high = gain.intervals["s/x"]
    assert 0 < low < gain.points["s/x"] < high
    # known better than either metric
    own_low, own_high = comparison.interval(comparison.recipes[0], "s/x", "auc")
    assert high - low < 100 * (own_high - own_low) / 2


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
    paths = []
    for seed, name in ((100, "three"), (101, "three_seed101"), (102, "three_seed102")):
        name, sets = f"{name}{STAMP}{seed - 99}", {"s/x": noisy(seed), "s/y": noisy(seed + 9)}
        flags = {"lr": 0.1, "niter": 3, "seed": seed, "name": name}
        paths.append(write_run(tmp_path, name, sets, training=flags))
    sets = {"s/x": noisy(7), "s/y": noisy(8)}
    other = write_run(tmp_path, f"one{STAMP}4", sets, training={"lr": 0.2, "niter": 3, "seed": 100})
    comparison = compare([other, *paths], resamples=50)
    labels = [(recipe.label, len(recipe.results)) for recipe in comparison.recipes]
    assert labels == [("one", 1), ("three", 3)]
    seeds = np.array([[100, 109], [101, 110], [102, 111]])
    aucs = np.vectorize(lambda seed: binary_metrics(*map(np.array, noisy(seed))).auc)(seeds)
    three = comparison.recipes[1]
    assert three.mean("s/x", "auc") == pytest.approx(aucs[:, 0].mean())
    assert three.std("s/x", "auc") == pytest.approx(aucs[:, 0].std(ddof=1))
    mean, std = mean_over_sets(three, "auc", ["s/x", "s/y"])
    assert (mean, std) == pytest.approx((aucs.mean(), aucs.mean(axis=1).std(ddof=1)))
    assert mean_over_sets(three, "auc", []) == (None, None)
    text = report(comparison, ["auc"])
    for words in ("(n=3)", f"± {100 * aucs[:, 0].std(ddof=1):.1f}", "standard deviation over the"):
        assert words in text
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


def test_a_set_of_one_class_stands_apart_and_only_in_accuracy(tmp_path):
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
                "s/fakes": (fakes, [0.9, 0.9, 0.9, 0.9]),
            },
        ),
    ]
    comparison = compare(paths)
    assert metric_rows(comparison, "acc") == [
        ["s/both", "50.0", "75.0 (+25.0)"],
        ["mean of 1", "50.0", "75.0 (+25.0)"],
        ["s/fakes", "50.0", "100.0 (+50.0)"],
    ]
    assert metric_rows(comparison, "auc")[1:] == [
        ["mean of 1", "50.0", "62.5 (+12.5)"],
        ["s/fakes", "-", "-"],
    ]
    summary = summary_rows(comparison, ["acc", "auc"])
    assert [row[2:4] for row in summary] == [["+25.00", "1/1"], ["+12.50", "1/1"]]
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
    runs = made_up("c", [0.5, 0.6]).results + made_up("c", [0.5]).results
    partly_tested = Comparison([made_up("d", [0.5, 0.6]), Recipe("c", runs)], resamples=0)
    assert "not every run of c was tested on s/1" in warnings(partly_tested)


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
    def tested(checkpoint: str, key: str, seed: int = 0, data: str = "x/forensynths", **more: Any):
        flags = {"lr": 1, "seed": seed, "dataroot": data}
        more |= {"training": flags, "checkpoint_sha256": checkpoint}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return write_run(folder, f"m{STAMP}{checkpoint}", {key: noisy(seed)}, **more)

    first = tested("1", "A/x")
    (recipe,) = read_recipes([first, tested("1", "B/y")])
    (result,) = recipe.results
    assert set(result.sets) == set(result.scored) == {"A/x", "B/y"}
    assert warnings(Comparison([recipe], 0)) == []
    with pytest.raises(UserError, match="same checkpoint.* A/x"):
        read_recipes([first, tested("1", "A/x")])
    resized = tested("1", "A/x", protocol={"A/x": {"name": "resize256", "version": 1}})
    other_data = tested("2", "A/x", seed=1, data="x/genimage")
    moved = tested("3", "A/x", seed=1, data="/y/forensynths")
    for other, runs in ((resized, [1, 1]), (other_data, [1, 1]), (moved, [2])):
        assert [len(recipe.results) for recipe in read_recipes([first, other])] == runs


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


@pytest.mark.usefixtures("blank_pictures")
def test_csv_is_a_table(tmp_path):
    protocol = {"s/x": {"name": "native", "version": 1}}
    paths = [write_run(tmp_path, name, {"s/x": noisy(0)}, protocol=protocol) for name in "ab"]
    main([*map(str, paths), "--bootstrap", "100", "--metric", "acc"])
    with open(tmp_path / "comparison/comparison.csv", newline="", encoding="utf-8") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1
    assert read_csv(tmp_path / "comparison/comparison.csv")[0]["protocol"] == "native v1"
    assert "protocol native v1: s/x" in (tmp_path / "comparison/comparison.md").read_text()


def test_published_figures_are_marked_and_have_their_source(two_runs):
    comparison = compare(two_runs)
    text = report(comparison, ["acc", "auc"], ["NPR", "Ojha"])
    source = "published, not measured here: NPR, ForenSynths: Tan et al., CVPR 2024, Table 1"
    assert "(published)" in text and source in text
    table = metric_rows(comparison, "acc", ["NPR"])
    assert (table[0][-1], table[-1][-1]) == ("99.8", f"{np.mean(BASELINE):.1f}")
    assert published("NPR", "auc", comparison.keys) == {}
    key = "AIGCDetectBenchmark/stable_diffusion_v_1_4"
    assert published("NPR", "acc", [key]) == {key: pytest.approx(0.974)}
    assert published("NPR", "ap", ["ForenSynths/mine", "own/progan"]) == {}
    assert sources("NPR", ["GenImage/mine"]) == [] and len(sources("NPR", ["GenImage/ADM"])) == 1


@pytest.mark.parametrize("metric", ("acc", "ap"))
def test_published_means_are_those_of_the_rows(metric):
    """The papers' own means, to their rounding: a typing error in a row would show."""
    tables = {}
    for row in rows():
        if row["method"] == "NPR" and row[metric]:
            tables.setdefault(row["suite"], {})[row["folder"]] = float(row[metric])
    means = {suite: table.pop("Mean") for suite, table in tables.items() if "Mean" in table}
    assert means
    for suite, mean in means.items():
        assert np.mean(list(tables[suite].values())) == pytest.approx(mean, abs=0.11), suite


@pytest.mark.usefixtures("blank_pictures")
def test_markdown_shows_names_as_they_are(tmp_path):
    sets = {"s/a|b*c*`d`<e>": with_accuracy(0.5, 4)}
    paths = [str(write_run(tmp_path, name, sets)) for name in ("__a__", "b_b_b")]
    out = tmp_path / "out dir"
    assert main([*paths, "--output", str(out), "--bootstrap", "0"]) == 0
    text = (out / "comparison.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| s/"))
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells == [r"s/a\|b\*c\*\`d\`\<e\>", "50.0", "50.0 (+0.0)"]
    assert r"\_\_a\_\_" in text and "b_b_b" in text
    assert {row["generator"] for row in read_csv(out / "comparison.csv")} == {"a|b*c*`d`<e>"}
    latex = (out / "comparison.tex").read_text(encoding="utf-8")
    assert r"\_\_a\_\_" in latex and "<e>" not in latex and latex.count(r"\begin{table}") == 4


def test_draws_plots_or_says_why_there_are_none(two_runs, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "comparison"
    # as results/*/ gives them: the second time with the folder of the first
    for folders in (two_runs, [*two_runs, str(folder)]):
        assert main([*folders, "--bootstrap", "100", "--metric", "acc"]) == 0
        assert (folder / "comparison_acc.png").read_bytes().startswith(b"\x89PNG")
        assert "(comparison_acc.png)" in (folder / "comparison.md").read_text()
    for module in ("matplotlib", "reports.plots.comparison"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    capsys.readouterr()
    assert main([*two_runs, "--bootstrap", "0", "--metric", "acc"]) == 0
    assert "plot skipped: " in capsys.readouterr().out
    # nor one of the earlier comparison
    assert not list(folder.glob("*.png"))
    assert ".png" not in (folder / "comparison.md").read_text()


@pytest.mark.usefixtures("blank_pictures")
def test_no_plot_of_a_metric_that_is_undefined_everywhere(tmp_path, capsys):
    paths = [str(write_run(tmp_path, n, {"s/x": ([1, 1], [0.3, 0.6])})) for n in "ab"]
    assert main(paths) == 0
    assert "AUC is undefined" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ('{"schema": "npr-results/1"}', "'npr-results/1', expected 'npr-results/2'"),
        ('{"schema": "npr-results/2", "sets": {}}', "KeyError 'model'"),
        ('{"schema": "npr-results/2", "model": {"name": "m"}, "sets": {}}', "no test sets"),
        (
            '{"schema": "npr-results/2", "model": {"name": "m"}, "sets": {"s/g": {"suite": "s"}}}',
            "'generator'",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(two_runs, tmp_path, content, complaint):
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    with pytest.raises(UserError, match=f"bad.json.*{complaint}") as caught:
        main([two_runs[0], str(bad)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("acc", [float("nan"), 99.8, "0.5"])
def test_a_value_outside_0_to_1_is_refused(tmp_path, acc):
    paths = [write_run(tmp_path, name, {"s/x": noisy(0)}) for name in ("good", "bad")]
    sets = json.loads((paths[1] / "metrics.json").read_text())["sets"]
    change_document(paths[1], sets={"s/x": sets["s/x"] | {"acc": acc}})
    with pytest.raises(UserError, match=r"acc of s/x .*from 0 to 1"):
        main([*map(str, paths)])


@pytest.mark.parametrize("words", (["--metric", "f1"], ["--published", "me"]))
def test_wrong_flags_are_one_line(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["a", "b", *words])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_wrong_folders(two_runs, tmp_path):
    with pytest.raises(UserError, match="at least two"):
        main(two_runs[:1])
    (tmp_path / "file").write_text("")
    for output, message in ((tmp_path / "file", "file"), (two_runs[1], "one of the compared")):
        with pytest.raises(UserError, match=f"--output .*{message}"):
            main([*two_runs, "--output", str(output), "--bootstrap", "0"])


def scaled_runs(
    folder: Path, name: str, scales: list[float], aucs: list[float], **training: Any
) -> list[Path]:
    """Write a run per AUC, of other seeds, whose scores have just that AUC: real images at 0.5,
    fakes above or below."""
    paths = []
    for seed, auc in enumerate(aucs):
        above = round(100 * auc)
        scores = [0.5] * 100 + [0.9] * above + [0.1] * (100 - above)
        flags = {"npr_scales": scales, "seed": seed, "lr": 0.001, **training}
        run = f"{name}_seed{seed}{STAMP}{seed}"
        model = {"name": run, "path": "x", "epoch": 1, "training": flags, "scales": scales}
        sets = {"s/a": ([0] * 100 + [1] * 100, scores)}
        paths.append(write_run(folder, run, sets, model=model, checkpoint_sha256=run))
    return paths


def change_document(path: Path, **values: Any) -> None:
    document = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps(document | values))


def test_scales_against_the_control_of_equal_capacity(tmp_path):
    """By hand: means 84 and 80, variances 4 and 1, so standard error sqrt(5/3) and Welch's 2.94
    degrees of freedom: t = 3.22."""
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.82, 0.84, 0.86])
    control = scaled_runs(tmp_path, "equal", [0.5, 0.5, 0.5], [0.79, 0.80, 0.81])
    comparison = compare([*ours, *control])
    (line,) = scales_against_control(comparison)
    start = "three against its control of equal capacity, equal: AUC +4.00 points over 1 set ["
    assert line.startswith(start) and line in report(comparison, ["auc"])
    ends = map(float, re.findall(r"\[(.*), (.*)\]", line)[0])
    half = 3.22 * (5 / 3) ** 0.5
    assert tuple(ends) == pytest.approx((4 - half, 4 + half), abs=0.02)
    assert line.endswith("over 3 and 3 seeds: no significant difference with these seeds")
    better = scaled_runs(tmp_path / "b", "three", [0.25, 0.5, 0.75], [0.92, 0.94, 0.96])
    (line,) = scales_against_control(compare([*better, *control]))
    assert line.endswith("more than capacity explains")


@pytest.mark.parametrize(
    "difference", ("", "data", "equalize", "protocol", "checkpoint", "count", "lr")
)
def test_no_control_where_more_than_the_scales_differs(difference, tmp_path):
    """Other images, another way of testing them, another training or another of its checkpoints."""
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.8, 0.9], dataroot="/data/one")
    training = {"dataroot": "/data/two" if difference == "data" else "/data/one"}
    training |= {"lr": 0.01} if difference == "lr" else {}
    scales = [0.5] * (2 if difference == "count" else 3)
    control = scaled_runs(tmp_path, "control", scales, [0.7, 0.6], **training)
    for path in control:
        model = json.loads((path / "metrics.json").read_text())["model"]
        changes = {
            "equalize": {"equalize": "jpeg:50"},
            "protocol": {"protocol": {"s/a": {"name": "resize256", "version": 1}}},
            "checkpoint": {"model": model | {"name": f"{model['name']}_best"}},
        }
        change_document(path, **changes.get(difference, {}))
    assert len(scales_against_control(compare([*ours, *control]))) == (not difference)


def test_a_control_of_one_seed_gives_no_interval(tmp_path):
    ours = scaled_runs(tmp_path, "three", [0.25, 0.5, 0.75], [0.8, 0.9])
    single = scaled_runs(tmp_path, "single", [0.5, 0.5, 0.5], [0.8])
    (line,) = scales_against_control(compare([*ours, *single]))
    assert "without an interval" in line
