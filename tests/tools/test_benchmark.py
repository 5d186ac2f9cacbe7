"""The benchmark: both recipes compute the same, contestants take turns, results follow from what
was measured."""

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
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from tests.conftest import REPOSITORY, make_set
from tools.benchmark import __main__ as benchmark
from tools.benchmark import machine, report
from tools.benchmark.contest import Contestant, compete
from tools.benchmark.images import link_images
from tools.benchmark.ours import Ours
from tools.benchmark.plain import Plain
from tools.benchmark.recipe import Job
from util import UserError

MODELS = ("single_scale", "0.25,0.5")


@pytest.fixture(autouse=True)
def stock_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what recipes set for their whole process."""
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
    """A folder with 6 drawn images."""
    folder = tmp_path_factory.mktemp("root")
    link_images(folder, None, 6)
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for the sockets of workers, as pytest's are not."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def tiny(root: Path, **changes: Any) -> Job:
    """A job on 32x32 pixels and few images."""
    values = {"part": "step", "contestant": "one", "size": 32, "batch_size": 4, "images": 6}
    return Job(**(values | {"folder": str(root), "precision": "fp32"} | changes))


# what is compared


@pytest.mark.parametrize("model", MODELS)
def test_recipes_have_the_same_logits(root: Path, model: str) -> None:
    job = tiny(root, part="forward", model=model, switches=("not compiled",))
    plain, ours = (recipe.logits(recipe.scoring_batch) for recipe in (Plain(job), Ours(job)))
    assert plain.shape == (4, 1) and plain.std() > 1e-3
    assert torch.allclose(plain, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_recipes_have_the_same_losses(root: Path, model: str) -> None:
    plain, ours = Plain(tiny(root, model=model)), Ours(tiny(root, model=model))
    assert ours.trainer.model.training and plain.model.training  # made now, because that seeds
    losses = []
    for recipe in (plain, ours):
        for seed in range(3):
            torch.manual_seed(seed)  # dropout
            losses.append(float(recipe.train_step(*recipe.training_batch)))
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-3)
    assert len(set(losses[:3])) == 3


def test_plain_is_stock_pytorch(root: Path) -> None:
    torch.use_deterministic_algorithms(False)  # other tests in this process ask for them
    model = Plain(tiny(root)).model
    for weight in model.parameters():
        assert weight.dtype == torch.float32 and weight.is_contiguous()
    assert not torch.are_deterministic_algorithms_enabled()


def test_plain_pixels_are_ours(tmp_path: Path) -> None:
    make_set(tmp_path / "data" / "train" / "car", 3, size=50)
    link_images(tmp_path, tmp_path / "data", 6)
    job = tiny(tmp_path, part="evaluation", batch_size=2)
    theirs = list(Plain(job).loader.dataset)
    images, labels = (torch.cat(column) for column in zip(*Ours(job).loader, strict=True))
    assert images.shape == (6, 3, 32, 32)
    assert labels.tolist() == [label for _, label in theirs] == [0] * 3 + [1] * 3
    assert (images - torch.stack([image for image, _ in theirs])).abs().max() < 1e-6


@pytest.mark.parametrize("source", ("files", "cache"))
def test_an_epoch_has_every_image_once(root: Path, source: str) -> None:
    for kind in (Plain, Ours):
        batches = list(kind(tiny(root, part="epoch", source=source)).training_batches())
        assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0, 0, 0, 1, 1, 1]


def test_both_score_every_image_alike(root: Path) -> None:
    job = tiny(root, part="evaluation", switches=("not compiled",))
    plain, ours = Plain(job).evaluation(), Ours(job).evaluation()
    assert plain.images == ours.images == 6
    assert ours.check == pytest.approx(plain.check, rel=1e-4)


@pytest.mark.parametrize("device", ("cpu", "cuda"))
@pytest.mark.parametrize("compiled", (True, False))
def test_plain_comes_first_and_ours_follows(device: str, compiled: bool) -> None:
    opt = benchmark.checked(["--device", "cpu", "--batch_size", "4", "8", "--models", *MODELS])
    opt.device, opt.no_compile = device, not compiled
    groups = list(benchmark.plan(opt, "folder"))
    assert [(jobs[0].part, jobs[0].model) for jobs in groups if jobs[0].batch_size == 8] == [
        (part, model)
        for part in ("forward", "step", "input", "evaluation", "epoch")
        for model in (MODELS if part != "input" else MODELS[:1])
    ]
    for jobs in groups:
        names = [job.contestant for job in jobs]
        expected = ["plain", "ours"]
        if jobs[0].part in ("input", "evaluation", "epoch"):
            expected.append("ours, cached")
        if device == "cuda" and compiled and jobs[0].part in ("step", "epoch"):
            expected += [name.replace("ours", "ours --fast") for name in expected[1:]]
        assert names == expected
        assert all(("fast" in job.switches) == ("--fast" in job.contestant) for job in jobs)
        assert all(("not compiled" in job.switches) == (not compiled) for job in jobs[1:])
        assert len({(job.batch_size, job.model, job.device) for job in jobs}) == 1


def test_images_are_taken_evenly_and_both_classes_are_needed(tmp_path: Path) -> None:
    make_set(tmp_path / "data" / "train" / "car", 6)
    link_images(tmp_path / "few", tmp_path / "data", 5)
    names = [
        [link.resolve().name for link in sorted(folder.iterdir())]
        for folder in sorted((tmp_path / "few/train/images").iterdir())
    ]
    assert names == [["000.png", "002.png", "004.png"], ["000.png", "003.png"]]
    link_images(tmp_path / "many", tmp_path / "data", 20)
    many = list((tmp_path / "many").glob("train/images/0_real/*"))
    assert len(many) == 10 and len({link.resolve() for link in many}) == 6
    make_set(tmp_path / "half" / "train" / "car", 2)
    for file in (tmp_path / "half/train/car/1_fake").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no 1_fake images"):
        link_images(tmp_path / "none", tmp_path / "half", 4)


# results


class Small(nn.Module):
    """A 3x3 convolution 3 -> 4 that keeps the size, global average pooling, a linear layer 4 -> 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(images).mean((2, 3)))


def test_operations_of_a_small_network_by_hand() -> None:
    side = 8
    conv, linear = 2 * side**2 * 4 * 3 * 9, 2 * 4
    assert report.operations(Small(), side, training=False) == conv + linear
    # backward: gradient of the weights of both, gradient of the input of the second only
    assert report.operations(Small(), side, training=True) == 2 * conv + 3 * linear


def test_operations_of_a_known_network() -> None:
    published = 1.814e9  # multiply-adds of torchvision's documentation
    counted = report.operations(resnet18(weights=None), 224, training=False)
    assert counted == pytest.approx(2 * published, rel=2e-3)


def test_matrix_peak_is_the_rate_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.MATRIX_SIDES, "cpu", (32, 256))
    matrix = torch.randn(256, 256)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        matrix.mm(matrix)
        times.append(time.perf_counter() - start)
    by_hand = 2 * 256**3 / min(times)
    assert by_hand / 10 < machine.matrix_peak("cpu", "fp32") < by_hand * 10


def played(job: Job, seconds: list[float]) -> Any:
    """A contestant that needed so long for its rounds of 8 images."""
    answer = {"images": 8, "check": 0.5, "precision": "fp32", "threads": 1}
    memory = {"peak_rss_mib": 100.0, "peak_gpu_mib": None}
    rounds = [answer | memory | {"seconds": one} for one in seconds]
    return SimpleNamespace(job=job, failure=None, rounds=rounds)


def test_results_by_hand(root: Path) -> None:
    names = ("plain", "ours")
    jobs = [tiny(root, contestant=name, recipe=name) for name in names]
    group = report.group_result(
        [played(jobs[0], [2.0, 4.0, 4.0]), played(jobs[1], [1.0, 1.0, 8.0])], {"fp32": 1e9}
    )
    plain, ours = group["contestants"]
    assert plain["images_per_second"] == {"median": 2.0, "min": 2.0, "max": 4.0}
    assert ours["images_per_second"] == {"median": 8.0, "min": 1.0, "max": 8.0}
    assert (plain["ratio_to"]["plain"], ours["ratio_to"]["plain"]) == (1, 2)  # of 2, 4, 1/2
    seconds_at_peak = ours["operations"] / 1e9
    assert ours["peak_share"] == pytest.approx(seconds_at_peak / (4 / 8.0))  # 4 images a batch
    assert ours["operations"] == pytest.approx(3 * 4 * 3.43e9 / 49, rel=0.1)  # 224 / 32 = 7
    table = report.group_table(group)
    assert re.search(r"\| ours +\| +8.0 \| +1.0 - 8.0 \| +2.00 \|", table)


def test_loading_has_no_share_of_the_peak(root: Path) -> None:
    job = tiny(root, part="input", contestant="plain")
    group = report.group_result([played(job, [1.0])], {"fp32": 1e9})
    assert "peak_share" not in group["contestants"][0] and "peak" not in report.group_table(group)


@given(
    st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)), min_size=1, max_size=9),
    st.floats(0.1, 10),
)
def test_a_contestant_that_is_faster_by_a_factor_has_a_ratio_larger_by_it(
    rounds: list[tuple], factor: float
) -> None:
    ours, plain = ([pair[number] for pair in rounds] for number in (0, 1))
    assert report.median_ratio([factor * rate for rate in ours], plain) == pytest.approx(
        factor * report.median_ratio(ours, plain)
    )
    assert report.median_ratio(plain, plain) == 1


# turns


FAKE = """
import json, os, sys
job = json.loads(sys.stdin.readline())
for number, _ in enumerate(sys.stdin):
    with open(job["folder"] + "/turns", "a") as file:
        print(job["contestant"], file=file)
    if job["contestant"] in ("dies", "ours") and number == 2:
        sys.exit(3)
    if job["contestant"] == "killed":
        os.kill(os.getpid(), 9)
    answer = {"seconds": 1 + number, "images": 12, "precision": "fp32", "threads": 1, "check": 0.5,
              "peak_rss_mib": 1.0, "peak_gpu_mib": None}
    if job["contestant"] == "fails":
        answer = {"failure": "no more coffee"}
    print(json.dumps(answer), flush=True)
"""
fake_compete = partial(compete, command=[sys.executable, "-S", "-c", FAKE])


def test_contestants_take_turns_after_a_warm_up_and_the_dead_are_named(tmp_path: Path) -> None:
    names = ("a", "dies", "b", "killed", "fails")
    a, dies, b, killed, fails = fake_compete([tiny(tmp_path, contestant=n) for n in names], 3, "")
    turns = " ".join((tmp_path / "turns").read_text().split())
    assert turns == "a dies b killed fails a dies b a dies b a b"
    for contestant in (a, b):
        assert contestant.failure is None
        assert [answer["seconds"] for answer in contestant.rounds] == [2, 3, 4]
    assert [one.failure for one in (dies, killed, fails)] == [
        "its process ended with status 3",
        "its process ended with status -9",
        "no more coffee",
    ]


@pytest.mark.slow
def test_an_error_is_one_line(tmp_path: Path) -> None:
    job = tiny(tmp_path, part="epoch", contestant="plain")
    (contestant,) = compete([job], 1, "")  # there are no images
    assert contestant.failure is not None and "FileNotFoundError" in contestant.failure
    assert "\n" not in contestant.failure


def test_a_dead_contestant_makes_the_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(benchmark, "compete", fake_compete)
    monkeypatch.setattr(benchmark, "matrix_peaks", lambda device, threads: {"fp32": 1e12})
    argv = [
        "--device",
        "cpu",
        "--parts",
        "step",
        "--models",
        "single_scale",
        "--size",
        "32",
        "--images",
        "2",
        "--rounds",
        "3",
    ]
    assert benchmark.main([*argv, "--output", str(tmp_path / "out.json")]) == 1
    failed = "FAILED: ours (step, single_scale, batches of 32): its process ended with status 3"
    assert failed in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["contestant"] for one in written["results"][0]["contestants"]] == ["plain"]
    assert written["failures"][0]["message"].endswith("status 3") and written["finished"]
    assert failed in (tmp_path / "out.md").read_text()


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
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPR_TEST", "idle")
    link_images(scratch, None, 6)
    for recipe in ("plain", "ours"):
        contestant = Contestant(tiny(scratch, part="epoch", recipe=recipe))
        try:
            contestant.play()
            assert contestant.rounds[0]["images"] == 6
            time.sleep(0.5)
            processes = [pid for pid in processes_with("NPR_TEST=idle") if pid != os.getpid()]
            assert len(processes) >= 2  # itself and at least one worker
            before = sum(map(cpu_ticks, processes))
            time.sleep(2)
            assert sum(map(cpu_ticks, processes)) - before <= 4  # 2 % of a core
        finally:
            contestant.close()
        assert not [pid for pid in processes_with("NPR_TEST=idle") if pid != os.getpid()]


@needs_proc
def test_ctrl_c_ends_all_contestants_and_removes_the_temporary_folder(scratch: Path) -> None:
    argv = ["--device", "cpu", "--parts", "input", "--size", "32", "--images", "2"]
    command = [sys.executable, "-m", "tools.benchmark", *argv]
    environment = os.environ | {"TMPDIR": str(scratch), "NPR_TEST": "interrupted"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.DEVNULL) as running:  # fmt: skip
        limit = time.monotonic() + 180
        while (
            len(started := processes_with("NPR_TEST=interrupted")) < 4 and time.monotonic() < limit
        ):
            time.sleep(0.1)
        time.sleep(1)  # the last contestant gets its job
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert running.stderr is not None and running.stderr.read() == "interrupted\n"
    assert len(started) >= 4  # itself, three contestants, perhaps their workers
    assert not processes_with("NPR_TEST=interrupted") and not list(scratch.iterdir())


# the command


def run(scratch: Path, *argv: str) -> tuple[dict[str, Any], str]:
    """Return the result of a real run, and what it printed."""
    settings = ["--size", "32", "--batch_size", "4", "--images", "8", "--rounds", "2"]
    command = [sys.executable, "-m", "tools.benchmark", *settings, *argv]
    command += ["--output", str(scratch / "out.json")]
    environment = os.environ | {"TMPDIR": str(scratch)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert {path.name for path in scratch.iterdir()} == {"out.json", "out.md"}
    return json.loads((scratch / "out.json").read_text()), done.stdout


def check(result: dict[str, Any], printed: str, markdown: str) -> None:
    """Assert what every result has."""
    assert result["schema"] == "npr-benchmark/2" and result["finished"] and not result["failures"]
    assert {"cpu", "cores", "instructions", "memory_gib", "versions", "load_average"} <= set(
        result["machine"]
    )
    busy = result["machine"]["load_average"] > 0.5
    assert ("the load average was" in printed) == busy == bool(result["warnings"])
    for group in result["results"]:
        for one in group["contestants"]:
            per_second = sorted(one["images"] / seconds for seconds in one["seconds"])
            rate = one["images_per_second"]
            assert [rate["min"], rate["median"], rate["max"]] == pytest.approx(
                [per_second[0], sum(per_second) / 2, per_second[1]]
            )
            assert one["contestant"] != "plain" or one["ratio_to"]["plain"] == pytest.approx(1)
            assert one["images"] == 8 and (one["peak_rss_mib"] or 1) > 0
            assert group["part"] == "input" or 0 < one["peak_share"] < 1.2
            row = next(line for line in printed.split(f"### {group['title']}\n")[1].splitlines()
                       if re.match(rf"\| {re.escape(one['contestant'])} +\|", line))  # fmt: skip
            assert f" {rate['median']:.1f} " in row and row in markdown
            assert f" {one['ratio_to']['plain']:.2f} " in row


@pytest.mark.slow
def test_a_real_run(scratch: Path) -> None:
    argv = ["--device", "cpu", "--models", "0.25,0.5", "--no_compile", "--threads", "1"]
    result, printed = run(scratch, *argv)
    check(result, printed, (scratch / "out.md").read_text())
    assert {
        group["part"]: [one["contestant"] for one in group["contestants"]]
        for group in result["results"]
    } == {
        "forward": ["plain", "ours"],
        "step": ["plain", "ours"],
        "input": ["plain", "ours", "ours, cached"],
        "evaluation": ["plain", "ours", "ours, cached"],
        "epoch": ["plain", "ours", "ours, cached"],
    }
    assert {one["threads"] for group in result["results"] for one in group["contestants"]} == {1}


@pytest.mark.slow
def test_compiled_scoring(root: Path) -> None:
    compiled, folded = (
        Ours(tiny(root, part="forward", batch_size=2, switches=switches))
        for switches in ((), ("not compiled",))
    )
    assert torch.allclose(
        *(recipe.logits(recipe.scoring_batch) for recipe in (compiled, folded)), atol=1e-5
    )


@pytest.mark.gpu
@pytest.mark.slow
def test_a_real_run_on_a_gpu(scratch: Path) -> None:
    result, printed = run(scratch, "--device", "cuda", "--models", "0.25,0.5")
    check(result, printed, (scratch / "out.md").read_text())


def test_help_shows_parts_and_examples(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"    {part}" in text for part in benchmark.PARTS) and "examples:" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    (
        (["--parts", "ablation"], "argument --parts: invalid choice: 'ablation'"),
        (["--models", "resnet"], "argument --models: 'resnet' is not a scale"),
        (["--size", "8", "--models", "0.1"], "argument --size 8: leaves no pixel at scale 0.1"),
        (["--rounds", "0"], "argument --rounds: 0 is not a whole number from 1 up"),
        (
            ["--output", "figures.txt"],
            "argument --output figures.txt: pass a file name that ends with .json",
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


def test_data_without_a_train_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder train/"):
        link_images(tmp_path, tmp_path, 4)


def test_a_temporary_folder_that_would_hang_the_loaders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(UserError, match="TMPDIR .* too long"):
        benchmark.main(["--device", "cpu"])
