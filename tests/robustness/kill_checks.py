"""Trainings that are killed again and again and continued, against one left alone.

    python -m tests.robustness.kill_checks --kills 100

A training is a child process that ends by SIGKILL, SIGTERM or SIGINT at a random moment, or by
SIGKILL at a random one of the places where files are written: before or after a rename or an
fsync, or halfway through a write. It is continued until it has finished; then weights,
optimizer, random states and metrics.jsonl must be those of the training left alone,
bit for bit. Children are forked from a process that has imported everything and computed nothing,
so that they start at once.
"""

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import torch

import train
import util
from networks.checkpoint_file import digest, read_checkpoint
from tests.conftest import make_dataroot, restore_sigint
from training.event_log import METRICS_FILE

IN_WRITE, NO_KILL = "SIGKILL in a write", "no kill"
ENDS = {
    "SIGTERM": (os.kill, signal.SIGTERM, 143),
    "SIGINT": (os.kill, signal.SIGINT, 130),
    "group SIGTERM": (os.killpg, signal.SIGTERM, 143),
    "SIGKILL": (os.kill, signal.SIGKILL, -9),
    IN_WRITE: (None, signal.SIGKILL, -9),
}
"""Ways to end a training: call, signal, and exit status (0 if the training was faster)."""
COMMON = ["--name", "run", "--loadSize", "24", "--cropSize", "20", "--batch_size", "4",
          "--num_threads", "0", "--gpu_ids", "-1", "--niter", "3", "--lr", "0.002"]  # fmt: skip
VARIANTS = (
    ("--save_latest_freq", "1", "--precision", "fp16", "--skip_nonfinite", "2"),
    ("--save_latest_freq", "2", "--accumulation_steps", "2", "--num_threads", "2", "--data_aug"),
    ("--model_type", "multiscale_attention", "--feature_dim", "16", "--save_latest_freq", "3", "--loss_freq", "2"),
    ("--optim", "sgd", "--class_bal", "--num_threads", "1", "--accumulation_steps", "3", "--earlystop_epoch", "2"),
)  # fmt: skip


class WritePoints:
    """Counts the places where this process writes files, and kills it at number `target` (None: at
    none)."""

    def __init__(self, target: int | None) -> None:
        self.target, self.count = target, 0
        for name in ("replace", "fsync"):
            setattr(os, name, self._around(getattr(os, name)))
        save = torch.save
        torch.save = lambda values, file: save(values, _Halfway(file, self))  # type: ignore[assignment]

    def reached(self) -> None:
        if self.count == self.target:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reached()
            value = call(*args, **kwargs)
            self.reached()
            return value

        return wrapped


class _Halfway:
    """A file whose larger writes happen in two halves, with a write point between."""

    def __init__(self, file: IO[bytes], points: WritePoints) -> None:
        self.file, self.points = file, points

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        if half > 100:
            self.points.reached()
        return half + self.file.write(data[half:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def start(argv: Sequence[str], log: Path, target: int | None = None) -> tuple[int, int]:
    """Start a training in a session of its own.

    Returns:
        Its process id, and a pipe that gets the number of its write points when it has finished.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        run_child(argv, log, target, writing)
    os.close(writing)
    os.read(reading, 1)  # it handles signals
    return child, reading


def run_child(argv: Sequence[str], log: Path, target: int | None, pipe: int) -> NoReturn:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    points = WritePoints(target)

    def main() -> int:
        os.write(pipe, b"x")
        status = train.main(argv)
        os.write(pipe, str(points.count).encode())
        return status

    try:
        util.run_script(main)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def wait(child: int) -> int:
    """Return the exit status of a child, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(folder: Path) -> dict[str, Any]:
    """Return what must be equal: digests of the checkpoints, and the bytes of metrics.jsonl."""
    parts: dict[str, Any] = {}
    for name in ("last", "best"):
        values = read_checkpoint(folder / f"model_epoch_{name}.pth")
        del values["options"]  # --continue_train is among them
        parts[name] = digest(values)
    parts["metrics"] = (folder / METRICS_FILE).read_text(encoding="utf-8")
    return parts


def run_folders(checkpoints: Path) -> list[Path]:
    return list(checkpoints.iterdir()) if checkpoints.exists() else []


def survive(
    argv: Sequence[str], place: Path, kills: int, rng: random.Random, counts: Counter[str]
) -> None:
    """Kill a training at least `kills` times, over as many trainings as that takes, and compare
    each with one left alone."""
    place.mkdir()
    log = place / "output.txt"
    began = time.monotonic()
    child, pipe = start([*argv, "--checkpoints_dir", str(place / "alone")], log)
    assert wait(child) == 0, log.read_text()[-2000:]
    seconds, points = time.monotonic() - began, int(os.read(pipe, 100))
    (folder,) = run_folders(place / "alone")
    expected, done = outcome(folder), 0
    while done < kills:
        counts["trainings compared"] += 1
        checkpoints = place / str(counts["trainings compared"])
        status = None
        while status != 0:
            again = ["--continue_train"] if run_folders(checkpoints) else []
            how = rng.choice(list(ENDS)) if done < kills else NO_KILL
            send, number, ended = ENDS.get(how, (None, None, 0))
            target = rng.randrange(points) if how == IN_WRITE else None
            child, pipe = start([*argv, *again, "--checkpoints_dir", str(checkpoints)], log, target)
            if send:
                # the pipe can be read when the training has ended
                select.select([pipe], [], [], rng.uniform(0, seconds))
                with contextlib.suppress(ProcessLookupError):
                    send(child, number)
            status = wait(child)
            os.close(pipe)
            # a finished script ends by the signal itself
            finished = -signal.SIGTERM if number == signal.SIGTERM else 0
            assert status in (0, ended, finished), (
                f"{how}: status {status}\n{log.read_text()[-3000:]}"
            )
            if status:
                counts[how] += 1
                done += 1
            for folder in run_folders(checkpoints):
                for path in folder.glob("*.pth"):
                    read_checkpoint(path)  # whole at any moment
        (folder,) = run_folders(checkpoints)
        assert outcome(folder) == expected, f"differs after {argv}\n{log.read_text()[-3000:]}"
        print(f"{done} kills: equal", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="over all kinds of training")
    parser.add_argument("--seed", type=int, default=0, help="moments still differ between runs")
    parser.add_argument("--variant", type=int, choices=range(len(VARIANTS)), help="only this kind")
    args = parser.parse_args()
    restore_sigint()
    # here: threads of a pool do not live on in a forked child, which would wait for them
    torch.set_num_threads(1)
    rng, counts = random.Random(args.seed), Counter[str]()
    variants = VARIANTS if args.variant is None else (VARIANTS[args.variant],)
    # no bar here: its thread could hold a lock when a child is forked
    with tempfile.TemporaryDirectory() as folder:
        data = make_dataroot(Path(folder) / "data", ("car",), count=9, size=24)
        for number, variant in enumerate(variants):
            argv = [*COMMON, "--dataroot", str(data), *variant]
            survive(argv, Path(folder) / str(number), -(-args.kills // len(variants)), rng, counts)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
