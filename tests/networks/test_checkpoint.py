"""Checkpoints: what is in them, which old forms load, and what is refused."""

import argparse
import collections
import datetime
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import checkpoint as loading
from networks.checkpoint import load_model
from networks.multiscale_npr import attention_multiscale_npr18
from networks.resnet import resnet50
from networks.run_folder import find_checkpoints, make_run_folder, newest_run_folder
from options.test_options import TestOptions
from util import UserError

PLAIN = (str, int, float, bool, type(None), torch.Tensor)


def flags(**values: object) -> TestOptions:
    return TestOptions(model_path=("x",), **values)


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in [key, *leaves(item)]]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_content_is_plain_and_on_the_cpu(trained: Path) -> None:
    values = torch.load(trained / "model_epoch_last.pth")  # today's default refuses pickled code
    assert {"model_state_dict", "optimizer_state_dict", "epoch", "loss"} <= set(values)
    assert values["epoch"] == 2
    assert all(type(leaf) in PLAIN for leaf in leaves(values))
    assert all(
        leaf.device.type == "cpu" for leaf in leaves(values) if isinstance(leaf, torch.Tensor)
    )
    assert set(values["model_state_dict"]) == set(attention_multiscale_npr18().state_dict())
    assert values["model_config"]["scales"] == [0.25, 0.5, 0.75]
    assert values["protocol"]["resize"] == 32
    assert 0 <= values["val_threshold"] <= 1
    assert all(type(version) is str for version in values["versions"].values())


@pytest.mark.parametrize("form", ("bare", "model", "model_state_dict"))
@pytest.mark.parametrize("prefix", ("", "module.", "module._orig_mod.", "model."))
def test_published_forms_give_the_same_logits(form: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet50().eval()
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save(
        weights if form == "bare" else {form: weights, "total_steps": 7}, tmp_path / "NPR.pth"
    )
    loaded = load_model(tmp_path / "NPR.pth")
    x = torch.randn(2, 3, 64, 64)
    assert loaded.config.model_type == "single_scale"
    assert torch.equal(loaded.model(x), model(x))
    assert loaded.name == "NPR"


def test_earlier_multiscale_form(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.log, "propagate", True)
    model = attention_multiscale_npr18(feature_dim=64, reduction=2).eval()
    path = tmp_path / "old.pth"
    torch.save(
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": {},
            "epoch": 3,
            "loss": 0.1,
        },
        path,
    )
    loaded = load_model(path)
    assert loaded.config.scales == (0.25, 0.5, 0.75)
    assert (loaded.config.feature_dim, loaded.config.attention_reduction) == (64, 2)
    assert "does not say its scales" in caplog.text
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(loaded.model(x), model(x))
    other = load_model(path, flags(npr_scales=(0.2, 0.4, 0.6)))
    assert other.config.scales == (0.2, 0.4, 0.6)
    assert not torch.equal(other.model(x), model(x))


def test_earlier_form_with_two_branches_needs_its_scales(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save(attention_multiscale_npr18(scales=[0.25, 0.5]).state_dict(), path)
    with pytest.raises(UserError, match="--npr_scales: missing.*2 branches"):
        load_model(path)
    with pytest.raises(UserError, match="3 scales.*2 branches"):
        load_model(path, flags(npr_scales=(0.25, 0.5, 0.75)))
    assert load_model(path, flags(npr_scales=(0.25, 0.5))).config.scales == (0.25, 0.5)


@pytest.mark.parametrize(
    "contradiction",
    [
        {"npr_scales": (0.25, 0.5)},
        {"npr_scales": (0.5, 0.25, 0.75)},
        {"model_type": "single_scale"},
        {"feature_dim": 64},
        {"attention_reduction": 8},
        {"attention_residual": True},
        {"backbone": "resnet18"},
    ],
)
def test_flags_that_contradict_the_checkpoint_are_errors(
    trained: Path, contradiction: dict
) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(contradiction))}.*contradicts"):
        load_model(trained / "model_epoch_last.pth", flags(**contradiction))
    agreeing = flags(npr_scales=(0.25, 0.5, 0.75), model_type="multiscale_attention")
    assert load_model(trained / "model_epoch_last.pth", agreeing).epoch == 2


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    torch.save({"model_state_dict": Payload(target)}, tmp_path / "bad.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload(target)))
    for name in ("bad.pth", "raw.pth"):
        with pytest.raises(UserError, match="refused|not a readable"):
            load_model(tmp_path / name)
    assert not target.exists()


def test_weights_that_do_not_fit_are_listed(trained: Path, tmp_path: Path) -> None:
    values = torch.load(trained / "model_epoch_last.pth")
    weights = values["model_state_dict"]
    weights["classifier.weight"] = torch.zeros(1, 7)
    weights["extra"] = torch.zeros(1)
    del weights["classifier.bias"], values["format"], values["digest"]  # as other programs write
    torch.save(values, tmp_path / "model_epoch_last.pth")
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "model_epoch_last.pth")
    for part in (
        "missing classifier.bias",
        "unexpected extra",
        "classifier.weight is [1, 7] instead of [1, 128]",
    ):
        assert part in str(error.value)


def test_other_networks_and_non_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="another network"):
        load_model(tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds a Tensor"):
        load_model(tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "missing.pth")


def zipped(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(99)
FOREIGN = {
    "git-lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "page.pth": (b"\n<!DOCTYPE html><html>Sign in", "a saved web page; download"),
    "page16.pth": ("<html>".encode("utf-16"), "a saved web page; download"),
    "error.pth": (b'{"error": "not found"}', "JSON text"),
    "denied.pth": (b"<?xml version='1.0'?><Error>", "an XML document"),
    "quota.pth": ("Quota für heute é".encode(), "text that begins with 'Quota für"),
    "empty.pth": (b"", "an empty file"),
    "zeros.pth": (bytes(9999), "zeros, .*unfinished download"),
    "._a.pth": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99), "metadata of macOS; pass the file"),
    "packed.pth.gz": (b"\x1f\x8b\x08" + bytes(99), "a compressed archive; unpack"),
    "packed.tar": (bytes(257) + b"ustar" + bytes(99), "a tar archive; unpack"),
    "image.pth": (PNG, "an image or a video"),
    "model.gguf": (b"GGUF\x03" + bytes(99), "a GGUF"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch" + bytes(9), "an ONNX model; pass the checkpoint"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "a TensorFlow or Keras model"),
    "model.safetensors": (b'\x40\0\0\0\0\0\0\0{"a":', "a safetensors file; pass the folder"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_weights_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, says = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"--model_path .*{name}: is .*{says}"):
        load_model(tmp_path / name)


def test_archives_without_or_with_half_a_checkpoint_are_named(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "weights/NPR.pth")
    zipped(tmp_path / "script.pt", "m/code/a.py")
    torch.save({"model": resnet50().state_dict()}, tmp_path / "half.pth")
    os.truncate(tmp_path / "half.pth", 10_000)
    for name, says in {
        "a.zip": r"a ZIP archive of weights/NPR.pth; unpack",
        "script.pt": "a TorchScript model",
        "half.pth": "incomplete; download",
    }.items():
        with pytest.raises(UserError, match=says):
            load_model(tmp_path / name)


def test_plain_data_beside_the_weights_is_let_in(tmp_path: Path) -> None:
    """As of timm, DIRE and AIDE, whatever key holds the weights."""
    model = resnet50().eval()
    values = {
        "net": {f"module.{name}": value for name, value in model.state_dict().items()},
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "args": argparse.Namespace(lr=np.float64(0.1), out=tmp_path, when=np.arange(3)),
        "epoch": np.int64(3),
        "best": np.float32(0.5),
        "rng": torch.get_rng_state(),
        "more": {"counts": collections.defaultdict(int, a=1), "kind": np.dtype("float16")},
        "losses": collections.deque([1.0, 0.5], maxlen=20),
        "names": frozenset({"fc"}),
        "utc": [datetime.datetime.now(datetime.UTC), datetime.time(1)],
    }
    torch.save(values, tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded.model(x), model(x)) and loaded.epoch is None
    torch.save(values | {"ema": values["net"]}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"several models \(net, ema\)"):
        load_model(tmp_path / "b.pth")


@pytest.mark.parametrize("outer", ("model", "state_dict", "model_state_dict"))
def test_weights_are_found_below_or_beside_a_usual_key(outer: str, tmp_path: Path) -> None:
    weights = resnet50().state_dict()
    for values in ({outer: {"net": weights}}, {outer: {"name": "npr"}, "weights": weights}):
        torch.save(values, tmp_path / "a.pth")
        assert load_model(tmp_path / "a.pth").config.model_type == "single_scale"


@pytest.mark.parametrize("make", (resnet50, attention_multiscale_npr18))
def test_a_missing_head_is_named(make: Callable[..., torch.nn.Module], tmp_path: Path) -> None:
    weights = make().state_dict()
    heads = [name for name in weights if name.startswith(("fc1", "classifier"))]
    torch.save({name: weights[name] for name in weights if name not in heads}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="does not fit the model: missing") as error:
        load_model(tmp_path / "a.pth")
    assert all(name in str(error.value) for name in heads)


def test_names_of_models(trained: Path, tmp_path: Path) -> None:
    assert load_model(trained / "model_epoch_last.pth").name == trained.name
    assert load_model(trained / "model_epoch_best.pth").name == f"{trained.name}_best"


def test_newest_run_folder_is_exactly_name_and_stamp(tmp_path: Path) -> None:
    for name in (
        "a_2026_01_01_00_00_00",
        "a_2026_03_01_00_00_00",
        "a_b_2027_01_01_00_00_00",
        "a_2028",
        "a",
    ):
        (tmp_path / name).mkdir()
    assert newest_run_folder(tmp_path, "a", "--name").name == "a_2026_03_01_00_00_00"
    with pytest.raises(UserError, match="--name.*no run folder"):
        newest_run_folder(tmp_path, "c", "--name")


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert make_run_folder(tmp_path, "x") != make_run_folder(tmp_path, "x")


def test_checkpoints_by_glob_and_by_name(trained: Path) -> None:
    pattern = str(trained / "model_epoch_*.pth")
    paths = find_checkpoints((pattern, str(trained / "model_epoch_last.pth")), None, "last", "")
    assert sorted(path.name for path in paths) == ["model_epoch_best.pth", "model_epoch_last.pth"]
    assert find_checkpoints(None, "tiny", "latest", str(trained.parent)) == [
        trained / "model_epoch_last.pth"
    ]
    with pytest.raises(UserError, match="nothing_"):
        find_checkpoints(("nothing_*",), None, "last", "")
