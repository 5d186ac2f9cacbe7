"""The held-out suite and the fakes to train on: their folders, that they are repeatable, what
auto-encoders learn, wrong calls."""

import json
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.image_sets import ImageSet
from data.layouts import find_test_sets
from data.splits import load_set
from tests.conftest import make_set
from tools import make_heldout
from tools.make_demo_data.images import SCENES, photograph
from tools.make_fakes import __main__ as make_fakes
from tools.make_fakes import adversarial, autoencoders
from tools.make_fakes.adversarial import hinge_loss, patch_discriminator, train_adversarially
from tools.make_fakes.autoencoders import UP_SAMPLERS, AutoEncoder, rebuilt, train_autoencoder
from tools.make_fakes.rebuilding import (
    mean_squared_error,
    photographs,
    psnr,
    training_photographs,
    warn_of_noise,
)
from tools.make_fakes.upsamplers import laplacian
from util import UserError, log

KINDS = ("0_real", "1_fake")


@pytest.fixture(autouse=True)
def small_batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To be quick."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(autoencoders, "BATCH", 4)


def make_photographs(folder: Path, count: int, side: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        picture = photograph((seed, index), side, SCENES[0]).clip(0, 1)
        Image.fromarray((picture * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(
            folder / f"{index}.png"
        )


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


def test_the_suite(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_training(images: ImageSet, *rest: Any) -> list[torch.Tensor]:
        assert all("/train/" in path for path in images.paths)
        return training_photographs(images, *rest)

    monkeypatch.setattr(make_heldout, "training_photographs", from_training)
    words = ["--dataroot", str(root), "--steps", "3", "--output"]
    for name in ("one", "two"):
        assert make_heldout.main([*words, str(tmp_path / name)]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    _, sets = find_test_sets(str(tmp_path / "one"))
    counts = {images.generator: np.bincount(images.labels).tolist() for images in sets}
    rebuilt_sets = [*UP_SAMPLERS, *(f"{name}_webp" for name in UP_SAMPLERS)]
    assert counts == dict.fromkeys(make_heldout.SEEN, [5, 2]) | dict.fromkeys(rebuilt_sets, [5, 5])
    seen = np.asarray(Image.open(tmp_path / "one/seen/0_real/00000.png"))
    assert np.array_equal(seen, np.asarray(Image.open(root / "val/a/0_real/000.png")))
    # 96 * 0.8, a multiple of 4
    assert Image.open(tmp_path / "one/rebuilt_nearest/1_fake/00000.png").size == (76, 76)
    report = json.loads((tmp_path / "one/heldout.json").read_text())
    assert set(report["psnr"]) == set(UP_SAMPLERS) and report["settings"]["steps"] == 3


def test_photographs_of_other_sources(root: Path, tmp_path: Path) -> None:
    """Parts on the grid of JPEG, as they are and of shrunk ones, beside the generated images of
    val/."""
    make_photographs(tmp_path / "mine", 2, 450, 5)
    make_photographs(tmp_path / "mine/small", 1, 100, 6)
    (tmp_path / "mine/broken.png").write_bytes(b"nothing")
    words = ["--dataroot", str(root), "--steps", "1", "--photographs"]
    out = tmp_path / "out"
    assert make_heldout.main([*words, str(tmp_path / "mine"), "--output", str(out)]) == 0
    names = ("seen", "elsewhere", "elsewhere_shrunk")
    seen, fakes, smaller = (set(contents(out / name / "1_fake").values()) for name in names)
    assert seen == fakes and len(fakes) == len(smaller) == 2
    for name, sides in (("elsewhere", [256, 256, 100]), ("elsewhere_shrunk", [256, 256, 80])):
        paths = sorted((out / name / "0_real").iterdir())
        assert [Image.open(path).size[0] for path in paths] == sides
    source = np.asarray(Image.open(tmp_path / "mine/0.png"))
    part = np.asarray(Image.open(out / "elsewhere/0_real/00000.png"))
    places = [(y, x) for y in range(0, 195, 8) for x in range(0, 195, 8)]
    assert sum(np.array_equal(source[y : y + 256, x : x + 256], part) for y, x in places) == 1
    (tmp_path / "empty").mkdir()
    for name, message in (("none", "no such folder"), ("empty", "no image in it can be read")):
        with pytest.raises(UserError, match=message):
            make_heldout.main([*words, str(tmp_path / name), "--output", str(tmp_path / "two")])


@pytest.mark.parametrize("name", UP_SAMPLERS)
def test_training_rebuilds_better_every_time(name: str) -> None:
    photographs = [
        torch.from_numpy((photograph((3, i), 64, SCENES[0]).clip(0, 1) * 255).astype(np.uint8))
        for i in range(4)
    ]
    models = [train_autoencoder(name, photographs, 0, steps) for steps in (3, 15)]
    few, more = (
        psnr([mean_squared_error(rebuilt(model, one), one) for one in photographs])
        for model in models
    )
    assert more > few


class Brightness(torch.nn.Module):
    """A discriminator that calls bright pictures real."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight * images.mean()


def test_copies_become_what_the_discriminator_calls_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversarial, "patch_discriminator", Brightness)
    monkeypatch.setattr(adversarial, "DISCRIMINATOR_LR", 0.0)
    monkeypatch.setattr(adversarial, "FAITHFULNESS", 0.0)
    torch.manual_seed(0)
    model, grey = (
        AutoEncoder(UP_SAMPLERS["rebuilt_nearest"]),
        torch.full((3, 64, 64), 128, dtype=torch.uint8),
    )
    before = rebuilt(model.eval(), grey).float().mean()
    assert rebuilt(train_adversarially(model, [grey], 5), grey).float().mean() > before + 1


@pytest.mark.slow
def test_adversarial_training_sharpens_copies(minibench: Path) -> None:
    images = photographs(load_set(minibench / "train"), lambda image, _: image, 0)
    cuts = [pixels[:, :128, :128] for pixels in islice(images, 32)]
    batch = torch.stack(cuts).float() / 255

    def sharpness(model: AutoEncoder) -> float:
        with torch.no_grad():
            return float(laplacian(model(batch)).abs().mean() / laplacian(batch).abs().mean())

    model = train_autoencoder("rebuilt_nearest", cuts, 0, 150)
    before = sharpness(model)
    assert before < 0.5 and 1.4 * before < sharpness(train_adversarially(model, cuts, 150)) < 1.2


def test_the_discriminator_sees_patches_of_38_pixels() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    said = patch_discriminator().eval()(images)
    assert said.shape == (1, 1, 16, 16)
    said[0, 0, 8, 8].backward()
    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 38


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor([-3.0, -1.0, 0.0, 2.0])
    assert float(hinge_loss(real, fake)) == (0 + 0 + 1 + 2) / 4 + (0 + 0 + 1 + 3) / 4


def test_laplacian_is_the_convolution() -> None:
    images = torch.rand(2, 3, 7, 9)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    assert torch.allclose(
        laplacian(images), torch.nn.functional.conv2d(images, kernel, groups=3), atol=1e-6
    )


def test_copies_that_are_noise_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    warn_of_noise({"rebuilt_nearest": 30.0, "rebuilt_shuffled": 11.6})
    assert (
        "rebuilt_shuffled rebuilds at 11.6 dB only" in caplog.text and "nearest" not in caplog.text
    )


def test_psnr_by_hand() -> None:
    flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert psnr([mean_squared_error(flat, flat + 5)]) == pytest.approx(
        10 * np.log10(255**2 / 25), abs=0.01
    )


TOOLS = pytest.mark.parametrize("tool", (make_heldout, make_fakes), ids=("heldout", "fakes"))


@TOOLS
def test_mistakes(
    root: Path, tmp_path: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for data, output, message in (
        (tmp_path, tmp_path / "out", "--dataroot .*: .*train/"),
        (root, tmp_path, "--output .*: exists already"),
        (root, tmp_path / "file" / "out", "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            tool.main(["--dataroot", str(data), "--output", str(output)])
    with pytest.raises(SystemExit):
        tool.main(["--dataroot", str(root), "--output", str(tmp_path / "out"), "--steps", "-1"])
    assert "--steps: -1" in capsys.readouterr().err


@TOOLS
def test_photographs_that_are_too_small_are_said_to_be_and_nothing_is_left(
    tmp_path: Path, tool: ModuleType
) -> None:
    for split in ("train", "val"):
        make_set(tmp_path / split / "a", 1, 32)
    with pytest.raises(UserError, match="has 64 pixels a side"):
        tool.main(["--dataroot", str(tmp_path), "--output", str(tmp_path / "out")])
    assert {path.name for path in tmp_path.iterdir()} == {"train", "val"}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data root 'in', fakes 'one' and 'two' of it, and 'plain' ones without
    adversarial training."""
    folder = tmp_path_factory.mktemp("fakes")
    make_photographs(folder / "in/train/a/0_real", 12, 112, 1)
    make_photographs(folder / "in/val/a/0_real", 3, 112, 2)
    for name in ("train/a", "val/a", "train/left_out", "val/left_out"):
        make_set(folder / "in" / name, 1, 96)
    words = ["--dataroot", str(folder / "in"), "--classes", "a", "--steps", "2"]
    words += ["--up_samplers", "rebuilt_nearest,rebuilt_shuffled", "--adversarial_steps"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoders, "BATCH", 4)
        for name, steps in (("one", "2"), ("two", "2"), ("plain", "0")):
            assert make_fakes.main([*words, steps, "--output", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize(("split", "count"), (("train", 13), ("val", 4)))
def test_fakes_are_a_data_root_to_train_on(fakes: Path, split: str, count: int) -> None:
    folder = fakes / "one" / split
    everything = load_set(folder)
    copies = list((folder / "rebuilt" / "1_fake").iterdir())
    assert np.bincount(everything.labels).tolist() == [count + len(copies), 1 + len(copies)]
    assert len(copies) <= count and not (folder / "left_out").exists()
    assert all(min(Image.open(path).size) >= 64 for path in everything.paths)
    for copy in copies:
        images = [np.asarray(Image.open(folder / f"rebuilt/{kind}" / copy.name)) for kind in KINDS]
        assert images[0].shape == images[1].shape and np.any(images[0] != images[1])


def test_fakes_are_repeatable_and_adversarial_training_changes_copies_only(fakes: Path) -> None:
    first, again, plain = (contents(fakes / name / "train") for name in ("one", "two", "plain"))
    assert first == again and first.keys() == plain.keys()
    for path, pixels in first.items():
        assert (pixels == plain[path]) == (not path.startswith("rebuilt/1_fake")), path
    report = json.loads((fakes / "one/fakes.json").read_text())
    assert set(report["psnr"]["train"]) == {"rebuilt_nearest", "rebuilt_shuffled"}
    assert report["settings"] == {
        "dataroot": str(fakes / "in"), "classes": ["a"], "steps": 2, "seed": 1,
        "up_samplers": ["rebuilt_nearest", "rebuilt_shuffled"], "adversarial_steps": 2,
    }  # fmt: skip


def test_fakes_of_fakes_and_of_unknown_up_samplers(fakes: Path, tmp_path: Path) -> None:
    words = ["--output", str(tmp_path / "out"), "--dataroot"]
    with pytest.raises(UserError, match="has train/rebuilt already"):
        make_fakes.main([*words, str(fakes / "one")])
    with pytest.raises(UserError, match="--up_samplers x: unknown"):
        make_fakes.main([*words, str(fakes / "in"), "--up_samplers", "x"])


def test_fakes_of_a_data_root_without_classes(tmp_path: Path) -> None:
    """And of a val/ whose photographs are all too small."""
    make_photographs(tmp_path / "in/train/0_real", 3, 112, 1)
    make_set(tmp_path / "in/train", 0, 96)
    make_set(tmp_path / "in/val", 2, 32)
    words = ["--dataroot", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert make_fakes.main([*words, "--steps", "1", "--adversarial_steps", "1"]) == 0
    for split, counts in (("train", [6, 3]), ("val", [2, 2])):
        assert np.bincount(load_set(tmp_path / "out" / split).labels).tolist() == counts
