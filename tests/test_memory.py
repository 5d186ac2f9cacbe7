"""Long runs: memory must not grow with the number of images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, make_set

PEAK = """
import resource, sys
import test
assert test.main(sys.argv[1:]) == 0
print("peak KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(model: Path, folder: Path, out: Path) -> int:
    """Peak memory in MiB of a test run in a process of its own."""
    argv = ["--model_path", str(model), "--dataroot", str(folder), "--results_dir", str(out), "--gpu_ids", "-1"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *argv, "--num_threads", "2"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.rsplit("peak KiB", 1)[1]) // 1024


def many_names(folder: Path, count: int) -> Path:
    """A set of `count` files that are few pictures under many names."""
    originals = make_set(folder / "few", 10, size=16)
    for path in sorted(originals.rglob("*.png")):
        target = folder / "many" / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for number in range(count // 20):
            os.link(path, target / f"{path.stem}_{number:05d}.png")
    return folder / "many"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(trained: Path, tmp_path: Path) -> None:
    model = trained / "model_epoch_last.pth"
    some = peak_memory(model, many_names(tmp_path / "a", 2_000), tmp_path / "out_a")
    many = peak_memory(model, many_names(tmp_path / "b", 20_000), tmp_path / "out_b")
    with open(next((tmp_path / "out_b").glob("*/predictions.csv"))) as file:
        assert sum(1 for _ in file) == 20_001
    print(f"peak memory: {some} MiB with 2,000 images, {many} MiB with 20,000")
    assert many - some < 100
