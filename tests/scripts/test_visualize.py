"""The plots of attention, of test.py and of visualize_attention.py, and the latter's page."""

import base64
import csv
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import test as test_script
import visualize_attention
from data.image_sets import ImageSet
from evaluation.scores import Scores
from inference import visualize as visualizing
from networks import ModelConfig
from networks.checkpoint import load_model
from options.visualize_options import VisualizeOptions
from reports import attention_page, attention_plots
from reports.attention_plots import draw_training
from tests.conftest import make_set, save_model
from training.event_log import VAL, EventLog

SCALES = (0.25, 0.5, 0.75)


def run(script: Any, model: Path, dataroot: Path, *extra: str) -> None:
    argv = [
        "--model_path",
        str(model),
        "--dataroot",
        str(dataroot),
        "--gpu_ids",
        "-1",
        "--num_threads",
        "0",
    ]
    assert script.main([*argv, *extra]) == 0


def visualize(model: Path, dataroot: Path, out: Path, *extra: str) -> str:
    """The page that it wrote."""
    run(
        visualize_attention, model, dataroot, "--output_dir", str(out), "--num_samples", "4", *extra
    )
    return (out / "attention_report.html").read_text(encoding="utf-8")


def shows(page: str, picture: Path) -> bool:
    return base64.b64encode(picture.read_bytes()).decode() in page


@pytest.mark.parametrize("pdf", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_test_has_the_same_figures(
    trained: Path, dataroot: Path, tmp_path: Path, pdf: bool
) -> None:
    flags = ["--pdf"] if pdf else []
    run(
        test_script,
        trained / "model_epoch_last.pth",
        dataroot / "test",
        "--results_dir",
        str(tmp_path),
        *flags,
    )
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    pictures = {path.stem for path in folder.glob("*.png")}
    attention = ("means", "heatmap", "controls", "distribution", "training")
    assert pictures == {"roc", "scores", *(f"attention_{name}" for name in attention)}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(shows(page, folder / f"{name}.png") for name in pictures)
    assert {path.stem for path in folder.glob("*.pdf")} == (pictures if pdf else set())
    assert all(path.read_bytes().startswith(b"%PDF") for path in folder.glob("*.pdf"))


@pytest.mark.slow
def test_robustness_as_pdf_too(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    flags = ("--results_dir", str(tmp_path), "--pdf", "--robustness", "--bootstrap", "0")
    run(test_script, trained / "model_epoch_last.pth", dataroot / "test" / "gan", *flags)
    (pdf,) = tmp_path.glob("*/robustness.pdf")
    assert pdf.with_suffix(".png").is_file()


def test_the_page_shows_pictures_of_this_run_only(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    """One generator leaves a picture in the folder of which a suite has none."""
    model = trained / "model_epoch_last.pth"
    page = visualize(model, dataroot / "test" / "gan", tmp_path)
    assert shows(page, tmp_path / "attention_per_image.png")
    page = visualize(model, dataroot / "test", tmp_path)
    assert not shows(page, tmp_path / "attention_per_image.png")
    assert shows(page, tmp_path / "attention_distribution.png")


def test_every_generator_has_a_sheet_and_its_maps_and_the_page_some(
    trained: Path, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, maps = trained / "model_epoch_last.pth", ("--save_npr_maps", "--num_maps", "2")
    page = visualize(model, dataroot / "test", tmp_path / "all", *maps)
    sheets = [tmp_path / "all" / name / "attention_images.png" for name in ("gan", "diffusion")]
    panels = sorted((tmp_path / "all").glob("*/npr_artifacts/*.png"))
    assert len(panels) == 4 and all(shows(page, path) for path in [*sheets, *panels])
    assert "Shown:" not in page
    monkeypatch.setattr(attention_page, "MAX_SHEETS", 1)
    monkeypatch.setattr(attention_page, "MAX_MAPS", 3)
    page = visualize(model, dataroot / "test", tmp_path / "few", *maps)
    few = tmp_path / "few"
    shown = {
        path.relative_to(few).as_posix()[:-4] for path in few.glob("*/*/*.png") if shows(page, path)
    }
    assert [name.split("_")[2] for name in shown] == ["fake", "fake"]  # one of each generator
    assert [shows(page, few / name / "attention_images.png") for name in ("diffusion", "gan")] == [
        True,
        False,
    ]
    assert "Shown: the first 1 of 2 generators; each folder has its attention_images.png." in page
    assert "Shown: 2 of 4; npr_artifacts/ in the folder of each generator has all." in page


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
    out = tmp_path / "out"
    page = visualize(
        run_folder / "model_epoch_last.pth",
        tmp_path / "@suite",
        out,
        "--save_npr_maps",
        "--num_maps",
        "1",
    )
    with open(out / "attention_statistics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["generator"] for row in rows} == {*names.values(), "all generators"}
    assert not any(row["family"].startswith("@") for row in rows)
    for name, written in names.items():
        text = (out / name / "attention_statistics.txt").read_text(encoding="utf-8")
        assert f"images: {written}\n" in text and r"model: run\udcff" in text
        assert written.replace("\\", "\\") in page
    assert r"Attention of run\udcff" in page


@pytest.mark.parametrize("residual", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_maps_state_what_the_scales_add(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residual: bool
) -> None:
    """Grad-CAM does not add up to the logit: the numbers are not the means of its maps."""
    config = ModelConfig(
        "multiscale_attention", SCALES, 16, 4, attention_residual=residual, backbone="resnet18"
    )
    model = save_model(tmp_path / "model.pth", config)
    plot, scores = attention_page.plot_npr_maps, []

    def record(*args: Any) -> Path:
        title, cams, adds, exact = args[5:9]
        bias = load_model(model).model.get_parameter("classifier.bias").item()
        score = 1 / (1 + np.exp(-bias - float(adds.sum())))
        scores.append((f"score {score:.3f}", title.rpartition(", ")[2]))
        assert exact is False and not np.allclose(adds, cams.mean(axis=(1, 2)), atol=1e-4)
        return plot(*args)

    monkeypatch.setattr(attention_page, "plot_npr_maps", record)
    visualize(
        model, dataroot / "test" / "gan", tmp_path / "out", "--save_npr_maps", "--num_maps", "2"
    )
    assert len(scores) == 2 and all(computed == written for computed, written in scores)


def logged(folder: Path, entropies: list[float]) -> Path:
    """A run's folder with the attention of one epoch for each entropy."""
    folder.mkdir()
    events = EventLog(folder)
    for epoch, entropy in enumerate(entropies, start=1):
        moments = {
            f"attention_validation/{name}_{key}": value
            for key in ("0.25", "0.5", "0.75")
            for name, value in (("mean", 1 / 3), ("std", 0.1))
        }
        events.add(VAL, 10 * epoch, epoch, {"attention_validation/entropy": entropy} | moments)
    events.close()
    return folder


def test_epochs_that_are_not_finite_have_no_place_in_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test must not end for want of a picture."""
    seen: list[Any] = []
    monkeypatch.setattr(
        attention_plots,
        "plot_attention_training",
        lambda history, *args, **more: seen.append(history),
    )
    draw_training(SCALES, tmp_path, logged(tmp_path / "run", [1.0, float("nan"), 0.9]))
    assert list(seen[0]) == [1, 3]
    assert draw_training(SCALES, tmp_path, logged(tmp_path / "diverged", [float("nan")])) == []
    assert draw_training((0.25, 0.6), tmp_path, tmp_path / "run") == []  # another model's
    assert draw_training(SCALES, tmp_path, tmp_path / "nothing") == []


def test_a_log_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(attention_plots, "read_metrics", refuse)
    assert draw_training(SCALES, tmp_path, tmp_path) == []
    assert "attention during training" in caplog.text


@pytest.mark.slow
def test_many_generators_are_drawn_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All figures of 38 generators, 100 images each, take 50 s of a busy 2.8 GHz core; more than
    three times that is too much."""
    model = save_model(
        tmp_path / "run" / "model.pth", ModelConfig("multiscale_attention", SCALES, 16, 4)
    )
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize((256, 256))

    def predict(model: Any, loader: Any, *args: Any, **more: Any) -> Scores:
        weights, branches = rng.dirichlet([2, 3, 4], size=100), rng.normal(size=(100, 3))
        logits = (weights * branches).sum(axis=1)
        return Scores("", "", loader.paths, np.arange(100) % 2, logits, weights, branches)

    monkeypatch.setattr("inference.visualize.evaluation_loader", lambda images, *_a, **_m: images)
    monkeypatch.setattr("inference.visualize.predict", predict)
    monkeypatch.setattr(attention_page, "read_image", lambda path: picture)
    sets = []
    for number in range(38):
        paths = tuple(
            str(tmp_path / f"generator_{number}" / f"{image}.png") for image in range(100)
        )
        sets.append(
            ImageSet(
                f"suite_{number % 3}",
                f"generator_{number}",
                paths,
                tuple(i % 2 for i in range(100)),
            )
        )
    opt = VisualizeOptions(model_path=(str(model),), dataroot=str(tmp_path), gpu_ids=())
    start = time.process_time()
    visualizing.visualize(load_model(model), tmp_path, sets, tmp_path / "out", opt)
    assert time.process_time() - start < 180
    for name in ("per_image", "images", "distribution"):
        assert len(list((tmp_path / "out").glob(f"*/attention_{name}.png"))) == 38
