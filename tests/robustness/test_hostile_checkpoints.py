"""Checkpoints with weights that fit and everything else made up: one line, or a model."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from data.protocols import trained_protocol, training_protocol
from networks.checkpoint import load_model
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from networks.resnet import resnet50
from options.train_options import TrainOptions
from util import UserError, run_script


@pytest.fixture(scope="module")
def values() -> dict[Any, Any]:
    return {
        "model_state_dict": resnet50().state_dict(),
        "model_config": {"model_type": "single_scale", "scales": [0.5]},
        "protocol": training_protocol(TrainOptions()).to_dict(),
        "epoch": 1,
        "options": TrainOptions().to_dict(),
    }


def test_keys_other_than_text_are_ignored(values: dict[Any, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", values | {5: "five", None: "none"})
    loaded = load_model(tmp_path / "a.pth")
    assert {type(key) for key in loaded.meta} == {str}
    assert trained_protocol(loaded) == training_protocol(TrainOptions())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", [0.5, 0.5]),
        ("mean", ["0.5"] * 3),
        ("mean", 0.5),
        ("mean", [float("nan")] * 3),
        ("std", [0.2, 0.2, 0.0]),
        ("std", [1e300] * 3),
        ("std", None),
        ("augment", 7),
        ("augment", {"turn": True}),
        ("surprise", 1),
    ],
)
def test_an_invalid_protocol_is_refused(
    name: str, value: object, values: dict[Any, Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pth", values | {"protocol": values["protocol"] | {name: value}})
    with pytest.raises(UserError, match="its protocol is not valid"):
        trained_protocol(load_model(tmp_path / "a.pth"))


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"lr": b"bytes"}},
        {"options": {"lr": torch.zeros(2)}},
        {"options": {"lr": {1, 2}}},
        {"val_threshold": float("nan")},
        {"val_metrics": nested(150)},
        {"model_config": {"model_type": "multiscale_attention", "scales": [], "backbone": "x" * 10**5}},
        {"model_state_dict": resnet50().state_dict() | {"n" * 10**5: torch.zeros(1)}},
    ],
)  # fmt: skip
def test_other_made_up_values_end_with_one_short_line(
    change: dict[str, Any], values: dict[Any, Any], tmp_path: Path
) -> None:
    torch.save(values | change, tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "a.pth")
    message = str(error.value)
    assert "--model_path" in message and len(message) < 1000 and "\n" not in message


@pytest.mark.parametrize("name", ("os.system", "builtins.getattr"))
def test_refused_code_is_named_without_advice_to_load_it(name: str, tmp_path: Path) -> None:
    call = b"\x80\x02c" + name.replace(".", "\n").encode() + b"\nX\x04\x00\x00\x00true\x85R."
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", call)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(UserError, match=name.removeprefix("builtins.")) as error:
        read_checkpoint(tmp_path / "a.pth")
    assert not re.search("\x1b|trust|Please|weights_only", str(error.value))


def test_names_in_an_error_do_not_steer_the_terminal(capsys: pytest.CaptureFixture) -> None:
    def main() -> int:
        raise UserError("two\nlines \x1b[2J")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert (ended.value.code, capsys.readouterr().err) == (2, "error: two\\nlines \\x1b[2J\n")
