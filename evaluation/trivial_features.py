"""Separability of classes by size, brightness, blur and blockiness alone, without any trace.

A detector that ranks a set no better than these features has not shown that it reads traces.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.splits import load_set
from evaluation.format_leak import separability

Array = NDArray[np.float64]
FEATURES = (
    *(
        "file size",
        "bytes per pixel",
        "width",
        "height",
        "brightness",
        "contrast",
        "red",
        "green",
        "blue",
    ),
    *("saturation", "log Laplacian energy", "log gradient energy", "blockiness"),
)


def trivial_features(path: str | Path) -> Array:
    """Return the `FEATURES` [13] of one image file, of at least 3x3 pixels.

    Units: bytes, pixels, means and standard deviation of values in [0, 1], log energies; blockiness
    is the log ratio of the mean steps across and inside the blocks of JPEG, 8x8 pixels.
    """
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    height, width, _ = rgb.shape
    grey = rgb.mean(axis=2)
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    saturation = np.mean((high - low) / np.maximum(high, 1 / 255))
    laplacian = (
        grey[2:, 1:-1] + grey[:-2, 1:-1] + grey[1:-1, 2:] + grey[1:-1, :-2] - 4 * grey[1:-1, 1:-1]
    )
    rows, columns = np.diff(grey, axis=0), np.diff(grey, axis=1)
    gradient = np.mean(rows**2) + np.mean(columns**2)
    energies = np.log(np.array([np.mean(laplacian**2), gradient]) + 1e-8)
    file_size = Path(path).stat().st_size
    shape_and_size = (file_size, file_size / (width * height), width, height)
    return np.array(
        [
            *shape_and_size,
            *(grey.mean(), grey.std(), *rgb.mean(axis=(0, 1)), saturation),
            *energies,
            _blockiness(rows.T) + _blockiness(columns),
        ]
    )


def _blockiness(steps: Array) -> float:
    """Return the log ratio of the mean size of steps [N, M] at every 8th of M, and of the others."""
    sizes = np.abs(steps).mean(axis=0)
    across = np.arange(len(sizes)) % 8 == 7
    if not across.any():
        return 0.0
    return float(np.log((sizes[across].mean() + 1e-4) / (sizes[~across].mean() + 1e-4)))


def trivial_feature_auc(folder: Path) -> float:
    """Return the `separability` of a set's classes by `trivial_features`.

    Args:
        folder: a set: 0_real/ and 1_fake/ in it or in each of its content folders. Images have at
            least 3x3 pixels.

    Returns:
        ROC AUC, mean over the 5 folds of a cross-validation (small classes: a fold per image); 0.5
        is chance. NaN where a class has fewer than two images.

    Raises:
        UserError: class folders are missing or hold no image.
    """
    images = load_set(folder, generator=folder.name)
    features = np.stack([trivial_features(path) for path in images.paths])
    auc = separability(features, np.array(images.labels))
    return float("nan") if auc is None else auc
