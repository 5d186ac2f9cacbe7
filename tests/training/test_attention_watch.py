"""Warnings of attention that does nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

import train
from networks.checkpoint_file import read_checkpoint, save_checkpoint
from tests.conftest import TINY
from training.attention_watch import STILL_UNIFORM, AttentionWatch
from util import UserError

SCALES = (0.25, 0.5, 0.75)
RNG = np.random.default_rng(0)
UNIFORM = RNG.dirichlet([300] * 3, size=50)
COLLAPSED = RNG.dirichlet([0.5, 100, 0.5], size=50)
AT_WORK = RNG.dirichlet([2] * 3, size=50)


@pytest.mark.parametrize(
    ("weights", "said"), [(UNIFORM, "been uniform"), (COLLAPSED, "scale 0.5x gets at least 0.9")]
)
def test_it_is_said_once_after_three_epochs(weights: np.ndarray, said: str) -> None:
    watch = AttentionWatch()
    found = [watch.after_epoch(weights, SCALES) for _ in range(6)]
    assert [warning is not None for warning in found] == [False, False, True, False, False, False]
    assert said in found[2] and "docs/attention.md" in found[2]


def test_another_epoch_between_starts_again() -> None:
    watch = AttentionWatch()
    given = [UNIFORM, UNIFORM, AT_WORK, UNIFORM, UNIFORM, COLLAPSED, UNIFORM, UNIFORM, UNIFORM]
    assert [watch.after_epoch(weights, SCALES) is not None for weights in given] == [False] * 8 + [
        True
    ]


@pytest.mark.parametrize("weights", (AT_WORK, np.ones((5, 1))))
def test_attention_at_work_or_without_choice_is_fine(weights: np.ndarray) -> None:
    watch = AttentionWatch()
    assert not any(watch.after_epoch(weights, SCALES[: weights.shape[1]]) for _ in range(5))


@pytest.mark.parametrize("epochs", range(5))
def test_a_watch_that_goes_on_says_what_one_that_never_stopped_says(epochs: int) -> None:
    given = [AT_WORK, UNIFORM, UNIFORM, UNIFORM, COLLAPSED]
    whole = AttentionWatch()
    said = [whole.after_epoch(weights, SCALES) for weights in given]
    first, second = AttentionWatch(), AttentionWatch()
    before = [first.after_epoch(weights, SCALES) for weights in given[:epochs]]
    kept = json.loads(json.dumps(first.state()))
    assert all(type(value) in (int, str) for value in kept.values())
    second.restore(kept)
    assert before + [second.after_epoch(weights, SCALES) for weights in given[epochs:]] == said
    assert said[3] is not None and second.state() == whole.state()


@pytest.mark.parametrize("patience", (1, 2, 5))
def test_patience(patience: int) -> None:
    watch = AttentionWatch(patience)
    found = [watch.after_epoch(UNIFORM, SCALES) for _ in range(6)]
    assert [index for index, warning in enumerate(found, 1) if warning] == [patience]
    assert f"for {patience} epoch" in found[patience - 1] and (
        "1 epochs" not in found[patience - 1]
    )
    with pytest.raises(ValueError, match="patience of 0 epochs"):
        AttentionWatch(0)


def test_repeated_scales_are_told_apart() -> None:
    said = AttentionWatch(1).after_epoch(COLLAPSED, (0.5, 0.5, 0.5))
    assert said is not None and "scale 0.5x #2 gets" in said


def test_few_validation_images_are_not_taken_for_collapsed() -> None:
    watch = AttentionWatch(1)
    assert (
        watch.after_epoch(COLLAPSED[:20], SCALES) is None
        and watch.after_epoch(COLLAPSED, SCALES) is not None
    )


def test_a_continued_training_goes_on_counting(
    dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each of three trainings adds an epoch of uniform attention; the last says so."""
    monkeypatch.setattr(
        "training.attention_watch.stuck",
        lambda weights, scales: (STILL_UNIFORM, "as the test has it"),
    )
    argv = [
        "--name",
        "watched",
        "--model_type",
        "multiscale_attention",
        "--dataroot",
        str(dataroot),
        *TINY,
    ]
    argv += ["--checkpoints_dir", str(tmp_path), "--attention_patience", "3"]
    said = []
    for niter in ("1", "2", "3"):
        assert (
            train.main([*argv, "--niter", niter, *(["--continue_train"] if niter != "1" else [])])
            == 0
        )
        said.append(
            "attention has been uniform for 3 epochs: as the test has it" in capsys.readouterr().out
        )
    assert said == [False, False, True]
    path = next(tmp_path.glob("watched_*/model_epoch_last.pth"))
    save_checkpoint(path, read_checkpoint(path) | {"attention_watch": {"kind": 3, "epochs": "x"}})
    with pytest.raises(UserError, match="attention_watch"):
        train.main([*argv, "--niter", "4", "--continue_train"])
