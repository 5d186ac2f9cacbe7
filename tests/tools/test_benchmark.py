"""The benchmark: both recipes compute the same thing, contestants take turns, figures follow from
what was measured."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import REPOSITORY, make_set
from tools.benchmark import __main__ as benchmark
from tools.benchmark import limits, report
from tools.benchmark.ours import Ours
from tools.benchmark.pictures import make_root
from tools.benchmark.plain import Plain
from tools.benchmark.plan import MEMORY_BATCHES, PARTS, memory_jobs, plan
from tools.benchmark.recipe import Job, Recipe
from tools.benchmark.rounds import Contestant, compete, median_ratio, play_once, rates
from util import UserError

MODELS = ("single_scale", "0.25,0.5")


@pytest.fixture(autouse=True)
def stock_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What recipes set for their whole process does not stay in this one."""
    monkeypatch.setattr("tools.benchmark.ours.keep_freed_memory", lambda: True)
    deterministic, benchmarks = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = benchmarks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of 6 drawn pictures."""
    return make_root(tmp_path_factory.mktemp("root"), None, 6)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for the sockets of loading workers, as pytest's are not."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def tiny(root: Path, **changes: Any) -> Job:
    """A job on 32x32 pixels and few images."""
    values = {
        "part": "step",
        "work": "step",
        "contestant": "one",
        "size": 32,
        "batch_size": 4,
        "images": 6,
    }
    return Job(
        **(
            values
            | {"data": str(root), "cache": str(root / "cache"), "precision": "fp32"}
            | changes
        )
    )


def both(job: Job) -> tuple[Recipe, Recipe]:
    return Plain(job), Ours(job)


# what is compared


@pytest.mark.parametrize("model", MODELS)
def test_recipes_have_the_same_weights_logits_and_losses(root: Path, model: str) -> None:
    recipes = both(tiny(root, model=model, switches=("not compiled",)))
    found = []
    for recipe in recipes:
        recipe.begin(training=False)
        logits = recipe.logits(recipe.to_score).clone()
        recipe.begin(training=True)
        losses = []
        for seed in range(3):
            torch.manual_seed(seed)  # dropout
            losses.append(recipe.train_step(*recipe.in_memory))
        found.append((logits, torch.stack(losses)))
    (plain, plain_losses), (ours, our_losses) = found
    assert plain.std() > 1e-3
    assert torch.allclose(plain, ours, rtol=1e-5, atol=1e-5)
    assert torch.allclose(plain_losses, our_losses, rtol=1e-3)
    assert plain_losses[0] != plain_losses[1]


@pytest.mark.parametrize("model", MODELS)
def test_only_the_plain_stem_has_relu_before_pooling(root: Path, model: str) -> None:
    recipes = both(tiny(root, model=model))
    order: list[str] = []
    for recipe in recipes:
        for module in recipe.model.modules():  # type: ignore[attr-defined]
            if isinstance(module, nn.MaxPool2d):
                module.register_forward_hook(
                    lambda m, given, out: order.append("pool negative" if out.min() < 0 else "pool")
                )
        recipe.model.eval()(recipe.in_memory[0])  # type: ignore[attr-defined]
    stems = len(order) // 2
    assert order == ["pool"] * stems + ["pool negative"] * stems
    assert stems == (1 if model == "single_scale" else 2)


def test_plain_pixels_are_ours(tmp_path: Path) -> None:
    make_set(tmp_path / "train" / "car", 3, size=50)
    plain, ours = both(tiny(tmp_path, batch_size=2))
    batches = list(ours.evaluation_loader)  # type: ignore[attr-defined]
    theirs = list(plain.evaluation_loader.dataset)  # type: ignore[attr-defined]
    images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    assert (
        images.shape == (6, 3, 32, 32)
        and labels.tolist() == [label for _, label in theirs] == [0] * 3 + [1] * 3
    )
    assert (images - torch.stack([image for image, _ in theirs])).abs().max() < 1e-6


@pytest.mark.parametrize("source", ("files", "cache", "memory"))
def test_an_epoch_has_every_image_once(root: Path, source: str) -> None:
    for recipe in both(tiny(root, source=source)):
        batches = list(recipe.training_batches())
        assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0, 0, 0, 1, 1, 1]


@torch.no_grad()
def test_branches_in_one_pass_have_the_same_logits(root: Path) -> None:
    plain, one_pass = (
        Plain(tiny(root, model="0.25,0.5", switches=switches)) for switches in ((), ("one pass",))
    )
    plain.begin(training=False)
    assert torch.allclose(plain.logits(plain.to_score), one_pass.logits(plain.to_score), atol=1e-5)


@pytest.mark.slow
def test_the_exported_graph_has_the_plain_logits(root: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from tools.benchmark.exported import Exported

    plain, exported = (kind(tiny(root, model="0.25", batch_size=3)) for kind in (Plain, Exported))
    plain.begin(training=False)
    found = exported.logits(exported.to_score)
    assert found.shape == (3, 1) and torch.allclose(plain.logits(plain.to_score), found, atol=1e-4)
    assert exported.forward().images == 6


@pytest.mark.parametrize(
    ("argv", "says"),
    (
        (
            ["--parts", "export", "--device", "cpu"],
            "needs onnxscript; run: pip install -r requirements-export.txt",
        ),
        (["--parts", "all", "--device", "cpu"], None),
    ),
)
def test_what_is_not_installed_is_left_out_unless_it_is_asked_for(
    argv: list[str],
    says: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(
        benchmark, "find_spec", lambda name: None if name == "onnxscript" else object()
    )
    if says is None:
        assert benchmark.checked(argv).parts == [part for part in PARTS if part != "export"]
        return
    with pytest.raises(SystemExit):
        benchmark.checked(argv)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("device", ("cpu", "cuda"))
def test_every_group_begins_with_plain_and_has_ours(root: Path, device: str) -> None:
    base = tiny(root, device=device)
    groups = plan([*PARTS], MODELS, [4, 8], base, compiled=True)
    assert [group.part for group in groups if group.batch_size == 4 and group.model in ("", MODELS[0])] == [
        "forward", "step", "input", "evaluation", "epoch", "export", "ablation", "ablation",
    ]  # fmt: skip
    for group in groups:
        names = [job.contestant for job in group.jobs]
        assert names[0] == "plain" and "ours" in names and len(set(names)) == len(names)
        assert ("plain+cudnn" in names) == (device == "cuda")
        assert {job.batch_size for job in group.jobs} - {1} == {group.batch_size}
        switches = {switch for job in group.jobs for switch in job.switches}
        assert ("cudnn" in switches) == (device == "cuda")
        without = plan([group.part], [group.model or MODELS[0]], [4], base, compiled=False)
        assert not {switch for one in without for job in one.jobs for switch in job.switches} & {
            "fast",
            "compile",
        }
    sizes = [[job.batch_size for job in jobs] for jobs in memory_jobs(MODELS, base, compiled=True)]
    assert all(one == list(MEMORY_BATCHES[device]) for one in sizes)


def test_a_job_survives_its_way_to_another_process(root: Path) -> None:
    job = tiny(root, switches=("bf16",), environment={"A": "1"}, threads=2)
    assert Job.from_json(job.to_json()) == job


def test_pictures_are_taken_evenly_and_both_classes_are_needed(tmp_path: Path) -> None:
    make_set(tmp_path / "data" / "train" / "car", 6)
    (tmp_path / "few").mkdir()
    made = make_root(tmp_path / "few", tmp_path / "data", 5)
    chosen = [
        [link.resolve().name for link in sorted(folder.iterdir())]
        for folder in sorted((made / "train/pictures").iterdir())
    ]
    assert chosen == [["000.png", "002.png", "004.png"], ["000.png", "003.png"]]
    (tmp_path / "many").mkdir()
    assert (
        len(
            list(
                make_root(tmp_path / "many", tmp_path / "data", 20).glob("train/pictures/0_real/*")
            )
        )
        == 10
    )
    make_set(tmp_path / "half" / "train" / "car", 2)
    for file in (tmp_path / "half/train/car/1_fake").iterdir():
        file.unlink()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no 1_fake images"):
        make_root(tmp_path / "none", tmp_path / "half", 4)


# limits and figures


class Small(nn.Module):
    """A convolution 3 -> 4 of 3x3 that keeps the size, a mean over positions, a linear layer 4 ->
    1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(images).mean((2, 3)))


def test_operations_and_bytes_of_a_small_network_by_hand() -> None:
    batch, side = 6, 8
    conv, linear = 2 * batch * side**2 * 4 * 3 * 9, 2 * batch * 4
    assert limits.operations(Small(), batch, side, training=False) == conv + linear
    # backward: gradient of the weights of both, gradient of the input of the second only
    assert limits.operations(Small(), batch, side, training=True) == 2 * conv + 3 * linear
    numbers = batch * side**2 * (3 + 4) + 4 * 3 * 9 + batch * (4 + 1) + 5
    assert limits.traffic(Small(), batch, side, False, 2) == 2 * numbers
    of_linear = batch * (4 + 1) + 5
    assert limits.traffic(Small(), batch, side, True, 4) == 4 * (2 * numbers + of_linear) + 28 * (
        4 * 3 * 9 + 5
    )


def test_floor_is_the_longer_of_computing_and_moving() -> None:
    assert limits.floor_seconds(10, 4, peak=5, bandwidth=1) == 4
    assert limits.floor_seconds(10, 4, peak=2, bandwidth=1) == 5


def test_shares_of_the_limits(root: Path) -> None:
    measured = {"peak": {"fp32": 1e9}, "bandwidth": 1e12}
    network = limits.network_of("single_scale")
    seconds = 2 * limits.operations(network, 4, 32, training=True) / 1e9
    found = limits.against_limits(tiny(root), seconds, "fp32", measured)
    assert found["peak_share"] == found["floor_share"] == pytest.approx(0.5)
    assert limits.against_limits(tiny(root), seconds, "bf16", measured) == {}
    assert limits.against_limits(tiny(root, work="input"), seconds, "fp32", measured) == {}


def test_ratio_is_the_median_of_the_rounds() -> None:
    answers = [{"seconds": seconds, "images": 10} for seconds in (1.0, 2.0, 5.0)]
    assert rates(answers) == [10, 5, 2]
    assert median_ratio([10, 5, 2], [5, 5, 0.5]) == 2  # of 2, 1, 4


@given(
    st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)), min_size=1, max_size=9),
    st.floats(0.1, 10),
)
def test_a_contestant_that_is_faster_by_a_factor_has_a_ratio_larger_by_it(
    rounds: list[tuple], factor: float
) -> None:
    ours, plain = ([pair[number] for pair in rounds] for number in (0, 1))
    assert median_ratio([factor * rate for rate in ours], plain) == pytest.approx(
        factor * median_ratio(ours, plain)
    )
    assert median_ratio(plain, plain) == 1


def test_hours_of_all_trainings_by_hand() -> None:
    def epoch(model: str, rate: float) -> dict[str, Any]:
        one = {"contestant": "ours", "images_per_second": {"median": rate}}
        return {"part": "epoch", "model": model, "batch_size": 32, "contestants": [one]}

    results = [
        epoch("a", 100.0),
        epoch("b", 50.0),
        {"part": "step", "model": "b", "batch_size": 32, "contestants": []},
    ]
    (found,) = report.computed_trainings(results, ["a", "b"])
    assert found["images_per_second"] == pytest.approx(2 / (1 / 100 + 1 / 50))
    assert found["hours"] == pytest.approx(50 * 144_024 * 0.03 / 3600)
    assert report.computed_trainings(results, ["a", "b", "c"]) == []


# turns


FAKE = """
import json, os, sys
job = json.loads(sys.stdin.readline())
for number, _ in enumerate(sys.stdin):
    with open(job["data"], "a") as file:
        print(job["contestant"], file=file)
    if job["contestant"] in ("dies", "ours") and number == 2:
        sys.exit("first line\\nno more coffee")
    if job["contestant"] == "killed":
        os.kill(os.getpid(), 9)
    print(json.dumps({"seconds": 1 + number, "images": 12, "precision": "fp32", "threads": 1, "check": 0.5,
                      "peak_rss_mib": 1.0, "peak_gpu_mib": None}), flush=True)
"""


def fake_command() -> list[str]:
    return [sys.executable, "-S", "-c", FAKE]


def test_contestants_take_turns_after_a_warm_up_and_the_dead_are_named(tmp_path: Path) -> None:
    jobs = [
        tiny(tmp_path, contestant=name, data=str(tmp_path / "turns"))
        for name in ("a", "dies", "b", "killed")
    ]
    said: list[str] = []
    a, dies, b, killed = compete(jobs, 3, said.append, fake_command())
    turns = (tmp_path / "turns").read_text().split()
    assert turns == ["a", "dies", "b", "killed", "a", "dies", "b", "a", "dies", "b", "a", "b"]
    assert rates(a.answers) == rates(b.answers) == [12 / 2, 12 / 3, 12 / 4]
    assert a.failure is None and dies.answers == []
    assert dies.failure == "ended with status 1 | first line | no more coffee"
    assert killed.failure == "was killed by signal 9"
    assert said[0] == "warm-up: a" and said[-1] == "round 3/3: b"


def test_a_dead_contestant_makes_the_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def limits_only(job: Job) -> dict[str, Any]:
        return {"peak": {"fp32": 1e12}, "bandwidth": 1e9, "threads": 1}

    monkeypatch.setattr(benchmark, "compete", partial(compete, command=fake_command()))
    monkeypatch.setattr(benchmark, "play_once", limits_only)
    monkeypatch.setattr(benchmark, "make_root", lambda scratch, data, images: scratch / "turns")
    argv = [
        "--device",
        "cpu",
        "--parts",
        "step",
        "--models",
        "single_scale",
        "--size",
        "32",
        "--rounds",
        "3",
    ]
    assert benchmark.main([*argv, "--output", str(tmp_path / "out.json")]) == 1
    said = capsys.readouterr()
    assert (
        "FAILED: ours (step of step, single_scale, batches of 32): ended with status 1 | first line"
        in said.out
    )
    assert said.err == "limits ...\nstep ...\n"
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["contestant"] for one in written["results"][0]["contestants"]] == ["plain"]
    assert written["failures"][0]["message"].endswith("no more coffee") and written["finished"]
    assert "FAILED: ours" in (tmp_path / "out.md").read_text()


def processes_with(variable: str) -> list[int]:
    """Processes whose environment has this 'NAME=value'."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def cpu_ticks(process: int) -> int:
    """User and system time of a process, in clock ticks."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"
)


@needs_proc
@pytest.mark.slow
def test_an_idle_contestant_and_its_workers_do_nothing_and_end_with_it(
    root: Path, scratch: Path
) -> None:
    environment = {"NPR_TEST": "idle", "TMPDIR": str(scratch)}
    for recipe in ("plain", "ours"):
        contestant = Contestant(
            tiny(root, part="epoch", work="epoch", recipe=recipe, environment=environment)
        )
        try:
            assert contestant.play()["images"] == 6
            time.sleep(0.5)
            processes = processes_with("NPR_TEST=idle")
            assert len(processes) >= 2  # itself and at least one worker
            before = sum(map(cpu_ticks, processes))
            time.sleep(2)
            assert sum(map(cpu_ticks, processes)) - before <= 4  # 2 % of a core
        finally:
            contestant.close()
        assert not processes_with("NPR_TEST=idle")


@needs_proc
def test_ctrl_c_ends_all_contestants_and_removes_the_temporary_folder(scratch: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tools.benchmark",
        "--device",
        "cpu",
        "--parts",
        "input",
        "--images",
        "2",
    ]
    environment = os.environ | {"TMPDIR": str(scratch), "NPR_TEST": "interrupted"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.DEVNULL) as running:  # fmt: skip
        assert running.stderr is not None and running.stderr.readline() == "input ...\n"
        limit = time.monotonic() + 180
        while (
            len(started := processes_with("NPR_TEST=interrupted")) < 4 and time.monotonic() < limit
        ):
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert running.stderr.read() == "interrupted\n"
    assert len(started) >= 4  # itself, three contestants, perhaps their workers
    assert not processes_with("NPR_TEST=interrupted") and not list(scratch.iterdir())


# the command


def run(scratch: Path, *argv: str) -> tuple[dict[str, Any], str]:
    """The result of a real run, and what it printed."""
    command = [
        sys.executable,
        "-m",
        "tools.benchmark",
        "--size",
        "32",
        "--batch_size",
        "4",
        "--images",
        "8",
        *argv,
    ]
    environment = os.environ | {"TMPDIR": str(scratch)}
    command += ["--rounds", "2", "--output", str(scratch / "out.json")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert {path.name for path in scratch.iterdir()} == {"out.json", "out.md"}
    return json.loads((scratch / "out.json").read_text()), done.stdout


def check(result: dict[str, Any], printed: str, markdown: str) -> None:
    """What every result has."""
    assert result["schema"] == "npr-benchmark/1" and result["finished"] and not result["failures"]
    assert {"cpu", "cores", "instructions", "memory_gib", "versions", "load_average"} <= set(
        result["machine"]
    )
    assert (
        ("the load average was" in printed)
        == (result["machine"]["load_average"] > 0.5)
        == bool(result["warnings"])
    )
    for group in result["results"]:
        for one in group["contestants"]:
            per_second = sorted(one["images"] / seconds for seconds in one["seconds"])
            rate = one["images_per_second"]
            assert [rate["min"], rate["median"], rate["max"]] == pytest.approx(
                [per_second[0], sum(per_second) / 2, per_second[1]]
            )
            assert (
                one["ratio_to"]["plain"] == pytest.approx(1)
                if one["contestant"] == "plain"
                else True
            )
            assert one["images"] == 8 and (one["peak_rss_mib"] or 1) > 0
            row = next(line for line in printed.split(f"### {group['title']}\n")[1].splitlines()
                       if re.match(rf"\| {re.escape(one['contestant'])} +\|", line))  # fmt: skip
            assert (
                f" {rate['median']:.1f} " in row
                and f" {one['ratio_to']['plain']:.2f} " in row
                and row in markdown
            )


TINY_RUN = ("--device", "cpu", "--models", "0.25,0.5", "--no_compile", "--threads", "1")


def contestants(result: dict[str, Any]) -> dict[str, list[str]]:
    return {
        group["part"]: [one["contestant"] for one in group["contestants"]]
        for group in result["results"]
    }


@pytest.mark.slow
def test_a_real_run(scratch: Path) -> None:
    result, printed = run(scratch, *TINY_RUN, "--parts", "forward")
    check(result, printed, (scratch / "out.md").read_text())
    assert contestants(result) == {"forward": ["plain", "ours"]}
    assert {one["threads"] for group in result["results"] for one in group["contestants"]} == {1}
    check_shares(result)


def check_shares(result: dict[str, Any]) -> None:
    """Shares of the matrix peak stand beside what only computes."""
    for group in result["results"]:
        shares = [one.get("peak_share") for one in group["contestants"]]
        if group["part"] in ("forward", "step"):
            assert all(0 < share < 1.2 for share in shares)
        else:
            assert set(shares) == {None}


@pytest.mark.slow
def test_a_real_run_of_all_parts_but_ablation_and_memory(scratch: Path) -> None:
    result, printed = run(scratch, *TINY_RUN)
    check(result, printed, (scratch / "out.md").read_text())
    assert contestants(result) == {
        "forward": ["plain", "ours"],
        "step": ["plain", "ours"],
        "input": ["plain", "ours", "ours, cached"],
        "evaluation": ["plain", "plain, one at a time", "ours", "ours, cached", "ours, synthetic"],
        "epoch": ["plain", "ours", "ours, cached", "ours, synthetic"],
    }
    assert "### Training 1 model: 50 epochs over 144,024 images each" in printed
    assert result["computed"][0]["contestant"] == "plain"
    assert "% of floor" in printed and "% of synthetic" in printed
    check_shares(result)


@pytest.mark.slow
def test_ablation_and_memory(scratch: Path) -> None:
    result, printed = run(
        scratch, "--device", "cpu", "--models", "0.25,0.5", "--no_compile", "--parts", "ablation", "memory"
    )  # fmt: skip
    check(result, printed, (scratch / "out.md").read_text())
    assert {one["batch_size"] for one in result["memory"]} == set(MEMORY_BATCHES["cpu"])
    assert all(one["peak_mib"] > 0 for one in result["memory"]) and "peak memory in MiB" in printed


@pytest.mark.slow
def test_compiled_scoring(root: Path) -> None:
    answer = play_once(tiny(root, part="forward", work="forward", recipe="ours", batch_size=2))
    assert answer["images"] == 6


@pytest.mark.gpu
@pytest.mark.slow
def test_a_real_run_on_a_gpu(scratch: Path) -> None:
    result, printed = run(scratch, "--device", "cuda", "--models", "0.25,0.5", "--parts", "all")
    check(result, printed, (scratch / "out.md").read_text())


def test_help_shows_parts_and_examples(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])
    said = capsys.readouterr().out
    assert (
        ended.value.code == 0
        and all(f"    {part}" in said for part in PARTS)
        and "examples:" in said
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    (
        (["--parts", "speed"], "argument --parts: invalid choice: 'speed'"),
        (["--models", "resnet"], "argument --models: 'resnet' is not a scale"),
        (["--size", "8", "--models", "0.1"], "argument --size 8: leaves no pixel at scale 0.1"),
        (["--rounds", "0"], "argument --rounds: 0 is not a whole number from 1 up"),
        (
            ["--output", "figures.txt"],
            "argument --output figures.txt: give a file name that ends with .json",
        ),
        (
            ["--output", "no/such/folder.json"],
            "argument --output no/such/folder.json: cannot be written there",
        ),
        (["--size", "224", "--fast"], "unrecognized arguments: --fast"),
    ),
)
def test_wrong_flags_end_with_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and message in said


def test_data_without_a_train_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder train/"):
        make_root(tmp_path, tmp_path, 4)


def test_a_temporary_folder_that_would_hang_the_loaders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(UserError, match="too long for the sockets"):
        benchmark.main(["--device", "cpu"])
