"""Check and measure on one GPU what a machine without a GPU cannot, in at most 8 minutes.

    python -m tests.gpu_check --output gpu_check.json
    python -m tests.gpu_check --rehearse   # on the CPU, in tiny sizes: does this program run?

The most valuable parts come first. The JSON file is written after each of them, and holds an error
where a part failed, or null where no time was left.

Exit status: 0 all parts ran, 1 one failed or had no time, 2 PyTorch sees no GPU.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.autograd import DeviceType
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from device import seed_everything
from networks.checkpoint_file import read_checkpoint
from networks.trainer import Trainer
from options.flags import OneLineParser, number
from options.train_options import TrainOptions
from tests.conftest import REPOSITORY, make_dataroot
from tools.benchmark.images import link_images
from tools.benchmark.machine import describe_machine
from tools.benchmark.recipe import DEFAULT_MODELS
from util import UserError, atomic_file, run_script, writing

FLAGS: dict[str, dict[str, Any]] = {
    "default": {},
    "auto": {"precision": "auto"},
    "fast": {"precision": "auto", "fast": True},
}
LIMIT = timedelta(seconds=60)  # processes wait for each other
WARM_UP, HOST_STEPS = 6, 5  # the first steps compile, and record CUDA graphs
Part = tuple[str, Callable[[], Any]]


class Check:
    """Sizes, device and end of a check; its methods are the parts.

    Args:
        device: "cuda", or "cpu" for a rehearsal in tiny sizes.
        folder: for temporary files.
        minutes: after which no part starts, and running programs are ended.
    """

    def __init__(self, device: str, folder: Path, minutes: float) -> None:
        self.device, self.folder, self.end = device, folder, time.monotonic() + 60 * minutes
        tiny = device == "cpu"
        self.gpu_ids: tuple[int, ...] = () if tiny else (0,)
        self.size, self.batches, self.steps = (32, (4,), 3) if tiny else (224, (32, 256), 25)
        self.images, self.epoch_batch = (32, 8) if tiny else (65_536, 256)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def parts(self) -> Iterator[Part]:
        """Yield the name and the function of each part, the most valuable first."""
        yield "gpu tests", self.gpu_tests
        for name, batch, model in product(FLAGS, self.batches, DEFAULT_MODELS):
            yield f"step, {model}, {batch}, {name}", partial(self.step, model, batch, FLAGS[name])
        yield "resume in another layout", self.resume_in_another_layout
        yield "NCCL in one process", self.nccl
        yield "epochs of cached images", self.epochs
        yield "stopped and continued", self.stopped_and_continued
        yield "two processes on one GPU", self.two_processes

    def run(self, *words: str, stop_after: str | None = None) -> str:
        """Return what a program printed.

        Args:
            words: its command line after `python`.
            stop_after: end it by SIGTERM after a line with this text.

        Raises:
            RuntimeError: it failed, or took longer than is left.
        """
        lines = []
        torch.cuda.empty_cache()  # the program needs the GPU's memory
        with subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # fmt: skip
            limit = max(1, int(self.left))
            signal.signal(signal.SIGALRM, lambda *_: process.kill())
            signal.alarm(limit)
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if stop_after is not None and stop_after in line:
                    process.send_signal(signal.SIGTERM)
            signal.alarm(0)
        if process.returncode not in (0, 143 if stop_after else 0):
            raise RuntimeError(f"status {process.returncode}: {''.join(lines[-20:])}")
        return "".join(lines)

    def gpu_tests(self) -> str:
        """Return pytest's summary of the tests that need a GPU."""
        chosen = "gpu and not slow"
        return self.run("-m", "pytest", "-m", chosen, "-rs", "--tb=short", "tests")[-2000:]

    def trainer(self, model: str, batch: int, **flags: Any) -> Trainer:
        """Return a trainer in its first epoch that has a batch of noise."""
        opt = TrainOptions(model_type=model, batch_size=batch, gpu_ids=self.gpu_ids, **flags)
        seed_everything(opt.seed, deterministic=not opt.fast)
        trainer = Trainer(opt)
        trainer.start_epoch(0)
        images = torch.randn(batch, 3, self.size, self.size)
        trainer.set_input((images, torch.arange(batch) % 2))
        return trainer

    def wait(self) -> None:
        """Wait until the GPU has done its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def step(self, model: str, batch: int, flags: dict[str, Any]) -> dict[str, float]:
        """Return speed, host and GPU time, kernels and skipped CUDA graphs of a training step."""
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        trainer = self.trainer(model, batch, **flags)

        def milliseconds(steps: int, wait: bool) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                trainer.optimize_parameters()
            if wait:
                self.wait()
            return 1000 * (time.perf_counter() - start) / steps

        milliseconds(WARM_UP, wait=True)
        host = milliseconds(HOST_STEPS, wait=False)
        self.wait()
        whole = milliseconds(self.steps, wait=True)
        kind = self.device.upper()
        with profile(activities=[getattr(ProfilerActivity, kind)]) as profiled:
            milliseconds(1, wait=True)
        kernels = [
            event
            for event in profiled.events() or []
            if event.device_type == getattr(DeviceType, kind) and not event.name.startswith("Mem")
        ]
        skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        return {
            "images_per_second": 1000 * batch / whole,
            "milliseconds": whole,
            "host_milliseconds": host,
            "gpu_milliseconds": sum(kernel.time_range.elapsed_us() for kernel in kernels) / 1000,
            "kernels": len(kernels),
            "skipped_graphs": skipped,
            "loss": float(trainer.loss),
        }

    def resume_in_another_layout(self) -> dict[str, float]:
        """Return how far weights are from a straight run's, as a share of their norm."""
        distances = {}
        for before, after in (("fp32", "bf16"), ("bf16", "fp32")):
            first = self.trainer(DEFAULT_MODELS[0], 8, precision=before)
            first.optimize_parameters()
            resumed = self.trainer(DEFAULT_MODELS[0], 8, precision=after)
            resumed.load_state_dict(first.state_dict())
            for trainer in (first, resumed):
                trainer.optimize_parameters()
            ours, straight = (
                torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
                for trainer in (resumed, first)
            )
            distances[f"{before} to {after}"] = float((ours - straight).norm() / straight.norm())
        return distances

    def nccl(self) -> str:
        """Train a step with the backends of a run on several GPUs, in a group of one."""
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        place = f"file://{self.folder}/nccl"
        distributed.init_process_group(backend, place, LIMIT, world_size=1, rank=0)
        try:
            trainer = self.trainer(DEFAULT_MODELS[0], 8)
            gpus = [0] if self.device == "cuda" else None
            network = DistributedDataParallel(trainer.model, device_ids=gpus)
            network(trainer.images).sum().backward()
            self.wait()
        finally:
            distributed.destroy_process_group()
        return backend

    def two_processes(self) -> dict[str, float]:
        """Return the difference of two processes' weights after a few steps (0), by gloo."""
        multiprocessing.spawn(_train_part, (self,), nprocs=2)
        one, other = (torch.load(self.folder / f"rank{rank}.pt") for rank in (0, 1))
        return {"difference": float((one - other).abs().max())}

    def train(self, *words: str, stop_after: str | None = None) -> str:
        """Run train.py on the check's device and return what it printed."""
        gpu_ids = ",".join(map(str, self.gpu_ids)) or "-1"
        places = ["--checkpoints_dir", str(self.folder / "runs"), "--gpu_ids", gpu_ids]
        return self.run("train.py", *places, *words, stop_after=stop_after)

    def stopped_and_continued(self) -> dict[str, Any]:
        """Return the largest difference between a run stopped by SIGTERM and a straight one."""
        data = make_dataroot(self.folder / "small", count=32)
        words = ["--dataroot", str(data), "--no_resize", "--cropSize", "32", "--batch_size", "8",
                 "--niter", "4", "--num_threads", "2"]  # fmt: skip
        self.train(*words, "--name", "straight")
        stopped = self.train(*words, "--name", "stopped", stop_after="epoch 1/")
        self.train(*words, "--name", "stopped", "--continue_train")
        weights = []
        for name in ("straight", "stopped"):
            path = next((self.folder / "runs").glob(f"{name}_*/model_epoch_last.pth"))
            weights.append(read_checkpoint(path)["model_state_dict"])
        difference = max(
            float((value.double() - weights[1][key].double()).abs().max())
            for key, value in weights[0].items()
        )
        return {"difference": difference, "was stopped": "saved step" in stopped}

    def epochs(self) -> dict[str, Any]:
        """Return images/s of train.py's epochs with a cache, their validation included."""
        data = self.folder / "cached"
        link_images(data, None, self.images)
        (data / "val").mkdir()
        link_images(self.folder / "validated", None, 64)
        (data / "val" / "images").symlink_to(self.folder / "validated" / "train" / "images")
        batch = str(self.epoch_batch)
        self.train("--name", "epochs", "--dataroot", str(data), "--batch_size", batch, "--niter",
                   "4", "--num_threads", "16", "--precision", "auto", "--fast",
                   "--cache", str(self.folder / "cache"))  # fmt: skip
        log = next((self.folder / "runs").glob("epochs_*/log.log")).read_text()
        ends = [
            datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f")
            for stamp in re.findall(r"^(\S+ \S+) INFO epoch \d", log, re.MULTILINE)
        ]
        seconds = [(b - a).total_seconds() for a, b in zip(ends, ends[1:], strict=False)]
        return {"images": self.images, "images_per_second": [self.images / s for s in seconds]}


def _train_part(rank: int, check: Check) -> None:
    """Train three steps on this process' half of each batch; save the weights."""
    place = f"file://{check.folder}/gloo"
    distributed.init_process_group("gloo", place, LIMIT, world_size=2, rank=rank)
    trainer = check.trainer(DEFAULT_MODELS[0], 8)
    for _ in range(3):
        trainer.set_input((trainer.images[rank::2], trainer.labels[rank::2]))
        trainer.optimize_parameters()
        trainer.set_input((torch.randn(8, 3, check.size, check.size), torch.arange(8) % 2))
    weights = torch.cat([p.detach().cpu().flatten() for p in trainer.model.parameters()])
    torch.save(weights, check.folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def save(result: dict[str, Any], path: Path) -> None:
    """Write the result as JSON."""
    with writing(path), atomic_file(path) as file:
        file.write(json.dumps(result, indent=2, default=str) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts for which there is time; return 1 if one failed or had no time, else 0."""
    parser = OneLineParser(
        prog="python -m tests.gpu_check", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"), metavar="FILE.json",
                        help="where to write the result (default: %(default)s)")  # fmt: skip
    parser.add_argument("--minutes", type=number(above=0), default=8,
                        help="time limit (default: 8)")  # fmt: skip
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU, in tiny sizes")
    opt = parser.parse_args(argv)
    if not opt.rehearse and not torch.cuda.is_available():
        raise UserError("PyTorch sees no CUDA device; --rehearse runs on the CPU, in tiny sizes")
    device = "cpu" if opt.rehearse else "cuda"
    result: dict[str, Any] = {"machine": describe_machine(device, None), "rehearsal": opt.rehearse}
    with TemporaryDirectory(prefix="npr-") as folder:
        check = Check(device, Path(folder), opt.minutes)
        parts = dict(check.parts())
        result["parts"] = dict.fromkeys(parts)
        save(result, opt.output)  # an error here costs no time
        for name, part in parts.items():
            if check.left > 0:
                start = time.monotonic()
                try:
                    result["parts"][name] = part()
                except Exception as error:
                    result["parts"][name] = {"error": f"{type(error).__name__}: {error}"}
                seconds = time.monotonic() - start
                print(f"{name} ({seconds:.0f} s): {result['parts'][name]}", flush=True)
            save(result, opt.output)
    failed = [v for v in result["parts"].values() if v is None or "error" in v]
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    run_script(main)
