"""The prediction for one image: score, probability, verdict and warnings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import expit
from torch import Tensor

from inference.detector import Detector, NotFinite
from inference.tiles import grid_of, tile_boxes
from networks.calibration import GENERATED, REAL, UNSURE

SMALL_SIDE = 128  # pixels; an image with a shorter side holds few traces
HEAVY_JPEG = 70  # JPEG quality below which compression wipes out most traces
UNCALIBRATED_CUT = 0.5  # score above which an uncalibrated detector calls an image generated
PALETTE = 256  # most colours that a palette holds


@dataclass(frozen=True)
class NamedImage:
    """A decoded RGB image.

    Args:
        name: path, or another name for messages.
        image: 8-bit RGB.
        jpeg_quality: 1..100, None for other formats.
        frames: number of images of the animation that this is the first of.
    """

    name: str
    image: Image.Image
    jpeg_quality: int | None = None
    frames: int = 1


class Decision(NamedTuple):
    """Score, probability and verdict that follow from a logit; see `Prediction`."""

    score: float
    probability: float
    verdict: str


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Args:
        name: path, or another name for messages.
        logit: positive towards generated.
        score: sigmoid(logit).
        probability: of "generated", in [0, 1]; the score where the detector is not calibrated.
        verdict: "real", "generated" or, from a calibrated detector, "unsure".
        calibrated: True if the detector is.
        attention: [S] weights of the scales, None for a model with one scale.
        top_scale: scale with the largest weight.
        width: pixels of the image as it is stored.
        height: likewise.
        tiles_above: share in [0, 1] of the image's tiles above the threshold, where it is larger
            than the images of the calibration; None for others.
        warnings: reasons why the prediction is less reliable.
    """

    name: str
    logit: float
    score: float
    probability: float
    verdict: str
    calibrated: bool
    attention: tuple[float, ...] | None
    top_scale: float | None
    width: int
    height: int
    tiles_above: float | None
    warnings: tuple[str, ...]


def predict_images(
    detector: Detector, images: Sequence[NamedImage], pixels: Sequence[Tensor] | None = None
) -> list[Prediction]:
    """Predict images together; return the predictions in their order.

    Args:
        detector: the detector.
        images: the images.
        pixels: of each image, from `detector.pixels`; None computes them here.

    Raises:
        ValueError: an image is too small for the protocol or the model (see `Detector.pixels`).
        NotFinite: the logit of an image is not finite.
    """
    if pixels is None:
        pixels = [detector.pixels(image.image) for image in images]
    outputs = detector.pixel_outputs(pixels)
    predictions = []
    for index, image in enumerate(images):
        logit, attention = float(outputs.logits[index]), None
        if not np.isfinite(logit):
            raise NotFinite(f"{image.name}: the model's score is not finite")
        if outputs.attention_weights is not None:
            attention = tuple(map(float, outputs.attention_weights[index]))
        width, height = image.image.size
        warnings, above = image_warnings(detector, image), None
        if detector.calibration is not None and detector.calibration.beyond(width, height):
            above, tiles = share_above(detector, image.image)
            warnings.append(
                f"larger than the calibration's images: {100 * above:.0f} % of {tiles} tiles above"
                " the threshold"
            )
        predictions.append(
            Prediction(
                image.name,
                logit,
                *decide(detector, logit, width, height),
                calibrated=detector.calibration is not None,
                attention=attention,
                top_scale=top_scale(detector, attention),
                width=width,
                height=height,
                tiles_above=above,
                warnings=tuple(warnings),
            )
        )
    return predictions


def decide(detector: Detector, logit: float, width: int = 0, height: int = 0) -> Decision:
    """Return the score, probability and verdict that follow from a logit.

    Args:
        detector: the detector.
        logit: of the image.
        width: of the image in pixels.
        height: likewise.
    """
    calibration, score = detector.calibration, float(expit(logit))
    if calibration is None:
        return Decision(score, score, GENERATED if score > UNCALIBRATED_CUT else REAL)
    probability = float(calibration.probabilities(logit))
    unsure = not calibration.larger and calibration.beyond(width, height)
    return Decision(score, probability, UNSURE if unsure else calibration.verdict(probability))


def share_above(detector: Detector, image: Image.Image) -> tuple[float, int]:
    """Return the share of an image's tiles above the calibration's threshold, and their number.

    The tiles are about as large as the images of the calibration.

    Args:
        detector: calibrated, with the side of its images.
        image: RGB.
    """
    calibration = detector.calibration
    assert calibration is not None
    boxes = tile_boxes(image.height, image.width, grid_of(detector.scales), calibration.side)
    tiles = [image.crop((b.left, b.top, b.left + b.width, b.top + b.height)) for b in boxes]
    probabilities = calibration.probabilities(detector.outputs(tiles).logits)
    return float((probabilities > calibration.threshold).mean()), len(tiles)


def top_scale(detector: Detector, attention: Sequence[float] | None) -> float | None:
    """Return the scale with the largest weight; None without attention."""
    return None if attention is None else detector.scales[int(np.argmax(attention))]


def image_warnings(detector: Detector, image: NamedImage) -> list[str]:
    """Return the reasons why the prediction for an image is less reliable, a message each."""
    width, height = image.image.size
    warnings = []
    if min(width, height) < SMALL_SIDE:
        warnings.append(f"small: {width}x{height} pixels")
    if image.frames > 1:
        warnings.append(f"animated: only the first of {image.frames:,} images was used")
    if image.jpeg_quality is not None and image.jpeg_quality < HEAVY_JPEG:
        warnings.append(f"heavily compressed: JPEG quality about {image.jpeg_quality}")
    if (colours := few_colours(image.image)) is not None:
        warnings.append(colours)
    protocol = detector.protocol
    resize, crop, by_protocol = protocol.resize, protocol.crop, f"by protocol {protocol.name}"
    if resize is not None:
        if (width, height) != (resize, resize):
            warnings.append(f"resized from {width}x{height} to {resize}x{resize} {by_protocol}")
        width = height = resize
    if crop is not None and protocol.tile and min(width, height) < crop:
        warnings.append(f"repeated until it covers {crop}x{crop} pixels, {by_protocol}")
    elif crop is not None and (width, height) != (crop, crop):
        warnings.append(f"only the central {crop}x{crop} pixels were used, {by_protocol}")
    return warnings


def few_colours(image: Image.Image) -> str | None:
    """Return a warning if an RGB image is grey or may come from a palette, else None.

    The pixels are counted, because a palette image may have been saved again as RGB. An image of
    `PALETTE` pixels or fewer cannot have more colours.
    """
    counts = image.getcolors(PALETTE)  # None if there are more
    if counts is None:
        return None
    colours = np.array([colour for _, colour in counts])
    if (colours == colours[:, :1]).all():
        return "grey: no colour in it"
    return f"few colours: {len(colours)}" if image.width * image.height > PALETTE else None
