"""The held-out suite: its folders, that it does not depend on the clock, that pictures are rebuilt well, and wrong calls."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from data.layouts import find_test_sets
from tests.conftest import make_set
from tools import make_heldout as tool
from tools._autoencoders import UP_SAMPLERS, laplacian, rebuilt, train_autoencoder
from tools._demo_images import SCENES, photograph
from util import UserError


def make_photographs(folder: Path, count: int, side: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        picture = photograph((seed, index), side, SCENES[0]).clip(0, 1)
        Image.fromarray((picture * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for split, seed in (("train", 1), ("val", 2)):
        make_set(folder / split / "a", 2, 96)
        make_photographs(folder / split / "b" / "0_real", 3, 96, seed)
        make_set(folder / split / "b", 0, 96)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_the_suite(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert tool.main(["--dataroot", str(root), "--output", str(tmp_path / name), "--steps", "3"]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    _, sets = find_test_sets(str(tmp_path / "one"))
    found = {images.generator: np.bincount(images.labels).tolist() for images in sets}
    rebuilt_sets = [*UP_SAMPLERS, *(f"{name}_webp" for name in UP_SAMPLERS)]
    assert found == dict.fromkeys(tool.SEEN, [5, 2]) | dict.fromkeys(rebuilt_sets, [5, 5])
    seen = np.asarray(Image.open(tmp_path / "one/seen/0_real/00000.png"))
    assert np.array_equal(seen, np.asarray(Image.open(root / "val/a/0_real/000.png")))
    assert Image.open(tmp_path / "one/rebuilt_nearest/1_fake/00000.png").size == (76, 76)  # 96 * 0.8, whole fours
    report = json.loads((tmp_path / "one/heldout.json").read_text())
    assert set(report["psnr"]) == set(UP_SAMPLERS) and report["settings"]["steps"] == 3


@pytest.mark.parametrize("name", UP_SAMPLERS)
def test_training_rebuilds_better_every_time(name: str) -> None:
    photographs = [
        torch.from_numpy((photograph((3, i), 64, SCENES[0]).clip(0, 1) * 255).astype(np.uint8)) for i in range(4)
    ]
    models = [train_autoencoder(name, photographs, 0, steps) for steps in (3, 15)]
    few, more = (tool.psnr(photographs, [rebuilt(model, pixels) for pixels in photographs]) for model in models)
    assert more > few


def test_laplacian_is_the_convolution() -> None:
    images = torch.rand(2, 3, 7, 9)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    assert torch.allclose(laplacian(images), torch.nn.functional.conv2d(images, kernel, groups=3), atol=1e-6)


def test_psnr_by_hand() -> None:
    flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert tool.psnr([flat], [flat + 5]) == pytest.approx(10 * np.log10(255**2 / 25))
    assert TF.to_pil_image(flat).size == (4, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "OUT"], "--dataroot .*: has no folder train/"),
        (["--output", "."], "--output .*: exists already"),
        (["--output", "OUT", "--steps", "0"], "--steps 0: must be at least 1"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], said: str) -> None:
    places = {"OUT": str(tmp_path / "out"), ".": str(tmp_path)}
    with pytest.raises(UserError, match=said):
        tool.main(["--dataroot", str(tmp_path), *(places.get(word, word) for word in words)])


def test_photographs_that_are_too_small_are_said_to_be(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_set(tmp_path / split / "a", 1, 32)
    with pytest.raises(UserError, match="has 64 pixels a side"):
        tool.main(["--dataroot", str(tmp_path), "--output", str(tmp_path / "out")])
