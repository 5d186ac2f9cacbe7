"""Warnings of attention that is uniform or collapsed."""

import json
from pathlib import Path

import numpy as np
import pytest

import train
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from tests.scripts.test_scripts import train_argv
from training.warnings import STILL_UNIFORM, AttentionWatch
from util import UserError

SCALES = (0.25, 0.5, 0.75)
RNG = np.random.default_rng(0)
UNIFORM = RNG.dirichlet([300] * 3, size=50)
COLLAPSED = RNG.dirichlet([0.5, 100, 0.5], size=50)
AT_WORK = RNG.dirichlet([2] * 3, size=50)


@pytest.mark.parametrize(
    ("weights", "text"), [(UNIFORM, "been uniform"), (COLLAPSED, "scale 0.5x gets at least 0.9")]
)
@pytest.mark.parametrize("patience", [1, 3])
def test_one_warning_after_the_patience(weights: np.ndarray, text: str, patience: int) -> None:
    watch = AttentionWatch(patience)
    warnings = [watch.after_epoch(weights, SCALES) for _ in range(6)]
    assert [epoch for epoch, warning in enumerate(warnings, 1) if warning] == [patience]
    warning = warnings[patience - 1]
    assert text in warning and "docs/attention.md" in warning
    assert f"for {patience} epoch" in warning and "1 epochs" not in warning


@pytest.mark.parametrize(
    "weights",
    [AT_WORK, np.ones((5, 1)), COLLAPSED[:20]],
    ids=["at work", "one scale", "few images"],
)
def test_other_attention_gets_no_warning(weights: np.ndarray) -> None:
    watch = AttentionWatch(1)
    assert not any(watch.after_epoch(weights, SCALES[: weights.shape[1]]) for _ in range(5))


@pytest.mark.parametrize("stop", range(0, 9, 2))
def test_another_epoch_starts_the_count_again_and_resuming_does_not(stop: int) -> None:
    epochs = [UNIFORM, UNIFORM, AT_WORK, UNIFORM, UNIFORM, COLLAPSED, UNIFORM, UNIFORM, UNIFORM]
    first, second = AttentionWatch(), AttentionWatch()
    warnings = [first.after_epoch(weights, SCALES) for weights in epochs[:stop]]
    state = json.loads(json.dumps(first.state()))
    second.restore(state)
    warnings += [second.after_epoch(weights, SCALES) for weights in epochs[stop:]]
    assert [warning is not None for warning in warnings] == [False] * 8 + [True]


def test_repeated_scales_are_told_apart() -> None:
    warning = AttentionWatch(1).after_epoch(COLLAPSED, (0.5, 0.5, 0.5))
    assert warning is not None and "scale 0.5x #2 gets" in warning
    with pytest.raises(ValueError, match="patience of 0 epochs"):
        AttentionWatch(0)


def test_a_resumed_training_keeps_the_count(
    dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each of two trainings adds an epoch of uniform attention; the second one warns."""
    stuck = (STILL_UNIFORM, "as the test has it")
    monkeypatch.setattr("training.warnings.stuck", lambda weights, scales: stuck)
    flags = ["--model_type", "multiscale_attention", "--attention_patience", "2"]
    argv = train_argv(dataroot, tmp_path, "watched", *flags)
    warning = "attention has been uniform for 2 epochs: as the test has it"
    assert train.main([*argv, "--niter", "1"]) == 0
    assert warning not in capsys.readouterr().out
    assert train.main([*argv, "--niter", "2", "--continue_train"]) == 0
    assert warning in capsys.readouterr().out
    path = next(tmp_path.glob("watched_*/model_epoch_last.pth"))
    save_checkpoint(path, read_checkpoint(path) | {"attention_watch": {"kind": 3, "epochs": "x"}})
    with pytest.raises(UserError, match="attention_watch"):
        train.main([*argv, "--niter", "3", "--continue_train"])
