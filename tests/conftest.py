"""Small data sets and models that the tests share."""

import itertools
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from networks import ModelConfig, build_model
from networks.checkpoint_file import save_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent


def restore_sigint() -> None:
    """Handle SIGINT as Python does by default, in this process and its children, even below a
    parent that ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    restore_sigint()
    multiprocessing.set_forkserver_preload(
        [
            "torch",
            "data",
            "networks",
            "tests.robustness.image_files",
            "tests.robustness.checkpoint_files",
        ]
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def draw_image(rng: np.random.Generator, fake: bool, size: int = 32) -> Image.Image:
    """White noise; the generated kind is nearest up-sampled by 2, which NPR at 0.5 sees as exactly
    zero."""
    side = size // 2 if fake else size
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels.repeat(2, 0).repeat(2, 1) if fake else pixels)


def make_set(
    folder: Path,
    count: int,
    size: int = 32,
    seed: int = 0,
    real: str = "0_real",
    fake: str = "1_fake",
) -> Path:
    """`count` images per class in folder/0_real and folder/1_fake."""
    rng = np.random.default_rng(seed)
    for name in (real, fake):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            draw_image(rng, name == fake, size).save(folder / name / f"{index:03d}.png")
    return folder


def make_dataroot(
    root: Path, classes: tuple[str, ...] = ("car", "cat"), count: int = 4, size: int = 32
) -> Path:
    """ForenSynths layout with train, val and a test suite of two generators."""
    for number, name in enumerate(classes):
        make_set(root / "train" / name, count, size, seed=number)
        make_set(root / "val" / name, count, size, seed=100 + number)
    for number, name in enumerate(("gan", "diffusion")):
        make_set(root / "test" / name, count, size, seed=200 + number)
    return root


@pytest.fixture(scope="session")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of 32x32 images that tests only read."""
    return make_dataroot(tmp_path_factory.mktemp("data"))


def save_model(path: Path, config: ModelConfig, seed: int = 0, **more: Any) -> Path:
    """A checkpoint of an untrained model, the same every time, with more keys."""
    torch.manual_seed(seed)
    values = {
        "model_state_dict": build_model(config).state_dict(),
        "model_config": config.to_dict(),
        "epoch": 1,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, values | more)
    return path


TINY = [
    "--loadSize",
    "32",
    "--cropSize",
    "32",
    "--batch_size",
    "8",
    "--num_threads",
    "0",
    "--gpu_ids",
    "-1",
]
"""Flags for training on the tiny data root."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, dataroot: Path) -> Path:
    """Run folder of a multi-scale model trained for two epochs, 'tiny_<stamp>'."""
    import train

    checkpoints = tmp_path_factory.mktemp("checkpoints")
    argv = [
        "--name",
        "tiny",
        "--model_type",
        "multiscale_attention",
        "--dataroot",
        str(dataroot),
        "--niter",
        "2",
    ]
    assert train.main([*argv, *TINY, "--lr", "0.002", "--checkpoints_dir", str(checkpoints)]) == 0
    return next(checkpoints.glob("tiny_*"))


@pytest.fixture(scope="session")
def minibench() -> Path:
    """The folder of real images that NPR_MINIBENCH names."""
    place = os.environ.get("NPR_MINIBENCH")
    if not place:
        pytest.skip("set NPR_MINIBENCH to a folder of real and generated images to run this test")
    return Path(place)


class Ran(NamedTuple):
    """A finished script: its exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_as_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., Ran]:
    """Run a script as `python NAME WORDS` in a folder, but in this process: starting one takes
    seconds to import PyTorch."""

    def run(name: str, *words: str, folder: Path) -> Ran:
        handler = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [str(REPOSITORY / name), *words])
            try:
                with pytest.raises(SystemExit) as ended:
                    runpy.run_path(str(REPOSITORY / name), run_name="__main__")
            finally:
                signal.signal(signal.SIGTERM, handler)
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every plot of this process as one pixel of a colour of its own, where no test looks:
    rendering takes longest."""
    from matplotlib.figure import Figure

    savefig, colours = Figure.savefig, itertools.count()

    def save(figure: Figure, file: Any, *args: Any, format: str = "png", **more: Any) -> None:
        if format == "png":
            colour = next(colours).to_bytes(3, "big")
            Image.frombytes("RGB", (1, 1), colour).save(file, format="png")
        else:
            savefig(figure, file, *args, format=format, **more)

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """test.py draws nothing in this process: most of the time that it takes with a few small
    images."""
    monkeypatch.setattr("reports.result_folder.draw_plots", lambda *_args, **_more: [])
