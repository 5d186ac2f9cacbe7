"""Checkpoint files: whole at any moment, checked when read, and harmless whoever wrote them."""

import contextlib
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from networks import checkpoint_file
from networks.checkpoint import load_model
from networks.checkpoint_file import (
    DamagedCheckpoint,
    digest,
    previous_of,
    read_checkpoint,
    restore_previous,
    save_checkpoint,
)
from networks.multiscale_npr import attention_multiscale_npr18
from util import UserError

VALUES = {
    "weights": {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(3),
        "c": torch.ones(3, dtype=torch.bfloat16),
    },
    "step": 7,
    "state": (3, (1, 2), None),
    "names": ["x", "y"],
    "lr": 0.1,
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(equal, one, other))
    return one == other and type(one) is type(other)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", VALUES)
    values = read_checkpoint(tmp_path / "a.pth")
    assert values.pop("format") == "npr-checkpoint/2"
    assert equal(values, VALUES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["weights"]["a"].view(torch.int32)[0].bitwise_xor_(1),
        lambda v: v["weights"].update(a=v["weights"]["a"].reshape(3, 2)),
        lambda v: v["weights"].update(a=v["weights"]["a"].view(torch.int32)),
        lambda v: v["weights"].update(d=v["weights"].pop("a")),
        lambda v: v.update(step=8),
        lambda v: v.update(step="7"),
        lambda v: v.update(lr=0.1 + 2e-17),
        lambda v: v.update(state=(3, 1, (2,), None)),
        lambda v: v.update(more=None),
    ],
)
def test_digest_tells_any_change(change: Callable[[dict[str, Any]], Any]) -> None:
    values = torch.load(_written(VALUES), weights_only=True)
    assert digest(values) == digest(VALUES)
    change(values)
    assert (digest(values) == digest(VALUES)) == equal(values, VALUES)


def _written(values: dict[str, Any]) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save(values, buffer)
    buffer.seek(0)
    return buffer


@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any one byte of a file changed: the same content is read (the byte was padding or a
    checksum), or the file is refused."""
    path = tmp_path_factory.mktemp("flip") / "a.pth"
    save_checkpoint(path, VALUES)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with contextlib.suppress(DamagedCheckpoint):
        values = read_checkpoint(path)
        # a changed 'format' makes it another program's file, which has no digest that could be
        # checked
        assert (
            equal({key: values[key] for key in VALUES}, VALUES)
            or values.get("format") != "npr-checkpoint/2"
        )


def test_the_one_before_is_kept_and_put_back(tmp_path: Path) -> None:
    path = tmp_path / "model_epoch_last.pth"
    for step in (1, 2, 3):
        save_checkpoint(path, {"step": step}, keep_previous=True)
    assert read_checkpoint(path)["step"] == 3
    assert read_checkpoint(previous_of(path))["step"] == 2
    path.write_bytes(b"damaged")
    kept = restore_previous(path)
    assert kept is not None and kept.read_bytes() == b"damaged"
    assert read_checkpoint(path)["step"] == 2
    save_checkpoint(path, {"step": 4}, keep_previous=True)
    assert read_checkpoint(previous_of(path))["step"] == 2


@pytest.mark.parametrize("name", ("replace", "fsync"))
def test_a_failure_at_any_place_leaves_what_was_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    for step in (1, 2):
        save_checkpoint(path, {"step": step}, keep_previous=True)
    before = set(tmp_path.iterdir())
    real, calls = getattr(os, name), []

    def fails(*args: Any) -> Any:
        calls.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"step": 3}, keep_previous=True)
    monkeypatch.setattr(os, name, real)
    assert calls
    assert read_checkpoint(path)["step"] == 2
    assert set(tmp_path.iterdir()) == before


def test_a_crash_between_the_renames_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"step": 1}, keep_previous=True)
    real = os.replace

    def dies(source: Any, target: Any) -> None:
        if Path(target) == path:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {"step": 2}, keep_previous=True)
    assert not path.exists() and read_checkpoint(previous_of(path))["step"] == 1
    assert restore_previous(path) is None
    assert read_checkpoint(path)["step"] == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The limit on a file's size stands for the full disk."""
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(path, {"step": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def recompressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def hold_each_other(depth: int) -> list[Any]:
    held: list[Any] = []
    for _ in range(depth):
        held = [held, held]
    return held


def hold_itself() -> list[Any]:
    held: list[Any] = []
    held += [held] * 1000
    return held


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "not a plain one"),
        ({"a": torch.zeros(1, device="meta").expand(10**6, 10**6)}, "not a plain one"),
        ({"a": torch.eye(3).to_sparse()}, "not a plain one"),
        ({"a": hold_each_other(40)}, "hold each other"),
        ({"a": hold_itself()}, "hold each other"),
        ([1, 2], "holds a list"),
    ],
)
def test_what_would_swell_is_refused(
    values: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_file, "MAX_VALUES", 20_000)  # counting to millions takes seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.save(values, tmp_path / "a.pth")
    with pytest.raises(DamagedCheckpoint, match=reason):
        read_checkpoint(tmp_path / "a.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(50_000_000)}, path)
    recompressed(path)
    assert path.stat().st_size < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedCheckpoint, match="compressed archive, of 200,00"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def multiscale(**changes: Any) -> dict[str, Any]:
    model = attention_multiscale_npr18(scales=[0.25, 0.5], feature_dim=8, reduction=2)
    config = {
        "model_type": "multiscale_attention", "scales": [0.25, 0.5], "feature_dim": 8,
        "attention_reduction": 2, "attention_residual": False, "backbone": "light",
    }  # fmt: skip
    return {"model_state_dict": model.state_dict(), "model_config": config | changes, "epoch": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_dim": 2**40},
        {"feature_dim": -1},
        {"feature_dim": "8"},
        {"feature_dim": True},
        {"scales": [0.5] * 10**5},
        {"scales": ["0.5", 0.25]},
        {"scales": [0.25, float("nan")]},
        {"scales": 3},
        {"attention_reduction": 0},
        {"attention_reduction": 10**6},
        {"model_type": "other"},
        {"backbone": "vgg"},
        {"extra": 1},
    ],
)
def test_a_model_config_that_lies_ends_with_one_line(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pth", multiscale(**changes))
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "3"},
        {"val_threshold": [0.5]},
        {"protocol": 3},
        {"options": "x"},
        {"model_config": 5},
        {"model_config": None},
    ],
)
def test_other_values_that_lie_end_with_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", multiscale() | changes)
    with pytest.raises(UserError):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    values = multiscale()
    values["model_state_dict"]["classifier.weight"][0, 3] = value
    save_checkpoint(tmp_path / "a.pth", values)
    with pytest.raises(UserError, match="NaN or infinite .*classifier.weight"):
        load_model(tmp_path / "a.pth")
