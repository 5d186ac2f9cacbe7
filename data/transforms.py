"""Preprocessing as one object: from a decoded image to the tensor that a network sees.

A checkpoint stores the protocol of its training. Testing and visualisation reuse its normalisation
and choose the geometry of the test suite. Every random choice is drawn from a generator that the
caller passes in.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from data.augmentation import Augmentation, augmented, matched

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_PROBLEM = r"(\d+)x(\d+) pixels are fewer than the (\d+)x\3 crop"
"""Begins the reason why an image smaller than the crop is skipped: width, height, crop."""


@dataclass(frozen=True)
class Protocol:
    """A named preprocessing.

    Its steps are resize or enlarge, tile, augment (training), crop, flip (training), scale to
    [0, 1], normalise.

    Args:
        name: as tables and checkpoints show it.
        resize: both sides in pixels, None = native size.
        enlarge: factor of both sides at native size.
        crop: both sides of a square crop in pixels, None = no crop; centred unless `augment` is
            set.
        tile: repeat an image smaller than the crop until it covers the crop; otherwise such an
            image is an error.
        interpolation: of the resize; of several, training draws one per image and evaluation takes
            the first.
        mean: per RGB channel, of values in [0, 1].
        std: per RGB channel, of values in [0, 1].
        augment: random changes; None in evaluation.
        version: raised whenever the steps of a named protocol change.
    """

    name: str
    resize: int | None = None
    enlarge: float = 1.0
    crop: int | None = None
    tile: bool = False
    interpolation: tuple[str, ...] = ("bilinear",)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: Augmentation | None = None
    version: int = 1

    @property
    def label(self) -> str:
        """Return name and version, as in 'native v1'."""
        return f"{self.name} v{self.version}"

    @property
    def one_size(self) -> bool:
        """True if all images come out in one size."""
        return (self.crop or self.resize) is not None

    def for_evaluation(self) -> "Protocol":
        """Return this protocol without random changes."""
        return replace(self, augment=None)

    def with_geometry_of(self, other: "Protocol") -> "Protocol":
        """Return the other protocol with this one's normalisation and without random changes."""
        return replace(other, mean=self.mean, std=self.std, augment=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields with lists for tuples, as they come back from a checkpoint or JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Protocol":
        """Return the protocol that `to_dict` gave these values.

        Raises:
            TypeError, ValueError, KeyError: the values are not those of a protocol.
        """
        fields = _tuples(values)
        if fields["augment"] is not None:
            fields["augment"] = Augmentation(**fields["augment"])
        protocol = cls(**fields)
        for name, channels, least in (("mean", protocol.mean, -1e6), ("std", protocol.std, 1e-6)):
            if (
                not isinstance(channels, tuple)
                or len(channels) != 3
                or not all(isinstance(value, int | float) for value in channels)
                or not all(least <= value <= 1e6 for value in channels)
            ):
                raise ValueError(f"{name} is not three numbers from {least:g} to 1e6")
        return protocol

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> Tensor:
        """Return an RGB image as normalised float32 [3, H, W].

        Args:
            image: RGB.
            rng: draws every random choice; needed when `augment` is set.

        Raises:
            ValueError: the image is smaller than the crop, and `tile` is False.
        """
        return self.normalise(self.pixels(image, rng))

    def pixels(self, image: Image.Image, rng: np.random.Generator | None = None) -> Tensor:
        """Return an RGB image as uint8 [3, H, W], after all steps but scaling and normalisation."""
        return self.finish(self.begin(image, rng), rng)

    @property
    def begins_alike(self) -> bool:
        """Return True if `begin` is not random, so that its result can be cached."""
        return self.resize is None or self.augment is None or len(self.interpolation) == 1

    def begin(self, image: Image.Image, rng: np.random.Generator | None = None) -> Tensor:
        """Return an RGB image as uint8 [3, H, W], resized or enlarged; the first half of `pixels`."""
        if self.augment is not None and rng is None:
            raise ValueError("a protocol with random augmentation needs a random generator")
        if self.resize is not None:
            mode = self.interpolation[0]
            if rng is not None and not self.begins_alike:
                mode = str(rng.choice(self.interpolation))
            image = TF.resize(image, [self.resize, self.resize], InterpolationMode(mode))
        elif self.enlarge != 1:
            sides = [round(self.enlarge * side) for side in (image.height, image.width)]
            image = TF.resize(image, sides, InterpolationMode(self.interpolation[0]))
        return TF.pil_to_tensor(image)

    def finish(self, pixels: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Return uint8 pixels [3, H, W] of `begin` tiled, augmented, cropped and flipped.

        This is the second half of `pixels`: cheap, and random in training.
        """
        if self.tile and self.crop is not None:
            # before the augmentation, so that it is the same for small and large images
            pixels = tiled(pixels, self.crop)
        if self.augment is None:
            return pixels if self.crop is None else self._cropped(pixels, self.crop, None)
        if rng is None:
            raise ValueError("a protocol with random augmentation needs a random generator")
        if self.augment.degrade and self.crop is not None and min(pixels.shape[1:]) >= self.crop:
            pixels = matched(pixels, rng, self.augment.degrade, self.crop)
        pixels = augmented(pixels, self.augment, rng)
        if self.crop is not None:
            pixels = self._cropped(pixels, self.crop, rng)
        return pixels.flip(-1) if self.augment.flip and rng.random() < 0.5 else pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels [..., 3, H, W] as float32, (value / 255 - mean) / std."""
        mean, std = (per_channel(values, pixels.device) for values in (self.mean, self.std))
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def denormalise(self, images: Tensor) -> Tensor:
        """Return normalised images [..., 3, H, W] as values in [0, 1], for display."""
        mean, std = (per_channel(values, images.device) for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    def _cropped(self, pixels: Tensor, size: int, rng: np.random.Generator | None) -> Tensor:
        height, width = pixels.shape[1:]
        if width < size or height < size:
            raise ValueError(
                f"{width}x{height} pixels are fewer than the {size}x{size} crop"
                f" of protocol {self.name!r}"
            )
        if rng is None:
            return TF.center_crop(pixels, [size, size])
        top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        return pixels[:, top : top + size, left : left + size]


_ON_DEVICE: dict[tuple[tuple[float, ...], torch.device], Tensor] = {}


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the values as float32 [3, 1, 1] on the device.

    The tensor is cached, because a copy to a GPU would wait for the work queued on it.
    """
    key = values, device
    if key not in _ON_DEVICE:
        with torch.inference_mode(False):
            _ON_DEVICE[key] = torch.tensor(values, device=device).view(3, 1, 1)
    return _ON_DEVICE[key]


def _tuples(value: Any) -> Any:
    """Return a value with all lists, nested ones too, as tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def tiled(pixels: Tensor, size: int) -> Tensor:
    """Return an image [3, H, W], repeated until both sides reach `size` pixels.

    An image whose sides both reach it comes back unchanged. GenImage preprocesses this way.
    """
    height, width = pixels.shape[1:]
    if min(width, height) >= size:
        return pixels
    return pixels.repeat(1, math.ceil(size / height), math.ceil(size / width))
