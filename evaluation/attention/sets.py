"""Attention of one model on sets of images, of which some may be in several sets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from data.datasets import ImageLoader
from data.transforms import Protocol
from evaluation.scoring import predict
from networks.evidence import evidence
from networks.multiscale_npr import AttentionMultiScaleNPR


@dataclass(frozen=True)
class Attended:
    """Attention of one model on the N images of one generator.

    Args:
        name: generator.
        family: suite.
        labels: [N], 0 real, 1 fake.
        scores: [N] in [0, 1].
        weights: [N, S], rows sum to 1.
        branch_logits: [N, S], each branch's logit without bias, or None.
        images: N names; an image that is in several sets (real ones that generators share) counts
            once in what is said of all images. None: all are taken as different.
    """

    name: str
    family: str
    labels: NDArray
    scores: NDArray
    weights: NDArray
    branch_logits: NDArray | None = None
    images: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.family}/{self.name}"


def attend(
    model: AttentionMultiScaleNPR, loader: ImageLoader, name: str, family: str, precision: str
) -> Attended | None:
    """Run a model over the images of one generator; None if none of them can be read.

    Args:
        model: on its device.
        loader: of the images; afterwards its `left_out` has those without a score.
        name: generator.
        family: suite.
        precision: see --precision.
    """
    predictions = predict(model, loader, precision, progress=name)
    weights = predictions.attention_weights
    if weights is None:
        return None
    paths = tuple(loader.dataset.paths[index] for index in predictions.indices)
    labels, scores, branches = predictions.labels, predictions.scores, predictions.branch_logits
    return Attended(name, family, labels, scores, weights, branches, paths)


def first_of_each(sets: Sequence[Attended]) -> NDArray:
    """Return which images of all sets, in their order, come for the first time: [all images],
    bool."""
    seen: set[Any] = set()
    first = []
    for position, one in enumerate(sets):
        for name in one.images or [(position, row) for row in range(len(one.labels))]:
            first.append(name not in seen)
            seen.add(name)
    return np.array(first, dtype=bool)


def set_of_each(sets: Sequence[Attended]) -> NDArray:
    """Return the position of its set for each image of all sets, in their order: [all images]."""
    return np.repeat(np.arange(len(sets)), [len(one.labels) for one in sets])


def images_once(sets: Sequence[Attended]) -> Attended:
    """Return the images of all sets as one set, each image once, without branch logits."""
    once = first_of_each(sets)
    labels, scores, weights = (
        np.concatenate([np.asarray(getattr(one, name), dtype=float) for one in sets])[once]
        for name in ("labels", "scores", "weights")
    )
    name = sets[0].name if len(sets) == 1 else f"all {len(sets)} generators"
    return Attended(name, "", labels, scores, weights)


def sharing(sets: Sequence[Attended]) -> list[int]:
    """Return a number for each set, the same for sets that share images, also through others."""
    number, first = list(range(len(sets))), dict[str, int]()
    for index, one in enumerate(sets):
        joined = {number[first.setdefault(name, index)] for name in one.images or ()}
        joined.add(number[index])
        number = [min(joined) if of_set in joined else of_set for of_set in number]
    return number


def typical_and_surprising(weights: NDArray, count: int) -> tuple[NDArray, NDArray]:
    """Return the images whose attention is nearest to the mean, and those farthest from it.

    Near is a small Jensen-Shannon distance (Endres and Schindelin, IEEE Trans. Inf. Theory 2003).

    Args:
        weights: [N, S].
        count: how many of either; fewer where N is small, because no image is in both.

    Returns:
        Indices, the nearest and the farthest first; among equals, the lower index first.
    """
    distances = jensenshannon(weights, weights.mean(axis=0, keepdims=True), axis=1)
    distances = np.nan_to_num(distances).round(9)  # rounding errors tell no images apart
    nearest = np.argsort(distances, kind="stable")[: min(count, (len(weights) + 1) // 2)]
    farthest = np.argsort(-distances, kind="stable")
    return nearest, farthest[~np.isin(farthest, nearest)][:count]


@dataclass(frozen=True)
class ScaleMaps:
    """What the scales of a model see in one image.

    Args:
        index: of the image in its loader.
        label: 0 real, 1 fake.
        score: in [0, 1].
        image: [3, H, W] in [0, 1].
        residuals: {'npr_0.5': [3, H, W], ...}, one for each of the S scales.
        weights: attention [S].
        cams: class-activation maps [S, h, w], see `networks.evidence`.
        adds: [S], what each scale adds to the logit.
        exact: whether `cams` add up to that.
    """

    index: int
    label: int
    score: float
    image: NDArray
    residuals: dict[str, NDArray]
    weights: NDArray
    cams: NDArray
    adds: NDArray
    exact: bool


def scale_maps(
    model: AttentionMultiScaleNPR, loader: ImageLoader, protocol: Protocol
) -> Iterator[ScaleMaps]:
    """Run a model in evaluation mode over a loader with batches of one image.

    Args:
        model: on its device.
        loader: of the images to look into.
        protocol: of the loader, to undo its normalisation.

    Yields:
        The maps of each image.
    """
    device = next(model.parameters()).device
    for batch in loader.batches():
        images = loader.images(batch, device)
        seen: dict[str, Any] = model.get_scale_contributions(images)
        found = evidence(model, images)
        yield ScaleMaps(
            index=int(batch.indices[0]),
            label=int(batch.labels[0]),
            score=float(seen["prediction"].sigmoid()),
            image=protocol.denormalise(images[0]).cpu().numpy(),
            residuals={key: one[0].cpu().numpy() for key, one in seen["npr_maps"].items()},
            weights=seen["attention_weights"][0].cpu().numpy(),
            cams=found.maps[0].cpu().numpy(),
            adds=found.adds[0].cpu().numpy(),
            exact=found.exact,
        )
