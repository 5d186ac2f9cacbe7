"""What the machine could do: peaks measured on it, and the operations and bytes that a network
needs.

    floor seconds = max(operations / peak, bytes / bandwidth)

Peak: the best rate of torch.mm over square matrices. Bandwidth: the best rate of a copy of a large
tensor, counting what is read and what is written. Where matrix products reach the processor's peak,
no network can be faster than its floor as long as each layer writes its result to memory; a share
above 1 means that something else slowed the measurement of the peak.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from device import autocast_dtype
from networks.factory import build_model, model_config
from options.train_options import TrainOptions
from tools.benchmark.recipe import Job, model_flags

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""Per number that a layer reads or writes."""
ADAM_BYTES = 7 * 4
"""Per parameter and step, all in fp32: weight, gradient and both moments are read, weight and
moments are written."""
SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
REPEATS = 5


def network_of(model: str) -> nn.Module:
    """The network of a job's `model`."""
    return build_model(model_config(TrainOptions(**model_flags(model))))


def operations(network: nn.Module, batch_size: int, side: int, training: bool) -> int:
    """Additions and multiplications of convolutions and linear layers, forward or forward +
    backward, for images side x side.

    Counted on two images, as the number is proportional to them.
    """
    network.train(training)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = network(torch.zeros(2, 3, side, side))
        if training:
            logits.sum().backward()
    return counter.get_total_flops() * batch_size // 2


def traffic(
    network: nn.Module, batch_size: int, side: int, training: bool, number_bytes: int
) -> int:
    """Bytes that must pass between memory and processor, by a simple model.

    Every convolution and linear layer reads its input and its parameters and writes its output
    once; all else is taken to be fused into them. A training step costs that three times (forward,
    gradient of the input, gradient of the weights), twice for the first convolutions, whose input
    has no gradient, and the optimizer's `ADAM_BYTES`.
    """
    numbers = first = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal numbers, first
        moved = (given[0].numel() + output.numel()) * batch_size // 2 + sum(
            p.numel() for p in layer.parameters()
        )
        numbers += moved
        if given[0].shape[1:] == (3, side, side):
            first += moved

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(2, 3, side, side))
    for hook in hooks:
        hook.remove()
    if not training:
        return number_bytes * numbers
    return number_bytes * (3 * numbers - first) + ADAM_BYTES * sum(
        p.numel() for p in network.parameters()
    )


def floor_seconds(
    needed_operations: float, needed_bytes: float, peak: float, bandwidth: float
) -> float:
    """Seconds below which the work cannot be done: the longer of computing at the peak and moving
    at the bandwidth."""
    return max(needed_operations / peak, needed_bytes / bandwidth)


def against_limits(
    job: Job, seconds: float, precision: str, limits: dict[str, Any]
) -> dict[str, float]:
    """What a forward pass or a step needs, and the shares, in 0..1, that `seconds` per batch reach
    of peak and floor."""
    peak = limits.get("peak", {}).get(precision)
    if peak is None or job.work not in ("forward", "step"):
        return {}
    training, network = job.work == "step", network_of(job.model)
    needed = operations(network, job.batch_size, job.size, training)
    moved = traffic(network, job.batch_size, job.size, training, BYTES[precision])
    floor = floor_seconds(needed, moved, peak, limits["bandwidth"])
    return {
        "operations": needed,
        "bytes": moved,
        "floor_seconds": floor,
        "peak_share": needed / peak / seconds,
        "floor_share": floor / seconds,
    }


def _fastest(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def matmul_peak(device: torch.device, precision: str) -> float:
    """Operations per second of the best square matrix product, 2 n^3 / seconds, in this number
    format."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    rates = []
    for side in SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / _fastest(lambda a=a, b=b: torch.mm(a, b), device))  # type: ignore[misc]
    return max(rates)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a copy within the device's memory, counting each byte as read and as
    written."""
    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device)


def measure_limits(device: torch.device) -> dict[str, Any]:
    """Peak in operations/s by number format, of those that contestants use; bandwidth in bytes/s;
    threads."""
    auto = autocast_dtype("auto", device)
    formats = [
        "fp32",
        *(["tf32"] if device.type == "cuda" else []),
        *(["bf16"] if auto == torch.bfloat16 else []),
    ]
    peak = {name: matmul_peak(device, name) for name in formats}
    return {"peak": peak, "bandwidth": copy_bandwidth(device), "threads": torch.get_num_threads()}
