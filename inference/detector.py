"""A checkpoint with its preprocessing: pictures in, scores out. The one place where a model meets
single pictures."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from torch import Tensor

from data.decode import UnreadableImage, as_read, read_image
from data.protocols import EVALUATION_PROTOCOLS, trained_protocol
from data.transforms import Protocol
from device import autocast_dtype
from inference.tiles import grid_of, tile_boxes
from networks.calibration import Calibration
from networks.checkpoint import LoadedModel, load_model, stored_calibration
from networks.factory import ModelFlags, too_small
from networks.fast import place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.resnet import NPRResNet
from util import UserError, log

BATCH_PIXELS = 32 * 256 * 256
"""Pixels that go through the network together; larger pictures go alone."""

Picture = str | Path | Image.Image | NDArray | Tensor
"""What a picture may be given as, see `as_image`."""


class NotFinite(ValueError):
    """A model's answer is NaN or infinite, and so no answer."""


class Said(NamedTuple):
    """What a model said of N pictures.

    Args:
        logits: [N], NaN or infinite where its sums overflow. attention_weights: [N, S], None for
            models without attention.
    """

    logits: NDArray[np.float32]
    attention_weights: NDArray[np.float32] | None


class Detector:
    """A model in evaluation mode that takes pictures. Its methods may be called from several
    threads; they take turns.

    Args:
        loaded: the model. device: where it computes. protocol: how a picture becomes a tensor
            (without anything random).
        precision: see --precision.

    Attributes:
        model, config, name: of the checkpoint. scales: S NPR scales. calibration: None where the
            checkpoint has none for this protocol.
        lock: hold it around anything else that runs or hooks into the model.
    """

    def __init__(
        self, loaded: LoadedModel, device: torch.device, protocol: Protocol, precision: str = "fp32"
    ) -> None:
        self.loaded, self.device, self.protocol = loaded, device, protocol.for_evaluation()
        self.config, self.name = loaded.config, loaded.name
        self.scales: tuple[float, ...] = getattr(loaded.model, "scales", (NPRResNet.scale,))
        self.calibration = self._fitting_calibration()
        self.lock = threading.RLock()
        self._dtype = autocast_dtype(precision, device)
        self._grid = grid_of(self.scales)
        self.model = place_model(loaded.model.eval(), device, self._dtype)

    def _fitting_calibration(self) -> Calibration | None:
        found, here = stored_calibration(self.loaded), self.protocol.label
        if found is None or found.protocol == here:
            return found
        log.warning(
            "%s is calibrated for protocol %s: not used with %s",
            self.loaded.path,
            found.protocol,
            here,
        )
        return None

    def score(self, images: Picture | Sequence[Picture]) -> NDArray[np.float64]:
        """Scores [N] in [0, 1], sigmoid(logit), high for generated. N = 1 for a single picture.

        They are those of test.py, but that pictures of more than two million pixels go in tiles
        here.

        Args:
            images: one picture or several, of any sizes (see `as_image`); a tensor [N, 3, H, W] is
                N pictures.

        Raises:
            UnreadableImage, TypeError, ValueError: one of them is none, or too small, or its logit
                is not finite (`NotFinite`); the message says which.
        """
        return expit(self._logits(images))

    def probability(self, images: Picture | Sequence[Picture]) -> NDArray[np.float64]:
        """Calibrated probabilities [N] in [0, 1] of "generated"; otherwise as `score`.

        Raises:
            ValueError: the checkpoint holds no calibration (`python -m tools.calibrate` adds one).
        """
        if self.calibration is None:
            raise ValueError(
                f"{self.loaded.path} holds no calibration; python -m tools.calibrate adds one"
            )
        return self.calibration.probabilities(self._logits(images))

    def _logits(self, images: Picture | Sequence[Picture]) -> NDArray[np.float64]:
        logits = self.said(images).logits.astype(np.float64)
        for index in np.flatnonzero(~np.isfinite(logits)):
            raise NotFinite(f"image {index}: the model's score is not finite")
        return logits

    def said(self, images: Picture | Sequence[Picture]) -> Said:
        """Logits and attention of pictures given as for `score`."""
        given: Any = images
        one = isinstance(given, str | bytes | Path | Image.Image) or not isinstance(given, Iterable)
        if one or (isinstance(given, np.ndarray | Tensor) and given.ndim < 4):
            given = [given]
        pixels = []
        for index, image in enumerate(given):
            try:
                pixels.append(self.pixels(as_image(image)))
            except (UnreadableImage, TypeError, ValueError) as error:
                raise type(error)(f"image {index}: {error}") from None
        return self.said_of_pixels(pixels)

    def pixels(self, image: Image.Image) -> Tensor:
        """RGB picture -> uint8 [3, H, W] as the protocol wants it.

        Raises:
            ValueError: too small for the protocol's crop or for the model's smallest scale.
        """
        pixels = self.protocol.pixels(image)
        if (why := too_small(self.model, pixels)) is not None:
            raise ValueError(why)
        return pixels

    def said_of_pixels(self, pixels: Sequence[Tensor]) -> Said:
        """What the model says of uint8 tensors [3, H, W] that `pixels` returned, in their order.

        Tensors of one size go through the network together. A large one goes in tiles
        (`inference.tiles`): its logit is the mean of theirs, weighted by their pixels, and so is
        its attention.
        """
        parts: dict[tuple[int, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for index, one in enumerate(pixels):
            for top, left, height, width in tile_boxes(one.shape[1], one.shape[2], self._grid):
                parts[height, width].append(
                    (index, one[:, top : top + height, left : left + width])
                )
        logits = np.zeros(len(pixels), np.float64)
        weights = np.zeros((len(pixels), len(self.scales)), np.float64)
        attends = isinstance(self.model, AttentionMultiScaleNPR)
        for (height, width), those in parts.items():
            together = max(1, BATCH_PIXELS // (height * width))
            for start in range(0, len(those), together):
                indices, tensors = zip(*those[start : start + together], strict=True)
                output, attention = self._run(torch.stack(tensors))
                share = [
                    height * width / (pixels[index].shape[1] * pixels[index].shape[2])
                    for index in indices
                ]
                np.add.at(logits, list(indices), output * share)
                if attention is not None:
                    np.add.at(weights, list(indices), attention * np.array(share)[:, None])
        return Said(logits.astype(np.float32), weights.astype(np.float32) if attends else None)

    def _run(self, pixels: Tensor) -> tuple[NDArray, NDArray | None]:
        """uint8 [B, 3, H, W] -> logits [B] and attention [B, S], float32."""
        with (
            self.lock,
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None),
        ):
            images = self.protocol.normalise(pixels.to(self.device))
            if isinstance(self.model, AttentionMultiScaleNPR):
                output, attention = self.model(images, return_attention=True)
                return output.flatten().float().cpu().numpy(), attention.float().cpu().numpy()
            return self.model(images).flatten().float().cpu().numpy(), None


def load_detector(
    path: str | Path,
    device: str | torch.device | None = None,
    protocol: str = "native",
    precision: str = "fp32",
    flags: ModelFlags | None = None,
) -> Detector:
    """A detector from a checkpoint.

    Args:
        path: a checkpoint, or a folder that tools.export wrote (see `load_model`).
        device: None picks a GPU where there is one, else the CPU.
        protocol: geometry by name, one of `EVALUATION_PROTOCOLS` ("native": pictures keep their
            size); normalisation is the checkpoint's.
        precision: see --precision. flags: see `load_model`.

    Raises:
        UserError: the checkpoint cannot be used, or there is no such protocol.
    """
    if protocol not in EVALUATION_PROTOCOLS:
        raise UserError(f"--protocol {protocol}: unknown; one of {', '.join(EVALUATION_PROTOCOLS)}")
    loaded = load_model(path, flags)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    geometry = EVALUATION_PROTOCOLS[protocol]
    return Detector(
        loaded, torch.device(device), trained_protocol(loaded).with_geometry_of(geometry), precision
    )


def as_image(picture: Picture) -> Image.Image:
    """A picture as 8-bit RGB: a path, PIL's image, an array [H, W, 3] or [H, W], or a tensor [3, H,
    W].

    Arrays and tensors hold uint8, or floating-point values in [0, 1].

    Raises:
        UnreadableImage: the file, or PIL's image, gives no picture (docs/files.md). TypeError: it
            is none of these.
        ValueError: of another shape or range.
    """
    if isinstance(picture, str | Path):
        try:
            return read_image(str(picture))
        except UnreadableImage as error:
            raise UnreadableImage(f"{picture}: {error}") from None
    if isinstance(picture, Image.Image):
        return as_read(picture)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise ValueError(f"a tensor of shape {tuple(picture.shape)}, expected [3, H, W]")
        picture = picture.detach().cpu().movedim(0, -1)
        # NumPy has no bfloat16
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
    if not isinstance(picture, np.ndarray):
        raise TypeError(
            f"a {type(picture).__name__}, expected a path, PIL's image, an array [H, W, 3] or [H, W], or a tensor [3, H, W]"
        )
    if 0 in picture.shape or not (
        picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    ):
        raise ValueError(f"an array of shape {picture.shape}, expected [H, W, 3] or [H, W]")
    if np.issubdtype(picture.dtype, np.floating):
        if not (picture.min() >= 0 and picture.max() <= 1):  # NaN fails, too
            raise ValueError("floating-point values outside [0, 1]")
        picture = (picture * 255).round().astype(np.uint8)
    if picture.dtype != np.uint8:
        raise TypeError(f"values of type {picture.dtype}, expected uint8 or floating point")
    return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
