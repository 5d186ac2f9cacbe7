"""Precision and the one-line errors of scripts."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from device import autocast_dtype, computing, is_out_of_memory, memory_advice
from tests.conftest import REPOSITORY
from util import UserError, atomic_file, atomic_folder, run_script

FAULTS = """
import resource, sys
import numpy as np
from util import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(2**24).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
@pytest.mark.slow
def test_freed_memory_is_used_again_without_asking_the_kernel_for_it() -> None:
    """Ten arrays of 128 MiB, one after the other: page faults without and with."""
    without, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], cwd=REPOSITORY, capture_output=True, check=True
            ).stdout
        )
        for how in ("plain", "keep")
    )
    assert kept < without / 10


def tf32_settings() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_precision_names_and_tf32() -> None:
    cpu, before = torch.device("cpu"), tf32_settings()
    assert autocast_dtype("bf16", cpu) is torch.bfloat16
    assert autocast_dtype("fp16", cpu) is torch.float16
    assert autocast_dtype("fp32", cpu) is None
    for precision in ("fp32", "auto"):
        with computing(precision, cpu):
            assert tf32_settings() == (precision != "fp32",) * 2
    assert tf32_settings() == before


def test_gpus_are_hidden_from_a_training_on_the_cpu(dataroot: Path) -> None:
    """PyTorch would open them, for its optimizers and random states."""
    code = f"""
import os, sys, train
sys.modules["distributed"] = None
try:
    train.main(["--dataroot", {str(dataroot)!r}, "--gpu_ids", sys.argv[1]])
except ImportError:
    print(os.environ["CUDA_VISIBLE_DEVICES"])
"""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3"}
    for gpu_ids, visible in (("-1", ""), ("0", "3")):
        command = [sys.executable, "-c", code, gpu_ids]
        ran = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.splitlines()[-1] == visible


@pytest.mark.parametrize("native", (True, False))
def test_auto_is_bf16_where_the_hardware_has_it(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert autocast_dtype("auto", torch.device("cpu")) is (torch.bfloat16 if native else None)


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("--flag 1: no"), 2), (KeyboardInterrupt(), 130)]
)
def test_exit_status(error: BaseException, status: int, capsys: pytest.CaptureFixture) -> None:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_ctrl_c_ends_a_script_unless_it_is_ignored(capsys: pytest.CaptureFixture) -> None:
    """Below `nohup`, or behind `&` in a script, a process is started with SIGINT ignored."""

    def main() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 7

    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, status in ((signal.default_int_handler, 130), (signal.SIG_IGN, 7)):
            signal.signal(signal.SIGINT, handler)
            with pytest.raises(SystemExit) as stopped:
                run_script(main)
            assert stopped.value.code == status and signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("accumulation", "advice"),
    [(None, "--batch_size 16, or"), (2, "--batch_size 16 --accumulation_steps 4 (")],
)
def test_out_of_gpu_memory_ends_with_numbers_and_advice(
    accumulation: int | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**29, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 23 * 2**30)
    numbers = "--batch_size 32: out of GPU memory, 23.0 GiB used of 24.0 GiB"
    with pytest.raises(UserError, match=numbers) as raised, memory_advice(32, accumulation):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_every_form_of_running_out_of_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("shape mismatch"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
    ],
)
def test_other_errors_pass_the_memory_advice(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory_advice(32):
        raise error
    assert raised.value is error and not is_out_of_memory(error)


def test_a_cpu_without_memory_gets_advice_without_gpu_numbers() -> None:
    with (
        pytest.raises(UserError, match="--batch_size 4: out of memory; try --batch_size 2"),
        memory_advice(4),
    ):
        torch.empty(2**60)


@pytest.mark.gpu
def test_a_real_out_of_memory_error_is_explained() -> None:
    with pytest.raises(UserError, match="out of GPU memory"), memory_advice(32):
        torch.empty(2**50, device="cuda")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_written_takes_its_place_only_when_it_is_whole(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "result"

    def write(text: str, error: BaseException | None = None) -> None:
        with atomic_file(place) if kind == "file" else atomic_folder(place) as opened:
            before = read() if place.exists() else None
            (opened / "a.txt").write_text(text) if kind == "folder" else opened.write(text)
            assert (read() if place.exists() else None) == before
            if error is not None:
                raise error

    def read() -> str:
        return (place if kind == "file" else place / "a.txt").read_text(encoding="utf-8")

    for error in (OSError("disk full"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write("half", error)
        assert list(tmp_path.iterdir()) == []
    write("first ±")
    assert read() == "first ±"
    with pytest.raises(KeyboardInterrupt):
        write("half", KeyboardInterrupt())
    assert read() == "first ±"
    write("second")
    assert read() == "second" and list(tmp_path.iterdir()) == [place]


def test_a_script_never_draws_in_the_notebook_or_window_that_it_was_started_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    backends: list[str] = []
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("signal.signal", lambda *_: None)
        run_script(lambda: backends.append(os.environ["MPLBACKEND"]))
    assert backends == ["agg"]
