"""Trainings that end too early, in every way, and go on as if they had not."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import distributed
import train
import training.run
import training.signals
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from networks.run_folder import lock
from tests.conftest import REPOSITORY, TINY, make_dataroot
from tests.robustness.kill_checks import outcome
from tests.scripts.test_scripts import only, train_argv
from training.monitor import Monitor
from training.signals import StopRequest
from util import Stopped, UserError, log, run_script, start_logging


def killed(kills: int, seed: int, *more: str) -> str:
    command = [
        sys.executable,
        "-m",
        "tests.robustness.kill_checks",
        "--kills",
        str(kills),
        "--seed",
        str(seed),
        *more,
    ]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_killed_training_ends_equal() -> None:
    assert "trainings compared" in killed(1, 1, "--variant", "3")


@pytest.mark.slow
def test_trainings_killed_many_times_end_equal() -> None:
    assert "trainings compared" in killed(40, seed=2)


@pytest.fixture(scope="module")
def whole(dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training of three epochs that is left alone ends with."""
    place = tmp_path_factory.mktemp("whole")
    train.main(train_argv(dataroot, place, "run", "--niter", "3"))
    return outcome(only(place, "run_*"))


def stopped_in_validation(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    """Run a training that ends in its second validation."""
    real, calls = Monitor.validate, []

    def validate(self: Monitor, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "validate", validate)
        with pytest.raises(KeyboardInterrupt):
            train.main(argv)


def test_an_epoch_that_was_not_validated_is_validated_first(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "3")
    stopped_in_validation(monkeypatch, argv)
    values = read_checkpoint(only(tmp_path, "run_*") / "model_epoch_last.pth")
    assert values["epoch"] == 2 and values["validated_step"] < values["step"]
    train.main([*argv, "--continue_train"])
    assert outcome(only(tmp_path, "run_*")) == whole


def test_going_on_with_other_flags_is_said(dataroot: Path, tmp_path: Path) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "1", "--lr", "0.003")
    train.main(argv)
    log = only(tmp_path, "run_*") / "log.log"
    train.main([*argv, "--continue_train", "--niter", "2", "--num_threads", "1"])
    assert "other flags" not in log.read_text()
    train.main(
        [
            *argv,
            "--continue_train",
            "--niter",
            "3",
            "--lr",
            "0.001",
            "--recipe",
            "robust",
            "--cropSize",
            "32",
        ]
    )
    (line,) = [
        line
        for line in log.read_text().splitlines()
        if "--continue_train with other flags: " in line
    ]
    changed = set(line.split("other flags: ")[1].split("; "))
    assert changed >= {
        "--lr was 0.003, is 0.001",
        "--degrade was 0.0, is 0.3",
        "--lr_schedule was step, is cosine",
    }


@pytest.mark.parametrize("damage", ("cut", "changed", "missing"))
def test_the_checkpoint_before_a_damaged_one_is_taken(
    damage: str,
    dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Any],
) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "3")
    stopped_in_validation(monkeypatch, argv)
    folder = only(tmp_path, "run_*")
    last = folder / "model_epoch_last.pth"
    content = last.read_bytes()
    if damage == "missing":
        last.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        last.write_bytes(content[:middle] if damage == "cut" else changed)
    train.main([*argv, "--continue_train"])
    text = (folder / "log.log").read_text()
    assert "resuming from the previous checkpoint" in text and "after epoch 1" in text
    assert (folder / "damaged_model_epoch_last.pth").exists() == (damage != "missing")
    assert outcome(folder) == whole


def test_without_a_whole_checkpoint_nothing_is_overwritten(dataroot: Path, tmp_path: Path) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "1")
    train.main(argv)
    folder = only(tmp_path, "run_*")
    for path in folder.glob("*last.pth"):
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="--continue_train .*damaged"):
        train.main([*argv, "--continue_train", "--niter", "2"])
    assert {path.read_bytes() for path in folder.glob("*last.pth")} == {b"damaged"}


@pytest.mark.parametrize("call", ("fsync", "replace"))
def test_a_disk_that_fills_up_stops_with_the_last_good_checkpoint(
    call: str,
    dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Any],
) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "3")
    real = getattr(os, call)

    def full(*args: Any, **kwargs: Any) -> Any:
        if list(tmp_path.glob("run_*/model_epoch_best.pth")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match="No space left on device.*step 2") as error:
            train.main(argv)
    assert "\n" not in str(error.value)
    train.main([*argv, "--continue_train"])
    assert outcome(only(tmp_path, "run_*")) == whole


def test_a_folder_deleted_in_training_ends_it_with_one_line(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Monitor.validate

    def validate(self: Monitor, *args: Any) -> Any:
        shutil.rmtree(only(tmp_path, "run_*"))
        return real(self, *args)

    monkeypatch.setattr(Monitor, "validate", validate)
    with pytest.raises(UserError, match="No such file.*saved"):
        train.main(train_argv(dataroot, tmp_path, "run", "--niter", "3"))


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(
    dataroot: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run_2026_01_02_03_04_05"
    (folder / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match="run_2026_01_02_03_04_05: cannot be written"):
        train.main(train_argv(dataroot, tmp_path, "run", "--continue_train"))


def test_a_second_process_in_a_folder_is_refused(dataroot: Path, tmp_path: Path) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "1")
    train.main(argv)
    folder = only(tmp_path, "run_*")
    before = (folder / "log.log").read_bytes()
    again = [*argv, "--continue_train", "--niter", "2"]
    context = multiprocessing.get_context("fork")
    locked, done = context.Event(), context.Event()

    def hold() -> None:
        with lock(folder):
            locked.set()
            done.wait()

    other = context.Process(target=hold)
    other.start()
    try:
        assert locked.wait(120)
        with pytest.raises(UserError) as refused:
            train.main(again)
    finally:
        done.set()
        other.join()
    assert re.fullmatch(
        rf"{re.escape(str(folder))}: process {other.pid} on .* trains there; wait .*",
        str(refused.value),
    )
    assert (folder / "log.log").read_bytes() == before
    assert train.main(again) == 0


def test_the_first_signal_is_noted_and_a_later_one_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun passes it on: the same
        assert capfd.readouterr().err.count("saving after this step") == 1
        monkeypatch.setattr(training.signals, "GRACE_SECONDS", 0)
        with pytest.raises(Stopped) as end:
            os.kill(os.getpid(), signal.SIGINT)
        assert end.value.code == 130
        with pytest.raises(Stopped) as end, stop.at_once():
            raise AssertionError("a signal came before")
        assert end.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_during_the_last_save_is_not_lost(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.run.Run.save

    def save(self: training.run.Run, epoch: str | int) -> None:
        real(self, epoch)
        if self.trainer.validated_step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.run.Run, "save", save)
    with pytest.raises(Stopped) as end:
        train.main(
            train_argv(
                dataroot, tmp_path, "run", "--niter", "1", "--test_dataroot", str(dataroot / "test")
            )
        )
    assert end.value.code == 143
    assert not (only(tmp_path, "run_*") / "results").exists()


def test_an_older_checkpoint_becomes_the_last_before_its_logs_are_cut(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    argv = train_argv(dataroot, tmp_path, "run", "--niter", "3", "--save_epoch_freq", "1")
    train.main(argv)
    folder = only(tmp_path, "run_*")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.run.Run, "_train_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            train.main([*argv, "--continue_train", "--epoch", "1"])
    assert read_checkpoint(folder / "model_epoch_last.pth")["epoch"] == 1
    train.main([*argv, "--continue_train"])
    assert outcome(folder) == whole


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["--serial_batches"], "serial_batches"),
        (["--seed", "7"], "seed"),
        (["--classes", "car"], "images"),
    ],
)
def test_another_order_of_images_within_an_epoch_is_refused(
    change: list[str], what: str, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = train_argv(
        dataroot, tmp_path, "run", "--niter", "2", "--batch_size", "2", "--save_latest_freq", "1"
    )
    real = training.run.Run._train_batch

    def train_batch(self: training.run.Run, batch: Any) -> None:
        if self.trainer.step == 2:
            raise KeyboardInterrupt
        real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.run.Run, "_train_batch", train_batch)
        with pytest.raises(KeyboardInterrupt):
            train.main(argv)
    with pytest.raises(UserError, match=f"epoch 1.* {what}.*--epoch_count 2"):
        train.main([*argv, "--continue_train", *change])
    train.main([*argv, "--continue_train", *change, "--epoch_count", "2"])


@pytest.mark.slow
def test_a_long_epoch_with_workers_keeps_few_files_open(tmp_path: Path) -> None:
    data = make_dataroot(tmp_path / "data", ("car",), count=70, size=16)
    argv = train_argv(
        data,
        tmp_path,
        "run",
        "--niter",
        "1",
        "--loadSize",
        "16",
        "--cropSize",
        "16",
        "--batch_size",
        "1",
    )
    code = f"""
import resource, train, data
data.loader.cores = lambda: 2
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
train.main({[*argv, "--num_threads", "2"]!r})
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"options": None},
        {"epoch": "3"},
        {"epoch": -5},
        {"loss": "x"},
        {"best_ap": "x"},
        {"rng_state": {"torch": "x"}},
        {"rng_state": "x"},
        {"optimizer_state_dict": {"state": {}, "param_groups": []}},
        {"model_config": {"model_type": "single_scale"}},
        {"model_config": {"model_type": "multiscale_attention", "scales": [0.5]}},
        {"model_state_dict": {}},
    ],
)
def test_a_checkpoint_that_lies_ends_a_resume_with_one_line(
    change: dict[str, Any], resumable: Path
) -> None:
    argv = [
        "--name",
        "run",
        "--dataroot",
        str(resumable / "data"),
        "--checkpoints_dir",
        str(resumable / "runs"),
    ]
    last = only(resumable / "runs", "run_*") / "model_epoch_last.pth"
    content = last.read_bytes()
    save_checkpoint(last, read_checkpoint(last) | change)
    try:
        with pytest.raises(UserError, match="--continue_train: ") as error:
            train.main([*argv, *TINY, "--continue_train", "--niter", "2"])
        assert "\n" not in str(error.value)
    finally:
        last.write_bytes(content)


def test_a_checkpoint_with_nan_weights_is_not_gone_on_from(resumable: Path) -> None:
    argv = [
        "--name",
        "run",
        "--dataroot",
        str(resumable / "data"),
        "--checkpoints_dir",
        str(resumable / "runs"),
    ]
    last = only(resumable / "runs", "run_*") / "model_epoch_last.pth"
    content = last.read_bytes()
    values = read_checkpoint(last)
    values["model_state_dict"]["fc1.weight"][0, 0] = float("nan")
    save_checkpoint(last, values)
    with pytest.raises(UserError, match="fc1.weight is not finite"):
        train.main([*argv, *TINY, "--continue_train", "--niter", "2"])
    last.write_bytes(content)


@pytest.fixture(scope="module")
def resumable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and, in runs/, a training of one epoch."""
    folder = tmp_path_factory.mktemp("resumable")
    data = make_dataroot(folder / "data", ("car",), count=2, size=32)
    train.main(train_argv(data, folder / "runs", "run", "--niter", "1"))
    return folder


def test_a_signal_ends_at_once_where_it_may() -> None:
    with StopRequest() as stop, pytest.raises(Stopped) as end, stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143


def test_sigterm_ends_every_script_with_143(capsys: pytest.CaptureFixture) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run_script(lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 143 and capsys.readouterr().err.strip() == "ended by SIGTERM"


def test_a_log_file_that_cannot_be_written_ends_nothing(capsys: pytest.CaptureFixture) -> None:
    start_logging(Path("/dev/full"))
    log.info("one")
    log.info("two")
    printed = capsys.readouterr()
    assert printed.out.split() == [
        "one",
        *["/dev/full:", "cannot", "be", "written"],
        *printed.out.split()[5:-1],
        "two",
    ]
    assert printed.out.count("cannot be written") == 1 and "Traceback" not in printed.err
    start_logging()


def test_a_signal_just_after_it_was_asked_for_is_saved_for(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = distributed.total, []

    def total(count: int) -> int:
        found = real(count)
        if count == 0 and not asked:
            asked.append(count)
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(distributed, "total", total)
    with pytest.raises(Stopped):
        train.main(train_argv(dataroot, tmp_path, "run", "--niter", "1", "--batch_size", "2"))
    assert read_checkpoint(only(tmp_path, "run_*") / "model_epoch_last.pth")["step"] == 2
