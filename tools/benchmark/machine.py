"""What a benchmark ran on."""

import os
import platform
import shutil
import subprocess
from typing import Any

import torch

from data import cores
from networks.trainer import versions

BUSY = 0.5
"""Load average over the last minute above which figures are not to be trusted."""
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


def _cpuinfo() -> dict[str, str]:
    """/proc/cpuinfo of the first core; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where nvidia-smi does not say."""
    if (command := shutil.which("nvidia-smi")) is None:
        return None
    said = subprocess.run(
        [command, "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    return said.stdout.strip().split("\n")[0] or None


def describe_machine(device: str, threads: int | None) -> dict[str, Any]:
    """Hardware, versions, and what else decides speed."""
    cpu = _cpuinfo()
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
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return machine


def doubts(machine: dict[str, Any]) -> list[str]:
    """Why the figures may not be what the machine can do."""
    found = []
    if machine["load_average"] > BUSY:
        found.append(
            f"the load average was {machine['load_average']} at the start: the figures are not to be trusted"
        )
    if (machine["omp_wait_policy"] or "").lower() == "active":
        found.append(
            "OMP_WAIT_POLICY=active: threads of contestants whose turn it is not keep the cores busy"
        )
    return found


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The description as lines of text."""
    lines = [
        f"CPU: {machine['cpu']}, {machine['cores']} cores usable, {machine['threads']} threads, "
        f"{' '.join(machine['instructions']) or 'none of the instruction sets that matter'}, {machine['memory_gib']} GiB",
        f"{machine['system']}; "
        + ", ".join(f"{name} {value}" for name, value in machine["versions"].items()),
        f"OMP_WAIT_POLICY: {machine['omp_wait_policy'] or 'not set'}; load average at the start: {machine['load_average']}",
    ]
    if gpu := machine.get("gpu"):
        details = f"driver {gpu['driver'] or 'unknown'}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
        lines.append(f"GPU: {gpu['name']}, {gpu['memory_gib']} GiB, {details}")
    return lines
