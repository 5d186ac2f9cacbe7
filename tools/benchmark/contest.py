"""Contestants that take turns, each in its own process.

The process of a contestant runs this module, with its job as JSON on the command line. For each
line of standard input it plays a round and prints a line of JSON.
"""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tools.benchmark.recipe import Job, Recipe

ROOT = Path(__file__).resolve().parents[2]
# the first compiles, builds caches and starts workers; in the next ones glibc's allocator still
# hands most memory back to the kernel, which slows a plain step (docs/performance.md)
WARM_UP_ROUNDS = 3
WARM_UP_BATCHES = 3  # before each round on a GPU
COMMAND = (sys.executable, "-m", "tools.benchmark.contest")


class Contestant:
    """A job in its own process, which plays a round on request.

    The process has its own session, so that Ctrl-C reaches only its parent.

    Attributes:
        job: the job.
        rounds: results of the rounds played, see `measure`.
        failure: reason of its early end; None while it runs.
    """

    def __init__(self, job: Job, command: Sequence[str] = COMMAND) -> None:
        self.job, self.failure = job, None
        self.rounds: list[dict[str, Any]] = []
        environment = os.environ | {"TMPDIR": job.folder}
        if job.threads is not None:
            environment["OMP_NUM_THREADS"] = str(job.threads)
        self._process = subprocess.Popen(
            [*command, json.dumps(dataclasses.asdict(job))], cwd=ROOT, env=environment, text=True,
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def play(self) -> None:
        """Play a round and add its result to `rounds`; set `failure` if it fails."""
        assert self._process.stdout is not None
        # a process that has ended prints nothing more
        with suppress(BrokenPipeError):
            print("play", file=self._process.stdin, flush=True)
        if line := self._process.stdout.readline():
            answer = json.loads(line)
        else:
            answer = {"failure": f"its process ended with status {self._process.wait()}"}
        self.failure = answer.get("failure")
        self.rounds.append(answer)

    def close(self) -> None:
        """End the process and its workers."""
        # the processes may have ended already
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            self._process.communicate()


def compete(jobs: Sequence[Job], rounds: int, command: Sequence[str] = COMMAND) -> list[Contestant]:
    """Let contestants play in turn, A B C A B C ..., and end their processes.

    The first `WARM_UP_ROUNDS` do not count. A contestant that fails plays no further round; the
    others continue.

    Args:
        jobs: one per contestant.
        rounds: number of rounds that count.
        command: starts the process of a contestant.

    Returns:
        The contestants in the order of `jobs`.
    """
    contestants: list[Contestant] = []
    with ExitStack() as exit_stack:
        for job in jobs:
            contestants.append(Contestant(job, command))
            exit_stack.callback(contestants[-1].close)
        for _ in tqdm(
            range(WARM_UP_ROUNDS + rounds), jobs[0].title, leave=False, unit="round", disable=None
        ):
            for contestant in contestants:
                if contestant.failure is None:
                    contestant.play()
    for contestant in contestants:
        del contestant.rounds[:WARM_UP_ROUNDS]
    return contestants


def make_recipe(job: Job) -> Recipe:
    """Return the job's recipe; import only that one."""
    if job.recipe == "plain":
        from tools.benchmark.plain import Plain

        return Plain(job)
    from tools.benchmark.ours import Ours

    return Ours(job)


def warm_up(recipe: Recipe) -> None:
    """Compute a few batches, so that a GPU's clock is up and its memory is reserved again."""
    for _ in range(WARM_UP_BATCHES):
        if recipe.job.trains:
            recipe.train_step(*recipe.training_batch)
        else:
            recipe.logits(recipe.scoring_batch)
    torch.cuda.synchronize()


def measure(recipe: Recipe) -> dict[str, Any]:
    """Play one round.

    Returns:
        seconds (wall clock, a GPU's work included), images, check, precision, threads, and the
        peaks of memory so far in MiB: peak_rss_mib without workers, peak_gpu_mib of PyTorch.

    Raises:
        RuntimeError: the loss or the scores are not finite.
    """
    on_gpu = recipe.device.type == "cuda"
    if on_gpu:
        warm_up(recipe)
    start = time.perf_counter()
    outcome = getattr(recipe, recipe.job.part)()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if not math.isfinite(outcome.check):
        raise RuntimeError(f"the last loss or mean score is {outcome.check}")
    peak_gpu = torch.cuda.max_memory_reserved() / 2**20 if on_gpu else None
    if on_gpu:
        torch.cuda.empty_cache()  # free memory for the next contestants
    return {
        "seconds": seconds,
        **outcome._asdict(),
        "precision": recipe.precision,
        "threads": torch.get_num_threads(),
        "peak_rss_mib": peak_rss_mib(),
        "peak_gpu_mib": peak_gpu,
    }


def peak_rss_mib() -> float | None:
    """Return the peak memory of this process, without its workers; None without /proc.

    getrusage(2) would count the process that started this one, too.
    """
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    return None


def main() -> None:
    """Play a round for each line of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries goes to standard error
    job, recipe = Job(**json.loads(sys.argv[1])), None
    for _ in sys.stdin:
        try:
            recipe = recipe or make_recipe(job)
            answer = measure(recipe)
        except Exception as error:
            answer = {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
