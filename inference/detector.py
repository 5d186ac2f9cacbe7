"""A checkpoint with its preprocessing; it takes images and returns scores."""

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
from data.protocols import EVALUATION_PROTOCOLS, default_protocol, trained_protocol
from data.transforms import Protocol
from device import autocast_dtype, computing
from evaluation.fitting import fitting_protocol
from inference.tiles import grid_of, tile_boxes
from networks.calibration import Calibration
from networks.checkpoint import LoadedModel, load_model, stored_calibration
from networks.factory import ScaleFlags, size_problem, too_small
from networks.fast import place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.resnet import NPRResNet
from networks.run_folder import shipped_detector
from util import UserError, log

BATCH_PIXELS = 32 * 256 * 256  # pixels of one forward pass; a larger image gets its own

EXPECTED = "a path, PIL's image, an array [H, W, 3] or [H, W], or a tensor [3, H, W]"
ImageLike = str | Path | Image.Image | NDArray | Tensor


class NotFinite(ValueError):
    """The logit of an image is NaN or infinite."""


class ModelOutputs(NamedTuple):
    """Outputs of a model for N images."""

    logits: NDArray[np.float32]  # [N], NaN or infinite where the model's sums overflow
    attention_weights: NDArray[np.float32] | None  # [N, S], None for models with one scale


class Detector:
    """A model in evaluation mode that takes images of any size.

    Its methods may be called from several threads; they take turns.

    Args:
        loaded: the model.
        device: where it computes.
        protocol: how an image becomes a tensor; its augmentation is not used.
        precision: "fp32", "bf16", "fp16" or "auto", as --precision.

    Attributes:
        model: the network.
        config: its configuration.
        name: of the checkpoint.
        scales: [S] NPR scales.
        attends: whether it weighs several scales by attention.
        calibration: None if the checkpoint is not calibrated for this protocol.
        lock: hold it around anything else that runs the model or hooks into it.
    """

    def __init__(
        self, loaded: LoadedModel, device: torch.device, protocol: Protocol, precision: str = "fp32"
    ) -> None:
        self.loaded, self.device, self.protocol = loaded, device, protocol.for_evaluation()
        self.config, self.name = loaded.config, loaded.name
        self.scales: tuple[float, ...] = getattr(loaded.model, "scales", (NPRResNet.scale,))
        self.calibration = self._matching_calibration()
        self.lock = threading.RLock()
        self._precision = precision
        self._grid = grid_of(self.scales)
        several = len(self.scales) > 1
        self.attends = several and isinstance(loaded.model, AttentionMultiScaleNPR)
        self.model: Any = place_model(
            loaded.model.eval(), device, autocast_dtype(precision, device)
        )

    def _matching_calibration(self) -> Calibration | None:
        calibration, label = stored_calibration(self.loaded), self.protocol.label
        if calibration is None or calibration.protocol == label:
            return calibration
        warning = "%s is calibrated for protocol %s, so its calibration is not used with %s"
        log.warning(warning, self.loaded.path, calibration.protocol, label)
        return None

    def score(self, images: ImageLike | Sequence[ImageLike]) -> NDArray[np.float64]:
        """Return scores [N] in [0, 1], sigmoid(logit), high for generated; N = 1 for one image.

        Up to two million pixels after the protocol, they are those of test.py. Larger images are
        scored in tiles.

        Args:
            images: one image or several, of any sizes (see `as_image`); a tensor [N, 3, H, W] is N
                images.

        Raises:
            UnreadableImage, TypeError, ValueError: one of them is not an image, is too small, or
                its logit is not finite (`NotFinite`); the message says which.
        """
        return expit(self._finite_logits(images))

    def probability(self, images: ImageLike | Sequence[ImageLike]) -> NDArray[np.float64]:
        """Return calibrated probabilities [N] in [0, 1] of "generated"; otherwise as `score`.

        Raises:
            ValueError: the checkpoint is not calibrated for the protocol.
        """
        if self.calibration is None:
            raise ValueError(
                f"{self.loaded.path} holds no calibration; run python -m tools.calibrate"
            )
        return self.calibration.probabilities(self._finite_logits(images))

    def _finite_logits(self, images: ImageLike | Sequence[ImageLike]) -> NDArray[np.float64]:
        logits = self.outputs(images).logits.astype(np.float64)
        for index in np.flatnonzero(~np.isfinite(logits)):
            raise NotFinite(f"image {index}: the model's score is not finite")
        return logits

    def outputs(self, images: ImageLike | Sequence[ImageLike]) -> ModelOutputs:
        """Return logits and attention of images; arguments and errors as for `score`."""
        several: Any = images
        if (
            isinstance(images, str | bytes)
            or not isinstance(images, Iterable)
            or getattr(images, "ndim", 4) < 4
        ):
            several = [images]
        pixels = []
        for index, image in enumerate(several):
            try:
                pixels.append(self.pixels(as_image(image)))
            except (UnreadableImage, TypeError, ValueError) as error:
                raise type(error)(f"image {index}: {error}") from None
        return self.pixel_outputs(pixels)

    def pixels(self, image: Image.Image) -> Tensor:
        """Return an RGB image as uint8 [3, H, W], resized and cropped by the protocol.

        Raises:
            ValueError: too small for the protocol's crop or for the model's smallest scale.
        """
        pixels = self.protocol.pixels(image)
        if (reason := too_small(self.model, pixels)) is not None:
            raise ValueError(reason)
        return pixels

    def pixel_outputs(self, pixels: Sequence[Tensor]) -> ModelOutputs:
        """Return the outputs for uint8 tensors [3, H, W] that `pixels` returned, in their order.

        Tensors of one size go through the network together. A large tensor goes in tiles
        (`inference.tiles`). Its logit and attention are the means over the tiles, weighted by area.
        """
        tiles: dict[tuple[int, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for index, image in enumerate(pixels):
            for top, left, height, width in tile_boxes(image.shape[1], image.shape[2], self._grid):
                tile = image[:, top : top + height, left : left + width]
                tiles[height, width].append((index, tile))
        areas = np.array([image.shape[1] * image.shape[2] for image in pixels])
        sums = np.zeros((len(pixels), 1 + (len(self.scales) if self.attends else 0)))
        for (height, width), same_size in tiles.items():
            per_pass = max(1, BATCH_PIXELS // (height * width))
            for start in range(0, len(same_size), per_pass):
                indices, tensors = zip(*same_size[start : start + per_pass], strict=True)
                share = height * width / areas[list(indices), None]
                np.add.at(sums, list(indices), self._run(torch.stack(tensors)) * share)
        outputs = sums.astype(np.float32)
        return ModelOutputs(outputs[:, 0], outputs[:, 1:] if self.attends else None)

    def _run(self, pixels: Tensor) -> NDArray[np.float32]:
        """Return the logit and the attention [B, 1 + S] of uint8 pixels [B, 3, H, W]."""
        with self.lock, torch.inference_mode(), computing(self._precision, self.device):
            images = self.protocol.normalise(pixels.to(self.device))
            try:
                if not self.attends:
                    return self.model(images).float().cpu().numpy()
                logits, attention = self.model(images, return_attention=True)
            except Exception as error:
                dtype = autocast_dtype(self._precision, self.device)
                if (why := size_problem(error, self.model, images, dtype)) is None:
                    raise
                raise ValueError(why) from None
            return torch.cat([logits.float(), attention.float()], dim=1).cpu().numpy()


def load_detector(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    protocol: str | None = None,
    precision: str = "fp32",
    flags: ScaleFlags | None = None,
) -> Detector:
    """Load a detector from a checkpoint.

    Args:
        path: a checkpoint, or a folder that tools.export wrote (see `load_model`); None: the
            shipped detector, which is logged.
        device: None picks a GPU if there is one, else the CPU.
        protocol: name of the geometry, one of `EVALUATION_PROTOCOLS` ("native": images keep their
            size), see `fitting_protocol`; None: see `default_protocol`. The normalisation is that
            of the checkpoint.
        precision: "fp32", "bf16", "fp16" or "auto", as --precision.
        flags: see `load_model`.

    Raises:
        UserError: the checkpoint cannot be used, or the protocol is unknown.
    """
    if protocol not in (None, *EVALUATION_PROTOCOLS):
        raise UserError(
            f"--protocol {protocol}: unknown; pass one of {', '.join(EVALUATION_PROTOCOLS)}"
        )
    loaded = load_model(shipped_detector() if path is None else path, flags)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    geometry = EVALUATION_PROTOCOLS[protocol or default_protocol(loaded)]
    chosen = trained_protocol(loaded).with_geometry_of(geometry)
    return Detector(loaded, torch.device(device), fitting_protocol(loaded, chosen), precision)


def as_image(image: ImageLike) -> Image.Image:
    """Return an image as 8-bit RGB.

    Args:
        image: see `EXPECTED`. Arrays and tensors hold uint8, or floating-point values in [0, 1].

    Raises:
        UnreadableImage: the file, or PIL's image, cannot be decoded (docs/files.md).
        TypeError: the type is another.
        ValueError: the shape or the range is another.
    """
    if isinstance(image, str | Path):
        try:
            return read_image(str(image))
        except UnreadableImage as error:
            raise UnreadableImage(f"{image}: {error}") from None
    if isinstance(image, Image.Image):
        return as_read(image)
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"a tensor of shape {tuple(image.shape)}, expected [3, H, W]")
        image = image.detach().cpu().movedim(0, -1)
        # NumPy has no bfloat16
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise TypeError(f"a {type(image).__name__}, expected {EXPECTED}")
    if not image.size or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an array of shape {image.shape}, expected [H, W, 3] or [H, W]")
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= 0 and image.max() <= 1):  # NaN fails, too
            raise ValueError("floating-point values outside [0, 1]")
        image = (image * 255).round().astype(np.uint8)
    if image.dtype != np.uint8:
        raise TypeError(f"values of type {image.dtype}, expected uint8 or floating point")
    return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
