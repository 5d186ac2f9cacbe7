"""Several processes, really started by torchrun, compute and write what one does."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import distributed
import util
import visualize_attention
from data import worker_count
from data.batches import EpochSampler
from networks.ddp import with_sync_batch_norm
from networks.multiscale_npr import attention_multiscale_npr18
from networks.resnet import resnet50
from options.test_options import TestOptions
from tests.conftest import REPOSITORY, TINY, make_dataroot, make_set
from tests.scripts import parallel_checks
from util import UserError


def torchrun(processes: int, *words: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    (run,) = (folder / "checkpoints").glob(f"{name}_2*")
    return torch.load(run / "model_epoch_last.pth")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """A data root of 21 training images in which one file cannot be read, test sets of odd sizes,
    and a checkpoint."""
    folder = tmp_path_factory.mktemp("parallel")
    shutil.copy(trained / "model_epoch_last.pth", folder)
    root = make_dataroot(folder / "data", count=5)
    (root / "train" / "car" / "0_real" / "bad.png").write_bytes(b"no")
    (root / "test" / "gan" / "1_fake" / "bad.png").write_bytes(b"no")
    (root / "test" / "diffusion" / "0_real" / "000.png").unlink()
    make_set(root / "test" / "large", 2, size=48)
    make_set(root / "test" / "single", 1)
    shutil.rmtree(root / "test" / "single" / "1_fake")  # one image: nothing for the second process
    shutil.copy(
        root / "test" / "large" / "0_real" / "000.png",
        root / "test" / "gan" / "0_real" / "large.png",
    )
    return folder


@pytest.fixture(scope="module")
def checked(data: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and outcome of `parallel_checks.all_checks` in two processes, with one process' runs
    before and after."""
    begun = parallel_checks.train_run(data, "one_then_several", stop=7)
    ran = torchrun(2, "-m", "tests.scripts.parallel_checks", str(data))
    assert ran.returncode == 0, ran.stderr
    found = torch.load(data / "found.pth")
    found["one_then_several, begun"] = begun
    found["several_then_one, ended"] = parallel_checks.train_run(
        data, "several_then_one", "--continue_train"
    )
    return data, found


def test_gradients_and_losses_are_those_of_one_process(
    checked: tuple[Path, dict[str, Any]],
) -> None:
    _, found = checked
    assert found["world_size"] == 2
    check_gradients(found)


def check_gradients(found: dict[str, Any]) -> None:
    alone = parallel_checks.gradients()
    assert set(found["gradients"]) == set(alone)
    for key, expected in alone.items():
        several = found["gradients"][key]
        assert several["step"] == expected["step"], key
        assert several["losses"] == pytest.approx(expected["losses"], rel=1e-5), key
        largest = max(gradient.abs().max() for gradient in expected["gradient"])
        assert largest > 0
        for one, other in zip(expected["gradient"], several["gradient"], strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * largest), key


def batches(start: int = 0) -> list[list[int]]:
    """Numbers of the images of each batch of two epochs, from step `start` on, without the file
    that cannot be read."""
    sampler = EpochSampler(21, seed=100, shuffle=True)
    order = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        numbers = [key.index for key in sampler]
        order += [numbers[first : first + 5] for first in range(0, 21, 5)]
    return [sorted(index for index in batch if index != 5) for batch in order[start:]]


def test_every_image_once_per_epoch_in_the_order_of_one_process(
    checked: tuple[Path, dict[str, Any]],
) -> None:
    _, found = checked
    assert found["whole"] == batches()


@pytest.mark.parametrize(
    ("name", "stop"), [("parts", 9), ("several_then_one", 7), ("one_then_several", 7)]
)
def test_a_resume_takes_up_the_images_that_are_left(
    name: str, stop: int, checked: tuple[Path, dict[str, Any]]
) -> None:
    """Interrupted after 7 or 9 of 10 steps; the last checkpoint is that of the step before."""
    folder, found = checked
    assert found[f"{name}, begun"][:stop] == batches()[:stop]
    assert found[f"{name}, ended"] == batches(start=stop - 1)
    assert checkpoint(folder, name)["step"] == 10
    (log,) = (folder / "checkpoints").glob(f"{name}_2*/log.log")
    assert ("get fresh ones" in log.read_text()) == (name != "parts")


def test_a_resume_with_as_many_processes_is_exact(checked: tuple[Path, dict[str, Any]]) -> None:
    check_exact_resume(checked[0])


def check_exact_resume(folder: Path) -> None:
    whole, parts = checkpoint(folder, "whole"), checkpoint(folder, "parts")
    for name, value in whole["model_state_dict"].items():
        assert torch.equal(value, parts["model_state_dict"][name]), name
    for number, moments in whole["optimizer_state_dict"]["state"].items():
        assert torch.equal(
            moments["exp_avg"], parts["optimizer_state_dict"]["state"][number]["exp_avg"]
        ), number
    assert whole["loss"] == parts["loss"] and whole["best_ap"] == parts["best_ap"]
    states = [(values["rng_state"], *values["rng_states_of_others"]) for values in (whole, parts)]
    for one, other in zip(*states, strict=True):
        assert torch.equal(one["torch"], other["torch"])
    assert not torch.equal(states[0][0]["torch"], states[0][1]["torch"])


@pytest.mark.slow
def test_three_processes(data: Path, tmp_path: Path) -> None:
    """Unlike two numbers, three give different sums in different orders."""
    shutil.copytree(data / "data", tmp_path / "data")
    shutil.copy(data / "model_epoch_last.pth", tmp_path)
    parallel_checks.train_run(tmp_path, "one_then_several", stop=7)
    ran = torchrun(3, "-m", "tests.scripts.parallel_checks", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    found = torch.load(tmp_path / "found.pth")
    check_gradients(found)
    check_exact_resume(tmp_path)
    assert found["whole"] == batches() and found["one_then_several, ended"] == batches(start=6)


def test_one_process_writes_no_state_of_others(checked: tuple[Path, dict[str, Any]]) -> None:
    assert "rng_states_of_others" not in checkpoint(checked[0], "several_then_one")


def test_what_cannot_work_is_refused(checked: tuple[Path, dict[str, Any]]) -> None:
    folder, found = checked
    assert found["sync_bn"].startswith("--sync_bn: needs GPUs")
    assert found["batch_size"].startswith("--batch_size 1: fewer images than the 2 processes")
    assert "several processes need images of one size" in found["sizes"]
    assert "0 of 21 images can be used: 20 smaller than the 224x224 crop, 1 not" in found["small"]
    assert not list((folder / "none").glob("*"))


def test_scores_and_figures_are_those_of_one_process(
    checked: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = checked
    parallel_checks.score(folder, tmp_path)
    tables, documents = [], []
    for place in (tmp_path, folder / "results_of_several"):
        (results,) = (path for path in place.iterdir() if path.is_dir())
        with open(results / "predictions.csv", newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
        documents.append(json.loads((results / "metrics.json").read_text()))
    paths = [[row["path"] for row in table] for table in tables]
    assert paths[0] == paths[1] and len(set(paths[0])) == 4 + 5 + 10 + 1 + 4 + 1
    for column in ("logit", "score", "attention_0.5"):
        one, several = ([float(row[column]) for row in table] for table in tables)
        assert several == pytest.approx(one, rel=1e-6, abs=1e-6)
    assert documents[0]["skipped"] == documents[1]["skipped"] != []
    for part in ("sets", "suites", "pooled", "format_leak", "protocol"):
        assert close(documents[0][part], documents[1][part]), part


def close(one: Any, other: Any) -> bool:
    """Same structure, numbers to 1e-6."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == (pytest.approx(other, abs=1e-6) if isinstance(other, float) else other)


def test_torchrun_train(data: Path, tmp_path: Path) -> None:
    argv = [
        "--name",
        "t",
        "--dataroot",
        str(data / "data"),
        *TINY,
        "--niter",
        "1",
        "--cache",
        "cache",
    ]
    argv += ["--test_dataroot", str(data / "data" / "test" / "diffusion"), "--loss_freq", "1"]
    ran = torchrun(2, str(REPOSITORY / "train.py"), *argv, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (run,) = (tmp_path / "checkpoints").iterdir()
    names = {path.name for path in run.iterdir()}
    checkpoints = {"model_epoch_last.pth", "previous_model_epoch_last.pth", "model_epoch_best.pth"}
    logs = {"opt.txt", "log.log", "metrics.jsonl", "train", "val", ".lock"}
    assert names == {"results"} | logs | checkpoints
    log = (run / "log.log").read_text()
    for line in (
        "run folder",
        "step 1: training loss",
        "epoch 1/1",
        "was skipped",
        "skipped 1 files",
        "written: ",
    ):
        assert log.count(line) == 1 and ran.stdout.count(line) == 1, line
    assert (
        ran.stdout.count("- Options -") == 1
        and (run / "opt.txt").read_text().count("- Options -") == 1
    )
    assert len(list((run / "train").iterdir())) == len(list((run / "val").iterdir())) == 1
    weights = torch.load(run / "model_epoch_last.pth")["model_state_dict"]
    resnet50(num_classes=1).load_state_dict(weights)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("test.py --model_path nothing.pth --dataroot .", "--model_path nothing.pth: no such file"),
        ("train.py --dataroot x", "--dataroot x: no such folder"),
    ],
)
@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_one_line(
    command: str, message: str, tmp_path: Path
) -> None:
    script, *argv = command.split()
    began = time.monotonic()
    ran = torchrun(2, str(REPOSITORY / script), *argv, "--gpu_ids", "-1", folder=tmp_path)
    assert ran.returncode != 0
    assert (ran.stdout + ran.stderr).count(message) == 1
    assert "exitcode  : 2" in ran.stderr and "rank      : 0" in ran.stderr
    # a traceback of ours
    assert not re.findall(r'File "[^"]*/(?:train|test|util|parallel)\.py"', ran.stderr)
    assert time.monotonic() - began < 60


def test_pictures_of_attention_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="visualize_attention.py: works as one process"):
        visualize_attention.main(["--model_path", "m.pth", "--dataroot", "."])


def test_other_processes_are_silent_until_they_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(util, "HEAD_START", 0.0)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with util.silent_unless_first():
        TestOptions(model_path=("m.pth",)).parse([])
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit), util.silent_unless_first():
        TestOptions(model_path=("m.pth",)).parse(["--batch_size", "none"])
    assert "--batch_size" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match="--nproc_per_node 2: only 1 CUDA"),
        distributed.process_group((0,)),
    ):
        pass


def test_only_those_who_wait_for_rank_0_wait_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that hangs ends the run after 30 minutes; on the CPU one group does both."""
    limits: dict[str, float] = {}

    def start(backend: str, timeout: timedelta) -> None:
        limits[backend] = timeout.total_seconds() / 3600

    for name, instead in {
        "torch.distributed.init_process_group": start,
        "torch.distributed.new_group": start,
        "torch.distributed.destroy_process_group": lambda: None,
        "torch.cuda.set_device": lambda _: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 2,
    }.items():
        monkeypatch.setattr(name, instead)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for gpu_ids in ((0,), ()):
        limits.clear()
        with distributed.process_group(gpu_ids):
            pass
        assert limits == ({"cpu:gloo,cuda:nccl": 0.5, "gloo": 6} if gpu_ids else {"gloo": 6})


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.loader.cores", lambda: 8)
    assert worker_count(16) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert [worker_count(asked) for asked in (16, 1, 0)] == [2, 1, 0]


@pytest.mark.parametrize("make", (resnet50, attention_multiscale_npr18))
def test_synchronised_batch_norm_keeps_the_names(make: Any) -> None:
    model = make()
    names = {name: value.shape for name, value in model.state_dict().items()}
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    assert {name: value.shape for name, value in converted.state_dict().items()} == names


def test_synchronised_batch_norm_of_one_process_is_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("networks.ddp.log.warning", lambda text: said.append(text))
    model = resnet50()
    assert with_sync_batch_norm(model, torch.device("cuda")) is model
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert said == ["--sync_bn: without effect, there is one process"]


@pytest.mark.gpu
def test_two_gpus(data: Path, tmp_path: Path) -> None:
    """NCCL, synchronised BatchNorm and mixed precision, with an empty part at the end of the epoch."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    argv = [
        "--name",
        "t",
        "--dataroot",
        str(data / "data"),
        *TINY,
        "--niter",
        "2",
        "--batch_size",
        "5",
        "--gpu_ids",
        "0",
    ]
    argv += [
        "--sync_bn",
        "--precision",
        "auto",
        "--model_type",
        "multiscale_attention",
        "--accumulation_steps",
        "2",
    ]
    argv += ["--test_dataroot", str(data / "data" / "test")]
    ran = torchrun(2, str(REPOSITORY / "train.py"), *argv, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    attention_multiscale_npr18().load_state_dict(checkpoint(tmp_path, "t")["model_state_dict"])
