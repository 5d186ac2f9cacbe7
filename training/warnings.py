"""Warn during training of idle attention and of swapped labels."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

import distributed
from evaluation.attention.groups import group_statistics
from evaluation.attention.kinds import COLLAPSED, NEARLY_ALL, UNIFORM
from evaluation.metrics import Metrics
from networks.npr import scale_keys, scale_label
from util import log

# follow "attention has" in the warning
STILL_UNIFORM, STILL_COLLAPSED = "been uniform", "given one scale nearly everything"


class AttentionWatch:
    """Warns of attention that was uniform or collapsed for `patience` epochs in a row.

    It warns once per such period.

    Args:
        patience: number of epochs after which to warn, at least 1.

    Raises:
        ValueError: patience below 1.
    """

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f"a patience of {patience} epochs; pass 1 or more")
        self.patience = patience
        self._kind, self._epochs = "", 0

    def state(self) -> dict[str, str | int]:
        """Return kind ('' if nothing is wrong) and epochs (number in a row)."""
        return {"kind": self._kind, "epochs": self._epochs}

    def restore(self, state: Mapping[str, str | int]) -> None:
        """Resume from what `state` returned."""
        self._kind, self._epochs = str(state["kind"]), int(state["epochs"])

    def after_epoch(self, weights: NDArray, scales: Sequence[float]) -> str | None:
        """Return a warning, or None.

        Args:
            weights: attention [N, S] on validation images, N >= 1.
            scales: S of them; with one scale there is never a warning.
        """
        kind, numbers = stuck(weights, scales) or ("", "")
        self._epochs = self._epochs + 1 if kind == self._kind else 1
        self._kind = kind
        if not kind or self._epochs != self.patience:
            return None
        epochs = f"{self.patience} epoch{'s' * (self.patience != 1)}"
        return f"attention has {kind} for {epochs}: {numbers}; see docs/attention.md for what helps"


def stuck(weights: NDArray, scales: Sequence[float]) -> tuple[str, str] | None:
    """Return `STILL_UNIFORM` or `STILL_COLLAPSED`, and the numbers; None if nothing is wrong.

    The thresholds are those of `attention_verdicts`.

    Args:
        weights: attention [N, S].
        scales: S of them.
    """
    if len(scales) < 2:
        return None
    statistics = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
    key, top = max(statistics["scales"].items(), key=lambda pair: pair[1]["nearly_all"])
    if top["nearly_all_low"] >= COLLAPSED:
        share = f"{top['nearly_all']:.0%} of the images"
        return STILL_COLLAPSED, f"scale {scale_label(key)} gets at least {NEARLY_ALL:g} in {share}"
    mean = statistics["entropy"]["relative_mean"]
    if mean >= UNIFORM:
        return STILL_UNIFORM, f"an image's entropy is {mean:.1%} of its maximum"
    return None


class LabelCheck:
    """Collects an epoch's training outputs and warns of swapped labels, not twice in a row."""

    def __init__(self) -> None:
        self._outputs: list[tuple[Tensor, Tensor]] = []
        self._last_kind = ""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Store the logits [B, 1] and labels [B] of a training batch."""
        # copied, because a worker's tensor keeps a file open
        self._outputs.append((logits, labels.clone()))

    def after_epoch(self, validation: Metrics) -> None:
        """Warn if the labels seem to be swapped, and clear the stored outputs. Collective."""
        columns = [
            torch.cat(column).flatten().float().cpu() for column in zip(*self._outputs, strict=True)
        ]
        self._outputs = []
        parts = [part for part in distributed.gather(columns) if part]
        if not parts:
            return
        logits, labels = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        # logits of skipped steps are not finite
        finite = np.isfinite(logits)
        warning = label_warning(labels[finite], logits[finite], validation)
        if warning is None:
            return
        kind = warning.split()[0]
        if kind != self._last_kind:
            log.warning("%s", warning)
            self._last_kind = kind


def label_warning(labels: NDArray, scores: NDArray, validation: Metrics) -> str | None:
    """Return a warning if an epoch's AUCs indicate swapped labels, else None.

    Args:
        labels: [N] of the epoch's training images, 0 real, 1 fake.
        scores: [N], outputs of the model in training.
        validation: metrics after the epoch.
    """
    n_fake = int((labels == 1).sum())
    n_real = len(labels) - n_fake
    if not n_real or not n_fake:
        return None
    auc = float(roc_auc_score(labels, scores))
    if below_chance(auc, n_real, n_fake):
        return (
            f"training AUC {auc:.2f}: real and fake are ranked the wrong way round on the training "
            "images; if this stays, check whether real and fake are swapped in some of the folders"
        )
    if (
        auc > 0.5
        and validation.auc is not None
        and below_chance(validation.auc, validation.n_real, validation.n_fake)
    ):
        return (
            f"validation AUC {validation.auc:.2f}, but {auc:.2f} in training: check whether real "
            "and fake are swapped in one of the two splits"
        )
    return None


def below_chance(auc: float, n_real: int, n_fake: int) -> bool:
    """Return True if an AUC is more than three standard errors below 1/2.

    The standard error is that of chance (Mann and Whitney, 1947).

    Args:
        auc: in [0, 1].
        n_real: number of real images, at least 1.
        n_fake: number of fake images, at least 1.
    """
    return auc < 0.5 - 3 * math.sqrt((n_real + n_fake + 1) / (12 * n_real * n_fake))
