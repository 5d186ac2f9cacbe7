"""Measure training and scoring against a plain PyTorch loop.

    python -m tools.benchmark --device cpu --output benchmark_cpu.json
    python -m tools.benchmark --parts step epoch --batch_size 32 256 --data DATAROOT
    python -m tools.benchmark --size 64 --batch_size 8 --images 16 --rounds 1 --no_compile

Each contestant runs in its own process. They take turns, so that other work on the machine affects
all of them equally. docs/performance.md describes them. TMPDIR holds temporary files: the images,
and 3 bytes per pixel of each for the cached contestants.

Exit status: 0 all contestants finished, 1 one of them did not, 2 the command line is wrong, 130
interrupted.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from options.flags import OneLineParser, tool_parser, whole
from tools.benchmark.contest import compete
from tools.benchmark.images import link_images
from tools.benchmark.machine import describe_machine, machine_warnings, matrix_peaks
from tools.benchmark.recipe import DEFAULT_MODELS, Job, model_flags
from tools.benchmark.report import (  # fmt: skip
    NOTES,
    PLAIN,
    SCHEMA,
    failure_lines,
    failures,
    group_result,
    group_table,
    header,
    markdown,
)
from util import UserError, atomic_file, run_script, writing

PARTS = {
    "forward": "score a batch in memory",
    "step": "train on a batch in memory: forward, backward, optimizer",
    "input": "load training batches from files, compute nothing on them",
    "evaluation": "score files",
    "epoch": "train for an epoch, from files to the last optimizer step",
}
FROM_FILES = ("input", "evaluation", "epoch")
IMAGES = {"cpu": 256, "cuda": 4096}  # per round, so that a round takes seconds
MAX_FOLDER_BYTES = 72  # workers put sockets into it, and the path of a socket has at most 107 bytes


def model_name(text: str) -> str:
    """Parse a value of --models; see `model_flags`."""
    model_flags(text)
    return text


def json_file(text: str) -> Path:
    """Parse the name of a JSON file that can be written."""
    path = Path(text)
    if path.suffix != ".json" or not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"{text} cannot be written; pass a name that ends with .json in an existing folder"
        )
    return path


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("benchmark", __doc__)
    parts = "\n".join(f"    {name:12}{about}" for name, about in PARTS.items())
    parser.epilog = f"parts:\n{parts}\n\n{parser.epilog}"
    add = parser.add_argument
    add("--parts", nargs="+", choices=(*PARTS, "all"), default=["all"], metavar="PART",
        help=f"what to measure, of {', '.join(PARTS)}, all (default: all)")  # fmt: skip
    add("--models", nargs="+", type=model_name, default=list(DEFAULT_MODELS), metavar="MODEL",
        help="model types, or comma-separated scales of a multi-scale model "
        f"(default: {' '.join(DEFAULT_MODELS)})")  # fmt: skip
    add("--data", type=Path, metavar="DIR",
        help="dataset with train/ (default: procedural images)")  # fmt: skip
    add("--size", type=whole(32), default=224, metavar="N",
        help="side of the images in pixels (default: %(default)s)")  # fmt: skip
    add("--batch_size", nargs="+", type=whole(1), default=[32], metavar="N",
        help="images per batch; several sizes are measured in turn (default: 32)")  # fmt: skip
    add("--rounds", type=whole(1), default=5, metavar="N",
        help="measured rounds, after three to warm up (default: %(default)s)")  # fmt: skip
    add("--images", type=whole(2), metavar="N",
        help="images per round and contestant "
        f"(default: {IMAGES['cpu']} on a CPU, {IMAGES['cuda']} on a GPU)")  # fmt: skip
    add("--device", choices=("cpu", "cuda"),
        help="device to compute on (default: cuda if PyTorch sees a GPU)")  # fmt: skip
    add("--threads", type=whole(1), metavar="N",
        help="threads of PyTorch (default: PyTorch's choice, all cores)")  # fmt: skip
    add("--no_compile", action="store_true",
        help="do not use torch.compile where ours does")  # fmt: skip
    add("--output", type=json_file, metavar="FILE.json",
        help="write the result to FILE.json and tables to FILE.md")  # fmt: skip
    return parser


def checked(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options with device and images filled in; exit with status 2 if one is wrong."""
    command_line = parser()
    opt = command_line.parse_args(argv)
    if opt.device == "cuda" and not torch.cuda.is_available():
        command_line.error("argument --device cuda: PyTorch sees no CUDA device; pass cpu")
    opt.device = opt.device or ("cuda" if torch.cuda.is_available() else "cpu")
    opt.images = opt.images or IMAGES[opt.device]
    opt.parts = [part for part in PARTS if part in opt.parts or "all" in opt.parts]
    return opt


def contestants(job: Job, compiled: bool) -> list[Job]:
    """Return the jobs of all contestants of a part, the plain recipe first.

    Args:
        job: part, model, batch size and the common settings.
        compiled: use torch.compile where ours does.
    """
    switches = () if compiled else ("not compiled",)
    ours = [replace(job, recipe="ours", contestant="ours", switches=switches)]
    if job.part in FROM_FILES:
        ours.append(replace(ours[0], contestant="ours, cached", source="cache"))
    if job.part in ("step", "epoch") and job.device == "cuda" and compiled:
        for slow in tuple(ours):
            name = slow.contestant.replace("ours", "ours --fast")
            ours.append(replace(slow, contestant=name, switches=("fast",)))
    return [job, *ours]


def plan(opt: argparse.Namespace, folder: str) -> Iterator[list[Job]]:
    """Yield groups of contestants that take turns, part by part.

    Args:
        opt: see `checked`.
        folder: see `Job`.
    """
    for part, model, batch_size in product(opt.parts, opt.models, opt.batch_size):
        # loading does not depend on the model
        if part != "input" or model == opt.models[0]:
            job = Job(part=part, contestant=PLAIN, folder=folder, model=model, device=opt.device,
                      size=opt.size, batch_size=batch_size, images=opt.images,
                      threads=opt.threads)  # fmt: skip
            yield contestants(job, compiled=not opt.no_compile)


def write(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON to `path`, and its tables to the .md file beside it."""
    with writing(path):
        for target, text in (
            (path, json.dumps(result, indent=2, default=str) + "\n"),
            (path.with_suffix(".md"), markdown(result)),
        ):
            with atomic_file(target) as file:
                file.write(text)


def run(opt: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all parts; print and write the results after each part.

    Args:
        opt: see `checked`.
        folder: an empty folder for temporary files.

    Returns:
        The complete result, as written.
    """
    machine = describe_machine(opt.device, opt.threads)
    link_images(folder, opt.data, opt.images)
    peaks = matrix_peaks(opt.device, opt.threads)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now().isoformat(sep=" ", timespec="minutes"),
        "command": shlex.join(["python", "-m", "tools.benchmark", *sys.argv[1:]]),
        "settings": vars(opt),
        "machine": machine,
        "warnings": machine_warnings(machine),
        "limits": {"peak": peaks, "threads": machine["threads"]},
        "results": [],
        "failures": [],
        "finished": False,
    }
    print(f"{header(result)}\n", flush=True)
    groups = list(plan(opt, str(folder)))
    for number, jobs in enumerate(groups, start=1):
        played = compete(jobs, opt.rounds)
        result["failures"] += failures(played)
        result["results"].append(group_result(played, peaks))
        result["finished"] = number == len(groups)
        print(f"{group_table(result['results'][-1])}\n", flush=True)
        if opt.output is not None:
            write(result, opt.output)
    print("\n".join([NOTES, *failure_lines(result)]))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 if a contestant did not finish, else 0."""
    opt = checked(argv)
    with TemporaryDirectory(prefix="npr-") as folder:
        if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
            raise UserError(
                f"TMPDIR {Path(folder).parent}: too long for the workers' sockets; pass another"
            )
        result = run(opt, Path(folder))
    if opt.output is not None:
        print(f"written: {opt.output}, {opt.output.with_suffix('.md')}")
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    run_script(main)
