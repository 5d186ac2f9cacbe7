"""The same seed on the same machine gives the same numbers, to the last bit; docs/determinism.md
says within which limits."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor

from tests.conftest import REPOSITORY, make_dataroot

RUN = """
import importlib, json, sys
for script, *words in json.loads(sys.argv[1]):
    assert importlib.import_module(script).main(words) == 0
"""
LISTS_BACKWARDS = '''
"""Imported by Python as it starts: folders are listed in the order of their names, backwards."""
import os

scandir, listdir = os.scandir, os.listdir


class Backwards:
    def __init__(self, path="."):
        with scandir(path) as entries:
            self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def close(self):
        return None


os.scandir = Backwards
os.listdir = lambda path=".": sorted(listdir(path), reverse=True)
'''
TINY = ["--gpu_ids", "-1", "--batch_size", "4", "--no_resize", "--cropSize", "32"]
MULTISCALE = ["--model_type", "multiscale_attention", "--feature_dim", "16"]


def training(name: str, *flags: str) -> list[str]:
    return [
        "train",
        "--dataroot",
        "data",
        "--name",
        name,
        "--niter",
        "2",
        "--num_threads",
        "0",
        *TINY,
        *flags,
    ]


def scoring(name: str, model: str, *flags: str) -> list[str]:
    """Score with the last checkpoint of run `model`; results go to the folder `name`."""
    path = f"checkpoints/{model}_2*/model_epoch_last.pth"
    return ["test", "--model_path", path, "--dataroot", "data/test", "--results_dir", name, "--gpu_ids", "-1",
            "--batch_size", "4", "--num_threads", "0", "--bootstrap", "100", *flags]  # fmt: skip


class Place:
    """A folder with its own copy of the data, where one process after the other runs scripts."""

    def __init__(self, folder: Path, data: Path, other: bool = False) -> None:
        """`other`: files are made, and folders listed, in another order, and Python hashes texts in
        another way."""
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONHASHSEED": "2" if other else "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        for path in sorted(data.rglob("*.png"), reverse=other):
            target = folder / "data" / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if other:
            (folder / "start").mkdir()
            (folder / "start" / "sitecustomize.py").write_text(LISTS_BACKWARDS)
            self.environment["PYTHONPATH"] += os.pathsep + str(folder / "start")

    def start(self, *commands: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(commands)],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def only(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found

    def checkpoint(self, name: str) -> Path:
        return self.only(f"checkpoints/{name}_2*/model_epoch_last.pth")

    def scores(self, name: str, file: str = "predictions.csv") -> bytes:
        return self.only(f"{name}/*/{file}").read_bytes()


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """{'a.0.b': ...}: what nested dictionaries and lists hold, tensors as their type, shape and
    bytes."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for k, item in pairs for key, leaf in leaves(item, f"{name}.{k}").items()}
    if isinstance(value, Tensor):
        return {
            name: (
                value.dtype,
                value.shape,
                value.contiguous().flatten().view(torch.uint8).numpy().tobytes(),
            )
        }
    return {name: value}


def trained(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint but the flags of its run, and the digest that covers them."""
    return leaves(
        {key: value for key, value in torch.load(path).items() if key not in ("options", "digest")}
    )


def scalars(run: Path) -> list[tuple[str, int, float]]:
    """All scalars in a run's TensorBoard files, in order: tag, step, value. A record: length (8),
    check (4), data, check (4)."""
    found = []
    for path in sorted(run.glob("*/events*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 8], "little")
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += length + 16
            found += [
                (v.tag, event.step, v.simple_value)
                for v in event.summary.value
                if v.HasField("simple_value")
            ]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataroot(tmp_path_factory.mktemp("data"), size=40)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Place, Place]:
    """The same two commands in two fresh processes; in the first place three more follow."""
    folder = tmp_path_factory.mktemp("places")
    first, second = Place(folder / "first", data), Place(folder / "second", data, other=True)
    commands = [training("run", *MULTISCALE), scoring("results", "run")]
    more = [
        training("workers", *MULTISCALE, "--num_threads", "2"),
        scoring("by_workers", "run", "--num_threads", "2"),
        training("seed", *MULTISCALE, "--seed", "101"),
    ]
    finish(first.start(*commands, *more), second.start(*commands))
    return first, second


def test_the_other_place_really_lists_backwards(places: tuple[Place, Place]) -> None:
    code = "import os; print([e.name for e in os.scandir('data/test/gan')], next(os.walk('data/test/gan/0_real'))[2])"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=p.folder,
            env=p.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for p in places
    ]
    names = [f"{number:03d}.png" for number in (3, 2, 1, 0)]
    assert printed[1] == f"{['1_fake', '0_real']} {names}\n"
    assert sorted(
        path.relative_to(places[0].folder) for path in places[0].folder.glob("data/**/*.png")
    ) == sorted(
        path.relative_to(places[1].folder) for path in places[1].folder.glob("data/**/*.png")
    )


def test_two_processes_write_the_same_bytes(places: tuple[Place, Place]) -> None:
    first, second = places
    for name in ("model_epoch_last.pth", "model_epoch_best.pth"):
        one, other = (place.only(f"checkpoints/run_2*/{name}") for place in places)
        assert trained(one) == trained(other)
        assert one.read_bytes() == other.read_bytes()
    one, other = (scalars(place.checkpoint("run").parent) for place in places)
    assert one == other
    assert {"loss", "lr", "ap", "auc", "attention/entropy"} <= {tag for tag, _, _ in one}
    for file in ("predictions.csv", "tables.csv"):
        assert first.scores("results", file) == second.scores("results", file)


def test_workers_change_nothing(places: tuple[Place, Place]) -> None:
    place, _ = places
    assert trained(place.checkpoint("workers")) == trained(place.checkpoint("run"))
    assert scalars(place.checkpoint("workers").parent) == scalars(place.checkpoint("run").parent)
    for file in ("predictions.csv", "tables.csv"):
        assert place.scores("by_workers", file) == place.scores("results", file)


def test_another_seed_changes_everything(places: tuple[Place, Place]) -> None:
    """So the comparisons above can fail."""
    place, _ = places
    one, other = (
        torch.load(place.checkpoint(name))["model_state_dict"] for name in ("run", "seed")
    )
    weights = [name for name in one if name.endswith("conv1.weight")]
    assert weights
    assert not any(torch.equal(one[name], other[name]) for name in weights)
    assert scalars(place.checkpoint("run").parent) != scalars(place.checkpoint("seed").parent)


def test_the_comparison_that_the_documentation_shows(
    places: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPOSITORY / "docs" / "determinism.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    def printed(*names: str) -> str:
        paths = [str(place.checkpoint(name)) for place, name in zip(places, names, strict=True)]
        monkeypatch.setattr(sys, "argv", ["compare.py", *paths])
        exec(code, {})
        return capsys.readouterr().out

    count = len(torch.load(places[0].checkpoint("run"))["model_state_dict"])
    assert printed("run", "run") == f"0 of {count} tensors differ\n"
    assert set(printed("workers", "run").splitlines()) == {
        "name: workers against run",
        "num_threads: 2 against 0",
        f"0 of {count} tensors differ",
    }
    assert re.search(
        r"^seed: 101 against 100\n(.*\n)*[1-9]\d+ of \d+ tensors differ \w",
        printed("seed", "run"),
        re.M,
    )


VARIANTS = {
    "single": ["--model_type", "single_scale"],
    "balanced": [*MULTISCALE, "--class_bal", "--classes", "car"],
    "augmented": [*MULTISCALE, "--data_aug"],
    "degraded": [*MULTISCALE, "--degrade", "0.5", "--lr_schedule", "cosine"],
    "cached": [*MULTISCALE, "--cache", "cache"],
    "accumulated": [*MULTISCALE, "--accumulation_steps", "3", "--optim", "sgd"],
    "half": [*MULTISCALE, "--precision", "bf16"],
    "everything": [
        *MULTISCALE,
        "--data_aug",
        "--cache",
        "cache",
        "--class_bal",
        "--accumulation_steps",
        "2",
    ],
}


@pytest.mark.slow
def test_flags_leave_runs_repeatable(data: Path, tmp_path: Path) -> None:
    """Each variant in two places, without and with workers; of them, only a cache gives the weights
    of none."""
    places = Place(tmp_path / "first", data), Place(tmp_path / "second", data, other=True)
    # so that there is something to balance
    (tmp_path / "first/data/train/car/1_fake/000.png").unlink()
    (tmp_path / "second/data/train/car/1_fake/000.png").unlink()
    running = []
    for place, workers in zip(places, ("0", "2"), strict=True):
        trainings = [
            training(name, *flags, "--num_threads", workers) for name, flags in VARIANTS.items()
        ]
        robust = scoring("robust", "cached", "--robustness", "--num_threads", workers)
        equal = scoring(
            "equal", "cached", "--equalize", "jpeg:90", "--cache", "cache", "--num_threads", workers
        )
        running.append(place.start(training("plain", *MULTISCALE), *trainings, robust, equal))
    finish(*running)
    for name in VARIANTS:
        one, other = (trained(place.checkpoint(name)) for place in places)
        assert one == other, name
        assert (one == trained(places[0].checkpoint("plain"))) is (name == "cached"), name
    for name, file in (
        ("robust", "predictions.csv"),
        ("robust", "robustness_predictions.csv"),
        ("equal", "predictions.csv"),
    ):
        assert places[0].scores(name, file) == places[1].scores(name, file)


@pytest.mark.slow
def test_threads_and_batch_size_change_last_digits_only(data: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "place", data)
    finish(place.start(training("one", *MULTISCALE), scoring("by_one", "one"), OMP_NUM_THREADS="1"))
    again = [training("again", *MULTISCALE), scoring("batches", "one", "--batch_size", "3")]
    finish(place.start(*again, OMP_NUM_THREADS="1"))
    finish(place.start(training("two", *MULTISCALE), scoring("by_two", "one"), OMP_NUM_THREADS="2"))
    assert trained(place.checkpoint("again")) == trained(place.checkpoint("one"))
    one, two = (torch.load(place.checkpoint(name))["loss"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-2)
    tables = [
        list(csv.DictReader(place.scores(name).decode().splitlines()))
        for name in ("by_one", "by_two", "batches")
    ]
    for table in tables[1:]:
        assert [row["path"] for row in table] == [row["path"] for row in tables[0]]
        for row, other in zip(tables[0], table, strict=True):
            assert float(other["score"]) == pytest.approx(float(row["score"]), abs=1e-5)
