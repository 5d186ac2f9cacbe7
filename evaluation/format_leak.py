"""Detect sets whose classes differ by file format: AUC of a classifier on the encoding alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.decode import FileFormat, UnreadableImage, read_format
from data.image_sets import ImageSet, sample_evenly

FOLDS = 5
LEAK = 0.6  # AUC above which the encoding predicts the class
MAX_FILES = 2000  # files whose metadata is read: enough for an AUC, and quick for any set


def separability(features: NDArray, labels: NDArray) -> float | None:
    """Return the mean ROC AUC of a logistic regression in a stratified 5-fold cross-validation.

    Args:
        features: [N, F], standardised before the regression.
        labels: [N], 0 or 1.

    Returns:
        AUC in [0, 1], 0.5 for chance; None where a class has fewer than two rows. Small classes get
        as many folds as they have rows.
    """
    smallest = int(np.bincount(labels, minlength=2).min())
    if smallest < 2:
        return None
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=0)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(
        np.mean(cross_val_score(classifier, features, labels, cv=folds, scoring="roc_auc"))
    )


def is_leak(auc: float | None, n_real: int, n_fake: int) -> bool:
    """Return True if an AUC is above 0.6, and above chance by three standard errors.

    The second condition avoids false warnings for small sets. The standard error is that of Hanley
    and McNeil (Radiology 143, 1982). It is tripled because that of a cross-validated AUC is larger.

    Args:
        auc: of the encoding alone; None where it is undefined.
        n_real: number of real images.
        n_fake: number of generated images.
    """
    if auc is None or auc <= LEAK or not n_real or not n_fake:
        return False
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_fake - 1) * (q1 - auc**2) + (n_real - 1) * (q2 - auc**2)
    return auc - 3 * float(np.sqrt(max(variance, 0.0) / (n_real * n_fake))) > 0.5


def format_features(formats: Sequence[FileFormat]) -> NDArray:
    """Return features [N, F] of the encoding of N files.

    The features are format and subsampling (one column per value), JPEG quality, width, height, and
    the logarithms of pixels and of bytes per pixel.
    """
    kinds = sorted({f.kind for f in formats})
    samplings = sorted({f.subsampling for f in formats})
    rows = [
        [
            *(f.kind == kind for kind in kinds),
            *(f.subsampling == sampling for sampling in samplings),
            f.quality or 0,
            f.width,
            f.height,
            np.log(f.width * f.height),
            np.log(f.bytes_per_pixel),
        ]
        for f in formats
    ]
    return np.array(rows, dtype=float)


def format_leak(images: ImageSet, seed: int = 0) -> float | None:
    """Return the `separability` of a set's classes by `format_features`.

    Args:
        images: the set; up to `MAX_FILES` of its files are sampled, half of each class.
        seed: of the sample.

    Returns:
        AUC in [0, 1]; None where a class has fewer than two readable files.
    """
    formats, labels = [], []
    sampled = sample_evenly(images, MAX_FILES, seed)
    for path, label in zip(sampled.paths, sampled.labels, strict=True):
        try:
            formats.append(read_format(path))
        except UnreadableImage:
            continue
        labels.append(label)
    return (
        separability(format_features(formats), np.array(labels)) if len(set(labels)) == 2 else None
    )
