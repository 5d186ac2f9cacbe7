"""Checkpoints with weights that fit and everything else made up: one line, or a model."""

import re
import time
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


def values(**changed: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {
        "model_state_dict": resnet50().state_dict(),
        "model_config": {"model_type": "single_scale", "scales": [0.5]},
        "protocol": training_protocol(TrainOptions()).to_dict(),
        "epoch": 1,
        "options": TrainOptions().to_dict(),
    }
    return found | changed


def test_the_values_load_as_they_are(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", values())
    assert trained_protocol(load_model(tmp_path / "a.pth")) == training_protocol(TrainOptions())


def test_keys_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", values() | {5: "five", None: "none"})
    assert {type(key) for key in load_model(tmp_path / "a.pth").meta} == {str}


@pytest.mark.parametrize(
    ("name", "wrong"),
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
def test_a_protocol_that_is_none_is_the_users_error(
    name: str, wrong: object, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pth", values(protocol=values()["protocol"] | {name: wrong}))
    with pytest.raises(UserError, match="its protocol is not valid"):
        trained_protocol(load_model(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "changed",
    [
        {"options": {"lr": b"bytes"}},
        {"options": {"lr": torch.zeros(2)}},
        {"options": {"lr": {1, 2}}},
        {"val_threshold": float("nan")},
        {
            "model_config": {
                "model_type": "multiscale_attention",
                "scales": [],
                "backbone": "x" * 10**5,
            }
        },
        {"model_state_dict": resnet50().state_dict() | {"n" * 10**5: torch.zeros(1)}},
    ],
)
def test_other_made_up_values_end_with_one_short_line(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pth", values(**changed))
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "a.pth")
    assert (
        "--model_path" in str(error.value)
        and len(str(error.value)) < 1000
        and "\n" not in str(error.value)
    )


def nested(kind: str) -> Any:
    inner: list[Any] = []
    if kind == "itself":
        inner.append(inner)
    for _ in range(40 if kind == "many" else 150 if kind == "deep" else 0):
        inner = [inner, inner] if kind == "many" else [inner]
    return inner


@pytest.mark.parametrize("kind", ("itself", "many", "deep"))
def test_values_that_hold_each_other_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    torch.save(values(val_metrics=nested(kind)), tmp_path / "a.pth")
    start = time.process_time()
    with pytest.raises(UserError, match="hold each other"):
        load_model(tmp_path / "a.pth")
    assert time.process_time() - start < 20  # an hour without a limit


@pytest.mark.parametrize("name", ("os.system", "builtins.getattr"))
def test_what_was_refused_is_named_without_advice_to_load_it(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr(
            "archive/data.pkl",
            b"\x80\x02c" + name.replace(".", "\n").encode() + b"\nX\x04\x00\x00\x00true\x85R.",
        )
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
