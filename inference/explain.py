"""Explain a detector's prediction for an image: residuals, weights of the scales, evidence maps."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from torch import Tensor

from device import NotEnoughMemory, memory_errors, tf32
from evaluation.names import escaped
from inference.detector import Detector
from inference.stream import Outcome
from inference.tiles import Box, grid_of, tile_boxes
from inference.video.scoring import VideoPrediction, write_video_report
from networks.calibration import GENERATED, REAL
from networks.cam import Evidence, classifier, evidence
from networks.npr import residual_maps
from reports.drawing import Drawer
from util import UserError, log, writable_folder, writing

SHOWN = 512  # side of the shown part of a large image, about, in pixels; single pixels stay visible
MAX_STEM = 150  # bytes of a file's name in that of its panel; a name may have 255


@dataclass(frozen=True)
class Explanation:
    """Content of the panel of `draw`, for the shown part of the image.

    Args:
        title: name of the image and of the shown part.
        scales: [S].
        image: [3, H, W] in [0, 1], as the model sees it.
        residuals: {'npr_0.5': [3, H, W], ...}, one for each scale, of normalised pixels.
        evidence: class-activation maps [S, h, w] in units of the logit, positive towards generated
            (see `networks.cam`).
        adds: [S] contributions of the scales to the logit.
        exact: True if `adds` are the means of the maps (see `networks.cam`).
        attention: [S] weights of the scales, None for a model with one scale.
        box: the shown part, in pixels of the image after the protocol.
    """

    title: str
    scales: tuple[float, ...]
    image: Tensor
    residuals: dict[str, Tensor]
    evidence: Tensor
    adds: Tensor
    exact: bool
    attention: NDArray[np.float32] | None
    box: Box


def explain(detector: Detector, image: Image.Image, title: str = "") -> Explanation:
    """Return the explanation of a detector's prediction for an RGB image.

    It may be called from several threads. Of an image of more than 2 * SHOWN**2 pixels, one tile is
    shown at its own size. It is the tile with the most extreme logit in the direction of the
    prediction for the image. The title has the position and score of the tile, the size after
    the protocol, and the bias. The bias and the contributions of the scales sum to the logit of
    the shown part.

    Args:
        detector: the detector.
        image: 8-bit RGB.
        title: name of the image.

    Raises:
        ValueError: too small for the protocol's crop or the model (see `Detector.pixels`).
    """
    pixels = detector.pixels(image)
    height, width = pixels.shape[1:]
    boxes = tile_boxes(height, width, grid_of(detector.scales), SHOWN)
    tiles = [
        pixels[:, box.top : box.top + box.height, box.left : box.left + box.width] for box in boxes
    ]
    with detector.lock:
        outputs = detector.pixel_outputs(tiles)
        areas = [box.height * box.width for box in boxes]
        generated = np.average(outputs.logits, weights=areas) > 0
        shown = int(outputs.logits.argmax() if generated else outputs.logits.argmin())
        images = detector.protocol.normalise(tiles[shown][None].to(detector.device))
        with torch.no_grad():
            residuals = {
                key: residual[0].cpu()
                for key, residual in residual_maps(images, detector.scales).items()
            }
        with tf32(False):
            of_scales = evidence(detector.model, images)
    notes = [title] if title else []
    if (width, height) != image.size:
        notes.append(
            f"{image.width}x{image.height} made {width}x{height} by protocol"
            f" {detector.protocol.name}"
        )
    if len(boxes) > 1:
        part = _part(boxes[shown], width, height)
        side, score = GENERATED if generated else REAL, expit(outputs.logits[shown])
        notes.append(f"{part}, the part with most evidence for {side}, score {score:.3f}")
    weights = outputs.attention_weights
    return Explanation(
        title="; ".join([*notes, *_sum(detector, of_scales)]),
        scales=detector.scales,
        image=tiles[shown].float() / 255,
        residuals=residuals,
        evidence=of_scales.maps[0].cpu(),
        adds=of_scales.adds[0].cpu(),
        exact=of_scales.exact,
        attention=None if weights is None else weights[shown],
        box=boxes[shown],
    )


def _part(box: Box, width: int, height: int) -> str:
    rows = f"rows {box.top}-{box.top + box.height - 1}"
    columns = f"columns {box.left}-{box.left + box.width - 1}"
    return f"shown: {rows}, {columns} of {width}x{height}"


def _sum(detector: Detector, of_scales: Evidence) -> list[str]:
    """Return the sum that makes the logit, and a warning where the maps do not show it."""
    bias, adds = classifier(detector.model).bias[0].item(), of_scales.adds[0].sum().item()
    notes = [f"logit {bias + adds:+.3f} = bias {bias:+.3f} + what the scales add"]
    if not of_scales.exact:
        notes.append("Grad-CAM shows where evidence is, not how much it adds")
    return notes


def draw(explanation: Explanation, path: str | Path) -> Path:
    """Draw the panel to `path`; return the path (see `reports.plots.images.plot_npr_maps`).

    Raises:
        ImportError: matplotlib is missing; the message says what to install.
        OSError: the file cannot be written.
    """
    # here, so that predicting needs no matplotlib
    from reports.plots.images import plot_npr_maps

    return plot_npr_maps(
        explanation.image,
        explanation.residuals,
        explanation.attention,
        explanation.scales,
        path,
        explanation.title,
        cams=explanation.evidence,
        adds=explanation.adds,
        exact=explanation.exact,
    )


def make_folder(folder: Path, overwrite: bool) -> None:
    """Make the folder of --explain.

    Raises:
        UserError: it cannot be written or, without `overwrite`, is not empty.
    """
    writable_folder(folder, "--explain")
    with writing(folder):
        # systems leave hidden files
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    if names and not overwrite:
        raise UserError(
            f"--explain {folder}: exists and holds {min(names)}; pass another, or --overwrite to"
            " write beside it"
        )


def write_explanation(
    detector: Detector, outcome: Outcome, folder: Path, index: int, draw_plot: Drawer
) -> str | None:
    """Draw the panel of an image, or write the report of a video; return its path.

    It returns None for a skipped file and, with a warning, if the panel cannot be drawn or memory
    is not enough.

    Args:
        detector: the detector.
        outcome: result for the file.
        folder: of all panels and reports.
        index: of the file among all files; the path has it before the file's name.
        draw_plot: skips plots that fail; raises OSError and MemoryError.

    Raises:
        CannotWrite: the folder cannot be written.
        OutOfGpuMemory: see `device.memory_errors`.
    """
    prediction = outcome.prediction
    if prediction is None:
        return None
    stem = "".join(
        character if character.isprintable() else "_" for character in Path(outcome.path).stem
    )
    stem = stem.encode()[:MAX_STEM].decode(errors="ignore")
    target = folder / f"{index:06d}_{stem}"
    try:
        with writing(folder), memory_errors():
            if isinstance(prediction, VideoPrediction):
                write_video_report(prediction, target, draw_plot)
                return str(target)
            # before the maps, which take longest
            if draw_plot(importlib.import_module, "reports.plots.images") is None:
                return None
            assert outcome.image is not None
            number = f"score {prediction.score:.3f}"
            if prediction.calibrated:
                number = f"probability {prediction.probability:.3f}"
            title = f"{escaped(outcome.path)}: {prediction.verdict}, {number}"
            explanation = explain(detector, outcome.image.image, title)
            path = draw_plot(draw, explanation, f"{target}.png")
            return None if path is None else str(path)
    except NotEnoughMemory as error:
        log.warning("%s: panel skipped, %s", outcome.path, error)
        return None
