"""What a detector saw in one picture: the residual at every scale, how much each scale counts, and
where the evidence is."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from torch import Tensor

from evaluation.names import escaped
from inference.detector import Detector
from inference.memory import NotEnoughMemory, memory_errors
from inference.stream import Outcome
from inference.tiles import grid_of, tile_boxes
from inference.video.scoring import VideoJudgement, write_video_report
from networks.calibration import GENERATED, REAL
from networks.cam import classifier
from networks.evidence import evidence
from networks.npr import residual_maps
from util import UserError, log, writable_folder, writing

SHOWN = 512
"""Pixels of the side, about, of the part of a large picture that is shown: of more, no panel shows
single pixels."""


@dataclass(frozen=True)
class Explanation:
    """Everything that `draw` puts on its panel, of the part of the picture that is shown.

    Args:
        title: what the picture is called, and which part of it this is. image: [3, H, W] in [0, 1],
            as the model sees it.
        residuals: {'npr_0.5': [3, H, W], ...}, one for each of the S `scales`, of normalised
            pixels.
        evidence: class-activation maps [S, h, w] in units of the logit, positive towards generated
            (see `networks.cam`).
        adds: [S], what each scale adds to the logit. exact: whether these are the means of the maps
            (see `networks.evidence`).
        attention: [S] weights of the scales, None for a model without.
        box: first row and column, height and width of the part, in pixels of what the protocol
            makes of the picture.
    """

    title: str
    scales: tuple[float, ...]
    image: Tensor
    residuals: dict[str, Tensor]
    evidence: Tensor
    adds: Tensor
    exact: bool
    attention: NDArray[np.float32] | None
    box: tuple[int, int, int, int]


def explain(detector: Detector, image: Image.Image, title: str = "") -> Explanation:
    """Take apart what a detector says of an RGB picture; may be called from several threads, they
    take turns.

    Of a picture of more than 2 * SHOWN**2 pixels one part is shown, at its own size: that whose
    logit, as a picture of its own, lies furthest on the side on which most of the picture is. The
    title says so with the part's score, says what the protocol did to the picture, and gives the
    bias that what the scales add needs to make up the logit of what is shown.

    Raises:
        ValueError: too small for the protocol's crop or the model (see `Detector.pixels`).
    """
    pixels = detector.pixels(image)
    height, width = pixels.shape[1:]
    boxes = tile_boxes(height, width, grid_of(detector.scales), SHOWN)
    with detector.lock:
        said = detector.said_of_pixels(
            [pixels[:, t : t + h, left : left + w] for t, left, h, w in boxes]
        )
        areas = [box.height * box.width for box in boxes]
        side, of_side = (1, GENERATED) if np.average(said.logits, weights=areas) > 0 else (-1, REAL)
        strongest = int((side * said.logits).argmax())
        top, left, rows, columns = boxes[strongest]
        part = pixels[:, top : top + rows, left : left + columns]
        images = detector.protocol.normalise(part[None].to(detector.device))
        with torch.no_grad():
            residuals = {
                key: residual[0].cpu()
                for key, residual in residual_maps(images, detector.scales).items()
            }
        model: Any = detector.model
        found = evidence(model, images)
    notes = [title] if title else []
    if (width, height) != image.size:
        notes.append(
            f"{image.width}x{image.height} made {width}x{height} by protocol {detector.protocol.name}"
        )
    if len(boxes) > 1:
        rows_and_columns = f"rows {top}-{top + rows - 1}, columns {left}-{left + columns - 1}"
        notes.append(
            f"shown: {rows_and_columns} of {width}x{height}, the part with most evidence for {of_side},"
            f" score {expit(said.logits[strongest]):.3f}"
        )
    adds, bias = found.adds[0].cpu(), classifier(model).bias[0].item()
    notes.append(f"logit {bias + adds.sum().item():+.3f} = bias {bias:+.3f} + what the scales add")
    if not found.exact:
        notes.append("Grad-CAM shows where evidence is, not how much it adds")
    return Explanation(
        title="; ".join(notes),
        scales=detector.scales,
        image=part.float() / 255,
        residuals=residuals,
        evidence=found.maps[0].cpu(),
        adds=adds,
        exact=found.exact,
        attention=None if said.attention_weights is None else said.attention_weights[strongest],
        box=(top, left, rows, columns),
    )


def draw(explanation: Explanation, path: str | Path) -> Path:
    """Draw it as one panel (see `reports.plots.maps.plot_npr_maps`) to `path`, which is made or
    replaced, and return that.

    Raises:
        ImportError: matplotlib is missing; the message says what to install. OSError: it cannot be
            written.
    """
    from reports.plots.maps import plot_npr_maps  # here, so that judging needs no plotting library

    one = explanation
    where: dict[str, Any] = {"cams": one.evidence, "adds": one.adds, "exact": one.exact}
    return plot_npr_maps(
        one.image, one.residuals, one.attention, one.scales, path, one.title, **where
    )


def make_folder(folder: Path, overwrite: bool) -> None:
    """Make the folder of --explain.

    Raises:
        UserError: it cannot be written or, without `overwrite`, holds something, such as the panels
            of an earlier run.
    """
    writable_folder(folder, "--explain")
    with writing(folder):
        # systems leave hidden files
        held = [name for name in os.listdir(folder) if not name.startswith(".")]
    if held and not overwrite:
        raise UserError(
            f"--explain {folder}: exists and holds {min(held)}; give another, or --overwrite to write beside it"
        )


def write_explanation(detector: Detector, outcome: Outcome, folder: Path, place: int) -> str | None:
    """Draw the panel of a judged picture, or write the report of a judged video, into `folder`;
    returns the path.

    It is called after the file and its place among all, so that no two meet. None where there was
    no answer, and, saying so, where memory did not suffice.

    Raises:
        UserError: matplotlib is missing. CannotWrite: the folder cannot be written. OutOfGpuMemory:
            see `inference.memory`.
    """
    one = outcome.judgement
    if one is None:
        return None
    readable = "".join(
        character if character.isprintable() else "_" for character in Path(outcome.path).stem
    )
    stem = readable.encode()[:150].decode(errors="ignore")  # a name may have 255 bytes
    target = folder / f"{place:06d}_{stem}"
    try:
        with writing(folder):
            if isinstance(one, VideoJudgement):
                write_video_report(one, target)
                return str(target)
            assert outcome.picture is not None
            sure = (
                f"probability {one.probability:.3f}" if one.calibrated else f"score {one.score:.3f}"
            )
            title = f"{escaped(outcome.path)}: {one.verdict}, {sure}"
            with memory_errors():
                return str(draw(explain(detector, outcome.picture.image, title), f"{target}.png"))
    except NotEnoughMemory as error:
        log.warning("%s: no panel of it, %s", outcome.path, error)
        return None
    except ImportError as error:
        raise UserError(f"--explain {folder}: {error}") from None
