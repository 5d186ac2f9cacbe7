"""train.py and test.py from the outside, on tiny data."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from tensorboardX.proto.event_pb2 import Event

import test as test_script
import train
import visualize_attention
from data import protocols
from data.transforms import Protocol
from evaluation.scoring import validate
from inference import load_detector
from networks.checkpoint import load_model
from networks.checkpoint_file import save_checkpoint
from networks.factory import ModelConfig
from networks.trainer import Trainer
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import (
    REPOSITORY,
    TINY,
    Ran,
    draw_image,
    make_dataroot,
    make_set,
    save_model,
)
from util import UserError

# tests of plots are in test_visualize and tests/reports
pytestmark = pytest.mark.usefixtures("without_pictures", "blank_pictures")

CPU = ("--gpu_ids", "-1", "--num_threads", "0")
SCALES = ("0.25", "0.5", "0.75")


def train_argv(dataroot: Path, checkpoints: Path, name: str, *extra: str) -> list[str]:
    """Return the flags of a tiny training."""
    places = ["--name", name, "--dataroot", str(dataroot), "--checkpoints_dir", str(checkpoints)]
    return [*places, *TINY, *extra]


def only(folder: Path, pattern: str) -> Path:
    """Return the only path that matches."""
    (path,) = folder.glob(pattern)
    return path


def events_in(folder: Path) -> list[Event]:
    """Read event files record by record: length (8 bytes), check (4), data, check (4)."""
    events = []
    for path in sorted(folder.glob("events*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 8], "little")
            events.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += length + 16
    return events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars in TensorBoard event files: (step, value) by tag."""
    by_tag: dict[str, list[tuple[int, float]]] = {}
    for event in events_in(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                by_tag.setdefault(value.tag, []).append((event.step, value.simple_value))
    return by_tag


def run_test(model: Path, dataroot: Path, results: Path, *extra: str) -> None:
    """Run test.py."""
    places = ["--model_path", model, "--dataroot", dataroot, "--results_dir", results]
    assert test_script.main([*map(str, places), *CPU, *extra]) == 0


def predictions(results: Path) -> list[dict[str, str]]:
    """Return the rows of the only predictions.csv."""
    with open(only(results, "*/predictions.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(results: Path) -> dict[str, float]:
    """Return the scores of the only predictions.csv by path."""
    return {row["path"]: float(row["score"]) for row in predictions(results)}


def test_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"opt.txt", "log.log", "metrics.jsonl", "train", "val", ".lock"} | {
        f"{name}.pth"
        for name in ("model_epoch_last", "previous_model_epoch_last", "model_epoch_best")
    }
    assert "multiscale_attention" in (trained / "opt.txt").read_text()
    log = (trained / "log.log").read_text()
    parts = ("epoch 2/2", "attention on 16 validation images", "skipped 0 files")
    assert all(part in log for part in parts)
    val = scalars(trained / "val")
    assert {"accuracy", "ap", "auc", "attention/std_0.75", "attention/entropy"} <= set(val)
    means = [val[f"attention/mean_{scale}"][0][1] for scale in SCALES]
    assert sum(means) == pytest.approx(1, abs=1e-5)
    assert [epoch for _, epoch in val["epoch"]] == [1, 2] and len(val["ap"]) == 2
    steps = [step for step, _ in val["epoch"]]
    assert [step for step, _ in val["attention_validation/entropy"]] == steps
    values = [value for event in events_in(trained / "val") for value in event.summary.value]
    histograms = [value.histo for value in values if value.tag == "attention_validation/0.5"]
    # all validation images, after each epoch
    assert [sum(histogram.bucket) for histogram in histograms] == [16, 16]
    assert {"loss", "lr"} <= set(scalars(trained / "train"))


@pytest.mark.parametrize("within_epoch", [False, True])
def test_a_resumed_training_equals_an_uninterrupted_one(
    within_epoch: bool, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after an epoch, or within the second one, and resume: bit for bit the same weights."""
    common = ["--model_type", "multiscale_attention", "--feature_dim", "16", "--batch_size", "4"]
    if within_epoch:
        common += ["--accumulation_steps", "2"]
    train.main(train_argv(dataroot, tmp_path, "whole", "--niter", "2", *common))
    if within_epoch:
        common += ["--save_latest_freq", "1"]
        optimize_parameters = Trainer.optimize_parameters

        def stop_at_seven(self: Trainer) -> bool:
            if self.step == 6:
                raise KeyboardInterrupt
            return optimize_parameters(self)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "optimize_parameters", stop_at_seven)
            train.main(train_argv(dataroot, tmp_path, "parts", "--niter", "2", *common))
        saved = torch.load(only(tmp_path, "parts_*") / "model_epoch_last.pth")
        assert (saved["epoch"], saved["batch"]) == (1, 2)
    else:
        train.main(train_argv(dataroot, tmp_path, "parts", "--niter", "1", *common))
    train.main(train_argv(dataroot, tmp_path, "parts", "--niter", "2", "--continue_train", *common))
    whole, parts = (
        torch.load(only(tmp_path, f"{name}_*") / "model_epoch_last.pth")
        for name in ("whole", "parts")
    )
    assert (parts["epoch"], parts["step"]) == (whole["epoch"], whole["step"]) == (2, 8)
    for name, value in whole["model_state_dict"].items():
        assert torch.equal(value, parts["model_state_dict"][name]), name
    assert torch.equal(whole["rng_state"]["torch"], parts["rng_state"]["torch"])
    assert whole["best_ap"] == parts["best_ap"]


def test_resuming_a_folder_without_checkpoint_starts_there(dataroot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "early_2026_01_02_03_04_05"
    folder.mkdir()
    train.main(train_argv(dataroot, tmp_path, "early", "--continue_train", "--niter", "1"))
    assert "training starts from scratch" in (folder / "log.log").read_text()
    assert (folder / "model_epoch_last.pth").exists()


def test_periodic_checkpoints_epoch_count_early_stop_and_test(
    dataroot: Path, tmp_path: Path
) -> None:
    flags = [
        "--niter",
        "9",
        "--epoch_count",
        "3",
        "--save_epoch_freq",
        "2",
        "--earlystop_epoch",
        "2",
        "--lr",
        "1e-9",
    ]
    test_data = ["--test_dataroot", str(dataroot / "test")]
    train.main(train_argv(dataroot, tmp_path, "p", *flags, *test_data))
    folder = only(tmp_path, "p_*")
    aps = [value for _, value in scalars(folder / "val")["ap"]]
    stop = next(n for n in range(len(aps)) if n - int(np.argmax(aps[: n + 1])) == 2)
    assert len(aps) == stop + 1 < 7
    # the first was epoch 3
    assert torch.load(folder / "model_epoch_last.pth")["epoch"] == 2 + len(aps)
    assert (folder / "model_epoch_4.pth").exists()
    assert not (folder / "model_epoch_2.pth").exists()
    assert "stopping: 2 epochs" in (folder / "log.log").read_text()
    assert only(folder / "results", "*.txt")


def test_training_from_the_weights_of_a_checkpoint(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    """All weights are taken but those that do not fit, which are named; the optimizer is new."""
    start = torch.load(trained / "model_epoch_last.pth")["model_state_dict"]
    head = [name for name in start if name.startswith("classifier")]
    torch.save(
        {"net": {name: start[name] for name in start if name not in head} | {"fc": torch.ones(1)}},
        tmp_path / "a.pth",
    )
    flags = ["--model_type", "multiscale_attention", "--init_from", str(tmp_path / "a.pth")]
    flags += ["--lr", "1e-20"]  # so small that it changes no weight
    train.main(train_argv(dataroot, tmp_path, "tuned", *flags, "--niter", "1"))
    folder = only(tmp_path, "tuned_*")
    values = torch.load(folder / "model_epoch_last.pth")
    trainable = [name for name in start if "running" not in name and "batches" not in name]
    kept = [
        name for name in trainable if torch.equal(values["model_state_dict"][name], start[name])
    ]
    assert set(trainable) - set(kept) == set(head)
    assert values["options"]["init_from"] == str(tmp_path / "a.pth") and values["epoch"] == 1
    text = (folder / "log.log").read_text()
    assert f"newly initialised: {', '.join(head)}; do not fit: fc" in text
    # resumed by the same command, and not begun again
    train.main(train_argv(dataroot, tmp_path, "tuned", *flags, "--niter", "2", "--continue_train"))
    assert (folder / "log.log").read_text().count("newly initialised") == 1
    flags[3] = str(trained / "model_epoch_last.pth")
    with pytest.raises(UserError, match="--init_from .*contradicts --continue_train"):
        train.main(train_argv(dataroot, tmp_path, "tuned", *flags, "--continue_train"))
    other = [*flags, "--npr_scales", "0.5,0.75", "--niter", "1"]
    train.main(train_argv(dataroot, tmp_path, "y", *other))
    text = (only(tmp_path, "y_*") / "log.log").read_text()
    assert "branches by position: 0.5 from 0.25, 0.75 from 0.5" in text
    with pytest.raises(UserError, match="none of its .* tensors fits this model"):
        train.main(train_argv(dataroot, tmp_path, "x", *flags[2:]))
    assert not list(tmp_path.glob("x_*"))


def test_new_optimizer(dataroot: Path, tmp_path: Path) -> None:
    """--new_optim starts with other flags and an optimizer from scratch; bad images are named."""
    shutil.copytree(dataroot, tmp_path / "data")
    (tmp_path / "data/train/car/0_real/broken.png").write_bytes(b"no")
    flags = "--niter 1 --optim sgd --class_bal --serial_batches --data_aug --init_type xavier"
    train.main(train_argv(tmp_path / "data", tmp_path, "s", *flags.split()))
    log = (only(tmp_path, "s_*") / "log.log").read_text()
    assert "was skipped" in log and "broken.png" in log and "skipped 1 files" in log
    resume = ["--niter", "2", "--continue_train", "--new_optim"]
    train.main(train_argv(dataroot, tmp_path, "s", *resume))
    values = torch.load(only(tmp_path, "s_*") / "model_epoch_last.pth")
    adam = values["optimizer_state_dict"]["state"][0]
    assert values["epoch"] == 2 and "exp_avg" in adam and adam["step"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--npr_scales", "0.25,0.5"], "--continue_train: .*checkpoint"),
        (["--epoch", "lasst"], "--epoch lasst.*best, last"),
        (["--optim", "sgd"], "--optim sgd.*--new_optim"),
    ],
)
def test_resuming_with_flags_that_do_not_fit_changes_nothing(
    flags: list[str], message: str, trained: Path, dataroot: Path
) -> None:
    before = (trained / "model_epoch_last.pth").read_bytes()
    resume = ["--model_type", "multiscale_attention", "--continue_train", *flags]
    with pytest.raises(UserError, match=message):
        train.main(train_argv(dataroot, trained.parent, "tiny", *resume))
    assert (trained / "model_epoch_last.pth").read_bytes() == before


def test_a_start_that_fails_leaves_no_run_folder(dataroot: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--classes dog"):
        train.main(train_argv(dataroot, tmp_path, "none", "--classes", "dog"))
    assert not list(tmp_path.iterdir())


LOST = {
    "too small": (("train", "val"), ("0_real", "1_fake"), "train/: 0 of 16 images can be used:"
                  " 16 smaller than the 64x64 crop; pass --cropSize 32 or --repeat_small"),
    "one class": (("train",), ("1_fake",), "train/: 0 of 8 fake images can be used: 8 smaller"),
    "validation": (("val",), ("0_real",), "val/: 0 of 8 real images can be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOST)
def test_a_training_without_an_image_of_each_class_ends(case: str, tmp_path: Path) -> None:
    """Files that are too small for the crop, of both classes or of one, in one split."""
    root = make_dataroot(tmp_path / "data", size=64)
    splits, classes, message = LOST[case]
    for path in (root / split / name for split in splits for name in ("car", "cat")):
        for folder in (path / name for name in classes):
            for file in folder.iterdir():
                Image.open(file).crop((0, 0, 32, 48)).save(file)
    flags = f"--model_type multiscale_attention --no_resize --cropSize 64 --niter 1 {' '.join(CPU)}"
    places = [
        "--name",
        "lost",
        "--dataroot",
        str(root),
        "--checkpoints_dir",
        str(tmp_path / "runs"),
    ]
    with pytest.raises(UserError, match=message):
        train.main([*places, *flags.split()])
    assert not list((tmp_path / "runs").iterdir())


def test_a_network_of_one_size_scores_with_its_own_protocol(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Named before training where the size is wrong; test and visualise use the training's size."""
    flags = "--model_type multiscale_attention --npr_scales 0.5 --backbone vit_b_32 --niter 1"
    places = ["--dataroot", str(dataroot), "--checkpoints_dir", str(tmp_path / "runs"), *CPU]
    message = "--backbone vit_b_32: 64x64 pixels are not taken.*; pass --cropSize 224$"
    with pytest.raises(UserError, match=message):
        train.main([*places, *flags.split(), "--cropSize", "64"])
    assert not list((tmp_path / "runs").iterdir())
    config = ModelConfig("multiscale_attention", (0.5,), 16, backbone="vit_b_32")
    own = Protocol("published-train", resize=256, crop=224)
    model = save_model(tmp_path / "vit.pth", config, protocol=own.to_dict())
    run_test(model, dataroot / "test", tmp_path / "out")
    assert capsys.readouterr().out.count("takes images of one size") == 1
    document = json.loads(only(tmp_path / "out", "*/metrics.json").read_text())
    assert {tuple(sorted(p.items())) for p in map(plain, document["protocol"].values())} == {
        tuple(sorted(plain(own.for_evaluation().to_dict()).items()))
    }
    run_test(model, dataroot / "test/gan", tmp_path / "flags", "--cropSize", "16")
    assert len(predictions(tmp_path / "flags")) == 8
    detector = load_detector(model, "cpu")
    assert detector.protocol == own and detector.score(draw_image(RNG, True)).shape == (1,)


RNG = np.random.default_rng(0)


def plain(values: dict[str, Any]) -> dict[str, str]:
    """Return the values as texts."""
    return {key: str(value) for key, value in values.items()}


@pytest.mark.parametrize("size", [9, 16])
def test_a_last_batch_of_one_image_joins_the_batch_before(size: int, tmp_path: Path) -> None:
    """BatchNorm of a 1x1 feature map needs two images; batches of other networks stay."""
    root = make_dataroot(tmp_path / "data", ("car",), count=size)
    (root / "train/car/0_real/000.png").unlink()
    flags = "--model_type multiscale_attention --npr_scales 0.5 --niter 2 --feature_dim 8"
    argv = [*train_argv(root, tmp_path, "one", *flags.split()), "--batch_size", "8"]
    steps = {}
    for backbone in ("resnet18", "light"):
        train.main([*argv, "--name", backbone, "--backbone", backbone])
        steps[backbone] = torch.load(only(tmp_path, f"{backbone}_*") / "model_epoch_last.pth")[
            "step"
        ]
    images = 2 * size - 1
    full = -(-images // 8)
    assert steps == {"resnet18": 2 * (full - (images % 8 == 1)), "light": 2 * full}
    with pytest.raises(UserError, match="--batch_size 1: .*; pass --batch_size 2"):
        train.main([*argv, "--backbone", "resnet18", "--batch_size", "1"])


def test_small_images_are_repeated_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Train, resume, test and visualise images that are smaller than the crop."""
    root = make_dataroot(tmp_path / "data", ("car",))
    flags = ["--cropSize", "48", "--repeat_small"]
    kind = ["--model_type", "multiscale_attention", "--feature_dim", "8", "--no_resize"]
    places = ["--dataroot", str(root), "--checkpoints_dir", str(tmp_path / "runs"), *CPU]
    train.main([*places, *kind, *flags, "--niter", "1"])
    train.main([*places, *kind, *flags, "--niter", "2", "--continue_train"])
    folder = only(tmp_path / "runs", "*")
    assert "repeat_small: True" in (folder / "opt.txt").read_text()
    assert "skipped 0 files" in (folder / "log.log").read_text()
    model = folder / "model_epoch_last.pth"
    assert torch.load(model)["protocol"]["tile"] is True
    run_test(model, root / "test", tmp_path / "out", *flags)
    assert len(predictions(tmp_path / "out")) == 16
    places = ["--model_path", str(model), "--dataroot", str(root / "test/gan"), *CPU]
    visualize_attention.main([*places, "--output_dir", str(tmp_path / "seen"), *flags])
    assert "skipped: 0 files" in (tmp_path / "seen/attention_statistics.txt").read_text()
    capsys.readouterr()
    protocols.warn_of_no_crop.cache_clear()
    run_test(model, root / "test", tmp_path / "idle", "--repeat_small")
    assert capsys.readouterr().out.count("--repeat_small: without effect") == 1


def test_images_too_small_for_a_scale_are_skipped_in_training(tmp_path: Path) -> None:
    """At native size: of one class, then of both."""
    root = make_dataroot(tmp_path / "data", ("car",))
    flags = ["--model_type", "multiscale_attention", "--no_resize", "--no_crop", "--niter", "1"]
    places = ["--dataroot", str(root), "--checkpoints_dir", str(tmp_path / "runs"), *CPU]
    thin = sorted((root / "train/car").rglob("*.png"))
    for path in thin[1:]:
        Image.new("RGB", (3, 40)).save(path)
    with pytest.raises(
        UserError, match="0 of 4 fake images .*: 4 of a size .*3x40.*pass a --loadSize"
    ):
        train.main([*places, *flags])
    draw = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(draw).save(thin[-1])
    train.main([*places, *flags])
    log = next((tmp_path / "runs").glob("*/log.log")).read_text()
    assert "train/: only 2 of 8 images can be used" in log and "skipped 6 files" in log


def test_results_agree_with_each_other(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    """Two checkpoints in one call: names, numbers, and the model called by hand."""
    run_test(trained / "model_epoch_*.pth", dataroot / "test", tmp_path)
    names = {f"{trained.name}_test", f"{trained.name}_best_test"}
    assert {path.stem for path in tmp_path.glob("*.txt")} == names
    folder = tmp_path / f"{trained.name}_test"
    shutil.rmtree(tmp_path / f"{trained.name}_best_test")
    document = json.loads((folder / "metrics.json").read_text())
    rows = predictions(tmp_path)
    assert set(document["sets"]) == {"test/gan", "test/diffusion"} and len(rows) == 16
    for key, of_set in document["sets"].items():
        of_generator = [row for row in rows if f"{row['suite']}/{row['generator']}" == key]
        labels, values = (
            np.array([float(row[k]) for row in of_generator]) for k in ("label", "score")
        )
        assert of_set["auc"] == pytest.approx(roc_auc_score(labels, values))
        assert of_set["acc"] == pytest.approx(np.mean((values > 0.5) == labels))
        assert of_set["real_acc"] == pytest.approx(np.mean(values[labels == 0] <= 0.5))
        assert (of_set["n_real"], of_set["n_fake"]) == (4, 4)
    row = rows[0]
    assert row["path"] == "diffusion/0_real/000.png"
    assert sum(float(row[f"attention_{s}"]) for s in SCALES) == pytest.approx(1, abs=1e-5)
    image = np.asarray(Image.open(dataroot / "test" / row["path"]), dtype=np.float32) / 255
    x = ((image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None]
    model = load_model(trained / "model_epoch_last.pth").model
    logit = model(torch.tensor(x, dtype=torch.float32)).item()
    assert float(row["logit"]) == pytest.approx(logit, abs=1e-5)
    assert float(row["score"]) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    text = (tmp_path / f"{folder.name}.txt").read_text()
    assert text == (folder / f"{folder.name}.txt").read_text()
    assert "Mean" in text and "gan" in text and "skipped: 0 files" in text
    assert document["schema"] == "npr-results/2"
    assert document["model"]["scales"] == [0.25, 0.5, 0.75]
    assert len(document["checkpoint_sha256"]) == 64


def test_scores_do_not_depend_on_the_batch_size(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of two sizes in one set; --fast with a compiler that changes nothing, too."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    root = tmp_path / "mixed"
    for size in (32, 48):
        make_set(root / str(size), 3, size)
        shutil.copytree(root / str(size) / "0_real", root / "set" / "0_real" / str(size))
        shutil.copytree(root / str(size) / "1_fake", root / "set" / "1_fake" / str(size))
    by_batch_size = []
    for flags in (["1"], ["4"], ["64"], ["4", "--fast"]):
        out = tmp_path / "_".join(flags)
        model = trained / "model_epoch_last.pth"
        run_test(model, root / "set", out, "--batch_size", *flags)
        by_batch_size.append(scores(out))
    assert len(by_batch_size[0]) == 12
    assert all(other == pytest.approx(by_batch_size[0], abs=1e-5) for other in by_batch_size)


def test_results_of_another_run_are_not_overwritten(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    """Another protocol, suite, class or precision gets a place of its own."""
    model, gan = trained / "model_epoch_last.pth", dataroot / "test" / "gan"
    for _ in range(2):  # the same run again writes to the same place
        run_test(model, gan, tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 1
    before = only(tmp_path, "*.txt").read_text()
    run_test(model, gan, tmp_path, "--protocol", "resize256")
    run_test(model, gan, tmp_path, "--precision", "bf16")
    run_test(model, make_set(tmp_path / "data" / "DiffusionForensics" / "gan", 2), tmp_path)
    for name in ("car", "cat"):
        run_test(model, dataroot / "val", tmp_path, "--classes", name)
    names = sorted(path.stem.removeprefix(trained.name) for path in tmp_path.glob("*.txt"))
    assert names == ["_DiffusionForensics_gan", "_gan", "_gan_2", "_gan_3", "_val", "_val_2"]
    assert (tmp_path / f"{trained.name}_gan.txt").read_text() == before


def test_tables_of_published_suites(trained: Path, tmp_path: Path) -> None:
    generators = {
        "ForenSynths_test": "biggan",
        "GANGen-Detection": "AttGAN",
        "Diffusion1kStep": "ddpm",
        "DiffusionForensics": "ddpm",
    }
    for suite, generator in generators.items():
        make_set(tmp_path / "root" / suite / generator, 1)
    run_test(trained / "model_epoch_last.pth", tmp_path / "root", tmp_path / "out")
    text = only(tmp_path / "out", "*.txt").read_text()
    titles = [line for line in text.splitlines() if line.startswith("Table")]
    assert [title.split(" (")[0] for title in titles] == [
        "Table 1 - ForenSynths", "Table 2 - GANGen-Detection", "Table 3 - DiffusionForensics",
        "Table 5 - Diffusion1kStep",
    ]  # fmt: skip
    assert "DiffusionForensics_ddpm" in text and "Diffusion1kStep_ddpm" in text
    assert "resize256 v1" in titles[0] and "native v1" in titles[1]


def test_one_class_and_skipped_files(trained: Path, tmp_path: Path) -> None:
    real = make_set(tmp_path / "set", 3) / "0_real"
    shutil.rmtree(tmp_path / "set" / "1_fake")
    (real / "bad.png").write_bytes(b"no")
    Image.new("RGB", (3, 40)).save(real / "thin.png")
    run_test(trained / "model_epoch_last.pth", tmp_path / "set", tmp_path / "out")
    document = json.loads(only(tmp_path / "out", "*/metrics.json").read_text())
    (of_set,) = document["sets"].values()
    assert of_set["n_real"] == document["pooled"]["n_real"] == 3 and of_set["acc"] is not None
    assert of_set["ap"] is None and of_set["auc"] is None and of_set["fake_acc"] is None
    reasons = {row["path"]: row["reason"] for row in document["skipped"]}
    assert set(reasons) == {"0_real/bad.png", "0_real/thin.png"}
    assert reasons["0_real/bad.png"].startswith("not an image in one of the formats")
    assert reasons["0_real/thin.png"] == "3x40 pixels leave none at scale 0.25"
    text = only(tmp_path / "out", "*.txt").read_text()
    assert "are undefined with one class: set" in text and "skipped: 2 files" in text


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("flat", "no class folders"),
        ("empty", "no images"),
        ("root", "training folder.*pass .*test"),
        ("bad", "none of 2 images can be read, such as .*not an image.*check_dataset"),
    ],
)
def test_a_wrong_test_dataroot_is_found_before_training(
    folder: str, message: str, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    (tmp_path / "empty" / "0_real").mkdir(parents=True)
    (tmp_path / "root").symlink_to(dataroot)
    for path in make_set(tmp_path / "bad", 1).glob("*/*.png"):
        path.write_bytes(b"version https://git-lfs")
    monkeypatch.setattr("training.run.Run.train", lambda self: pytest.fail("trained"))
    words = ["--dataroot", str(dataroot), "--checkpoints_dir", str(tmp_path / "runs"), *TINY]
    with pytest.raises(UserError, match=f"--test_dataroot .*{folder}: .*{message}") as raised:
        train.main([*words, "--test_dataroot", str(tmp_path / folder)])
    assert "--dataroot" not in str(raised.value) and not list((tmp_path / "runs").iterdir())


def test_nothing_readable_is_an_error(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "0_real").mkdir()
    (tmp_path / "0_real" / "bad.png").write_bytes(b"no")
    message = "0 of 1 real images can be used: 1 not usable, such as .*bad.png"
    with pytest.raises(UserError, match=message):
        run_test(trained / "model_epoch_last.pth", tmp_path, tmp_path / "out")


def test_a_class_that_is_lost_is_an_error_unless_another_set_is_whole(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Fakes that are smaller than the crop, in the only set or in one of two."""
    model, root = trained / "model_epoch_last.pth", tmp_path / "suite"
    for path in (make_set(root / "small", 2, size=64) / "1_fake").iterdir():
        Image.open(path).crop((0, 0, 32, 32)).save(path)
    message = "0 of 2 fake images can be used: 2 smaller than the 48x48 crop; pass --cropSize 32"
    with pytest.raises(UserError, match=message):
        run_test(model, root / "small", tmp_path / "one", "--cropSize", "48")
    make_set(root / "whole", 2, size=64)
    run_test(model, root, tmp_path / "two", "--cropSize", "48")
    assert f"suite/small: {message}" in capsys.readouterr().out
    assert len(predictions(tmp_path / "two")) == 6


def test_a_checkpoint_of_no_training_step_is_refused(trained: Path, tmp_path: Path) -> None:
    values = torch.load(trained / "model_epoch_last.pth") | {"step": 0}
    save_checkpoint(tmp_path / "random.pth", values)
    with pytest.raises(UserError, match="random.pth: was not trained"):
        run_test(tmp_path / "random.pth", make_set(tmp_path / "set", 1), tmp_path / "out")


def test_list_protocols(capsys: pytest.CaptureFixture) -> None:
    assert test_script.main(["--list_protocols"]) == 0
    printed = capsys.readouterr().out
    assert "ForenSynths: resize256" in printed and "genimage-tile" in printed


def test_validate_unpacks_as_published(trained: Path, dataroot: Path) -> None:
    model = load_model(trained / "model_epoch_last.pth").model
    common = {"num_threads": 0, "gpu_ids": ()}
    opt = TestOptions(model_path=("x",), dataroot=str(dataroot / "test" / "gan"), **common)
    acc, ap, real_acc, fake_acc, labels, values = validate(model, opt)
    assert labels.tolist() == [0] * 4 + [1] * 4 and 0 <= ap <= 1
    assert acc == pytest.approx((real_acc + fake_acc) / 2)
    assert acc == pytest.approx(np.mean((values > 0.5) == labels))
    opt = TrainOptions(dataroot=str(dataroot), loadSize=32, cropSize=32, **common)
    assert len(validate(model, opt).labels) == 16


def test_training_at_any_scales_on_odd_sizes(tmp_path: Path) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2, size=33)
    flags = "--model_type multiscale_attention --npr_scales 0.2,0.4,0.4,0.9 --niter 1"
    sizes = ["--loadSize", "33", "--cropSize", "31"]
    train.main(train_argv(root, tmp_path, "odd", *flags.split(), *sizes))
    model = only(tmp_path, "odd_*") / "model_epoch_last.pth"
    run_test(model, root / "test", tmp_path / "out")
    header = list(predictions(tmp_path / "out")[0])
    kinds, keys = ("attention", "branch_logit"), ("0.2", "0.4", "0.4_2", "0.9")
    assert header[6:] == [f"{kind}_{key}" for kind in kinds for key in keys]


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("test.py --model_path missing.pth --dataroot DATA/test", ["missing.pth: no such file"]),
        ("test.py --model_path MODEL --dataroot DATA", ["--dataroot", "training folder"]),
        ("test.py --model_path MODEL --dataroot DATA/test --protocol x", ["--protocol x"]),
        ("test.py --model_path MODEL --dataroot DATA/test --scales 0.5", ["--npr_scales 0.5"]),
        ("train.py --dataroot DATA --continue_train --name none", ["--continue_train", "none"]),
        ("train.py --dataroot DATA --backbone x --model_type multiscale_attention", ["--backbone"]),
        ("visualize_attention.py --model_path MODEL --dataroot no", ["--dataroot no"]),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(
    command: str,
    parts: list[str],
    trained: Path,
    dataroot: Path,
    tmp_path: Path,
    run_as_script: Callable[..., Ran],
) -> None:
    model = str(trained / "model_epoch_last.pth")
    words = command.replace("DATA", str(dataroot)).replace("MODEL", model).split()
    ran = run_as_script(*words, folder=tmp_path)
    assert ran.returncode == 2
    lines = [line for line in ran.stderr.splitlines() if "error" in line]
    assert len(lines) == 1 and "Traceback" not in ran.stderr
    assert all(part in lines[0] for part in parts), lines[0]


def test_ctrl_c_says_how_to_resume(dataroot: Path, tmp_path: Path) -> None:
    argv = train_argv(dataroot, tmp_path, "stopped", "--niter", "1000")
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, REPOSITORY / "train.py", *argv], **how) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    printed = "".join(lines)
    assert "to resume, run the same command with --continue_train" in printed
    assert "SIGINT: saved step" in printed and "Traceback" not in printed
    assert torch.load(only(tmp_path, "stopped_*") / "model_epoch_last.pth")["epoch"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_fast_scores_are_the_scores(
    trained: Path, dataroot: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    """test.py --fast against test.py in fp32, batch size 1."""
    model, data = trained / "model_epoch_last.pth", dataroot / "test"
    run_test(model, data, tmp_path / "plain", "--batch_size", "1")
    fast = ["--batch_size", "3", "--fast", "--precision", precision]
    run_test(model, data, tmp_path / "fast", *fast)
    assert len(scores(tmp_path / "fast")) == 16
    assert scores(tmp_path / "fast") == pytest.approx(scores(tmp_path / "plain"), abs=tolerance)
