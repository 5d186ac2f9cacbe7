"""A contestant's process. The first line of its standard input is a `Job`; each further line asks
for one round.

Each round is answered by a line of JSON on standard output; what libraries print there goes to
standard error.
"""

import ctypes
import gc
import json
import math
import os
import sys
import time
from contextlib import suppress
from typing import Any

import torch

from tools.benchmark.limits import measure_limits
from tools.benchmark.recipe import Job, Recipe

FIRST = {"forward": "forward", "evaluation": "forward", "step": "step", "epoch": "step"}
"""What is computed, untimed, before a round of each kind of work; loading alone needs nothing."""


def recipe_of(job: Job) -> Recipe:
    """The job's recipe; the plain one's process does not even import ours."""
    if job.recipe == "plain":
        from tools.benchmark.plain import Plain

        return Plain(job)
    if job.recipe == "exported":
        from tools.benchmark.exported import Exported

        return Exported(job)
    from tools.benchmark.ours import Ours

    return Ours(job)


def settle(recipe: Recipe, work: str) -> None:
    """Take back the memory that `hand_back` gave away, and bring a GPU's clock up, before time is
    taken."""
    if work in FIRST:
        getattr(recipe, FIRST[work])(batches=3 if recipe.device.type == "cuda" else 1)
    if recipe.device.type == "cuda":
        torch.cuda.synchronize()


def hand_back() -> None:
    """Hand freed memory back, so that contestants whose turn it is not leave it to the others."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # of another C library: freed memory stays
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_rss_mib() -> float | None:
    """Most memory that this process has had so far, without its workers, in MiB; None where the
    kernel does not say.

    From /proc: getrusage(2) counts what the process that started this one had, too.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def play(recipe: Recipe, work: str) -> dict[str, Any]:
    """One round: seconds (wall clock, a GPU's work included), images, check, peak memory in MiB."""
    on_gpu = recipe.device.type == "cuda"
    settle(recipe, work)
    start = time.perf_counter()
    outcome = getattr(recipe, work)()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if not math.isfinite(outcome.check):
        raise RuntimeError(f"the last loss or mean score is {outcome.check}")
    peak_gpu = torch.cuda.max_memory_reserved() / 2**20 if on_gpu else None
    hand_back()
    return {
        "seconds": seconds,
        "images": outcome.images,
        "check": outcome.check,
        "peak_rss_mib": peak_rss_mib(),
        "peak_gpu_mib": peak_gpu,
        "precision": recipe.precision,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = Job.from_json(sys.stdin.readline())
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    recipe = recipe_of(job) if job.work != "limits" else None
    for _ in sys.stdin:
        try:
            answer = (
                play(recipe, job.work)
                if recipe is not None
                else measure_limits(torch.device(job.device))
            )
        except torch.OutOfMemoryError:
            answer = {"out_of_memory": True}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
