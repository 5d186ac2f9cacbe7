"""Calibration: the fit against known truths and slow versions, the copy of the checkpoint, its
files and its diagram."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

import test as test_script
import train
from data.layouts import find_test_sets
from evaluation.calibration import (
    NEVER_GENERATED,
    NEVER_REAL,
    Measured,
    NotCalibratable,
    decision_band,
    fit_calibration,
    fit_temperature,
    measure,
)
from evaluation.reliability import reliability, share_of_label
from inference import load_detector
from inference.calibration_scores import detector_predictions
from networks import ModelConfig
from networks.calibration import Calibration
from networks.checkpoint import load_model
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from reports.calibration_report import report, warnings
from reports.plots.calibration import plot_reliability
from tests.conftest import REPOSITORY, TINY, make_set, save_model
from tests.helpers import plot_checks
from tests.helpers.plot_checks import Draw, legend_texts
from tools import calibrate
from util import UserError

texts, draw = plot_checks.texts, plot_checks.draw  # fixtures
MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)


def truth(
    count: int, temperature: float, seed: int = 0, spread: float = 2.0
) -> tuple[NDArray, NDArray]:
    """Labels drawn from sigmoid(logit / temperature), of logits that are spread alike on both
    sides."""
    rng = np.random.default_rng(seed)
    logits = temperature * spread * rng.standard_normal(count)
    return (rng.random(count) < expit(logits / temperature)).astype(int), logits


def scored(pairs: list[tuple[int, float]]) -> tuple[NDArray, NDArray]:
    """Labels and values, with both classes."""
    labels, values = zip(*pairs, (0, 0.3), (1, 0.6), strict=False)
    return np.array(labels), np.array(values)


PAIRS = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1).map(lambda p: round(p, 3))),
    min_size=1,
    max_size=40,
)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-9, 9)), max_size=60),
    st.floats(0, 1),
)
@settings(max_examples=40)
def test_no_set_has_more_false_alarms_than_allowed(
    drawn: list[tuple[int, int, int]], share: float
) -> None:
    """And among the thresholds of which that holds, none has a higher balanced accuracy."""
    fixed = [(0, 0, -2), (0, 1, 3), (1, 2, 4), (1, 0, -1), (1, 1, 9)]
    labels, groups, values = np.array([*drawn, *fixed]).T
    logits = values + 0.1 * labels
    try:
        fitted = fit_calibration(labels, logits, 0.05, groups=groups, max_false_alarms=share)
    except NotCalibratable:
        return
    scores = expit(logits)
    above = scores > fitted.score_threshold
    assert (above == (fitted.probabilities(logits) > fitted.threshold)).all()

    def allowed(called: NDArray) -> bool:
        real = [called[(groups == group) & (labels == 0)] for group in set(groups[labels == 0])]
        return all(calls.mean() <= share + 1e-9 for calls in real)

    def balanced(called: NDArray) -> float:
        return (called[labels == 1].mean() + 1 - called[labels == 0].mean()) / 2

    assert allowed(above)
    others = [scores > cut for cut in [-1.0, *scores, 1.0]]
    best = max(balanced(called) for called in others if allowed(called))
    assert balanced(above) == pytest.approx(best)


def test_false_alarms_are_limited_by_set_from_the_command_line(
    checkpoint: Path, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, val, "--max_false_alarms", "0.17")  # one of six
    assert "at most 17.0 % of each set's real images above it" in capsys.readouterr().out
    detector = load_detector(checkpoint.with_name("model_calibrated.pth"), "cpu")
    threshold = read_checkpoint(checkpoint.with_name("model_calibrated.pth"))["val_threshold"]
    for name in ("car", "cat"):
        assert (detector.score(sorted((val / name / "0_real").iterdir())) > threshold).sum() <= 1


def test_temperature_is_the_slope_of_a_logistic_regression_without_intercept() -> None:
    labels, logits = truth(3000, 2.0)
    logits += 0.5 * (labels == 0)
    n_real, n_fake = np.bincount(labels)
    targets = np.where(
        labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2)
    )  # a part of each image in either class
    weights = np.where(labels == 1, 1 / n_fake, 1 / n_real) * len(labels)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    parts = np.concatenate([weights * targets, weights * (1 - targets)])
    regression.fit(np.tile(logits, 2)[:, None], np.repeat([1, 0], len(labels)), parts)
    assert fit_temperature(labels, logits) == pytest.approx(1 / regression.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize(("count", "size"), [(5, 1.0), (60, 12.0), (1000, 1e-3)])
def test_temperature_of_separated_classes_says_no_more_than_their_number(
    count: int, size: float
) -> None:
    labels = np.repeat([0, 1], count)
    logits = np.where(labels == 1, size, -size)
    temperature = fit_temperature(labels, logits)
    # the rule of succession
    assert expit(size / temperature) == pytest.approx((count + 1) / (count + 2), abs=1e-6)


@pytest.mark.parametrize("logits", [[1.0, 1.0, -1.0, -1.0], [0.0] * 4, [5.0] * 4])
def test_no_temperature_where_generated_does_not_score_higher(logits: list[float]) -> None:
    with pytest.raises(NotCalibratable):
        fit_temperature(np.array([0, 0, 1, 1]), np.array(logits))


@given(PAIRS)
@settings(max_examples=50)
def test_bins_are_those_of_classes_repeated_to_the_same_number(
    pairs: list[tuple[int, float]],
) -> None:
    labels, probabilities = scored(pairs)
    counts = np.bincount(labels)
    times = counts[1 - labels]
    many, p = labels.repeat(times), probabilities.repeat(times)
    ours = reliability(labels, probabilities)
    ece = binary_calibration_error(torch.tensor(p), torch.tensor(many), n_bins=15, norm="l1")
    # on an edge they take the other bin
    if not np.isin(np.round(probabilities * 15, 6) % 1, [0]).any():
        assert ours.ece == pytest.approx(float(ece), abs=1e-5)
    assert sum(part.n_real for part in ours.bins) == counts[0]
    assert sum(part.n_fake for part in ours.bins) == counts[1]
    for part in ours.bins:
        inside = (p >= part.start) & ((p < part.end) | (part.end == 1))
        assert (part.mean is None) == (not inside.any())
        if part.mean is not None:
            assert part.mean == pytest.approx(p[inside].mean())
            assert part.generated.value == pytest.approx(many[inside].mean())


def test_interval_is_clopper_and_pearsons_and_balances_the_classes() -> None:
    even = share_of_label(2, 62, 0, 65, 65)
    ends = binomtest(2, 62).proportion_ci(0.95, "exact")
    assert (even.value, even.low, even.high) == pytest.approx((2 / 62, ends.low, ends.high))
    rare = share_of_label(2, 62, 0, 20, 180)  # odds of real, 2:60, are nine times as high
    assert rare.value == pytest.approx(18 / 78)
    assert rare.high == pytest.approx(9 * ends.high / (9 * ends.high + 1 - ends.high))
    assert share_of_label(0, 0, 0, 5, 5).value is None


def slow_ends(labels: NDArray, p: NDArray, threshold: float, target: float) -> Any:
    """The largest groups of images that may be called generated, and real, as index sets; None if
    no group may."""
    counts = np.bincount(labels)

    def allowed(group: NDArray, wrong: int) -> bool:
        share = (labels[group] == wrong).sum() / group.sum()
        these, others = share / counts[wrong], (1 - share) / counts[1 - wrong]
        return these / (these + others) <= target

    above = [p >= cut for cut in sorted(set(p[p >= threshold]))]
    below = [p <= cut for cut in sorted(set(p[p <= threshold]), reverse=True)]
    return [
        next((list(g) for g in groups if allowed(g, wrong)), None)
        for groups, wrong in ((above, 0), (below, 1))
    ]


@given(PAIRS, st.floats(0, 1), st.sampled_from([0.013, 0.047, 0.31]))
@settings(max_examples=150, deadline=None)
def test_band_is_the_narrowest_that_keeps_its_promise(
    pairs: list[tuple[int, float]], threshold: float, target: float
) -> None:
    labels, p = scored(pairs)
    lower, upper = decision_band(labels, p, threshold, target)
    generated, real = slow_ends(labels, p, threshold, target)
    assert lower <= threshold <= upper
    assert (upper == NEVER_GENERATED) if generated is None else list(p >= upper) == generated
    assert (lower == NEVER_REAL) if real is None else list(p <= lower) == real


def test_probabilities_hold_for_a_balanced_population() -> None:
    """Two Gaussians, whose log-likelihood ratio is known: fitted on a lopsided sample."""
    rng = np.random.default_rng(1)
    labels = (np.arange(200_000) % 10 == 0).astype(int)
    # three times the ratio, 2x for means -1 and 1
    found = fit_calibration(labels, 3 * (2 * rng.normal(2 * labels - 1.0, 1.0)), 0.05)
    assert found.temperature == pytest.approx(3, rel=0.05)
    others = np.arange(60_000) % 2
    p = found.probabilities(3 * (2 * rng.normal(2 * others - 1.0, 1.0)))
    error = binary_calibration_error(torch.tensor(p), torch.tensor(others), n_bins=15, norm="l1")
    assert error < 0.01 and found.ece_after < 0.01
    assert (others[p >= found.upper] == 0).mean() == pytest.approx(0.05, abs=0.01)
    assert (others[p <= found.lower] == 1).mean() == pytest.approx(0.05, abs=0.01)


def example(count: int = 400, target_error: float = 0.1, temperature: float = 2.0) -> Measured:
    labels, logits = truth(count, temperature)
    calibration = fit_calibration(labels, logits, target_error, data="val", protocol="native v1")
    return measure(calibration, labels, logits)


def test_report_and_warnings_say_what_to_do() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    logits = 3 * labels + rng.normal(size=80) - 1.5
    logits[0] = 50  # one real image is surest of all to be generated
    fitted = fit_calibration(labels, logits, 0.01, data="val", protocol="native v1")
    few, never = warnings(fitted)
    assert "fewer than 100 images" in few
    assert '"generated" is never given' in never and "1.0 %" in never and "--target_error" in never
    text, below = (
        report(measure(fitted, labels, logits)),
        fitted.probabilities(logits) <= fitted.lower,
    )
    for words in (
        "40 real, 40 generated: val; protocol native v1",
        f"sigmoid(logit / {fitted.temperature:.4g})",
        f"{fitted.ece_before:.4f} before, {fitted.ece_after:.4f} after",
        "never given",
        f"unsure       above {fitted.lower:.4f}",
        f"{80 - below.sum()} of 80 images",
    ):
        assert words in text
    assert list(warnings(example(4000, 0.2, 3.0).calibration)) == []


def test_calibration_loads_the_present_form_only() -> None:
    made = Calibration(2.0, 0.4, 0.2, 0.9, 0.05, 0.1, 0.02, 30, 30, "val", "native v1", 0.1)
    values = json.loads(json.dumps(made.to_dict()))
    assert Calibration.from_dict(values) == made
    for other in (values | {"prior": 0.5, "confidence": 0.0}, {"temperature": 2.0}):
        with pytest.raises(ValueError, match="run python -m tools.calibrate again"):
            Calibration.from_dict(other)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "val"
    make_set(root / "car", 6, seed=1)
    make_set(root / "cat", 6, seed=2)
    return root


def weights_for(config: ModelConfig, val: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Return random weights, turned round if they give real images the higher logits."""
    path = save_model(folder / "first.pth", config, seed=3)
    weights, detector = read_checkpoint(path)["model_state_dict"], load_detector(path, "cpu")
    scores = [detector.score(sorted(val.glob(f"*/{name}/*.png"))) for name in ("0_real", "1_fake")]
    if scores[0].mean() > scores[1].mean():
        heads = ("classifier.", "fc1.")
        weights |= {name: -value for name, value in weights.items() if name.startswith(heads)}
    return weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, val: Path) -> dict[str, torch.Tensor]:
    return weights_for(MULTI, val, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def checkpoint(tmp_path: Path, weights: dict[str, torch.Tensor], blank_pictures: None) -> Path:
    values = {"model_state_dict": weights, "model_config": MULTI.to_dict(), "epoch": 1}
    save_checkpoint(tmp_path / "model.pth", values | {"val_threshold": 0.4, "x": (1, "y")})
    return tmp_path / "model.pth"


FLAGS = ["--num_threads", "0", "--gpu_ids", "-1"]


def run(checkpoint: Path, dataroot: Path, *more: str) -> None:
    words = ["--model_path", str(checkpoint), "--dataroot", str(dataroot), *FLAGS, *more]
    assert calibrate.main(words) == 0


def test_the_copy_is_the_checkpoint_with_a_calibration(checkpoint: Path, val: Path) -> None:
    before = checkpoint.read_bytes()
    run(checkpoint, val, "--pdf")
    assert checkpoint.read_bytes() == before
    names = ["model.pth", "model_calibrated.json", "model_calibrated.pth"]
    names += ["model_calibrated_reliability.pdf", "model_calibrated_reliability.png"]
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == names
    old = read_checkpoint(checkpoint)
    new = read_checkpoint(checkpoint.with_name("model_calibrated.pth"))
    fitted = Calibration.from_dict(new.pop("calibration"))
    assert new.pop("val_threshold") == fitted.score_threshold != old.pop("val_threshold")
    copied = new.pop("model_state_dict")
    for name, value in old.pop("model_state_dict").items():
        assert torch.equal(copied[name], value)
    assert new == old
    assert (fitted.n_real, fitted.n_fake, fitted.protocol) == (12, 12, "native v1")
    # no path of this machine
    assert fitted.data == f"{val.parent.name}/val (car, cat)"


def test_metrics_are_those_of_the_images(checkpoint: Path, val: Path) -> None:
    """One image at a time, by another library."""
    (val / "cat" / "0_real" / "broken.png").write_bytes(b"no picture")
    run(checkpoint, val, "--output", str(checkpoint.with_name("new.pth")))
    (val / "cat" / "0_real" / "broken.png").unlink()
    document = json.loads(checkpoint.with_name("new.json").read_text())
    assert list(document["left_out"]) == ["cat/0_real/broken.png"]
    plain = load_detector(checkpoint, "cpu")
    detector = load_detector(checkpoint.with_name("new.pth"), "cpu")
    files = sorted(val.glob("*/*/*.png"))
    labels = np.array([int(path.parent.name == "1_fake") for path in files])
    logits = np.array([plain.outputs(path).logits[0] for path in files], dtype=float)
    fitted, p = detector.calibration, detector.probability(files)
    assert fitted is not None and document["calibration"] == fitted.to_dict()
    assert fitted.temperature == pytest.approx(fit_temperature(labels, logits), rel=1e-3)
    assert p == pytest.approx(expit(logits / fitted.temperature), abs=1e-4)
    for ece, shares, tolerance in (
        (fitted.ece_before, expit(logits), 1e-4),
        (fitted.ece_after, p, 0.02),
    ):
        shares, targets = torch.tensor(shares), torch.tensor(labels)
        error = binary_calibration_error(shares, targets, n_bins=15, norm="l1")
        assert ece == pytest.approx(float(error), abs=tolerance)
    bins = document["reliability"]["after"]
    assert sum(part["n_real"] for part in bins) == sum(part["n_fake"] for part in bins) == 12
    verdicts = np.array([fitted.verdict(each) for each in p])
    for verdict, wrong in (("generated", 0), ("real", 1)):
        share, of_verdict = document["verdicts"]["fitted"][verdict], labels[verdicts == verdict]
        assert (share["total"], share["count"]) == (len(of_verdict), (of_verdict == wrong).sum())
        assert share["count"] <= 0.05 * share["total"]


def test_nothing_is_overwritten_unasked(checkpoint: Path, val: Path) -> None:
    link = checkpoint.with_name("link.pth")
    link.symlink_to(checkpoint)
    for output in (checkpoint, link):
        with pytest.raises(UserError, match="is the checkpoint itself"):
            run(checkpoint, val, "--output", str(output), "--overwrite")
    checkpoint.with_name("model_calibrated.json").write_text("{}")
    with pytest.raises(UserError, match="model_calibrated.json: .*--overwrite"):
        run(checkpoint, val)
    assert not checkpoint.with_name("model_calibrated.pth").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--dataroot", "none"], "--dataroot none: no such folder"),
        (["--protocol", "none"], "--protocol none: unknown"),
        (["--output", "."], "--output .: is a folder"),
        (["--output", "none/new.pth"], "--output none/new.pth: .*written"),
        (
            ["--model_path", "."],
            "--model_path .: is a folder; .*export the copy",
        ),
        (["--model_path", "none.pth"], "--model_path none.pth: no such file"),
        (["--npr_scales", "0.1"], "--npr_scales 0.1: contradicts"),
        (["--classes", "dog"], "dog"),
    ],
)
def test_wrong_flags_end_with_one_line(
    change: list[str], message: str, checkpoint: Path, val: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(checkpoint, val, *change)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.pth"]


def test_images_that_will_not_do(checkpoint: Path, tmp_path: Path) -> None:
    few = make_set(tmp_path / "few", 4)
    with pytest.raises(UserError, match="4 real .* 5 of each class"):
        run(checkpoint, few)
    # the up-sampled images in the folder of the real ones
    swapped = make_set(tmp_path / "swapped", 8, seed=1, real="1_fake", fake="0_real")
    with pytest.raises(UserError, match="folders are not swapped"):
        run(checkpoint, swapped)
    damaged = make_set(tmp_path / "damaged", 6)
    for file in sorted((damaged / "1_fake").iterdir())[:2]:
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="4 generated images"):
        run(checkpoint, damaged)
    for file in (damaged / "1_fake").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="0 of 6 fake images can be used: 6 not usable"):
        run(checkpoint, damaged)
    with pytest.raises(UserError, match="--on_bad_image fail"):
        run(checkpoint, damaged, "--on_bad_image", "fail")


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("train", "training"),
        ("train/car", "training"),
        ("test/car", "test"),
        ("train/photos/val", ""),
    ],
)
def test_images_of_other_splits_give_a_warning(
    folder: str, kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    lines = list(calibrate.data_warnings(tmp_path / folder, load_model(checkpoint)))
    assert len(lines) == bool(kind) and all(f"looks like {kind} images" in line for line in lines)


def test_images_trained_on_are_known_by_the_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_set(tmp_path / "data" / "learn" / "car", 6, seed=1)
    values = read_checkpoint(checkpoint) | {
        "options": {"dataroot": str(tmp_path / "data"), "train_split": "learn"}
    }
    save_checkpoint(checkpoint, values)
    run(checkpoint, folder)
    assert "looks like training images" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["", "val"])
def test_a_table_of_labels(split: str, checkpoint: Path, tmp_path: Path) -> None:
    """Of a table without splits that the model was trained on, one image of a class is val."""
    make_set(tmp_path, 6, seed=1)
    lines = [f"{f}/{n:03d}.png,{f},{split}" for f in ("0_real", "1_fake") for n in range(6)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label,split", *lines]))
    save_checkpoint(checkpoint, read_checkpoint(checkpoint) | {"options": {"dataroot": str(table)}})
    if split:
        run(checkpoint, table)
        return
    with pytest.raises(UserError, match="1 real images"):
        run(checkpoint, table)


EARLIER_FORMS = {
    "bare": lambda weights: weights,
    "model": lambda weights: {
        "model": weights,
        "epoch": 7,
        "options": "other",
        "val_threshold": "?",
    },
    "module": lambda weights: {
        "model_state_dict": {f"module.{name}": value for name, value in weights.items()}
    },
}


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("form", [pytest.param("bare", marks=pytest.mark.slow), "model", "module"])
def test_weights_in_earlier_forms_become_a_checkpoint(
    form: str, weights: dict[str, torch.Tensor], val: Path, tmp_path: Path
) -> None:
    torch.save(EARLIER_FORMS[form](weights), tmp_path / "old.pth")
    run(tmp_path / "old.pth", val, "--npr_scales", "0.2,0.4,0.6")
    detector = load_detector(tmp_path / "old_calibrated.pth", "cpu")  # needs no scales
    assert detector.scales == (0.2, 0.4, 0.6) and detector.calibration is not None
    assert detector.loaded.epoch == (7 if form == "model" else None)
    loaded = detector.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_files_that_sets_share_count_once(checkpoint: Path, val: Path) -> None:
    _, sets = find_test_sets(str(val))
    predictions = detector_predictions(load_detector(checkpoint, "cpu"), [*sets, sets[0]], 8)
    assert len(predictions.labels) == 24


@pytest.mark.usefixtures("without_pictures", "blank_pictures")
def test_a_calibrated_copy_tests_and_trains_on(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / trained.name))
    last = folder / "model_epoch_last.pth"
    values = read_checkpoint(last)
    detector = load_detector(last, "cpu")
    files = [sorted((dataroot / "val").glob(f"*/{name}/*.png")) for name in ("0_real", "1_fake")]
    if detector.score(files[0]).mean() > detector.score(files[1]).mean():  # two epochs teach little
        for name in ("classifier.weight", "classifier.bias"):
            values["model_state_dict"][name] = -values["model_state_dict"][name]
        save_checkpoint(last, values)
    run(last, dataroot)
    copy = folder / "model_epoch_last_calibrated.pth"
    assert read_checkpoint(copy)["calibration"]["data"].endswith("/val (car, cat)")
    words = ["--model_path", str(copy), *FLAGS]
    words += ["--dataroot", str(dataroot / "test" / "gan"), "--bootstrap", "0"]
    assert test_script.main([*words, "--results_dir", str(tmp_path / "results")]) == 0
    results = tmp_path / "results" / f"{trained.name}_last_calibrated_gan"
    assert (results / "metrics.json").exists()
    words = ["--name", "tiny", "--model_type", "multiscale_attention", "--dataroot", str(dataroot)]
    words += [*TINY, "--niter", "3", "--lr", "0.002", "--checkpoints_dir", str(tmp_path)]
    assert train.main([*words, "--continue_train", "--epoch", "last_calibrated"]) == 0
    after = read_checkpoint(last)
    assert after["epoch"] == 3 and "calibration" not in after  # of other weights


def test_reliability_diagram(draw: Draw) -> None:
    """A smoke test: titles and legend have the numbers of the calibration."""
    measured = example()
    figure = draw(plot_reliability, measured, title="a long name of a model on a long name of data")
    titles = [f"{when}: ECE {getattr(measured, when).ece:.3f}" for when in ("before", "after")]
    assert [axes.get_title() for axes in figure.axes[:2]] == titles
    assert {"threshold", "unsure"} <= set(legend_texts(figure))


def test_without_matplotlib_the_copy_is_written_with_a_warning(
    checkpoint: Path, val: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "reports.plots.calibration", None)
    run(checkpoint, val)
    assert "plots skipped (ModuleNotFoundError" in capsys.readouterr().out
    names = {"model.pth", "model_calibrated.json", "model_calibrated.pth"}
    assert {path.name for path in checkpoint.parent.iterdir()} == names


GUIDE = (REPOSITORY / "docs" / "calibration.md").read_text(encoding="utf-8")
SNIPPET = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]


def test_snippet_of_the_guide(
    checkpoint: Path, val: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, val)
    monkeypatch.chdir(checkpoint.parent)
    Path("checkpoints/RUN").mkdir(parents=True)
    Path("model_calibrated.pth").rename("checkpoints/RUN/model_epoch_last_calibrated.pth")
    make_set(Path("datasets/test/cyclegan"), 4)
    capsys.readouterr()
    exec(SNIPPET, {})
    printed = capsys.readouterr().out
    assert printed.startswith("ECE 0.") and "'generated': Share(" in printed
