"""Signs that labels are swapped: real and generated told apart, but the wrong way round."""

import math

from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from evaluation.metrics import Metrics


def label_warning(labels: NDArray, scores: NDArray, validation: Metrics) -> str | None:
    """What an epoch's AUC on the training images says about the labels; None if nothing is wrong.

    Args:
        labels: [N] of the epoch's images, 0 real, 1 generated. scores: [N], what the model in
            training said of them.
        validation: figures after the epoch.
    """
    n_fake = int((labels == 1).sum())
    n_real = len(labels) - n_fake
    if not n_real or not n_fake:
        return None
    auc = float(roc_auc_score(labels, scores))
    if below_chance(auc, n_real, n_fake):
        return (
            f"training AUC {auc:.2f}: real and fake are ranked the wrong way round on the images it is trained on; if this stays,"
            " labels contradict each other: are real and fake swapped in some of the folders?"
        )
    if (
        auc > 0.5
        and validation.auc is not None
        and below_chance(validation.auc, validation.n_real, validation.n_fake)
    ):
        return (
            f"validation AUC {validation.auc:.2f}, but {auc:.2f} in training: are real and fake swapped in one of the two"
            " splits?"
        )
    return None


def below_chance(auc: float, n_real: int, n_fake: int) -> bool:
    """True if an AUC is below 1/2 by more than three of chance's standard errors (Mann and Whitney,
    1947)."""
    return auc < 0.5 - 3 * math.sqrt((n_real + n_fake + 1) / (12 * n_real * n_fake))
