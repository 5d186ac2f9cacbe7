"""Measure this project's training and scoring against the plain PyTorch recipe, and both against
the machine's limits.

Every contestant runs in a process of its own; they take turns, so that what else the machine does
meets all alike. Reports images/s (median, min, max of the rounds) and the median of the ratios
within a round. See tools/bench for what is compared.

    python -m tools.benchmark --device cpu --output benchmark_cpu.json python -m tools.benchmark
    --parts step epoch --models single_scale 0.25,0.5 --batch_size 32 256 --data DATAROOT python -m
    tools.benchmark --parts ablation --rounds 9 python -m tools.benchmark --size 64 --batch_size 8
    --images 16 --rounds 1 --no_compile

Exit status: 0 all finished, 1 a contestant did not, 2 the command line is wrong, 130 interrupted.
Temporary files lie in
TMPDIR: the pictures, if they are drawn, and 3 bytes per pixel of each picture for the cached
    contestants.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from networks.npr import reduced_size
from networks.resnet import NPRResNet
from options.base_options import OneLineParser
from options.flags import whole
from tools.benchmark.machine import describe_machine, doubts
from tools.benchmark.pictures import make_root
from tools.benchmark.plan import DEFAULT_PARTS, PARTS, memory_jobs, plan
from tools.benchmark.recipe import DEFAULT_MODELS, Job, model_flags
from tools.benchmark.report import (  # fmt: skip
    NOTES,
    SCHEMA,
    computed_table,
    computed_trainings,
    failure,
    failure_lines,
    group_result,
    group_table,
    header,
    markdown,
    memory_result,
    memory_tables,
)
from tools.benchmark.rounds import ContestantDied, compete, play_once
from util import UserError, run_script

IMAGES = {"cpu": 256, "cuda": 4096}
"""Per round, so that one takes seconds."""

LONGEST_FOLDER = 72
"""Bytes of a temporary folder's name: processes put sockets into it, whose whole names may have
107."""


def model_name(text: str) -> str:
    """Parser of --models."""
    model_flags(text)
    return text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, examples = (__doc__ or "").split("\n\n    ", 1)
    made = OneLineParser(
        prog="python -m tools.benchmark",
        description=description,
        epilog=f"parts:\n{''.join(f'    {name:12}{about}{chr(10)}' for name, about in PARTS.items())}"
        f"\nexamples:\n    {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--parts", nargs="+", choices=(*PARTS, "all"), default=list(DEFAULT_PARTS), metavar="PART",
                      help=f"what to measure, of {', '.join(PARTS)}, all (default: {' '.join(DEFAULT_PARTS)})")  # fmt: skip
    made.add_argument("--models", nargs="+", type=model_name, default=list(DEFAULT_MODELS), metavar="MODEL",
                      help="single_scale, multiscale_attention, or comma-separated scales of a multi-scale model "
                      f"(default: {' '.join(DEFAULT_MODELS)})")  # fmt: skip
    made.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data root with train/ (default: pictures are drawn)",
    )
    made.add_argument(
        "--size",
        type=whole(8),
        default=224,
        metavar="N",
        help="side in pixels (default: %(default)s)",
    )
    made.add_argument("--batch_size", nargs="+", type=whole(1), default=[32], metavar="N",
                      help="images per batch; several are measured one after the other (default: 32)")  # fmt: skip
    made.add_argument(
        "--rounds", type=whole(1), default=5, metavar="N", help="that count (default: %(default)s)"
    )
    per_device = f"{IMAGES['cpu']} on a CPU, {IMAGES['cuda']} on a GPU"
    made.add_argument(
        "--images",
        type=whole(2),
        metavar="N",
        help=f"per round and contestant (default: {per_device})",
    )
    made.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="where to compute (default: cuda where there is one)",
    )
    made.add_argument(
        "--threads",
        type=whole(1),
        metavar="N",
        help="of PyTorch (default: its own choice, all cores)",
    )
    made.add_argument(
        "--no_compile", action="store_true", help="leave torch.compile out, also where ours uses it"
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="write everything there, and tables to FILE.md",
    )
    return made


def checked(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what depends on the device filled in; SystemExit with status 2 where they
    are wrong."""
    made = parser()
    opt = made.parse_args(argv)
    if opt.device == "cuda" and not torch.cuda.is_available():
        made.error("argument --device cuda: PyTorch sees no CUDA device")
    opt.device = opt.device or ("cuda" if torch.cuda.is_available() else "cpu")
    opt.images = opt.images or IMAGES[opt.device]
    given = opt.parts
    opt.parts = [part for part in PARTS if part in opt.parts or "all" in opt.parts]
    if "export" in opt.parts and (why := not_exportable(opt.device)) is not None:
        if "export" in given:
            made.error(f"argument --parts export: {why}")
        opt.parts.remove("export")
    for model in opt.models:
        smallest = min(model_flags(model).get("npr_scales", (NPRResNet.scale,)))
        if reduced_size(opt.size, smallest) < 1:
            made.error(f"argument --size {opt.size}: leaves no pixel at scale {smallest:g}")
    if opt.output is not None and (opt.output.suffix != ".json" or opt.output.is_dir()):
        made.error(f"argument --output {opt.output}: give a file name that ends with .json")
    if opt.output is not None and not os.access(opt.output.absolute().parent, os.W_OK):
        made.error(f"argument --output {opt.output}: cannot be written there")
    return opt


def not_exportable(device: str) -> str | None:
    """Why the part `export` cannot be measured here; None if it can."""
    if device != "cpu":
        return "is measured on CPUs; add --device cpu"
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    return (
        f"needs {', '.join(missing)}; run: pip install -r requirements-export.txt"
        if missing
        else None
    )


class Benchmark:
    """A benchmark under way; `result` is what is known so far, and is written after every table.

    Args:
        opt: see `checked`. scratch: an empty folder.
    """

    def __init__(self, opt: argparse.Namespace, scratch: Path) -> None:
        self.opt = opt
        machine = describe_machine(opt.device, opt.threads)  # before anything here loads it
        self.result: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.now().isoformat(sep=" ", timespec="minutes"),
            "command": shlex.join(["python", "-m", "tools.benchmark", *sys.argv[1:]]),
            "settings": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in vars(opt).items()
            },
            "machine": machine,
            "warnings": doubts(machine),
            **{
                "limits": {},
                "results": [],
                "memory": [],
                "computed": [],
                "failures": [],
                "finished": False,
            },
        }
        root = make_root(scratch, opt.data, opt.images)
        self.base = Job(part="limits", contestant="limits", work="limits", device=opt.device, size=opt.size,
                        threads=opt.threads, images=opt.images, data=str(root), cache=str(scratch / "cache"),
                        environment={"TMPDIR": str(scratch)})  # fmt: skip
        self._part = ""

    def progress(self, part: str, title: str, what: str) -> None:
        """One line that changes on a terminal; elsewhere one line per part."""
        if sys.stderr.isatty():
            print(f"\r\033[K{title}: {what}", end="", file=sys.stderr, flush=True)
        elif part != self._part:
            print(f"{part} ...", file=sys.stderr, flush=True)
        self._part = part

    def say(self, text: str) -> None:
        """Print what was found, and write all that is known."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(f"{text}\n", flush=True)
        if (path := self.opt.output) is not None:
            try:
                path.write_text(json.dumps(self.result, indent=2) + "\n", encoding="utf-8")
                path.with_suffix(".md").write_text(markdown(self.result), encoding="utf-8")
            except OSError as error:
                raise UserError(f"--output {path}: cannot write it ({error.strerror})") from None

    def run(self) -> None:
        """All parts."""
        if {"forward", "step", "export", "ablation"} & set(self.opt.parts):
            self._limits()
        self.say(header(self.result))
        for group in plan(
            self.opt.parts, self.opt.models, self.opt.batch_size, self.base, not self.opt.no_compile
        ):
            played = compete(
                group.jobs, self.opt.rounds, partial(self.progress, group.part, group.title)
            )
            self.result["failures"] += [
                failure(one.job, one.failure) for one in played if one.failure is not None
            ]
            self.result["results"].append(group_result(group, played, self.result["limits"]))
            self.say(group_table(self.result["results"][-1]))
        if "memory" in self.opt.parts:
            self._memory()
        self.result["computed"] = computed_trainings(self.result["results"], self.opt.models)
        self.result["finished"] = True
        if self.result["computed"]:
            self.say(computed_table(self.result["computed"], self.opt.models))
        self.say("\n".join([NOTES, *failure_lines(self.result)]))

    def _limits(self) -> None:
        self.progress("limits", "limits", "what the machine could do")
        try:
            self.result["limits"] = play_once(self.base)
        except ContestantDied as died:
            self.result["failures"].append(failure(self.base, str(died)))

    def _memory(self) -> None:
        """Peak memory by batch size, up to the first that fails; on a GPU, running out of memory
        there is no failure."""
        for jobs in memory_jobs(self.opt.models, self.base, not self.opt.no_compile):
            for job in jobs:
                self.progress(
                    "memory",
                    f"memory of {job.work}, {job.model}",
                    f"{job.contestant}, {job.batch_size} images",
                )
                answer = None
                try:
                    answer = play_once(job)
                except ContestantDied as died:
                    if not died.out_of_memory:
                        self.result["failures"].append(failure(job, str(died)))
                self.result["memory"].append(memory_result(job, answer))
                if answer is None:
                    break
        self.say("\n\n".join(memory_tables(self.result["memory"])))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 1 if a contestant did not finish, else 0."""
    opt = checked(argv)
    with TemporaryDirectory(prefix="npr-") as scratch:
        if len(os.fsencode(scratch)) > LONGEST_FOLDER:
            raise UserError(
                f"TMPDIR {Path(scratch).parent}: too long for the sockets of loading workers; give another"
            )
        benchmark = Benchmark(opt, Path(scratch))
        benchmark.run()
    if opt.output is not None:
        print(f"written: {opt.output}, {opt.output.with_suffix('.md')}")
    return 1 if benchmark.result["failures"] else 0


if __name__ == "__main__":
    run_script(main)
