"""Trainings that end too early, in every way, and resume as if they had not."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

import distributed
import train
import training.run
import training.signals
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from networks.run_folder import lock
from tests.conftest import REPOSITORY, make_dataroot
from tests.robustness.kill_checks import outcome
from tests.scripts.test_scripts import only, train_argv
from training.monitor import Monitor
from training.signals import StopRequest
from util import Stopped, UserError, log, run_script, start_logging


@pytest.mark.parametrize(
    "flags",
    [
        ("--kills", "1", "--seed", "1", "--variant", "3"),
        pytest.param(("--kills", "40", "--seed", "2"), marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_ends_equal(flags: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.robustness.kill_checks", *flags]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "trainings compared" in ran.stdout


def interrupt(patch: pytest.MonkeyPatch, owner: type, name: str, call: int) -> None:
    """End a training by KeyboardInterrupt at a call, from 1, of a method."""
    real, calls = getattr(owner, name), []

    def method(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    patch.setattr(owner, name, method)


def run_folder(checkpoints: Path) -> Path:
    return only(checkpoints, "run_*")


def copy_of(checkpoints: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder of runs, which a test may change."""
    return Path(shutil.copytree(checkpoints, tmp_path / "runs"))


@pytest.fixture(scope="module")
def finished(dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for three epochs, each kept."""
    place = tmp_path_factory.mktemp("finished")
    train.main(train_argv(dataroot, place, "run", "--niter", "3", "--save_epoch_freq", "1"))
    return place


@pytest.fixture(scope="module")
def expected(finished: Path) -> dict[str, Any]:
    """Return what a training of three epochs ends with that is left alone."""
    return outcome(run_folder(finished))


@pytest.fixture(scope="module")
def unvalidated(dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train until the second of three validations."""
    place = tmp_path_factory.mktemp("unvalidated")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, Monitor, "validate", 2)
        train.main(train_argv(dataroot, place, "run", "--niter", "3"))
    return place


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataroot(tmp_path_factory.mktemp("small"), ("car",), count=2, size=32)


@pytest.fixture(scope="module")
def one_epoch(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for an epoch of one step."""
    place = tmp_path_factory.mktemp("one_epoch")
    train.main(train_argv(small_data, place, "run", "--niter", "1", "--lr", "0.003"))
    return place


@pytest.fixture
def resumable(one_epoch: Path, small_data: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """Return a run folder of one epoch, and the command line that resumes it for another."""
    runs = copy_of(one_epoch, tmp_path)
    argv = train_argv(small_data, runs, "run", "--lr", "0.003", "--niter", "2", "--continue_train")
    return run_folder(runs), argv


def resume(dataroot: Path, checkpoints: Path, *extra: str) -> Path:
    train.main(train_argv(dataroot, checkpoints, "run", "--niter", "3", "--continue_train", *extra))
    return run_folder(checkpoints)


def test_an_epoch_that_was_not_validated_is_validated_first(
    dataroot: Path, unvalidated: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    runs = copy_of(unvalidated, tmp_path)
    values = read_checkpoint(run_folder(runs) / "model_epoch_last.pth")
    assert values["epoch"] == 2 and values["validated_step"] < values["step"]
    assert outcome(resume(dataroot, runs)) == expected


@pytest.mark.parametrize("damage", ("changed", "missing"))
def test_the_checkpoint_before_a_damaged_one_is_taken(
    damage: str, dataroot: Path, unvalidated: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    runs = copy_of(unvalidated, tmp_path)
    last = run_folder(runs) / "model_epoch_last.pth"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    if damage == "missing":
        last.unlink()
    folder = resume(dataroot, runs)
    text = (folder / "log.log").read_text()
    assert "resuming from the previous checkpoint" in text and "after epoch 1" in text
    assert (folder / "damaged_model_epoch_last.pth").exists() == (damage != "missing")
    assert outcome(folder) == expected


def test_an_older_checkpoint_becomes_the_last_before_its_logs_are_cut(
    dataroot: Path, finished: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    runs = copy_of(finished, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, training.run.Run, "_train_epoch", 1)
        resume(dataroot, runs, "--epoch", "1")
    assert read_checkpoint(run_folder(runs) / "model_epoch_last.pth")["epoch"] == 1
    assert outcome(resume(dataroot, runs)) == expected


@pytest.mark.parametrize("call", ("fsync", "replace"))
def test_a_disk_that_fills_up_stops_with_the_last_good_checkpoint(
    call: str, dataroot: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    real = getattr(os, call)

    def full(*args: Any, **kwargs: Any) -> Any:
        if list(tmp_path.glob("run_*/model_epoch_best.pth")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="No space left on device.*step 2") as error,
    ):
        patch.setattr(os, call, full)
        train.main(train_argv(dataroot, tmp_path, "run", "--niter", "3"))
    assert "\n" not in str(error.value)
    assert outcome(resume(dataroot, tmp_path)) == expected


def test_resuming_with_other_flags_is_logged(resumable: tuple[Path, list[str]]) -> None:
    folder, argv = resumable
    train.main([*argv, "--num_threads", "1"])
    log = folder / "log.log"
    assert "other flags" not in log.read_text()
    train.main([*argv, "--niter", "3", "--lr", "0.001", "--recipe", "robust", "--cropSize", "32"])
    (line,) = re.findall("--continue_train with other flags: (.*)", log.read_text())
    assert set(line.split("; ")) >= {
        "--lr was 0.003, is 0.001",
        "--degrade was 0.0, is 0.3",
        "--lr_schedule was step, is cosine",
    }


def test_without_a_whole_checkpoint_nothing_is_overwritten(
    resumable: tuple[Path, list[str]],
) -> None:
    folder, argv = resumable
    for path in folder.glob("*last.pth"):
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="--continue_train .*damaged"):
        train.main(argv)
    assert {path.read_bytes() for path in folder.glob("*last.pth")} == {b"damaged"}


@pytest.mark.parametrize(
    "change",
    [
        {"options": None},
        {"epoch": "3"},
        {"epoch": -5},
        {"best_ap": "x"},
        {"rng_state": {"torch": "x"}},
        {"rng_state": "x"},
        {"optimizer_state_dict": {"state": {}, "param_groups": []}},
        {"model_config": {"model_type": "single_scale"}},
        {"model_config": {"model_type": "multiscale_attention", "scales": [0.5]}},
        {"model_state_dict": {}},
    ],
)
def test_wrong_values_in_a_checkpoint_end_a_resume_with_one_line(
    change: dict[str, Any], resumable: tuple[Path, list[str]]
) -> None:
    folder, argv = resumable
    last = folder / "model_epoch_last.pth"
    save_checkpoint(last, read_checkpoint(last) | change)
    with pytest.raises(UserError, match="--continue_train: ") as error:
        train.main(argv)
    assert "\n" not in str(error.value)


def test_a_checkpoint_with_nan_weights_is_not_resumed(resumable: tuple[Path, list[str]]) -> None:
    folder, argv = resumable
    values = read_checkpoint(folder / "model_epoch_last.pth")
    values["model_state_dict"]["fc1.weight"][0, 0] = float("nan")
    save_checkpoint(folder / "model_epoch_last.pth", values)
    with pytest.raises(UserError, match="fc1.weight is not finite"):
        train.main(argv)


held: list[IO[str]] = []


def hold_lock(folder: Path) -> int:
    """Lock a folder for as long as this process lives, and return its id."""
    held.append(lock(folder))
    return os.getpid()


def test_a_second_process_in_a_folder_is_refused(resumable: tuple[Path, list[str]]) -> None:
    folder, argv = resumable
    before = (folder / "log.log").read_bytes()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        holder = pool.apply(hold_lock, (folder,))
        message = rf"^{re.escape(str(folder))}: process {holder} on .* trains there; wait .*$"
        with pytest.raises(UserError, match=message):
            train.main(argv)
    assert (folder / "log.log").read_bytes() == before


def test_a_folder_deleted_in_training_ends_it_with_one_line(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Monitor.validate

    def validate(self: Monitor, *args: Any) -> Any:
        shutil.rmtree(run_folder(tmp_path))
        return real(self, *args)

    monkeypatch.setattr(Monitor, "validate", validate)
    with pytest.raises(UserError, match="No such file.*saved"):
        train.main(train_argv(small_data, tmp_path, "run", "--niter", "3"))


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(
    dataroot: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run_2026_01_02_03_04_05"
    (folder / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match="run_2026_01_02_03_04_05: cannot be written"):
        resume(dataroot, tmp_path)


@pytest.fixture(scope="module")
def mid_epoch(dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two steps of an epoch of several."""
    place = tmp_path_factory.mktemp("mid_epoch")
    argv = train_argv(dataroot, place, "run", "--batch_size", "2", "--save_latest_freq", "1")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, training.run.Run, "_train_batch", 3)
        train.main(argv)
    return place


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["--serial_batches"], "serial_batches"),
        (["--seed", "7"], "seed"),
        (["--classes", "car"], "images"),
    ],
)
def test_another_order_of_images_within_an_epoch_is_refused(
    change: list[str], what: str, dataroot: Path, mid_epoch: Path, tmp_path: Path
) -> None:
    argv = train_argv(dataroot, copy_of(mid_epoch, tmp_path), "run", "--batch_size", "2", "--niter", "2")  # fmt: skip
    with pytest.raises(UserError, match=f"epoch 1.* {what}.*--epoch_count 2"):
        train.main([*argv, "--continue_train", *change])
    train.main([*argv, "--continue_train", *change, "--epoch_count", "2"])


def test_a_signal_is_noted_and_ends_at_once_where_it_may_or_when_repeated(
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
    with StopRequest() as stop, pytest.raises(Stopped) as end, stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
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
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.run.Run.save

    def save(self: training.run.Run, epoch: str | int) -> None:
        real(self, epoch)
        if self.trainer.validated_step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.run.Run, "save", save)
    test = ("--test_dataroot", str(small_data / "test"))
    with pytest.raises(Stopped) as end:
        train.main(train_argv(small_data, tmp_path, "run", "--niter", "1", *test))
    assert end.value.code == 143
    assert not (run_folder(tmp_path) / "results").exists()


def test_a_signal_just_after_ranks_agreed_is_saved_for(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = distributed.total, []

    def total(count: int) -> int:
        agreed = real(count)
        if count == 0 and not asked:
            asked.append(count)
            os.kill(os.getpid(), signal.SIGTERM)
        return agreed

    monkeypatch.setattr(distributed, "total", total)
    with pytest.raises(Stopped):
        train.main(train_argv(dataroot, tmp_path, "run", "--niter", "1", "--batch_size", "2"))
    assert read_checkpoint(run_folder(tmp_path) / "model_epoch_last.pth")["step"] == 2


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
    assert re.fullmatch("one\n/dev/full: cannot be written.*\ntwo\n", printed.out)
    assert "Traceback" not in printed.err
    start_logging()


@pytest.mark.slow
def test_a_long_epoch_with_workers_keeps_few_files_open(tmp_path: Path) -> None:
    data = make_dataroot(tmp_path / "data", ("car",), count=70, size=16)
    small = ("--niter", "1", "--loadSize", "16", "--cropSize", "16", "--batch_size", "1")
    argv = train_argv(data, tmp_path, "run", *small, "--num_threads", "2")
    code = f"""
import resource, train, data.loader
data.loader.cores = lambda: 2
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
train.main({argv!r})
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
