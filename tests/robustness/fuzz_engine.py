"""Cases in processes of their own, with limits of time and memory: what fuzz.py and its test run.

A case is a file that follows from (seed, number), and what a reader makes of it. Checked besides
what the reader does: that its process lives, is done in time, needs little memory, does not grow
over thousands of cases, and leaves no file behind.
"""

import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

MIB = 2**20


class Failed(AssertionError):
    """A case that did what no case may do."""


def require(condition: bool, message: str) -> None:
    """Raises Failed with the message unless the condition holds."""
    if not condition:
        raise Failed(message)


def kind_of(message: str) -> str:
    """A message without its numbers and quoted values, so that alike ones count together."""
    return re.sub(r"'[^']*'|0x[0-9a-f]+|\d[\d.,]*", "#", message)[:70]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of cases.

    Args:
        write: (seed, number, folder) -> file; called in the child, in a folder of the case's own.
        check: file -> outcome, 'read' or 'left out: why'; raises Failed, or anything else, for what
            may not happen.
        seconds, mib: limits of one case, of memory beyond what the process had before it.
        growth_mib: limit of what the process' memory grows by over all its cases, looked at, with
            its open files, every `look_every` cases.
    """

    name: str
    write: Callable[[int, int, Path], Path]
    check: Callable[[Path, int], str]
    seconds: float = 20.0
    mib: float = 1024.0
    growth_mib: float = 64.0
    look_every: int = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """What became of a case; `failure` says what was wrong, empty for nothing."""

    number: int
    outcome: str
    seconds: float
    mib: float
    failure: str = ""


@dataclasses.dataclass
class Summary:
    """What became of all cases of a kind."""

    kind: Kind
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest: Case | None = None
    largest: Case | None = None
    failures: list[Case] = dataclasses.field(default_factory=list)
    resident: list[float] = dataclasses.field(default_factory=list)  # MiB, of the present process
    growth: float = 0.0

    @property
    def cases(self) -> int:
        return sum(self.outcomes.values())

    def add(self, case: Case) -> None:
        self.outcomes[case.outcome] += 1
        if self.slowest is None or case.seconds > self.slowest.seconds:
            self.slowest = case
        if self.largest is None or case.mib > self.largest.mib:
            self.largest = case
        if case.failure:
            self.failures.append(case)

    def add_memory(self, mib: float) -> None:
        """Memory after some more cases: the first looks are left out, in them caches fill."""
        self.resident.append(mib)
        if len(self.resident) >= 6:
            self.growth = max(self.growth, median(self.resident[-3:]) - median(self.resident[1:4]))


# in the child


def _status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def _resident_after_trimming() -> float:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _child(kind: Kind, seed: int, folder: Path, connection: Connection) -> None:
    """Answer numbers with cases until there are no more; the case's file lies in folder/case
    meanwhile."""
    errors = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)  # libtiff writes there
    os.dup2(errors, 1)
    faulthandler.enable(errors)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "case")
    kind.check(kind.write(seed, 0, _fresh(folder / "case")), 0)  # imports and first allocations
    limit = int((_status("VmSize") + 3 * kind.mib) * MIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = _open_files()
    done = 0
    connection.send("ready")
    while (number := connection.recv()) is not None:
        os.truncate(errors, 0)
        case = _run_case(kind, seed, number, folder / "case")
        done += 1
        resident = None
        if done % kind.look_every == 0:
            resident = _resident_after_trimming()
            if _open_files() > files and not case.failure:
                case = dataclasses.replace(case, failure=f"{_open_files() - files} files left open")
        connection.send((case, resident))


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run_case(kind: Kind, seed: int, number: int, folder: Path) -> Case:
    try:
        path = kind.write(seed, number, _fresh(folder))
        before = path.read_bytes()
    except Exception:
        return Case(
            number, "FAILED", 0.0, 0.0, f"the case itself: {traceback.format_exc(limit=-2)}"
        )
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM, the peak, back to the present
    memory, start, failure = _status("VmRSS"), time.monotonic(), ""
    try:
        outcome = kind.check(path, number)
    except BaseException as error:
        outcome = "FAILED"
        where = "; ".join(
            f"{Path(f.filename).name}:{f.lineno}"
            for f in traceback.extract_tb(error.__traceback__)[-3:]
        )
        failure = (
            str(error)
            if isinstance(error, Failed)
            else f"{type(error).__name__}: {error} ({where})"
        )
    seconds, mib = time.monotonic() - start, _status("VmHWM") - memory
    left = sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if found != path)
    if not failure and left:
        outcome, failure = "FAILED", f"left files behind: {', '.join(left)}"
    if not failure and (not path.exists() or path.read_bytes() != before):
        outcome, failure = "FAILED", "the file itself was changed"
    if not failure and mib > kind.mib:
        outcome, failure = "FAILED", f"{mib:,.0f} MiB of memory ({outcome})"
    if not failure and seconds > kind.seconds / 2:
        outcome, failure = "FAILED", f"{seconds:.0f} s ({outcome})"
    return Case(number, outcome, seconds, mib, " ".join(failure.split())[:1000])


# in the parent


class Worker:
    """A child process that works on one case at a time, and is started again after it died or was
    ended."""

    def __init__(
        self, summary: Summary, seed: int, numbers: Sequence[int], folder: Path, context: Any
    ) -> None:
        self.summary, self.seed, self.folder, self.context = summary, seed, folder, context
        self.numbers = iter(numbers)
        self.current: int | None = None
        self._start()

    def _start(self) -> None:
        _fresh(self.folder)
        self.summary.resident.clear()
        self.connection, theirs = self.context.Pipe()
        arguments = (self.summary.kind, self.seed, self.folder, theirs)
        self.process = self.context.Process(target=_child, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        # to import PyTorch, on a busy machine
        self.current, self.deadline = None, time.monotonic() + 120

    def _next(self) -> bool:
        self.current = next(self.numbers, None)
        self.deadline = time.monotonic() + self.summary.kind.seconds
        self.connection.send(self.current)
        return self.current is not None

    def step(self) -> bool:
        """Take what the child has sent and give it the next case; False when there is no other."""
        try:
            message = self.connection.recv()
        except EOFError:
            return self.replace("the process died")
        if message != "ready":
            case, resident = message
            self.summary.add(case)
            if resident is not None:
                self.summary.add_memory(resident)
        return self._next()

    def replace(self, why: str) -> bool:
        """Note a case that ended, or had to end, its process; go on with a new one."""
        self.process.kill()
        self.process.join()
        if self.current is None:
            raise RuntimeError(f"{self.summary.kind.name}: {why} at its start\n{self.stderr()}")
        status = f", exit status {self.process.exitcode}" if "died" in why else ""
        seconds = time.monotonic() - self.deadline + self.summary.kind.seconds
        self.summary.add(
            Case(self.current, "FAILED", seconds, 0.0, f"{why}{status} {self.stderr()}")
        )
        self._start()
        return True

    def stderr(self) -> str:
        return " ".join((self.folder / "stderr").read_text(errors="replace").split())[:600]

    def end(self) -> None:
        """Let the process end by itself if it can: a killed one leaves semaphores behind."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=5)
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    wanted: dict[Kind, Sequence[int]],
    seed: int,
    minutes: float,
    progress: bool = False,
    output: Path | None = None,
    method: str = "spawn",
) -> list[Summary]:
    """Run cases, each kind in a process of its own, until all are done or the time is over.

    Args:
        wanted: numbers of the cases of each kind. output: gets the files of failed cases; None to
            keep none.
        method: how `multiprocessing` starts the processes.
    """
    context = multiprocessing.get_context(method)
    end = time.monotonic() + 60 * minutes
    summaries = [Summary(kind) for kind in wanted]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        total = sum(map(len, wanted.values()))
        folders = [Path(scratch) / kind.name for kind in wanted]
        parts = zip(summaries, wanted.values(), folders, strict=True)
        workers = [
            Worker(summary, seed, numbers, folder, context) for summary, numbers, folder in parts
        ]
        started = list(workers)
        try:
            with tqdm(total=total, unit="case", mininterval=1, disable=not progress) as bar:
                while workers and time.monotonic() < end:
                    ready = wait([worker.connection for worker in workers], timeout=0.2)
                    for worker in list(workers):
                        more = True
                        if worker.connection in ready:
                            more = worker.step()
                        elif time.monotonic() > worker.deadline:
                            more = worker.replace(
                                f"not done after {worker.summary.kind.seconds:.0f} s"
                            )
                        if not more:
                            workers.remove(worker)
                    bar.update(sum(summary.cases for summary in summaries) - bar.n)
                    bar.set_postfix(
                        failures=sum(len(summary.failures) for summary in summaries), refresh=False
                    )
        finally:
            for worker in started:
                worker.end()
        for summary in summaries:
            limit = summary.kind.growth_mib
            if summary.growth > limit:
                why = (
                    f"memory grew by {summary.growth:.0f} MiB over the cases, more than {limit:.0f}"
                )
                summary.failures.append(Case(-1, "FAILED", 0.0, summary.growth, why))
            if output is not None:
                for case in summary.failures[:100]:
                    # a case that could not be written is reported as such
                    with contextlib.suppress(Exception):
                        write_case(summary.kind, seed, case.number, output)
    return summaries


def write_case(kind: Kind, seed: int, number: int, folder: Path) -> Path | None:
    """A case's file in a folder, named after its number."""
    if number < 0:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = kind.write(seed, number, Path(scratch))
        return Path(shutil.copy(made, folder / f"{kind.name}-{seed}-{number}{made.suffix}"))


def report(summaries: Sequence[Summary], seed: int, minutes: float, most: int = 14) -> str:
    """Tables of what became of the cases, and how to repeat the failed ones."""
    lines = []
    for summary in summaries:
        name = summary.kind.name
        common = summary.outcomes.most_common(most)
        rest = summary.cases - sum(count for _, count in common)
        rows = [*common, *([("other", rest)] if rest else [])]
        lines += [tabulate(rows, [f"{name}s: {summary.cases:,}", "cases"], intfmt=","), ""]
        for what, case in (("slowest", summary.slowest), ("most memory", summary.largest)):
            if case is not None:
                lines.append(
                    f"{what}: {name}:{case.number}, {case.seconds:.2f} s, {case.mib:,.0f} MiB ({case.outcome})"
                )
        lines += [f"growth of the process over all cases: {summary.growth:.0f} MiB", ""]
    for summary in summaries:
        for case in summary.failures:
            lines.append(f"FAILED {summary.kind.name}:{case.number}: {case.failure}")
            if case.number >= 0:
                lines.append(
                    f"  again: python -m tests.robustness.fuzz --seed {seed} --only {summary.kind.name}:{case.number}"
                )
    failures = sum(len(summary.failures) for summary in summaries)
    cases = sum(summary.cases for summary in summaries)
    return "\n".join(
        [*lines, f"{cases:,} cases in {minutes:.1f} minutes, seed {seed}, {failures} failures"]
    )
