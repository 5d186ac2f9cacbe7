"""Which contestants each part has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from networks.factory import SINGLE_SCALE
from tools.benchmark.recipe import Job

PARTS = {
    "forward": "forward pass in evaluation mode on data in memory",
    "step": "training step on data in memory: forward, backward, optimizer",
    "input": "training batches from files, nothing computed on them",
    "evaluation": "from files to scores",
    "epoch": "training epoch from files to the last optimizer step",
    "export": "forward pass of the exported graph in onnxruntime, on CPUs (needs requirements-export.txt)",
    "ablation": "what each difference between the recipes brings, in a step and in a forward pass",
    "memory": "peak memory by batch size, of a training step and of a forward pass",
}
DEFAULT_PARTS = ("forward", "step", "input", "evaluation", "epoch")
MEMORY_BATCHES = {"cpu": (8, 16, 32, 64), "cuda": (16, 32, 64, 128, 256, 512)}
PLAIN, CUDNN, OURS, SYNTHETIC = "plain", "plain+cudnn", "ours", "ours, synthetic"
ONNXRUNTIME = "onnxruntime"
FAST, FAST_SYNTHETIC = "ours --fast", "ours --fast, synthetic"


@dataclass(frozen=True)
class Group:
    """Contestants that compete in turn. `model` and `batch_size` are those of all of them ('' and
    of no matter in some parts)."""

    part: str
    work: str
    model: str
    batch_size: int
    jobs: tuple[Job, ...]

    @property
    def title(self) -> str:
        """What a table's heading says."""
        work = f" of {self.work}" if self.work != self.part else ""
        model = f", {self.model}" if self.model else ""
        return f"{self.part}{work}{model}, batches of {self.batch_size}"


def plan(
    parts: Sequence[str],
    models: Sequence[str],
    batch_sizes: Sequence[int],
    base: Job,
    compiled: bool,
) -> list[Group]:
    """All groups but those of `memory`, part by part.

    Args:
        base: device, size, threads, images, data and cache of every job. compiled: use
            torch.compile where ours does.
    """
    groups = []
    for part in [part for part in PARTS if part in parts and part != "memory"]:
        works = {"ablation": ("step", "forward"), "export": ("forward",)}.get(part, (part,))
        for work in works:
            for model in models if part != "input" else ("",):
                for batch_size in batch_sizes:
                    job = replace(
                        base,
                        part=part,
                        work=work,
                        model=model or SINGLE_SCALE,
                        batch_size=batch_size,
                    )
                    jobs = (
                        ablation(job, compiled)
                        if part == "ablation"
                        else contestants(job, compiled)
                    )
                    groups.append(Group(part, work, model, batch_size, tuple(jobs)))
    return groups


def plain_jobs(job: Job) -> list[Job]:
    """The plain recipe; on a GPU as published, without cuDNN, and with it."""
    jobs = [replace(job, recipe="plain", contestant=PLAIN)]
    return jobs + (
        [replace(jobs[0], contestant=CUDNN, switches=("cudnn",))] if job.device == "cuda" else []
    )


def contestants(job: Job, compiled: bool) -> list[Job]:
    """Those of one part, the reference first."""
    work, on_gpu = job.work, job.device == "cuda"
    ours = replace(
        job, recipe="ours", contestant=OURS, switches=() if compiled else ("not compiled",)
    )
    jobs = plain_jobs(job)
    if work == "evaluation":
        jobs.append(replace(job, contestant="plain, one at a time", batch_size=1))
    jobs.append(ours)
    if job.part == "export":
        jobs.append(
            replace(
                job, recipe="exported", contestant=ONNXRUNTIME, switches=("ReLU after pooling",)
            )
        )
    if work in ("input", "evaluation", "epoch"):
        jobs.append(replace(ours, contestant="ours, cached", source="cache"))
    if work in ("step", "epoch") and on_gpu and compiled:
        jobs.append(replace(ours, contestant=FAST, switches=("fast",)))
        if work == "epoch":
            jobs.append(
                replace(ours, contestant=f"{FAST}, cached", switches=("fast",), source="cache")
            )
            jobs.append(
                replace(ours, contestant=FAST_SYNTHETIC, switches=("fast",), source="memory")
            )
    if work in ("evaluation", "epoch"):
        jobs.append(replace(ours, contestant=SYNTHETIC, source="memory"))
    return jobs


def ablation(job: Job, compiled: bool) -> list[Job]:
    """From the plain recipe to ours, one difference more in each line, and what did not help.

    In scoring, ours also folds BatchNorm and is compiled; in training its optimizer is fused.
    """
    on_gpu = job.device == "cuda"
    base = ("cudnn",) if on_gpu else ()
    kept = () if on_gpu else ("kept memory",)
    added = (*kept, "channels last", "bf16", "ReLU after pooling")
    jobs = plain_jobs(job)
    for count in range(1, len(added) + 1):
        jobs.append(replace(job, contestant=f"+ {added[count - 1]}", switches=base + added[:count]))
    without_layout = tuple(name for name in added if name != "channels last")
    jobs.append(
        replace(job, contestant="all of these but channels last", switches=base + without_layout)
    )
    if job.work == "forward" and job.model != SINGLE_SCALE:
        one = ("one pass",)
        jobs.append(
            replace(
                job, contestant="all of these, branches in one pass", switches=base + added + one
            )
        )
    ours = replace(
        job, recipe="ours", contestant=OURS, switches=() if compiled else ("not compiled",)
    )
    jobs.append(ours)
    if not on_gpu:
        huge = job.environment | {"THP_MEM_ALLOC_ENABLE": "1"}
        jobs.append(replace(ours, contestant="ours, THP_MEM_ALLOC_ENABLE=1", environment=huge))
    if job.work == "step" and compiled:
        jobs.append(replace(ours, contestant="ours --compile", switches=("compile",)))
    return jobs


def memory_jobs(models: Sequence[str], base: Job, compiled: bool) -> Iterator[list[Job]]:
    """For each model, kind of work and contestant: jobs of growing batch size, each for a fresh
    process, one batch each."""
    for model in models:
        for work in ("step", "forward"):
            job = replace(base, part="memory", work=work, model=model)
            for one in contestants(job, compiled):
                yield [
                    replace(one, batch_size=size, images=size)
                    for size in MEMORY_BATCHES[base.device]
                ]
