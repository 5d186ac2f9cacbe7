"""Results of a benchmark as plain values for JSON, and as tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from tabulate import tabulate

from tools.benchmark.limits import against_limits
from tools.benchmark.machine import machine_lines
from tools.benchmark.plan import CUDNN, FAST_SYNTHETIC, PLAIN, SYNTHETIC, Group
from tools.benchmark.recipe import Job
from tools.benchmark.rounds import Contestant, median_ratio, rates, spread
from tools.check_dataset.findings import counted

SCHEMA = "npr-benchmark/1"
EPOCHS, TRAINING_IMAGES = 50, 144_024
"""Of each training of run_multiscale_experiments.sh: ForenSynths' train/, classes car, cat, chair
and horse."""
NOTES = (
    "images/s: median over the rounds, in which contestants take turns (min - max); x plain: median of the ratios within a "
    "round. % of synthetic: of the rate of the same computation on pixels that already lie on the device. % of peak: of the "
    "best measured matrix product in the contestant's number format. % of floor: of the rate of "
    "max(operations / peak, bytes / bandwidth), see tools/benchmark/limits.py; above 100 % something else slowed the measurement "
    "of the peak. Memory: peak of the process without its loading workers, on a GPU what PyTorch reserved there. "
    "Pictures are few and lie in the file system's cache, and compiling is not timed."
)


def group_result(
    group: Group, contestants: Sequence[Contestant], limits: dict[str, Any]
) -> dict[str, Any]:
    """A group's result: its contestants that played all rounds, each with every round's seconds."""
    played = {one.job.contestant: rates(one.answers) for one in contestants if one.answers}
    references = {
        name: played[name] for name in (PLAIN, CUDNN, SYNTHETIC, FAST_SYNTHETIC) if name in played
    }
    found = []
    for one in contestants:
        if one.answers:
            ratios = {
                name: median_ratio(played[one.job.contestant], rate)
                for name, rate in references.items()
            }
            found.append(_contestant_result(one, limits) | {"ratio_to": ratios})
    return {"part": group.part, "work": group.work, "model": group.model, "batch_size": group.batch_size,
            "title": group.title, "contestants": found}  # fmt: skip


def _contestant_result(one: Contestant, limits: dict[str, Any]) -> dict[str, Any]:
    last, rate = one.answers[-1], spread(rates(one.answers))
    seconds_per_batch = one.job.batch_size / rate["median"]
    return {
        "contestant": one.job.contestant,
        "recipe": one.job.recipe,
        "switches": list(one.job.switches),
        "environment": {
            name: value for name, value in one.job.environment.items() if name != "TMPDIR"
        },
        "source": one.job.source,
        "batch_size": one.job.batch_size,
        "precision": last["precision"],
        "threads": last["threads"],
        "images": last["images"],
        "seconds": [answer["seconds"] for answer in one.answers],
        "images_per_second": rate,
        **against_limits(one.job, seconds_per_batch, last["precision"], limits),
        "peak_rss_mib": last["peak_rss_mib"],
        "peak_gpu_mib": last["peak_gpu_mib"],
        "check": last["check"],
    }


def failure(job: Job, message: str) -> dict[str, Any]:
    """A contestant that did not finish."""
    return {"part": job.part, "work": job.work, "model": job.model, "batch_size": job.batch_size,
            "contestant": job.contestant, "message": message}  # fmt: skip


def group_table(result: dict[str, Any]) -> str:
    """A group's heading and table; columns that would be empty are left out."""
    rows = [
        {
            "contestant": one["contestant"],
            "images/s": f"{one['images_per_second']['median']:.1f}",
            "min - max": f"{one['images_per_second']['min']:.1f} - {one['images_per_second']['max']:.1f}",
            "x plain": _shown(one["ratio_to"].get(PLAIN), "{:.2f}"),
            "x plain+cudnn": _shown(one["ratio_to"].get(CUDNN), "{:.2f}"),
            "% of synthetic": _shown(one["ratio_to"].get(_synthetic(one)), "{:.0%}"),
            "% of peak": _shown(one.get("peak_share"), "{:.1%}"),
            "% of floor": _shown(one.get("floor_share"), "{:.1%}"),
            "format": one["precision"] if result["part"] != "input" else "",
            "memory MiB": _shown(one["peak_gpu_mib"] or one["peak_rss_mib"], "{:,.0f}"),
        }
        for one in result["contestants"]
    ]
    if not rows:
        return f"{result['title']}: no contestant finished"
    return f"### {result['title']}\n\n{_table(rows)}"


def _synthetic(one: dict[str, Any]) -> str:
    """The contestant that computes the same on pixels that lie on the device; '' for the plain
    recipe."""
    if one["recipe"] != "ours":
        return ""
    return FAST_SYNTHETIC if "fast" in one["switches"] else SYNTHETIC


def _shown(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)


def _table(rows: Sequence[dict[str, str]]) -> str:
    columns = [name for name in rows[0] if any(row.get(name) for row in rows)]
    cells = [[row.get(name, "") for name in columns] for row in rows]
    align = ("left", *("right",) * (len(columns) - 1))
    return tabulate(cells, columns, tablefmt="github", colalign=align, disable_numparse=True)


def memory_result(job: Job, answer: dict[str, Any] | None) -> dict[str, Any]:
    """Peak memory of one fresh process; None where it did not finish."""
    peak = None if answer is None else answer["peak_gpu_mib"] or answer["peak_rss_mib"]
    return {"work": job.work, "model": job.model, "batch_size": job.batch_size, "contestant": job.contestant,
            "peak_mib": peak}  # fmt: skip


def memory_tables(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One table per kind of work and model: contestants by batch size, in MiB."""
    for work, model in dict.fromkeys((one["work"], one["model"]) for one in found):
        chosen = [one for one in found if (one["work"], one["model"]) == (work, model)]
        rows: dict[str, dict[str, str]] = {}
        for one in chosen:
            row = rows.setdefault(one["contestant"], {"peak memory in MiB": one["contestant"]})
            row[f"batch {one['batch_size']}"] = (
                "failed" if one["peak_mib"] is None else f"{one['peak_mib']:,.0f}"
            )
        names = {name: "" for row in rows.values() for name in row}
        yield f"### memory of {work}, {model}\n\n{_table([names | row for row in rows.values()])}"


def computed_trainings(
    results: Sequence[dict[str, Any]], models: Sequence[str]
) -> list[dict[str, Any]]:
    """What training every model would take, by contestant and batch size, computed from the
    measured rates of `epoch`.

    Rate: N / sum_m 1 / rate_m, images per second if all N models see equally many. Hours: `EPOCHS`
    epochs over `TRAINING_IMAGES` images per model, one model after the other, without validation
    and start.
    """
    epochs = [result for result in results if result["part"] == "epoch"]
    by_contestant: dict[tuple[int, str], dict[str, float]] = {}
    for result in epochs:
        for one in result["contestants"]:
            key = (result["batch_size"], one["contestant"])
            by_contestant.setdefault(key, {})[result["model"]] = one["images_per_second"]["median"]
    found = []
    for (batch_size, contestant), rate in by_contestant.items():
        if set(rate) == set(models):
            seconds = sum(1 / value for value in rate.values())
            found.append({"batch_size": batch_size, "contestant": contestant, "images_per_second": len(rate) / seconds,
                          "hours": EPOCHS * TRAINING_IMAGES * seconds / 3600})  # fmt: skip
    return found


def computed_table(found: Sequence[dict[str, Any]], models: Sequence[str]) -> str:
    """`computed_trainings` as text."""
    rows = [
        {"contestant": f"{one['contestant']}, batches of {one['batch_size']}",
         "images/s over all models": f"{one['images_per_second']:.1f}", "hours, computed": f"{one['hours']:,.1f}"}
        for one in found
    ]  # fmt: skip
    number = counted(len(models), "model")
    title = f"### Training {number}: {EPOCHS} epochs over {TRAINING_IMAGES:,} images each"
    about = "Computed from the rates measured above, not measured: one model after the other, without validation. Models"
    return f"{title}\n\n{about}: {'; '.join(models)}.\n\n{_table(rows)}"


def limit_lines(limits: dict[str, Any]) -> list[str]:
    """What was measured of the machine."""
    peaks = ", ".join(
        f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in limits["peak"].items()
    )
    return [
        f"matrix products: {peaks}; copy: {limits['bandwidth'] / 1e9:.3g} GB/s; {limits['threads']} threads"
    ]


def header(result: dict[str, Any]) -> str:
    """The machine, what was measured of it, and doubts."""
    limits = limit_lines(result["limits"]) if result["limits"] else []
    doubts = [f"WARNING: {line}" for line in result["warnings"]]
    return "\n".join(f"- {line}" for line in [*doubts, *machine_lines(result["machine"]), *limits])


def tables(result: dict[str, Any]) -> Iterator[str]:
    """Every table of a result."""
    yield from map(group_table, result["results"])
    yield from memory_tables(result["memory"])
    if result["computed"]:
        yield computed_table(result["computed"], result["settings"]["models"])


def failure_lines(result: dict[str, Any]) -> list[str]:
    """Who did not finish, and why."""
    about = "FAILED: {contestant} ({part} of {work}, {model}, batches of {batch_size}): {message}"
    return [about.format(**one) for one in result["failures"]]


def markdown(result: dict[str, Any]) -> str:
    """The whole result as a Markdown page."""
    command = f"    {result['command']}"
    parts = [
        "# Benchmark: the plain recipe and ours",
        f"{result['date']}\n\n{command}",
        header(result),
        NOTES,
    ]
    return "\n\n".join([*parts, *tables(result), *failure_lines(result)]) + "\n"
