"""One picture's answer: score, probability, verdict, and what may make it less reliable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import expit
from torch import Tensor

from inference.detector import Detector, NotFinite
from networks.calibration import GENERATED, REAL

SMALL_SIDE = 128
"""Pixels; a picture with a shorter side holds few traces."""
HEAVY_JPEG = 70
"""JPEG quality below which compression wipes out most of the traces."""
CUT = 0.5
"""Score that parts real from generated where nothing was calibrated."""
PALETTE = 256
"""Colours that a palette holds at most."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: what to call it, RGB, and the quality of its JPEG compression (1..100;
    None for other formats)."""

    name: str
    image: Image.Image
    jpeg_quality: int | None = None


@dataclass(frozen=True)
class Judgement:
    """What a detector says of one picture.

    Args:
        name: path, or what else it is called. logit: positive towards generated. score:
            sigmoid(logit).
        probability: of "generated", in [0, 1]; the score where the detector is not `calibrated`.
        verdict: "real", "generated" or, from a calibrated detector, "unsure".
        attention: [S] weights of the scales, None for a model without. top_scale: that of the
            largest weight.
        width, height: pixels of the picture as it is stored. warnings: what may make the answer
            less reliable.
    """

    name: str
    logit: float
    score: float
    probability: float
    calibrated: bool
    verdict: str
    attention: tuple[float, ...] | None
    top_scale: float | None
    width: int
    height: int
    warnings: tuple[str, ...]


class Answer(NamedTuple):
    """What follows from a logit; see `Judgement`."""

    logit: float
    score: float
    probability: float
    verdict: str


def judge(
    detector: Detector, pictures: Sequence[Picture], pixels: Sequence[Tensor] | None = None
) -> list[Judgement]:
    """Judge pictures together, in their order.

    Args:
        pixels: what `detector.pixels` made of each, if that has been done.

    Raises:
        ValueError: a picture is too small for the protocol or the model (see `Detector.pixels`).
        NotFinite: the model's answer to one of them is none.
    """
    if pixels is None:
        pixels = [detector.pixels(picture.image) for picture in pictures]
    said = detector.said_of_pixels(pixels)
    for picture, logit in zip(pictures, said.logits, strict=True):
        if not np.isfinite(logit):
            raise NotFinite(f"{picture.name}: the model's score is not finite")
    attention: Sequence[np.ndarray | None] = (
        [None] * len(pictures) if said.attention_weights is None else list(said.attention_weights)
    )
    return [
        judgement(detector, picture, float(logit), weights)
        for picture, logit, weights in zip(pictures, said.logits, attention, strict=True)
    ]


def answer(detector: Detector, logit: float) -> Answer:
    """Score, probability and verdict that follow from a logit."""
    calibration = detector.calibration
    score = float(expit(logit))
    if calibration is None:
        return Answer(logit, score, score, GENERATED if score > CUT else REAL)
    probability = float(calibration.probabilities(logit))
    return Answer(logit, score, probability, calibration.verdict(probability))


def judgement(
    detector: Detector, picture: Picture, logit: float, weights: np.ndarray | None
) -> Judgement:
    """The answer that follows from a picture's logit and attention [S]."""
    of_logit = answer(detector, logit)
    return Judgement(
        name=picture.name,
        logit=logit,
        score=of_logit.score,
        probability=of_logit.probability,
        calibrated=detector.calibration is not None,
        verdict=of_logit.verdict,
        attention=None if weights is None else tuple(map(float, weights)),
        top_scale=None if weights is None else detector.scales[int(weights.argmax())],
        width=picture.image.width,
        height=picture.image.height,
        warnings=tuple(reservations(detector, picture)),
    )


def reservations(detector: Detector, picture: Picture) -> list[str]:
    """What may make the answer less reliable, in words."""
    width, height = picture.image.size
    found = []
    if min(width, height) < SMALL_SIDE:
        found.append(f"small: {width}x{height} pixels")
    if picture.jpeg_quality is not None and picture.jpeg_quality < HEAVY_JPEG:
        found.append(f"heavily compressed: JPEG quality about {picture.jpeg_quality}")
    if (colours := few_colours(picture.image)) is not None:
        found.append(colours)
    resize, crop = detector.protocol.resize, detector.protocol.crop
    if resize is not None and (width, height) != (resize, resize):
        found.append(
            f"resized from {width}x{height} to {resize}x{resize} by protocol {detector.protocol.name}"
        )
    width, height = (resize, resize) if resize is not None else (width, height)
    if crop is not None and detector.protocol.tile and min(width, height) < crop:
        found.append(
            f"repeated until it covers {crop}x{crop} pixels, by protocol {detector.protocol.name}"
        )
    elif crop is not None and (width, height) != (crop, crop):
        found.append(
            f"only the central {crop}x{crop} pixels were looked at, by protocol {detector.protocol.name}"
        )
    return found


def few_colours(image: Image.Image) -> str | None:
    """That an RGB picture is grey or may come from a palette, in words; None if not.

    The pixels tell, because whoever saved such a picture again may have saved it as RGB. One of
    `PALETTE` pixels or fewer has no more colours anyway.
    """
    found = image.getcolors(PALETTE)  # None, after a glance, where there are more
    if found is None:
        return None
    colours = np.array([colour for _, colour in found])
    if (colours == colours[:, :1]).all():
        return "grey: no colour in it"
    return f"few colours: {len(colours)}" if image.width * image.height > PALETTE else None
