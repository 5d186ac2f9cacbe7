"""visualize_attention.py from the outside, and the plots of test.py."""

import base64
import csv
import os
import shutil
import sys
import types
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import test as test_script
import visualize_attention
from networks import ModelConfig
from networks.checkpoint import load_model
from networks.resnet import resnet50
from reports import attention_page, attention_plots
from reports.attention_plots import draw_training
from reports.plots import images
from tests.conftest import make_set, save_model
from training.event_log import VAL, EventLog
from util import UserError


class BrokenModule(types.ModuleType):
    """A module all of whose functions fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__("broken")
        self.error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.fail

    def fail(self, *_: Any, **__: Any) -> None:
        raise self.error


SCALES = (0.25, 0.5, 0.75)
FINDINGS = {
    "attention_report.html", "opt.txt", "attention.json", "attention_statistics.csv",
    "attention_statistics.txt", "attention_means.png", "attention_controls.png",
    "attention_distribution.png", "attention_training.png",
}  # fmt: skip


def run(script: Any, model: Path, dataroot: Path, *extra: str | Path) -> None:
    """Run a script on a checkpoint and a dataset."""
    argv = ["--model_path", model, "--dataroot", dataroot, "--gpu_ids", "-1", "--num_threads", "0"]
    assert script.main(list(map(str, [*argv, *extra]))) == 0


def visualize(model: Path, dataroot: Path, out: Path, *extra: str) -> str:
    """Run visualize_attention.py; return the page that it wrote."""
    run(visualize_attention, model, dataroot, "--output_dir", out, "--num_samples", "4", *extra)
    pages = [out / "attention_report.html", *out.glob("*/attention_report.html")]
    return next(page for page in pages if page.exists()).read_text(encoding="utf-8")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shows(page: str, image: Path) -> bool:
    """Return True if the page holds the image."""
    return base64.b64encode(image.read_bytes()).decode() in page


def names_in(folder: Path) -> set[str]:
    """Return the names of a folder's entries."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("pdf", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_plots_of_a_test(trained: Path, dataroot: Path, tmp_path: Path, pdf: bool) -> None:
    flags = ["--pdf", "--robustness", "--bootstrap", "0"] if pdf else []
    model = trained / "model_epoch_last.pth"
    run(test_script, model, dataroot / "test", "--results_dir", tmp_path, *flags)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    plots = {path.stem for path in folder.glob("*.png")}
    attention = ("means", "heatmap", "controls", "distribution", "training")
    expected = {"roc", "scores", *(f"attention_{name}" for name in attention)}
    assert plots == (expected | {"robustness"} if pdf else expected)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(shows(page, folder / f"{name}.png") for name in plots)
    assert {path.stem for path in folder.glob("*.pdf")} == (plots if pdf else set())
    assert all(path.read_bytes().startswith(b"%PDF") for path in folder.glob("*.pdf"))


@pytest.mark.parametrize("error", (ImportError, AttributeError, RuntimeError))
def test_numbers_are_there_when_no_plot_can_be_drawn(
    trained: Path, dataroot: Path, tmp_path: Path, error: type[Exception],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    """As with libraries that do not fit each other."""
    for module in ("attention", "images"):
        broken = BrokenModule(error("matplotlib does not fit seaborn"))
        monkeypatch.setitem(sys.modules, f"reports.plots.{module}", broken)
    model = trained / "model_epoch_last.pth"
    visualize(model, dataroot / "test" / "gan", tmp_path, "--save_npr_maps")
    assert {path.name for path in tmp_path.rglob("*")} >= {
        *("attention.json", "attention_statistics.txt", "attention_weights.csv", "opt.txt")
    }
    drawn = {path.name for path in tmp_path.rglob("*.png")}
    assert drawn <= {"attention_controls.png"}  # of another module
    assert capsys.readouterr().out.count("plots skipped (") == 1


@pytest.mark.usefixtures("blank_pictures")
def test_one_generator(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    """The folder, the classes, the numbers; a suite later in the same folder hides its plots."""
    model, gan = trained / "model_epoch_last.pth", dataroot / "test" / "gan"
    maps = ("--save_npr_maps", "--num_maps", "2", "--scales", "0.25,0.5,0.75")
    page = visualize(model, gan, tmp_path / "out", "--num_samples", "6", *maps)
    out = tmp_path / "out"
    of_generator = {"attention_per_image.png", "attention_images.png", "attention_weights.csv"}
    assert names_in(out) == FINDINGS | of_generator | {"npr_artifacts"}
    assert "Does attention matter?" in page and page.count("<img") == 8
    panels = sorted(path.name.split("_")[1] for path in (out / "npr_artifacts").glob("*.png"))
    assert panels == ["fake", "real"]
    rows = rows_of(out / "attention_weights.csv")
    # both classes, not the first six files
    assert [row["label"] for row in rows] == ["0"] * 3 + ["1"] * 3
    text = (out / "attention_statistics.txt").read_text()
    for scale in SCALES:
        weights = np.array([float(row[f"attention_{scale}"]) for row in rows])
        assert f"Scale {scale}x: {weights.mean():.4f} ± {weights.std():.4f}" in text
    # images are preprocessed as by test.py
    run(test_script, model, gan, "--results_dir", tmp_path / "results", "--bootstrap", "0")
    tested = {row["path"]: row for row in rows_of(next(tmp_path.rglob("predictions.csv")))}
    for row, key in product(rows, ("score", "attention_0.5")):
        assert float(row[key]) == pytest.approx(float(tested[row["path"]][key]), abs=1e-6)
    assert shows(page, out / "attention_per_image.png")
    page = visualize(model, dataroot / "test", out)
    assert not shows(page, out / "attention_per_image.png")
    assert shows(page, out / "attention_distribution.png")


@pytest.mark.usefixtures("blank_pictures")
def test_a_suite_and_several_models(
    trained: Path, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each generator has a sheet and maps; the page shows them up to a limit."""
    maps = ("--save_npr_maps", "--num_maps", "2")
    page = visualize(trained / "model_epoch_*.pth", dataroot / "test", tmp_path / "all", *maps)
    assert names_in(tmp_path / "all") == {trained.name, f"{trained.name}_best"}
    folder = tmp_path / "all" / trained.name
    page = (folder / "attention_report.html").read_text(encoding="utf-8")
    assert names_in(folder) == FINDINGS | {"attention_heatmap.png", "gan", "diffusion"}
    assert "all 2 generators" in (folder / "attention_statistics.txt").read_text()
    sheets = [folder / name / "attention_images.png" for name in ("gan", "diffusion")]
    panels = sorted(folder.glob("*/npr_artifacts/*.png"))
    assert len(panels) == 4 and all(shows(page, path) for path in [*sheets, *panels])
    assert "Shown:" not in page
    monkeypatch.setattr(attention_page, "MAX_SHEETS", 1)
    monkeypatch.setattr(attention_page, "MAX_MAPS", 3)
    few = tmp_path / "few"
    page = visualize(trained / "model_epoch_last.pth", dataroot / "test", few, *maps)
    shown = [path.name for path in few.glob("*/npr_artifacts/*.png") if shows(page, path)]
    assert [name.split("_")[1] for name in shown] == ["fake", "fake"]  # one of each generator
    sheets = [few / name / "attention_images.png" for name in ("diffusion", "gan")]
    assert [shows(page, sheet) for sheet in sheets] == [True, False]
    assert "Shown: the first 1 of 2 generators; each folder has its attention_images.png." in page
    assert "Shown: 2 of 4; npr_artifacts/ in the folder of each generator has all." in page


@pytest.mark.usefixtures("blank_pictures")
def test_samples_depend_on_the_seed_only(trained: Path, tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", 20)
    chosen = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flags = ("--num_samples", "10", "--seed", seed)
        visualize(trained / "model_epoch_last.pth", root, tmp_path / name, *flags)
        rows = rows_of(tmp_path / name / "attention_weights.csv")
        chosen.append([row["path"] for row in rows])
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[0]) == 10


@pytest.mark.usefixtures("blank_pictures")
def test_one_scale_and_a_generator_without_readable_images(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Both leave something out, with a message."""
    model = save_model(tmp_path / "one.pth", ModelConfig("multiscale_attention", (0.5,), 16, 4))
    shutil.copytree(dataroot / "test", tmp_path / "data")
    for path in (tmp_path / "data" / "gan").rglob("*.png"):
        path.write_bytes(b"no")
    flags = ["--output_dir", tmp_path / "out", "--num_samples", "4"]
    run(visualize_attention, model, tmp_path / "data", *flags)
    printed = "".join(capsys.readouterr())
    assert "gan: 0 of 4 images can be used: 4 not usable" in printed
    assert "the model has one scale" in printed
    assert (tmp_path / "out" / "attention_distribution.png").exists()


def test_models_without_attention_or_a_name_of_their_own_are_refused(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    torch.save(resnet50().state_dict(), tmp_path / "NPR.pth")
    with pytest.raises(UserError, match="no attention to show"):
        visualize(tmp_path / "NPR.pth", dataroot / "test" / "gan", tmp_path / "out")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(trained / "model_epoch_last.pth", tmp_path / folder / "same.pth")
    with pytest.raises(UserError, match="two models are called same"):
        visualize(tmp_path / "*" / "same.pth", dataroot / "test" / "gan", tmp_path / "out")


@pytest.mark.usefixtures("blank_pictures")
def test_names_of_any_kind_are_safe_in_every_file(trained: Path, tmp_path: Path) -> None:
    names = {
        "=cmd()": r"\x3dcmd()",
        os.fsdecode(b"caf\xe9"): r"caf\udce9",
        "new\nline": r"new\x0aline",
    }
    for seed, name in enumerate(names):
        make_set(tmp_path / "@suite" / name, 2, seed=seed)
    run_folder = tmp_path / os.fsdecode(b"run\xff")
    shutil.copytree(trained, run_folder)
    model, out = run_folder / "model_epoch_last.pth", tmp_path / "out"
    page = visualize(model, tmp_path / "@suite", out, "--save_npr_maps", "--num_maps", "1")
    rows = rows_of(out / "attention_statistics.csv")
    assert {row["generator"] for row in rows} == {*names.values(), "all generators"}
    assert not any(row["family"].startswith("@") for row in rows)
    for name, written in names.items():
        text = (out / name / "attention_statistics.txt").read_text(encoding="utf-8")
        assert f"images: {written}\n" in text and r"model: run\udcff" in text
        assert written in page
    assert r"Attention of run\udcff" in page


@pytest.mark.parametrize("residual", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("blank_pictures")
def test_maps_state_what_the_scales_add(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residual: bool
) -> None:
    """Grad-CAM does not add up to the logit: the numbers are not the means of its maps."""
    more = {"attention_residual": residual, "backbone": "resnet18"}
    config = ModelConfig("multiscale_attention", SCALES, 16, 4, **more)
    model = save_model(tmp_path / "model.pth", config)
    plot, texts = images.plot_npr_maps, []

    def record(*args: Any) -> Path:
        title, cams, adds, exact = args[5:9]
        bias = load_model(model).model.get_parameter("classifier.bias").item()
        score = 1 / (1 + np.exp(-bias - float(adds.sum())))
        assert exact is False and not np.allclose(adds, cams.mean(axis=(1, 2)), atol=1e-4)
        texts.append((f"score {score:.3f}", title.rpartition(", ")[2]))
        return plot(*args)

    monkeypatch.setattr(images, "plot_npr_maps", record)
    maps = ("--save_npr_maps", "--num_maps", "2")
    visualize(model, dataroot / "test" / "gan", tmp_path / "out", *maps)
    assert len(texts) == 2 and all(computed == written for computed, written in texts)


def test_attention_during_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Undefined epochs have no place in the plot; a missing or unreadable log costs only it."""
    for name, entropies in (("run", [1.0, float("nan"), 0.9]), ("diverged", [float("nan")])):
        (tmp_path / name).mkdir()
        events = EventLog(tmp_path / name)
        for epoch, entropy in enumerate(entropies, start=1):
            moments = {
                f"attention_validation/{moment}_{scale}": value
                for scale in SCALES
                for moment, value in (("mean", 1 / 3), ("std", 0.1))
            }
            metrics = {"attention_validation/entropy": entropy} | moments
            events.add(VAL, 10 * epoch, epoch, metrics)
        events.close()
    histories: list[Any] = []

    def record(history: Any, *args: Any, **more: Any) -> None:
        histories.append(history)

    monkeypatch.setattr("reports.plots.attention.plot_attention_training", record)
    draw_training(SCALES, tmp_path, tmp_path / "run")
    assert list(histories[0]) == [1, 3]
    assert draw_training(SCALES, tmp_path, tmp_path / "diverged") == []
    assert draw_training((0.25, 0.6), tmp_path, tmp_path / "run") == []  # another model's
    assert draw_training(SCALES, tmp_path, tmp_path / "nothing") == []

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(attention_plots, "read_metrics", refuse)
    assert draw_training(SCALES, tmp_path, tmp_path / "run") == []
    assert "attention during training" in caplog.text
