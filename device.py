"""Seeds, device and precision of a run; error messages when memory runs out."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
import torch
import torchvision

from util import UserError, log

# in the RuntimeErrors that PyTorch raises when memory runs out
OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine",  # cuDNN, when its workspace does not fit
    "out of memory",  # torch.AcceleratorError
)


_COMPUTING = threading.RLock()  # PyTorch's TF32 switches are those of the whole process


class OutOfGpuMemory(UserError):
    """A GPU's memory is full; the message names flags that help."""


class NotEnoughMemory(UserError, ValueError):
    """An image, a video or a model needs more of the machine's memory than is free."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that the memory of the machine or of a GPU ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text.lower() in str(error).lower() for text in OUT_OF_MEMORY_TEXTS
    )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn out-of-memory errors of inference into one-line errors.

    Raises:
        OutOfGpuMemory: a GPU's memory is full; the next file would fail, too.
        NotEnoughMemory: the machine's memory is not enough for this file.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            raise NotEnoughMemory("not enough memory") from None
        raise OutOfGpuMemory(
            "--gpu_ids: out of GPU memory; try --precision auto, another GPU, or -1 for the CPU"
        ) from error


@contextmanager
def memory_advice(batch_size: int, accumulation_steps: int | None = None) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError with the numbers and the flags that help.

    Args:
        batch_size: images per forward pass.
        accumulation_steps: batches per optimizer step in training; None when no gradients are
            computed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = "out of memory"
        if not isinstance(error, MemoryError) and "DefaultCPUAllocator" not in str(error):
            free, total = torch.cuda.mem_get_info()
            peak = torch.cuda.max_memory_allocated()
            where = (
                f"out of GPU memory, {peak / 2**30:.1f} GiB used of {total / 2**30:.1f} GiB"
                f" ({free / 2**30:.1f} GiB free)"
            )
        flags = f"--batch_size {batch_size // 2}" if batch_size > 1 else "a smaller --cropSize"
        if accumulation_steps is not None and batch_size > 1:
            flags += (
                f" --accumulation_steps {2 * accumulation_steps}"
                " (the optimizer sees as many images)"
            )
        raise UserError(
            f"--batch_size {batch_size}: {where}; try {flags}, or --precision auto"
        ) from error


def seed_everything(seed: int, deterministic: bool = True, one_size: bool = True) -> None:
    """Seed Python, NumPy and PyTorch.

    Args:
        seed: for all three.
        deterministic: choose repeatable algorithms; cuDNN stays on.
        one_size: otherwise, try out cuDNN's algorithms; it does so for each new size of image.
    """
    random.seed(seed)
    np.random.seed(seed)
    # also seeds every CUDA device
    torch.manual_seed(seed)
    # cuBLAS needs this to be deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = one_size and not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # filling is slow and only finds bugs
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def rng_state() -> dict[str, Any]:
    """Return the state of the generators that training draws from, as tensors and plain values."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; CUDA states only where as many devices are present."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def choose_device(gpu_ids: tuple[int, ...]) -> torch.device:
    """Return the first GPU of the list, or the CPU.

    Args:
        gpu_ids: empty (--gpu_ids -1) for the CPU, which is also the fallback, with a warning, when
            PyTorch sees no CUDA device.

    Raises:
        UserError: no such GPU is visible.
    """
    if not gpu_ids:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.warning(
            "--gpu_ids %d: PyTorch sees no CUDA device, so the CPU is used; "
            "check the driver, or pass --gpu_ids -1",
            gpu_ids[0],
        )
        return torch.device("cpu")
    if gpu_ids[0] >= torch.cuda.device_count():
        raise UserError(
            f"--gpu_ids {gpu_ids[0]}: only {torch.cuda.device_count()} CUDA device(s) are visible, "
            "numbered from 0"
        )
    if len(gpu_ids) > 1:
        log.warning("one process uses one GPU: using GPU %d of %s", gpu_ids[0], gpu_ids)
    torch.cuda.set_device(gpu_ids[0])
    return torch.device("cuda", gpu_ids[0])


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of --precision; None for plain fp32.

    Args:
        precision: 'auto', 'fp32', 'bf16' or 'fp16'. 'auto' is bf16 where the hardware computes it
            natively, else fp32.
        device: on which the model runs.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if native else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow TensorFloat-32 in a block or not; other threads wait with theirs."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with _COMPUTING:
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Run a model in a block with --precision; afterwards all is as it was.

    'fp32' also turns TensorFloat-32 off, so that it means fp32 on every GPU.
    """
    dtype = autocast_dtype(precision, device)
    with tf32(precision != "fp32"), torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield


def versions() -> dict[str, str]:
    """Return versions that the last digits of results depend on: libraries, CPU and threads."""
    modules = {"torch": torch, "torchvision": torchvision, "numpy": np, "pillow": PIL}
    return {name: str(module.__version__) for name, module in modules.items()} | {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
