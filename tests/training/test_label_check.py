"""Warnings of swapped labels."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

import train
from evaluation.metrics import binary_metrics
from tests.conftest import make_dataroot
from tests.scripts.test_scripts import train_argv
from training.warnings import below_chance, label_warning
from util import log

LABELS = np.arange(200) % 2


def figures(shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).normal(size=200)
    return LABELS, 1 / (1 + np.exp(-(noise + shift * LABELS)))


@pytest.mark.parametrize(
    ("train_shift", "val_shift", "text"),
    [
        (2, 2, None),
        (0, 0, None),
        (2, 0, None),
        (0, 2, None),
        (2, -2, "validation AUC"),
        (-2, 2, "training AUC"),
        (-2, -2, "training AUC"),
    ],
)
def test_warning_of_swapped_labels(train_shift: float, val_shift: float, text: str | None) -> None:
    warning = label_warning(*figures(train_shift), binary_metrics(*figures(val_shift, seed=1)))
    assert (warning is None) if text is None else (warning is not None and text in warning)


def test_one_class_says_nothing() -> None:
    scores = np.linspace(0, 1, 50)
    assert label_warning(np.zeros(50, int), scores, binary_metrics(*figures(-2))) is None
    assert label_warning(*figures(2), binary_metrics(np.zeros(50, int), scores)) is None


def test_three_standard_errors_are_those_of_mann_and_whitney() -> None:
    """At the border, SciPy's normal approximation gives the probability of three standard
    deviations."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        real, fake = rng.normal(size=40), rng.normal(-0.4, size=30)
        test = mannwhitneyu(
            fake, real, alternative="less", method="asymptotic", use_continuity=False
        )
        assert below_chance(test.statistic / 1200, 40, 30) == (test.pvalue < 0.0013498980316301035)


def test_training_warns_of_swapped_validation_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_dataroot(tmp_path / "data", ("car",), count=16)
    val = data / "val" / "car"
    shutil.move(val / "0_real", val / "x")
    shutil.move(val / "1_fake", val / "0_real")
    shutil.move(val / "x", val / "1_fake")
    log.propagate = True
    with caplog.at_level(logging.WARNING):
        train.main(train_argv(data, tmp_path / "c", "swapped", "--niter", "4", "--lr", "0.002"))
    text = next((tmp_path / "c").glob("swapped_*/log.log")).read_text()
    assert text.count("check whether real and fake are swapped in one of the two splits") == 1
