"""Compute the logits that a calibration is fitted to, as `inference.detector` does for images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data.image_sets import ImageSet
from data.loader import evaluation_loader
from evaluation.scores import Scores
from evaluation.scoring import predict_variants
from inference.detector import Detector
from util import require_one


class _AsDetected(nn.Module):
    """Map pixels [B, 3, H, W] uint8 to logits [B], large images in tiles."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.model, self.scales = detector, detector.model, detector.scales

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self.detector.pixel_outputs(list(pixels)).logits)


def detector_predictions(
    detector: Detector,
    sets: Sequence[ImageSet],
    batch_size: int,
    num_threads: int = 0,
    on_bad_image: str = "skip",
    precision: str = "fp32",
) -> Scores:
    """Return the predictions for the images of all sets, each file once, without attention.

    A progress bar is shown.

    Args:
        detector: the detector.
        sets: the labelled images.
        batch_size: images loaded together.
        num_threads: processes that load images.
        on_bad_image: see `ImageLoader`.
        precision: of the detector.

    Raises:
        UserError: torchrun started several processes.
    """
    require_one("tools.calibrate")
    labels = {
        path: label
        for images in sets
        for path, label in zip(images.paths, images.labels, strict=True)
    }
    together = ImageSet("", "all", tuple(labels), tuple(labels.values()))
    loader = evaluation_loader(
        together, detector.protocol, batch_size, num_threads, on_bad_image=on_bad_image
    )
    as_detected = _AsDetected(detector).eval()  # the mode that the model is left in
    return predict_variants(
        as_detected, loader, precision, progress="calibrate", forward=as_detected
    )[0]
