"""Numbers of the model card, with intervals over source pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.metrics import roc_auc_score, roc_curve
from tqdm import tqdm

from data.decode import read_image
from data.degradations import parse_degradation
from data.image_sets import FAKE, REAL
from inference.detector import Detector
from tools.pretrained.pool import WHOLE_PHOTOGRAPHS, PoolImage

CONDITIONS = ("clean", "jpeg:85", "jpeg:75")
RESAMPLES, CONFIDENCE = 1000, 0.95
FALSE_POSITIVES = 0.05  # largest share of real images above the threshold
BATCH = 16  # crops of one forward pass
DECODERS = {
    "SDXL's auto-encoder (training has it)": ("playground_v2",),
    "FLUX's auto-encoder": ("ostris_", "lodestones_", "OmniGen2_", "Freepik_F-Lite"),
    "a deep-compression auto-encoder (SANA)": ("Efficient-Large-Model_SANA",),
    "Wan 2.1's auto-encoder (Cosmos-Predict2)": ("nvidia_Cosmos-Predict2",),
    "not known to us (BRIA 3.2)": ("briaai_",),
}
"""Decoders of the generators in dev, by the start of the generator's name."""
Array = NDArray[np.float64]


def scores(detector: Detector, root: Path, images: Sequence[PoolImage], condition: str) -> Array:
    """Return the logits [N] of images after a degradation, as predict.py scores them."""
    degrade, rng = parse_degradation(condition), np.random.default_rng(0)
    logits = np.empty(len(images))
    starts = tqdm(range(0, len(images), BATCH), desc=condition, leave=False, disable=None)
    for start in starts:
        batch = [
            degrade(read_image(str(root / image.path)), rng)
            for image in images[start : start + BATCH]
        ]
        logits[start : start + len(batch)] = detector.outputs(batch).logits
    return logits


def resamples(images: Sequence[PoolImage], seed: int = 0) -> Iterator[NDArray]:
    """Yield weights [N] of images: how often a bootstrap over source pictures draws each.

    Of each class, as many pictures are drawn as it has.
    """
    rng = np.random.default_rng(seed)
    pictures = np.array([f"{image.label}{image.picture}" for image in images])
    names, index = np.unique(pictures, return_inverse=True)
    classes = [np.flatnonzero(np.char.startswith(names, str(label))) for label in (REAL, FAKE)]
    for _ in range(RESAMPLES):
        drawn = [rng.choice(of_class, len(of_class)) for of_class in classes if len(of_class)]
        yield np.bincount(np.concatenate(drawn), minlength=len(names))[index]


def auc_with_interval(images: Sequence[PoolImage], logits: Array) -> dict[str, float]:
    """Return 'auc' and the ends 'low', 'high' of its 95 % interval (percentile bootstrap)."""
    labels = np.array([image.label for image in images])
    drawn = [roc_auc_score(labels, logits, sample_weight=weights) for weights in resamples(images)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"auc": float(roc_auc_score(labels, logits)), "low": float(low), "high": float(high)}


def found_at(labels: NDArray, logits: Array, false_positives: float = FALSE_POSITIVES) -> float:
    """Return the largest share of generated images found with at most this share of false ones."""
    fpr, tpr, _ = roc_curve(labels, logits, drop_intermediate=False)
    return float(tpr[fpr <= false_positives].max())


def share(images: Sequence[PoolImage], hits: NDArray) -> dict[str, float | int]:
    """Return the share of true values, and its 95 % interval (Clopper and Pearson).

    The interval counts source pictures, not crops, as if all crops of a picture agreed; where they
    differ, it is too wide.

    Args:
        images: [N], at least one.
        hits: [N] bool.
    """
    pictures = len({image.picture for image in images})
    value, tail = float(hits.mean()), (1 - CONFIDENCE) / 2
    yes, no = value * pictures, (1 - value) * pictures
    return {
        "n": len(images),
        "pictures": pictures,
        "share": value,
        "low": float(beta.ppf(tail, yes, no + 1)) if yes else 0.0,
        "high": float(beta.ppf(1 - tail, yes + 1, no)) if no else 1.0,
    }


def of_sets(
    images: Sequence[PoolImage], logits: dict[str, Array], threshold: float
) -> list[dict[str, Any]]:
    """Return a row for each set with both classes.

    A row has the set's name, numbers of images, AUC by condition, the share of generated images
    found at 5 % false positives of the set, and that above the threshold.

    Args:
        images: all.
        logits: [N] by condition.
        threshold: logit.
    """
    names = np.array([image.set for image in images])
    labels = np.array([image.label for image in images])
    rows = []
    for name in dict.fromkeys(names.tolist()):
        rows_of_set = np.flatnonzero(names == name).tolist()
        part, of_set = [images[row] for row in rows_of_set], labels[rows_of_set]
        if len(set(of_set.tolist())) < 2:
            continue
        clean = logits[CONDITIONS[0]][rows_of_set]
        rows.append(
            {
                "set": name,
                "real": int((of_set == REAL).sum()),
                "generated": int((of_set == FAKE).sum()),
                "auc": {c: auc_with_interval(part, z[rows_of_set]) for c, z in logits.items()},
                "found_at_5": found_at(of_set, clean),
                "found": share(
                    [image for image in part if image.label == FAKE],
                    clean[of_set == FAKE] > threshold,
                ),
            }
        )
    return rows


def of_decoders(images: Sequence[PoolImage], logits: Array) -> dict[str, dict[str, Any]]:
    """Return the AUC of dev's generated images by decoder, against the real ones of their set."""
    result = {}
    for decoder, starts in DECODERS.items():
        fake = [
            row
            for row, image in enumerate(images)
            if image.set.startswith("dev/") and image.generator.startswith(starts)
        ]
        sets = {images[row].set for row in fake}
        real = [row for row, i in enumerate(images) if i.set in sets and i.label == REAL]
        if fake:
            rows = real + fake
            result[decoder] = {"generated": len(fake)} | auc_with_interval(
                [images[row] for row in rows], logits[rows]
            )
    return result


def of_sources(
    images: Sequence[PoolImage], logits: Array, threshold: float
) -> dict[str, dict[str, Any]]:
    """Return the share of real images above a threshold by source, the worst first.

    Whole photographs are skipped.
    """
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        if image.label == REAL and image.set != WHOLE_PHOTOGRAPHS:
            rows.setdefault(image.source, []).append(row)
    shares = {
        source: share([images[row] for row in of_source], logits[of_source] > threshold)
        for source, of_source in rows.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]["share"]))
