"""Hardware, versions and matrix peak of the machine that a benchmark runs on."""

import os
import platform
import time
from contextlib import suppress
from typing import Any

import torch

from data.loader import cores
from device import autocast_dtype, versions

BUSY = 0.5  # load average of the last minute; above this, results are not reliable
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")
MATRIX_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
REPEATS = 5  # measurements of each product, after one to warm up


def describe_machine(device: str, threads: int | None) -> dict[str, Any]:
    """Return hardware, versions, threads and load average."""
    cpu: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        pairs = (line.partition(":") for line in file.read().split("\n\n")[0].splitlines())
        cpu = {key.strip(): value.strip() for key, _, value in pairs}
    flags = cpu.get("flags", "").split()
    machine: dict[str, Any] = {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()} | versions(),
        "threads": threads or torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_average": round(os.getloadavg()[0], 2),
    }
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        machine["gpu"] = {
            "name": gpu.name,
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return machine


def machine_warnings(machine: dict[str, Any]) -> list[str]:
    """Return reasons why results may be slower than the machine allows."""
    load = machine["load_average"]
    if load <= BUSY:
        return []
    return [f"the load average was {load} at the start; measure on an idle machine"]


def matrix_peaks(device: str, threads: int | None) -> dict[str, float]:
    """Return the peak of matrix products by number format, in operations per second.

    Args:
        device: 'cpu' or 'cuda'.
        threads: threads of PyTorch from here on; None: PyTorch's choice.

    Returns:
        Peaks of the formats that contestants use.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    formats = ["fp32"]
    if device == "cuda":
        formats.append("tf32")
    if autocast_dtype("auto", torch.device(device)) == torch.bfloat16:
        formats.append("bf16")
    return {name: matrix_peak(device, name) for name in formats}


def matrix_peak(device: str, precision: str) -> float:
    """Return 2 n^3 / seconds of the fastest product of two n x n matrices in a number format."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rates = []
    for side in MATRIX_SIDES[device]:
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            torch.mm(a, b)
            if device == "cuda":
                torch.cuda.synchronize()
            rates.append(2 * side**3 / (time.perf_counter() - start))
    return max(rates)
