"""User errors from all over the code, each with the flag and the value to fix."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.layouts import find_test_sets
from data.protocols import training_augmentation
from data.transforms import Augmentation, Protocol
from networks.checkpoint import load_model
from networks.multiscale_npr import AttentionMultiScaleNPR, attention_multiscale_npr18
from networks.run_folder import find_checkpoints, make_run_folder
from options.base_options import BaseOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tools.make_demo_data import __main__ as make_demo_data
from util import UserError


@pytest.mark.parametrize(
    ("options", "words", "parts"),
    [
        (TestOptions, ["--no_crop", "--cropSize", "8"], ["--cropSize 8", "--no_crop"]),
        (TestOptions, ["--gpu_ids=-2"], ["--gpu_ids", "-2 is not a list"]),
        (
            TrainOptions,
            ["--test_dataroot", "nowhere"],
            ["--test_dataroot nowhere", "no such folder"],
        ),
    ],
)
def test_flags(
    options: type[BaseOptions],
    words: list[str],
    parts: list[str],
    dataroot: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = [] if options is TrainOptions else ["--model_path", "m.pth"]
    with pytest.raises(SystemExit, match="2"):
        options().parse(["--dataroot", str(dataroot), *model, *words])
    message = capsys.readouterr().err
    assert all(part in message for part in parts)


def test_default_folder_without_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="./datasets has no test images"):
        find_test_sets(None)


def test_a_file_where_the_run_folders_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--checkpoints_dir.*cannot make a run folder"):
        make_run_folder(tmp_path / "file", "run")


def test_an_epoch_that_was_not_kept(tmp_path: Path) -> None:
    make_run_folder(tmp_path, "run")
    with pytest.raises(UserError, match="--epoch 7: no .*model_epoch_7.pth"):
        find_checkpoints(None, "run", "7", str(tmp_path))


@pytest.mark.parametrize("spoil", ("missing", "scalar", "empty"))
def test_a_multiscale_network_of_another_kind(spoil: str, tmp_path: Path) -> None:
    weights = attention_multiscale_npr18().state_dict()
    hidden = "attention_fusion.attention_net.0.weight"
    if spoil == "missing":
        del weights[hidden]
    else:
        weights[hidden] = torch.zeros(()) if spoil == "scalar" else torch.zeros(0, 3)
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"weights .*multi-scale|missing {hidden}"):
        load_model(tmp_path / "a.pth")


def test_a_model_needs_a_scale() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        AttentionMultiScaleNPR(scales=())


def test_random_augmentation_needs_a_generator() -> None:
    protocol, image = Protocol("x", augment=Augmentation()), Image.new("RGB", (8, 8))
    for ask in (
        lambda: protocol(image),
        lambda: protocol.finish(torch.zeros(3, 8, 8, dtype=torch.uint8)),
    ):
        with pytest.raises(ValueError, match="needs a random generator"):
            ask()
    assert protocol(image, np.random.default_rng(0)).shape == (3, 8, 8)


def test_jpeg_without_opencv_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    opt = TrainOptions(jpg_method=("cv2",), jpg_prob=0.5)
    assert training_augmentation(opt).jpeg_methods == ("pil",)
    (warning,) = opt.warnings()
    assert "--jpg_method cv2: " in warning and " pil" in warning


def test_demo_images_of_an_odd_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--size 33: must be a multiple of"):
        make_demo_data.main(["--output", str(tmp_path / "demo"), "--size", "33"])
    assert not (tmp_path / "demo").exists()
