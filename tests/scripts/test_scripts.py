"""train.py, test.py and visualize_attention.py from the outside, on tiny data."""

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
from evaluation.scoring import validate
from networks.checkpoint import load_model
from networks.trainer import Trainer
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import REPOSITORY, TINY, Ran, make_dataroot, make_set
from util import UserError

# tests of test.py's pictures are in test_runs and test_visualize
pytestmark = pytest.mark.usefixtures("without_pictures", "blank_pictures")

CPU = ["--gpu_ids", "-1", "--num_threads", "0"]


def train_argv(dataroot: Path, checkpoints: Path, name: str, *extra: str) -> list[str]:
    return [
        "--name",
        name,
        "--dataroot",
        str(dataroot),
        "--checkpoints_dir",
        str(checkpoints),
        *TINY,
        *extra,
    ]


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars in TensorBoard event files: (step, value) by tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events_in(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def events_in(folder: Path) -> list[Event]:
    """Read event files record by record: length (8 bytes), check (4), data, check (4)."""
    found = []
    for path in sorted(folder.glob("events*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 8], "little")
            found.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += length + 16
    return found


def test_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"opt.txt", "log.log", "metrics.jsonl", "train", "val", ".lock"} | {
        f"{name}.pth"
        for name in ("model_epoch_last", "previous_model_epoch_last", "model_epoch_best")
    }
    assert "multiscale_attention" in (trained / "opt.txt").read_text()
    log = (trained / "log.log").read_text()
    assert "epoch 2/2" in log
    assert "attention on 16 validation images" in log
    assert "skipped 0 files" in log
    val = scalars(trained / "val")
    assert {
        "accuracy",
        "ap",
        "auc",
        "attention/mean_0.25",
        "attention/std_0.75",
        "attention/entropy",
    } <= set(val)
    assert len(val["ap"]) == 2
    assert sum(val[f"attention/mean_{s}"][0][1] for s in ("0.25", "0.5", "0.75")) == pytest.approx(
        1, abs=1e-5
    )
    assert [epoch for _, epoch in val["epoch"]] == list(range(1, len(val["ap"]) + 1))
    assert [step for step, _ in val["attention_validation/entropy"]] == [
        step for step, _ in val["epoch"]
    ]
    values = [value for event in events_in(trained / "val") for value in event.summary.value]
    histograms = [value.histo for value in values if value.tag == "attention_validation/0.5"]
    # all validation images, after each epoch
    assert [sum(histogram.bucket) for histogram in histograms] == [16, 16]
    assert {"loss", "lr"} <= set(scalars(trained / "train"))


@pytest.mark.parametrize(
    "stop", (["--niter", "1"], ["--save_latest_freq", "1", "--accumulation_steps", "2"])
)
def test_continued_training_equals_uninterrupted(
    stop: list[str], dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after an epoch, or in the middle of the second one, and continued: the same weights,
    bit for bit."""
    common = [
        "--model_type",
        "multiscale_attention",
        "--feature_dim",
        "16",
        "--batch_size",
        "4",
        *stop[2:],
    ]
    train.main(train_argv(dataroot, tmp_path, "whole", "--niter", "2", *common))
    if stop[0] == "--niter":
        train.main(train_argv(dataroot, tmp_path, "parts", "--niter", "1", *common))
    else:
        common = [*common, *stop[:2]]
        steps = Trainer.optimize_parameters

        def stop_at_seven(self: Trainer) -> bool:
            if self.step == 6:
                raise KeyboardInterrupt
            return steps(self)

        monkeypatch.setattr(Trainer, "optimize_parameters", stop_at_seven)
        with pytest.raises(KeyboardInterrupt):
            train.main(train_argv(dataroot, tmp_path, "parts", "--niter", "2", *common))
        monkeypatch.setattr(Trainer, "optimize_parameters", steps)
        saved = torch.load(only(tmp_path, "parts_*") / "model_epoch_last.pth")
        assert (saved["epoch"], saved["batch"]) == (1, 2)
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


def test_continuing_without_a_run_is_an_error(dataroot: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--continue_train --name none: no run folder"):
        train.main(train_argv(dataroot, tmp_path, "none", "--continue_train"))


def test_continuing_a_folder_without_checkpoint_starts_over_there(
    dataroot: Path, tmp_path: Path
) -> None:
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
    train.main(
        train_argv(dataroot, tmp_path, "p", *flags, "--test_dataroot", str(dataroot / "test"))
    )
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


def test_new_optimizer_and_other_optimizer(dataroot: Path, tmp_path: Path) -> None:
    flags = [
        "--optim",
        "sgd",
        "--niter",
        "1",
        "--class_bal",
        "--serial_batches",
        "--data_aug",
        "--init_type",
        "xavier",
    ]
    train.main(train_argv(dataroot, tmp_path, "s", *flags))
    train.main(
        train_argv(dataroot, tmp_path, "s", "--niter", "2", "--continue_train", "--new_optim")
    )
    values = torch.load(only(tmp_path, "s_*") / "model_epoch_last.pth")
    assert values["epoch"] == 2
    assert "exp_avg" in values["optimizer_state_dict"]["state"][0]  # Adam's, from scratch
    assert values["optimizer_state_dict"]["state"][0]["step"] == 2


def test_continuing_with_another_architecture_is_refused(dataroot: Path, trained: Path) -> None:
    argv = train_argv(
        dataroot, trained.parent, "tiny", "--model_type", "multiscale_attention", "--continue_train"
    )
    with pytest.raises(UserError, match="--continue_train: .*checkpoint"):
        train.main([*argv, "--npr_scales", "0.25,0.5"])


def test_bad_training_images_are_named(dataroot: Path, tmp_path: Path) -> None:
    shutil.copytree(dataroot, tmp_path / "data")
    (tmp_path / "data/train/car/0_real/broken.png").write_bytes(b"no")
    train.main(train_argv(tmp_path / "data", tmp_path, "bad", "--niter", "1"))
    log = (only(tmp_path, "bad_*") / "log.log").read_text()
    assert "was skipped" in log and "broken.png" in log and "skipped 1 files" in log


def run_test(model: Path, dataroot: Path, results: Path, *extra: str) -> None:
    argv = [
        "--model_path",
        str(model),
        "--dataroot",
        str(dataroot),
        "--results_dir",
        str(results),
        *CPU,
        *extra,
    ]
    assert test_script.main(argv) == 0


def metrics(results: Path) -> dict[str, Any]:
    return json.loads(only(results, "*/metrics.json").read_text())


def predictions(results: Path) -> list[dict[str, str]]:
    with open(only(results, "*/predictions.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_results_agree_with_each_other(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    run_test(trained / "model_epoch_last.pth", dataroot / "test", tmp_path)
    folder = tmp_path / f"{trained.name}_test"
    document = json.loads((folder / "metrics.json").read_text())
    rows = predictions(tmp_path)
    assert set(document["sets"]) == {"test/gan", "test/diffusion"}
    assert len(rows) == 16
    for key, figures in document["sets"].items():
        mine = [row for row in rows if f"{row['suite']}/{row['generator']}" == key]
        labels, scores = (
            np.array([float(row[name]) for row in mine]) for name in ("label", "score")
        )
        assert figures["auc"] == pytest.approx(roc_auc_score(labels, scores))
        assert figures["acc"] == pytest.approx(np.mean((scores > 0.5) == labels))
        assert figures["real_acc"] == pytest.approx(np.mean(scores[labels == 0] <= 0.5))
        assert (figures["n_real"], figures["n_fake"]) == (4, 4)
    row = rows[0]
    assert row["path"] == "diffusion/0_real/000.png"
    assert float(row["score"]) == pytest.approx(1 / (1 + np.exp(-float(row["logit"]))), abs=1e-6)
    assert sum(float(row[f"attention_{s}"]) for s in ("0.25", "0.5", "0.75")) == pytest.approx(
        1, abs=1e-5
    )
    text = (tmp_path / f"{folder.name}.txt").read_text()
    assert text == (folder / f"{folder.name}.txt").read_text()
    assert "Mean" in text and "gan" in text and "skipped: 0 files" in text
    assert document["schema"] == "npr-results/2"
    assert document["model"]["scales"] == [0.25, 0.5, 0.75]
    assert len(document["checkpoint_sha256"]) == 64


def test_scores_do_not_depend_on_the_batch_size(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    for name, size in (("a", 32), ("b", 48)):
        make_set(root / name / "x", 3, size)
    for number, path in enumerate(sorted((root / "b" / "x").rglob("*.png"))):
        target = root / "a" / "x" / path.parent.name / f"big{number}.png"
        shutil.copy(path, target)
    scores = []
    for batch_size in ("1", "4", "64"):
        run_test(
            trained / "model_epoch_last.pth",
            root / "a" / "x",
            tmp_path / batch_size,
            "--batch_size",
            batch_size,
        )
        scores.append(
            {row["path"]: float(row["score"]) for row in predictions(tmp_path / batch_size)}
        )
    assert len(scores[0]) == 12
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], abs=1e-5)


def test_test_scores_equal_the_model_called_by_hand(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    run_test(trained / "model_epoch_last.pth", dataroot / "test" / "gan", tmp_path)
    model = load_model(trained / "model_epoch_last.pth").model
    image = np.asarray(Image.open(dataroot / "test/gan/1_fake/002.png"), dtype=np.float32) / 255
    x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    logit = model(torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32)).item()
    rows = {row["path"]: float(row["logit"]) for row in predictions(tmp_path)}
    assert rows["1_fake/002.png"] == pytest.approx(logit, abs=1e-5)


def test_several_checkpoints_in_one_call(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    run_test(trained / "model_epoch_*.pth", dataroot / "test" / "gan", tmp_path)
    assert {path.name for path in tmp_path.glob("*.txt")} == {
        f"{trained.name}_gan.txt",
        f"{trained.name}_best_gan.txt",
    }


def test_results_of_another_run_are_not_overwritten(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    model = trained / "model_epoch_last.pth"
    for _ in range(2):  # the same run again writes to the same place
        run_test(model, dataroot / "test" / "gan", tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 1
    before = only(tmp_path, "*.txt").read_text()
    run_test(model, dataroot / "test" / "gan", tmp_path, "--protocol", "resize256")
    suite = make_set(tmp_path / "data" / "DiffusionForensics" / "gan", 2)
    run_test(model, suite, tmp_path)
    names = sorted(path.stem.removeprefix(trained.name) for path in tmp_path.glob("*.txt"))
    assert names == ["_DiffusionForensics_gan", "_gan", "_gan_2"]
    assert (tmp_path / f"{trained.name}_gan.txt").read_text() == before


def test_tables_of_published_suites(trained: Path, tmp_path: Path) -> None:
    for suite, generator in (("ForenSynths_test", "biggan"), ("GANGen-Detection", "AttGAN"), ("Diffusion1kStep", "ddpm"),
                             ("DiffusionForensics", "ddpm")):  # fmt: skip
        make_set(tmp_path / "root" / suite / generator, 1)
    run_test(trained / "model_epoch_last.pth", tmp_path / "root", tmp_path / "out")
    text = only(tmp_path / "out", "*.txt").read_text()
    titles = [line for line in text.splitlines() if line.startswith("Table")]
    assert [title.split(" (")[0] for title in titles] == [
        "Table 1 - ForenSynths", "Table 2 - GANGen-Detection", "Table 3 - DiffusionForensics", "Table 5 - Diffusion1kStep"
    ]  # fmt: skip
    assert "DiffusionForensics_ddpm" in text and "Diffusion1kStep_ddpm" in text
    assert "resize256 v1" in titles[0] and "native v1" in titles[1]


def test_one_class_and_bad_files(trained: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", 3)
    shutil.rmtree(tmp_path / "set" / "1_fake")
    (tmp_path / "set" / "0_real" / "bad.png").write_bytes(b"no")
    run_test(trained / "model_epoch_last.pth", tmp_path / "set", tmp_path / "out")
    document = metrics(tmp_path / "out")
    (figures,) = document["sets"].values()
    assert figures["n_real"] == 3 and figures["acc"] is not None
    assert figures["ap"] is None and figures["auc"] is None and figures["fake_acc"] is None
    (skipped,) = document["skipped"]
    assert skipped["path"] == "0_real/bad.png" and skipped["reason"].startswith(
        "not an image in one of the formats"
    )
    text = only(tmp_path / "out", "*.txt").read_text()
    assert "are undefined with one class: set" in text
    assert "skipped: 1 file" in text


def test_nothing_readable_is_an_error(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "0_real").mkdir()
    (tmp_path / "0_real" / "bad.png").write_bytes(b"no")
    with pytest.raises(UserError, match="none of its images could be read"):
        run_test(trained / "model_epoch_last.pth", tmp_path, tmp_path / "out")


def test_list_protocols(capsys: pytest.CaptureFixture) -> None:
    assert test_script.main(["--list_protocols"]) == 0
    printed = capsys.readouterr().out
    assert "ForenSynths: resize256" in printed and "genimage-tile" in printed


def test_validate_unpacks_as_published(trained: Path, dataroot: Path) -> None:
    model = load_model(trained / "model_epoch_last.pth").model
    common = {"num_threads": 0, "gpu_ids": ()}
    opt = TestOptions(model_path=("x",), dataroot=str(dataroot / "test" / "gan"), **common)
    acc, ap, real_acc, fake_acc, labels, scores = validate(model, opt)
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert (
        acc
        == pytest.approx((real_acc + fake_acc) / 2)
        == pytest.approx(np.mean((scores > 0.5) == labels))
    )
    assert 0 <= ap <= 1
    on_val = validate(
        model, TrainOptions(dataroot=str(dataroot), loadSize=32, cropSize=32, **common)
    )
    assert len(on_val.labels) == 16


FINDINGS = {"attention_report.html", "opt.txt", "attention.json", "attention_statistics.csv",
            "attention_means.png", "attention_controls.png", "attention_training.png"}  # fmt: skip


def visualize(model: Path, dataroot: Path, out: Path, *extra: str) -> None:
    argv = [
        "--model_path",
        str(model),
        "--dataroot",
        str(dataroot),
        "--output_dir",
        str(out),
        "--gpu_id",
        "-1",
    ]
    assert visualize_attention.main([*argv, "--num_threads", "0", *extra]) == 0


def test_visualize_one_generator(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    visualize(trained / "model_epoch_last.pth", dataroot / "test" / "gan", tmp_path, "--num_samples", "6",
              "--save_npr_maps", "--num_maps", "2", "--scales", "0.25,0.5,0.75")  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"attention_statistics.txt", "attention_distribution.png", "attention_per_image.png",
                     "attention_weights.csv", "npr_artifacts", *FINDINGS, "attention_images.png"}  # fmt: skip
    page = (tmp_path / "attention_report.html").read_text()
    assert "Does attention matter?" in page and page.count("<img") == 8
    with open(tmp_path / "attention_weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # both classes, not the first six files
    assert [row["label"] for row in rows] == ["0"] * 3 + ["1"] * 3
    maps = sorted(path.name.split("_")[1] for path in (tmp_path / "npr_artifacts").glob("*.png"))
    assert maps == ["fake", "real"]
    weights = np.array(
        [[float(row[f"attention_{s}"]) for s in ("0.25", "0.5", "0.75")] for row in rows]
    )
    text = (tmp_path / "attention_statistics.txt").read_text()
    for scale, mean, std in zip(
        ("0.25", "0.5", "0.75"), weights.mean(0), weights.std(0), strict=True
    ):
        assert f"Scale {scale}x: {mean:.4f} ± {std:.4f}" in text


def test_visualize_preprocesses_as_test_does(trained: Path, dataroot: Path, tmp_path: Path) -> None:
    run_test(trained / "model_epoch_last.pth", dataroot / "test" / "gan", tmp_path / "results")
    visualize(trained / "model_epoch_last.pth", dataroot / "test" / "gan", tmp_path / "pictures")
    tables = []
    for path in (
        only(tmp_path / "results", "*/predictions.csv"),
        tmp_path / "pictures" / "attention_weights.csv",
    ):
        with open(path, newline="") as file:
            tables.append(
                {row["path"]: (row["score"], row["attention_0.5"]) for row in csv.DictReader(file)}
            )
    assert tables[0] == tables[1]


def test_visualize_a_suite_and_several_models(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    visualize(trained / "model_epoch_*.pth", dataroot / "test", tmp_path, "--num_samples", "4")
    assert {path.name for path in tmp_path.iterdir()} == {trained.name, f"{trained.name}_best"}
    folder = tmp_path / trained.name
    assert {path.name for path in folder.iterdir()} == {
        "attention_heatmap.png", "attention_statistics.txt", "attention_distribution.png", "gan", "diffusion", *FINDINGS,
    }  # fmt: skip
    assert "all 2 generators" in (folder / "attention_statistics.txt").read_text()


def test_samples_are_drawn_repeatably_and_differ_by_seed(trained: Path, tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", 20)
    chosen = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        visualize(
            trained / "model_epoch_last.pth",
            root,
            tmp_path / name,
            "--num_samples",
            "10",
            "--seed",
            seed,
        )
        with open(tmp_path / name / "attention_weights.csv", newline="") as file:
            chosen.append([row["path"] for row in csv.DictReader(file)])
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 10


def test_single_scale_model_has_no_attention_to_show(dataroot: Path, tmp_path: Path) -> None:
    from networks.resnet import resnet50

    torch.save(resnet50().state_dict(), tmp_path / "NPR.pth")
    with pytest.raises(UserError, match="no attention to show"):
        visualize(tmp_path / "NPR.pth", dataroot / "test" / "gan", tmp_path / "out")


def test_training_at_any_scales_on_odd_sizes(tmp_path: Path) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2, size=33)
    argv = train_argv(
        root,
        tmp_path,
        "odd",
        "--model_type",
        "multiscale_attention",
        "--npr_scales",
        "0.2,0.4,0.4,0.9",
    )
    train.main([*argv, "--niter", "1", "--loadSize", "33", "--cropSize", "31"])
    model = only(tmp_path, "odd_*") / "model_epoch_last.pth"
    run_test(model, root / "test", tmp_path / "out")
    header = list(predictions(tmp_path / "out")[0])
    assert header[6:] == [
        f"{kind}_{s}"
        for kind in ("attention", "branch_logit")
        for s in ("0.2", "0.4", "0.4_2", "0.9")
    ]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (
            "test.py --model_path missing.pth --dataroot DATA/test",
            ["--model_path", "missing.pth", "no such file"],
        ),
        slow("test.py --model_path MODEL --dataroot DATA", ["--dataroot", "training folder"]),
        slow(
            "test.py --model_path MODEL --dataroot DATA/test --protocol x",
            ["--protocol x", "native"],
        ),
        slow(
            "test.py --model_path MODEL --dataroot DATA/test --scales 0.5",
            ["--npr_scales 0.5", "0.25,0.5,0.75"],
        ),
        slow("test.py --model_path MODEL --dataroot nowhere", ["--dataroot", "nowhere"]),
        ("train.py --dataroot DATA --continue_train --name none", ["--continue_train", "none"]),
        slow(
            "train.py --dataroot DATA --backbone x --model_type multiscale_attention",
            ["--backbone x"],
        ),
        slow(
            "visualize_attention.py --model_path MODEL --dataroot DATA/test --num_samples 0",
            ["--num_samples", "0"],
        ),
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
    words = (
        command.replace("DATA", str(dataroot))
        .replace("MODEL", str(trained / "model_epoch_last.pth"))
        .split()
    )
    ran = run_as_script(*words, folder=tmp_path)
    assert ran.returncode == 2
    lines = [line for line in ran.stderr.splitlines() if "error" in line]
    assert len(lines) == 1 and "Traceback" not in ran.stderr
    assert all(part in lines[0] for part in parts), lines[0]


def test_ctrl_c_says_how_to_go_on(dataroot: Path, tmp_path: Path) -> None:
    argv = train_argv(dataroot, tmp_path, "stopped", "--niter", "1000")
    with subprocess.Popen(
        [sys.executable, REPOSITORY / "train.py", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert any("to resume, run the same command with --continue_train" in line for line in lines)
    assert any("SIGINT: saved step" in line for line in lines)
    assert "Traceback" not in "".join(lines)
    assert torch.load(only(tmp_path, "stopped_*") / "model_epoch_last.pth")["epoch"] >= 2


def test_continuing_with_a_misspelt_epoch_does_not_start_over(
    trained: Path, dataroot: Path
) -> None:
    before = (trained / "model_epoch_last.pth").read_bytes()
    argv = train_argv(
        dataroot, trained.parent, "tiny", "--model_type", "multiscale_attention", "--continue_train"
    )
    with pytest.raises(UserError, match="--epoch lasst.*best, last"):
        train.main([*argv, "--epoch", "lasst"])
    with pytest.raises(UserError, match="--optim sgd.*--new_optim"):
        train.main([*argv, "--optim", "sgd"])
    assert (trained / "model_epoch_last.pth").read_bytes() == before


def test_a_start_that_fails_leaves_no_run_folder(dataroot: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--classes dog"):
        train.main(train_argv(dataroot, tmp_path, "none", "--classes", "dog"))
    assert not list(tmp_path.iterdir())


def test_images_too_small_for_the_scales_are_left_out(trained: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", 2)
    Image.new("RGB", (3, 40)).save(tmp_path / "set" / "0_real" / "thin.png")
    run_test(trained / "model_epoch_last.pth", tmp_path / "set", tmp_path / "out")
    document = metrics(tmp_path / "out")
    assert document["skipped"] == [
        {"path": "0_real/thin.png", "reason": "3x40 pixels leave none at scale 0.25"}
    ]
    assert document["pooled"]["n_real"] == 2


def test_results_of_other_classes_or_precision_are_not_overwritten(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    root = dataroot / "val"
    for extra in (
        ["--classes", "car"],
        ["--classes", "cat"],
        ["--classes", "cat", "--precision", "bf16"],
    ):
        run_test(trained / "model_epoch_last.pth", root, tmp_path, *extra)
    assert len(list(tmp_path.glob("*/metrics.json"))) == 3


def test_visualize_refuses_two_models_of_one_name(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(trained / "model_epoch_last.pth", tmp_path / folder / "same.pth")
    with pytest.raises(UserError, match="two models are called same"):
        visualize(tmp_path / "*" / "same.pth", dataroot / "test" / "gan", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_fast_scores_are_the_scores(
    trained: Path, dataroot: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    """test.py --fast against test.py in fp32, batch size 1."""

    def scores(name: str, *extra: str) -> dict[str, float]:
        argv = ["--model_path", str(trained / "model_epoch_last.pth"), "--dataroot", str(dataroot / "test"),
                "--gpu_ids", "-1", "--num_threads", "0", "--results_dir", str(tmp_path / name)]  # fmt: skip
        assert test_script.main([*argv, *extra]) == 0
        with open(next((tmp_path / name).glob("*/predictions.csv")), newline="") as file:
            return {row["path"]: float(row["score"]) for row in csv.DictReader(file)}

    plain = scores("plain", "--batch_size", "1")
    fast = scores("fast", "--batch_size", "3", "--fast", "--precision", precision)
    assert plain.keys() == fast.keys() and len(plain) == 16
    assert all(abs(score - fast[path]) < tolerance for path, score in plain.items())
