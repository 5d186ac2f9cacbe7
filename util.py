"""Seeds, device, precision, logging and the one kind of error that is the user's to mend."""

import ctypes
import io
import logging
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from stopping import Stopped, stop_at_once

log = logging.getLogger("npr")


class UserError(Exception):
    """Something that the person at the shell can mend; scripts print it on one line and exit with status 2."""


class CannotWrite(UserError):
    """A place where nothing can be written: a full disk, a read-only or a deleted folder."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """A block whose OSErrors mean that `place` cannot be written; they become `CannotWrite`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"{place}: cannot be written ({error.strerror or error})") from error


def writable_folder(folder: Path, flag: str = "--results_dir") -> None:
    """Make the folder of a flag and try to write in it, before hours are spent on what is to be written there.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write there ({error.strerror})") from None


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for what comes next instead of handing it back; False where there is no glibc.

    A network on the CPU frees and asks for the same hundreds of MiB at every step, and a page that was handed back has to be
    cleared by the kernel before it is written again. Memory does not fall in between, and its peak is up to a quarter higher.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # names and values of malloc.h, see mallopt(3)
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, -1))


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's main function; a UserError ends it with one line and status 2, Ctrl-C with status 130, SIGTERM with 143."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, stop_at_once)
    for stream in (sys.stdout, sys.stderr):  # a file name that is not UTF-8 must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what is raised while Python ends would be printed and dropped
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)  # names in it may come from anywhere
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        print(f"ended by {signal.Signals(stopped.number).name}", file=sys.stderr)
        raise


@contextmanager
def memory_advice(batch_size: int, accumulation_steps: int | None = None) -> Iterator[None]:
    """Turn a GPU's out-of-memory error into a UserError that gives the numbers and says which flags help.

    Args:
        accumulation_steps: batches per optimizer step in training; None when no gradients are computed.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info()
        peak = torch.cuda.max_memory_allocated()
        flags = f"--batch_size {batch_size // 2}" if batch_size > 1 else "a smaller --cropSize"
        if accumulation_steps is not None and batch_size > 1:
            flags += f" --accumulation_steps {2 * accumulation_steps} (the optimizer sees as many images)"
        raise UserError(
            f"--batch_size {batch_size}: out of GPU memory, {peak / 2**30:.1f} GiB used of {total / 2**30:.1f} GiB"
            f" ({free / 2**30:.1f} GiB free); try {flags}, or --precision auto"
        ) from error


def printable(text: str) -> str:
    """Text on one line without what could steer a terminal: control characters and lone bytes of file names as codes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class HarmlessFormatter(logging.Formatter):
    """A formatter whose lines are `printable`."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).expandtabs().split("\n")))


class LogFile(logging.FileHandler):
    """A log file that gives up, saying so once, when it cannot be written: a full disk must not end a run here."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning("%s: cannot be written (%s), the log goes on without it", self.baseFilename, sys.exc_info()[1])


def start_logging(log_file: Path | None = None, stream: TextIO | None = None) -> None:
    """Send the project's messages to `stream`, left out standard output, and, with their time, to `log_file` (appended)."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(stream or sys.stdout)
    console.setFormatter(HarmlessFormatter("%(message)s"))
    log.addHandler(console)
    if log_file is not None:
        to_file = LogFile(log_file, encoding="utf-8")
        to_file.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(to_file)


def seed_everything(seed: int, deterministic: bool = True) -> None:
    """Seed Python, NumPy and PyTorch; with `deterministic`, choose repeatable algorithms (cuDNN stays on)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # every CUDA device too
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it to be deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, finds bugs only


def rng_state() -> dict[str, Any]:
    """State of the generators that training draws from, as tensors and plain Python values."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned; CUDA states only where as many devices are present."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def choose_device(gpu_ids: tuple[int, ...]) -> torch.device:
    """The first listed GPU; the CPU when the list is empty (--gpu_ids -1) or, saying so, when there is no such GPU."""
    if not gpu_ids:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.warning("PyTorch sees no CUDA device (GPU %d is --gpu_ids' choice): going on on the CPU", gpu_ids[0])
        return torch.device("cpu")
    if gpu_ids[0] >= torch.cuda.device_count():
        raise UserError(f"--gpu_ids {gpu_ids[0]}: only {torch.cuda.device_count()} CUDA device(s) are visible, from 0")
    if len(gpu_ids) > 1:
        log.warning("one process uses one GPU: using GPU %d of %s", gpu_ids[0], gpu_ids)
    torch.cuda.set_device(gpu_ids[0])
    return torch.device("cuda", gpu_ids[0])


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of --precision, None for plain fp32; 'auto' is bf16 where the hardware computes it natively.

    'fp32' also turns TensorFloat-32 off, so that fp32 means fp32 on every GPU.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if native else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
