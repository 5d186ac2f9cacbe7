"""Contestants in processes of their own that take turns, and statistics of their rounds."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.benchmark.recipe import Job

WARM_UP = 1
"""Rounds that do not count: compilation, building of caches, start of workers."""
LAST_LINES = 5
"""Of a dead contestant's messages."""
ROOT = Path(__file__).resolve().parents[2]
WORKER = (sys.executable, "-m", "tools.benchmark.worker")


class ContestantDied(Exception):
    """A contestant's process ended before it answered (the message has its last words), or a GPU
    had not enough memory for it."""

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


@dataclass
class Contestant:
    """A job in a process of its own, in a session of its own so that Ctrl-C reaches only the one
    who waits for it."""

    job: Job
    command: Sequence[str] = WORKER
    answers: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    def __post_init__(self) -> None:
        environment = os.environ | self.job.environment
        if self.job.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.job.threads)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            self.command, cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        with suppress(BrokenPipeError):
            self._say(self.job.to_json())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def play(self) -> dict[str, Any]:
        """One round.

        Raises:
            ContestantDied: there is no answer, or memory ran out.
        """
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._say("round")
        line = self._process.stdout.readline()
        if not line:
            raise ContestantDied(self._last_words())
        answer = json.loads(line)
        if answer.get("out_of_memory"):
            raise ContestantDied("out of memory on the GPU", out_of_memory=True)
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = (
            self._errors.read().decode(errors="backslashreplace").strip().splitlines()[-LAST_LINES:]
        )
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return " | ".join([how, *said])

    def close(self) -> None:
        """End the process and its workers."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


def compete(
    jobs: Sequence[Job],
    rounds: int,
    progress: Callable[[str], None],
    command: Sequence[str] = WORKER,
) -> list[Contestant]:
    """Let contestants play `rounds` rounds in turn, A B C A B C ..., after `WARM_UP` that do not
    count.

    One that fails has its `failure` set and no answers; the others go on. All processes have ended
    on return.
    """
    with ExitStack() as stack:
        contestants = []
        for job in jobs:
            contestants.append(Contestant(job, command))
            stack.callback(contestants[-1].close)
        for number in range(-WARM_UP, rounds):
            for one in contestants:
                if one.failure is not None:
                    continue
                progress(
                    f"{'warm-up' if number < 0 else f'round {number + 1}/{rounds}'}: {one.job.contestant}"
                )
                try:
                    answer = one.play()
                except ContestantDied as died:
                    one.failure, one.answers = str(died), []
                    one.close()
                    continue
                one.answers += [answer] if number >= 0 else []
    return contestants


def play_once(job: Job) -> dict[str, Any]:
    """The answer of a fresh process to its first round.

    Raises:
        ContestantDied: there is none.
    """
    with closing(Contestant(job)) as contestant:
        return contestant.play()


def rates(answers: Sequence[dict[str, Any]]) -> list[float]:
    """Images per second of each round."""
    return [answer["images"] / answer["seconds"] for answer in answers]


def median_ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round, which noise that lasts longer than a round
    does not change."""
    return statistics.median(a / b for a, b in zip(ours, reference, strict=True))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, min and max."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
