"""Results of a benchmark as plain values for JSON, and as tables."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks.factory import create_model
from options.train_options import TrainOptions
from tools.benchmark.contest import Contestant
from tools.benchmark.recipe import model_flags

SCHEMA = "npr-benchmark/2"
PLAIN = "plain"
NOTES = (
    "images/s: median over the rounds, in which contestants take turns (min - max). "
    "x plain: median of the ratios within a round. "
    "% of peak: of the best measured matrix product in the contestant's number format. "
    "Memory: peak of the process without its loading workers, on a GPU of what PyTorch reserved. "
    "Images are few and lie in the file system's cache, and compiling is not timed."
)


def operations(network: nn.Module, size: int, training: bool) -> int:
    """Return additions and multiplications of convolutions and linear layers for one image.

    Args:
        network: [B, 3, size, size] -> [B, 1].
        size: side of the image in pixels.
        training: count the backward pass, too.
    """
    network.train(training)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = network(torch.zeros(2, 3, size, size))  # BatchNorm needs two
        if training:
            logits.sum().backward()
    return counter.get_total_flops() // 2


def median_ratio(ours: Sequence[float], plain: Sequence[float]) -> float:
    """Return the median over rounds of the ratio within a round.

    Noise that lasts longer than a round does not change this ratio.
    """
    return statistics.median(a / b for a, b in zip(ours, plain, strict=True))


def group_result(contestants: Sequence[Contestant], peaks: dict[str, float]) -> dict[str, Any]:
    """Return the result of contestants that took turns, without those that failed.

    Args:
        contestants: all of one part, model and batch size.
        peaks: see `matrix_peaks`.
    """
    job, per_image = contestants[0].job, 0
    if job.part != "input":
        network = create_model(TrainOptions(**model_flags(job.model)))
        per_image = operations(network, job.size, job.trains)
    finished = {
        contestant.job.contestant: contestant
        for contestant in contestants
        if contestant.failure is None
    }
    rates = {
        name: [turn["images"] / turn["seconds"] for turn in contestant.rounds]
        for name, contestant in finished.items()
    }
    results = []
    for name, contestant in finished.items():
        last, median = contestant.rounds[-1], statistics.median(rates[name])
        result = {
            **{key: getattr(contestant.job, key) for key in ("contestant", "recipe", "source")},
            "switches": list(contestant.job.switches),
            "batch_size": job.batch_size,
            **last,
            "seconds": [turn["seconds"] for turn in contestant.rounds],
            "images_per_second": {
                "median": median,
                "min": min(rates[name]),
                "max": max(rates[name]),
            },
            "ratio_to": {},
        }
        if PLAIN in rates:
            result["ratio_to"][PLAIN] = median_ratio(rates[name], rates[PLAIN])
        if per_image and last["precision"] in peaks:
            result["operations"] = per_image * job.batch_size
            result["peak_share"] = per_image * median / peaks[last["precision"]]
        results.append(result)
    return {"part": job.part, "model": job.model, "batch_size": job.batch_size,
            "title": job.title, "contestants": results}  # fmt: skip


def failures(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Return the contestants that did not finish, with the reason."""
    keys = ("part", "model", "batch_size", "contestant")
    return [
        {key: getattr(contestant.job, key) for key in keys} | {"message": contestant.failure}
        for contestant in contestants
        if contestant.failure is not None
    ]


def group_table(group: dict[str, Any]) -> str:
    """Return a group's heading and table."""
    if not group["contestants"]:
        return f"### {group['title']}\n\nNo contestant finished."
    rows = []
    for result in group["contestants"]:
        rate = result["images_per_second"]
        row = {
            "contestant": result["contestant"],
            "images/s": f"{rate['median']:.1f}",
            "min - max": f"{rate['min']:.1f} - {rate['max']:.1f}",
            "x plain": f"{result['ratio_to'].get(PLAIN, float('nan')):.2f}",
        }
        if "peak_share" in result:
            row["% of peak"] = f"{result['peak_share']:.1%}"
        if group["part"] != "input":
            row["format"] = result["precision"]
        row["memory MiB"] = f"{result['peak_gpu_mib'] or result['peak_rss_mib'] or 0:,.0f}"
        rows.append(row)
    align = ("left", *("right",) * (len(rows[0]) - 1))
    table = tabulate(rows, "keys", tablefmt="github", colalign=align, disable_numparse=True)
    return f"### {group['title']}\n\n{table}"


def header(result: dict[str, Any]) -> str:
    """Return warnings, the machine and its matrix peaks as a list."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    instructions = " ".join(machine["instructions"]) or "no known vector instructions"
    peaks = (
        f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in result["limits"]["peak"].items()
    )
    lines = [
        *(f"WARNING: {warning}" for warning in result["warnings"]),
        f"CPU: {machine['cpu']}, {machine['cores']} cores usable, {machine['threads']} threads, "
        f"{instructions}, {machine['memory_gib']} GiB",
        f"{machine['system']}; {versions}",
        f"OMP_WAIT_POLICY: {machine['omp_wait_policy'] or 'not set'}; "
        f"load average at the start: {machine['load_average']}",
        f"matrix products: {', '.join(peaks)}",
    ]
    if gpu := machine.get("gpu"):
        lines.append("GPU: {name}, {memory_gib} GiB, CUDA {cuda}, cuDNN {cudnn}".format(**gpu))
    return "\n".join(f"- {line}" for line in lines)


def failure_lines(result: dict[str, Any]) -> list[str]:
    """Return a line per contestant that did not finish."""
    text = "FAILED: {contestant} ({part}, {model}, batches of {batch_size}): {message}"
    return [text.format(**failure) for failure in result["failures"]]


def markdown(result: dict[str, Any]) -> str:
    """Return the whole result as a Markdown page."""
    title = f"# Benchmark: the plain recipe and ours\n\n{result['date']}\n\n    {result['command']}"
    tables = map(group_table, result["results"])
    return "\n\n".join([title, header(result), NOTES, *tables, *failure_lines(result)]) + "\n"
