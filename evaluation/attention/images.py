"""Single images: the most typical and most surprising attention, and the maps of each scale."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from data.loader import ImageLoader
from data.transforms import Protocol
from device import tf32
from networks.cam import evidence
from networks.multiscale_npr import AttentionMultiScaleNPR


def typical_and_surprising(weights: NDArray, count: int) -> tuple[NDArray, NDArray]:
    """Return the images whose attention is nearest to the mean, and those farthest from it.

    The distance is Jensen-Shannon (Endres and Schindelin, IEEE Trans. Inf. Theory 2003).

    Args:
        weights: [N, S].
        count: number of images of each kind; fewer for small N, as no image is in both.

    Returns:
        Indices of the nearest images, nearest first, and of the farthest, farthest first. Among
        equals, the lower index is first.
    """
    distances = jensenshannon(weights, weights.mean(axis=0, keepdims=True), axis=1)
    # rounded, so that equal distances tie and the index decides
    distances = np.nan_to_num(distances).round(9)
    nearest = np.argsort(distances, kind="stable")[: min(count, (len(weights) + 1) // 2)]
    farthest = np.argsort(-distances, kind="stable")
    return nearest, farthest[~np.isin(farthest, nearest)][:count]


@dataclass(frozen=True)
class ScaleMaps:
    """Maps of one image: residuals and class activations at each scale.

    Args:
        index: of the image in its loader.
        label: 0 real, 1 fake.
        score: in [0, 1].
        image: [3, H, W] in [0, 1].
        residuals: {'npr_0.5': [3, H, W], ...}, one for each of the S scales.
        weights: attention [S].
        cams: class-activation maps [S, h, w], see `networks.cam.evidence`.
        adds: [S], the contribution of each scale to the logit.
        exact: True if the means of `cams` are `adds`.
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
    """Run a model in evaluation mode over images.

    Args:
        model: on its device.
        loader: of the images, one in each batch (only the first of a batch is used).
        protocol: of the loader, to undo its normalisation.

    Yields:
        The maps of each image.
    """
    device = next(model.parameters()).device
    for batch in loader.batches():
        images = loader.images(batch, device)
        with tf32(False):
            contributions: dict[str, Any] = model.get_scale_contributions(images)
            cams = evidence(model, images)
        yield ScaleMaps(
            index=int(batch.indices[0]),
            label=int(batch.labels[0]),
            score=float(contributions["prediction"].sigmoid()),
            image=protocol.denormalise(images[0]).cpu().numpy(),
            residuals={
                key: residual[0].cpu().numpy()
                for key, residual in contributions["npr_maps"].items()
            },
            weights=contributions["attention_weights"][0].cpu().numpy(),
            cams=cams.maps[0].cpu().numpy(),
            adds=cams.adds[0].cpu().numpy(),
            exact=cams.exact,
        )
