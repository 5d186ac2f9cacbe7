"""Long runs: memory must not grow with the number of images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, make_set

PEAK = """
import re, sys
from importlib import import_module
from util import keep_freed_memory
keep_freed_memory()  # as the scripts do
assert import_module(sys.argv[1]).main(sys.argv[2:]) == 0
print("peak KiB", *re.findall(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()))  # getrusage would count the parent's
"""


def peak_memory(script: str, *argv: object, status: int = 0, stdin: str = "") -> int:
    """Peak memory in MiB of a run of a script in a process of its own, without its workers."""
    words = [script, *map(str, argv), "--gpu_ids", "-1", "--num_threads", "2"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK.replace("== 0", f"== {status}"), *words],
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.rsplit("peak KiB", 1)[1]) // 1024


def many_names(folder: Path, count: int) -> Path:
    """A set of `count` files that are few images under many names."""
    originals = make_set(folder / "few", 10, size=16)
    for path in sorted(originals.rglob("*.png")):
        target = folder / "many" / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for number in range(count // 20):
            os.link(path, target / f"{path.stem}_{number:05d}.png")
    return folder / "many"


def lines_in(path: Path) -> int:
    with open(path) as file:
        return sum(1 for _ in file)


@pytest.mark.slow
def test_memory_of_testing_does_not_grow_with_the_number_of_images(
    trained: Path, tmp_path: Path
) -> None:
    def peak(count: int) -> int:
        data = many_names(tmp_path / f"{count}", count)
        return peak_memory("test", "--model_path", trained / "model_epoch_last.pth", "--dataroot", data,
                           "--results_dir", tmp_path / f"out_{count}")  # fmt: skip

    some, many = peak(2_000), peak(20_000)
    assert lines_in(next((tmp_path / "out_20000").glob("*/predictions.csv"))) == 20_001
    assert many - some < 100


@pytest.mark.slow
@pytest.mark.parametrize("cached", (False, True))
def test_memory_of_training_does_not_grow_with_the_number_of_images(
    cached: bool, tmp_path: Path
) -> None:
    def peak(count: int) -> int:
        root = tmp_path / f"{count}"
        make_set(root / "val" / "x", 4, size=16)
        many_names(root / "images", count)
        (root / "train").mkdir()
        (root / "images" / "many").rename(root / "train" / "x")
        cache = ("--cache", tmp_path / "cache") if cached else ()
        return peak_memory("train", "--dataroot", root, "--name", count, "--checkpoints_dir", tmp_path, "--niter", 1,
                           "--no_resize", "--cropSize", 16, "--batch_size", 64, *cache)  # fmt: skip

    assert peak(20_000) - peak(2_000) < 100


@pytest.mark.slow
def test_memory_of_predicting_does_not_grow_with_the_number_of_paths(
    trained: Path, dataroot: Path, tmp_path: Path
) -> None:
    image = next(dataroot.rglob("*.png"))

    def peak(count: int) -> int:
        paths = f"{image}\n" + "/nowhere/image.png\n" * count
        return peak_memory("predict", "--model_path", trained / "model_epoch_last.pth", "-", "--format", "jsonl",
                           "--output", tmp_path / f"{count}.jsonl", stdin=paths, status=1)  # fmt: skip

    some, many = peak(10_000), peak(100_000)
    assert lines_in(tmp_path / "100000.jsonl") == 100_001
    assert many - some < 20
