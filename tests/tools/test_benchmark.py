"""The benchmark: both recipes compute the same, contestants take turns, results follow from what
was measured."""

import json
import os
import re
import shlex
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
from torch import nn

from tests.conftest import REPOSITORY, make_set
from tools.benchmark import __main__ as benchmark
from tools.benchmark import machine, report
from tools.benchmark.contest import compete
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
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmarks = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = benchmarks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 6 drawn images."""
    folder = tmp_path_factory.mktemp("root")
    link_images(folder, None, 6)
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for the sockets of workers, as pytest's are not."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def tiny(root: Path, **changes: Any) -> Job:
    """Return a job on 32x32 pixels and few images."""
    values = {"part": "step", "contestant": "plain", "size": 32, "batch_size": 4, "images": 6}
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


def test_recipes_score_the_same_pixels(tmp_path: Path) -> None:
    make_set(tmp_path / "data" / "train" / "car", 3, size=50)
    link_images(tmp_path, tmp_path / "data", 6)
    job = tiny(tmp_path, part="evaluation", batch_size=2, switches=("not compiled",))
    plain, ours = Plain(job), Ours(job)
    loaded = [
        [torch.cat(column) for column in zip(*recipe.loader, strict=True)]
        for recipe in (plain, ours)
    ]
    (expected, labels), (images, own_labels) = loaded
    assert labels.tolist() == own_labels.tolist() == [0] * 3 + [1] * 3
    assert images.shape == (6, 3, 32, 32) and (images - expected).abs().max() < 1e-6
    scored = plain.evaluation(), ours.evaluation()
    assert [outcome.images for outcome in scored] == [6, 6]
    assert scored[1].check == pytest.approx(scored[0].check, rel=1e-4)


@pytest.mark.parametrize(("recipe", "source"), [(Plain, "files"), (Ours, "files"), (Ours, "cache")])
def test_an_epoch_has_every_image_once(root: Path, recipe: Any, source: str) -> None:
    batches = list(recipe(tiny(root, part="epoch", source=source)).training_batches())
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0, 0, 0, 1, 1, 1]


def test_plain_comes_first_and_ours_follows() -> None:
    opt = benchmark.checked(["--device", "cpu", "--batch_size", "4", "8", "--models", *MODELS])
    groups = list(benchmark.plan(opt, "folder"))
    # loading does not depend on the model
    assert [(jobs[0].part, jobs[0].model) for jobs in groups if jobs[0].batch_size == 8] == [
        (part, model)
        for part in ("forward", "step", "input", "evaluation", "epoch")
        for model in MODELS[: 1 if part == "input" else 2]
    ]
    assert all(len({(job.batch_size, job.model) for job in jobs}) == 1 for jobs in groups)


@pytest.mark.parametrize(
    ("part", "device", "compiled", "names"),
    [
        ("forward", "cuda", True, "plain; ours"),
        ("forward", "cpu", False, "plain; ours (not compiled)"),
        ("evaluation", "cuda", True, "plain; ours; ours, cached"),
        ("step", "cpu", True, "plain; ours"),
        ("step", "cuda", True, "plain; ours; ours --fast (fast)"),
        ("epoch", "cuda", True, "plain; ours; ours, cached; ours --fast (fast); "
         "ours --fast, cached (fast)"),
        ("epoch", "cuda", False, "plain; ours (not compiled); ours, cached (not compiled)"),
    ],
)  # fmt: skip
def test_contestants(part: str, device: str, compiled: bool, names: str) -> None:
    jobs = benchmark.contestants(tiny(Path(), part=part, device=device), compiled)
    switches = [f" ({job.switches[0]})" if job.switches else "" for job in jobs]
    assert "; ".join(job.contestant + s for job, s in zip(jobs, switches, strict=True)) == names
    assert [job.recipe for job in jobs] == ["plain"] + ["ours"] * (len(jobs) - 1)
    assert all((job.source == "cache") == ("cached" in job.contestant) for job in jobs)


def test_images_are_taken_evenly_and_both_classes_are_needed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_set(data / "train" / "car", 6)
    link_images(tmp_path / "few", data, 5)
    names = [
        [link.resolve().name for link in sorted((tmp_path / "few/train/images" / name).iterdir())]
        for name in ("0_real", "1_fake")
    ]
    assert names == [["000.png", "002.png", "004.png"], ["000.png", "003.png"]]
    link_images(tmp_path / "many", data, 20)
    many = list((tmp_path / "many").glob("train/images/0_real/*"))
    assert len(many) == 10 and len({link.resolve() for link in many}) == 6
    for file in (data / "train/car/1_fake").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no 1_fake images"):
        link_images(tmp_path / "none", data, 4)
    with pytest.raises(UserError, match="has no folder train/"):
        link_images(tmp_path, tmp_path, 4)


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


def test_matrix_peak_is_the_rate_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.MATRIX_SIDES, "cpu", (32, 256))
    matrix = torch.randn(256, 256)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        matrix.mm(matrix)
        times.append(time.perf_counter() - start)
    by_hand = 2 * 256**3 / min(times)
    peaks = machine.matrix_peaks("cpu", torch.get_num_threads())
    assert by_hand / 10 < peaks["fp32"] < by_hand * 10


def played(job: Job, *seconds: float) -> Any:
    """Return a contestant that needed so long for its rounds of 8 images."""
    answer = {"images": 8, "check": 0.5, "precision": "fp32", "threads": 1}
    memory = {"peak_rss_mib": 100.0, "peak_gpu_mib": None}
    rounds = [answer | memory | {"seconds": each} for each in seconds]
    return SimpleNamespace(job=job, failure=None, rounds=rounds)


def test_results_by_hand(root: Path) -> None:
    jobs = [tiny(root, contestant=name, recipe=name) for name in ("plain", "ours")]
    contestants = [played(jobs[0], 2.0, 4.0, 4.0), played(jobs[1], 1.0, 1.0, 8.0)]
    group = report.group_result(contestants, {"fp32": 1e9})
    plain, ours = group["contestants"]
    assert plain["images_per_second"] == {"median": 2.0, "min": 2.0, "max": 4.0}
    assert ours["images_per_second"] == {"median": 8.0, "min": 1.0, "max": 8.0}
    assert (plain["ratio_to"]["plain"], ours["ratio_to"]["plain"]) == (1, 2)  # of 2, 4, 1/2
    seconds_at_peak = ours["operations"] / 1e9
    assert ours["peak_share"] == pytest.approx(seconds_at_peak / (4 / 8.0))  # 4 images a batch
    assert ours["operations"] == pytest.approx(3 * 4 * 3.43e9 / 49, rel=0.1)  # 224 / 32 = 7
    assert re.search(r"\| ours +\| +8.0 \| +1.0 - 8.0 \| +2.00 \|", report.group_table(group))


def test_loading_has_no_share_of_the_peak(root: Path) -> None:
    group = report.group_result([played(tiny(root, part="input"), 1.0)], {"fp32": 1e9})
    assert "peak_share" not in group["contestants"][0] and "peak" not in report.group_table(group)


# turns


FAKE = """
import json, os, sys
job = json.loads(sys.argv[1])
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
    a, dies, b, killed, fails = fake_compete([tiny(tmp_path, contestant=n) for n in names], 3)
    turns = " ".join((tmp_path / "turns").read_text().split())
    assert turns == "a dies b killed fails a dies b a dies b" + " a b" * 3
    for contestant in (a, b):
        assert contestant.failure is None
        assert [answer["seconds"] for answer in contestant.rounds] == [4, 5, 6]
    assert [contestant.failure for contestant in (dies, killed, fails)] == [
        "its process ended with status 3",
        "its process ended with status -9",
        "no more coffee",
    ]


@pytest.mark.slow
def test_an_error_is_one_line(tmp_path: Path) -> None:
    (contestant,) = compete([tiny(tmp_path, part="epoch")], 1)  # there are no images
    assert contestant.failure is not None and "FileNotFoundError" in contestant.failure
    assert "\n" not in contestant.failure


def test_a_dead_contestant_makes_the_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(benchmark, "compete", fake_compete)
    monkeypatch.setattr(benchmark, "matrix_peaks", lambda device, threads: {"fp32": 1e12})
    words = "--device cpu --parts step --models single_scale --size 32 --images 2 --rounds 3"
    assert benchmark.main([*words.split(), "--output", str(tmp_path / "out.json")]) == 1
    failed = "FAILED: ours (step, single_scale, batches of 32): its process ended with status 3"
    assert failed in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert [result["contestant"] for result in written["results"][0]["contestants"]] == ["plain"]
    assert written["failures"][0]["message"].endswith("status 3") and written["finished"]
    assert failed in (tmp_path / "out.md").read_text()


def processes_with(variable: str) -> list[int]:
    """Return the other processes whose environment has this 'NAME=value'."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in pids if pid != os.getpid()]


INTERRUPTED = """
from functools import partial
from tools.benchmark import __main__ as benchmark
from util import run_script
benchmark.matrix_peaks = lambda device, threads: {}
benchmark.compete = partial(benchmark.compete, command=["sh", "-c", "sleep 600 & wait"])
words = "--device cpu --parts input --size 32 --images 2"
run_script(lambda: benchmark.main(words.split()))
"""


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"
)
def test_ctrl_c_ends_all_contestants_and_removes_the_temporary_folder(scratch: Path) -> None:
    environment = os.environ | {"TMPDIR": str(scratch), "NPR_TEST": "interrupted"}
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=REPOSITORY, env=environment,
                          stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:  # fmt: skip
        limit = time.monotonic() + 180
        # itself and three contestants with a worker each
        while len(processes_with("NPR_TEST=interrupted")) < 7 and time.monotonic() < limit:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert running.stderr is not None and running.stderr.read() == b"interrupted\n"
    assert time.monotonic() < limit
    assert not processes_with("NPR_TEST=interrupted") and not list(scratch.iterdir())


# the command


def check(scratch: Path, *words: str) -> dict[str, Any]:
    """Return the result of a real run after checks that hold for every run."""
    settings = shlex.split("--size 32 --batch_size 4 --images 8 --rounds 2 --output")
    settings += [str(scratch / "out.json"), *words]
    command = [sys.executable, "-m", "tools.benchmark", *settings]
    environment = os.environ | {"TMPDIR": str(scratch)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert {path.name for path in scratch.iterdir()} == {"out.json", "out.md"}
    result = json.loads((scratch / "out.json").read_text())
    markdown = (scratch / "out.md").read_text()
    assert result["schema"] == "npr-benchmark/2" and result["finished"] and not result["failures"]
    assert {"cpu", "cores", "versions", "load_average"} <= set(result["machine"])
    busy = result["machine"]["load_average"] > 0.5
    assert ("the load average was" in done.stdout) == busy == bool(result["warnings"])
    for group in result["results"]:
        table = done.stdout.split(f"### {group['title']}\n\n")[1].split("\n\n")[0]
        assert table in markdown
        for contestant in group["contestants"]:
            rates = [contestant["images"] / seconds for seconds in contestant["seconds"]]
            median = contestant["images_per_second"]["median"]
            assert median == pytest.approx(sum(rates) / 2) and f" {median:.1f} " in table
            assert contestant["images"] == 8 and (contestant["peak_rss_mib"] or 1) > 0
            assert group["part"] == "input" or 0 < contestant["peak_share"] < 1.2
    return result


@pytest.mark.slow
def test_a_real_run(scratch: Path) -> None:
    words = ["--device", "cpu", "--models", "0.25,0.5", "--no_compile", "--threads", "1"]
    groups = check(scratch, *words)["results"]
    names = {group["part"]: [c["contestant"] for c in group["contestants"]] for group in groups}
    assert names == {
        "forward": ["plain", "ours"],
        "step": ["plain", "ours"],
        "input": ["plain", "ours", "ours, cached"],
        "evaluation": ["plain", "ours", "ours, cached"],
        "epoch": ["plain", "ours", "ours, cached"],
    }
    assert {c["threads"] for group in groups for c in group["contestants"]} == {1}


@pytest.mark.gpu
@pytest.mark.slow
def test_a_real_run_on_a_gpu(scratch: Path) -> None:
    check(scratch, "--device", "cuda", "--models", "0.25,0.5")


@pytest.mark.slow
def test_compiled_scoring(root: Path) -> None:
    job = partial(tiny, root, part="forward", batch_size=2)
    compiled, plain = Ours(job()), Ours(job(switches=("not compiled",)))
    logits = [recipe.logits(recipe.scoring_batch) for recipe in (compiled, plain)]
    assert torch.allclose(*logits, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    (
        ("--parts ablation", "--parts: invalid choice: 'ablation'"),
        ("--models resnet", "--models: 'resnet' is not a scale"),
        ("--rounds 0", "--rounds: 0 is not a whole number from 1 up"),
        ("--output out.txt", "--output: out.txt cannot be written; .* ends with .json"),
        ("--output no/such/folder.json", "--output: no/such/folder.json cannot be written"),
    ),
)
def test_wrong_flags_end_with_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(words.split())
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and errors.count("\n") == 1 and re.search(message, errors)


def test_a_temporary_folder_that_would_hang_the_loaders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(UserError, match="TMPDIR .* too long"):
        benchmark.main(["--device", "cpu"])
