"""Warn of swapped labels: real and fake are separated, but the wrong way round."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

import distributed
from evaluation.metrics import Metrics
from util import log


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
