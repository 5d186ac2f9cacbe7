"""Warnings of attention that does nothing."""

import numpy as np
import pytest

from evaluation.attention_watch import AttentionWatch

SCALES = (0.25, 0.5, 0.75)
RNG = np.random.default_rng(0)
UNIFORM = RNG.dirichlet([300] * 3, size=50)
COLLAPSED = RNG.dirichlet([0.5, 100, 0.5], size=50)
AT_WORK = RNG.dirichlet([2] * 3, size=50)


@pytest.mark.parametrize(("weights", "said"), [(UNIFORM, "been uniform"), (COLLAPSED, "scale 0.5 gets at least 0.9")])
def test_it_is_said_once_after_three_epochs(weights: np.ndarray, said: str) -> None:
    watch = AttentionWatch()
    found = [watch.after_epoch(weights, SCALES) for _ in range(6)]
    assert [warning is not None for warning in found] == [False, False, True, False, False, False]
    assert said in found[2] and "--attention_diversity_weight 0.1" in found[2]
    assert "--attention_entropy_weight" not in found[2]  # it makes attention more uniform


def test_another_epoch_between_starts_again() -> None:
    watch = AttentionWatch()
    given = [UNIFORM, UNIFORM, AT_WORK, UNIFORM, UNIFORM, COLLAPSED, UNIFORM, UNIFORM, UNIFORM]
    assert [watch.after_epoch(weights, SCALES) is not None for weights in given] == [False] * 8 + [True]


@pytest.mark.parametrize("weights", (AT_WORK, np.ones((5, 1))))
def test_attention_at_work_or_without_choice_is_fine(weights: np.ndarray) -> None:
    watch = AttentionWatch()
    assert not any(watch.after_epoch(weights, SCALES[: weights.shape[1]]) for _ in range(5))
