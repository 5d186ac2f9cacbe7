"""Degradations of images: recompression, resizing, blur, noise, cropping, and chains of them.

A degradation is written as in 'jpeg:75'; '+' chains steps, as in 'resize:0.75:bilinear+jpeg:75'.
"""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

Step = Callable[[Image.Image, np.random.Generator], Image.Image]
CLEAN = "clean"


def gaussian_blur(image: Image.Image, sigma: float) -> Image.Image:
    """Return an RGB image blurred by a Gaussian; `sigma` is its standard deviation in pixels."""
    blurred = gaussian_filter(np.asarray(image, np.float32), sigma=(sigma, sigma, 0))
    return Image.fromarray(blurred.round().astype(np.uint8))


def compressed(image: Image.Image, kind: str, quality: int) -> Image.Image:
    """Return the image after a round trip by Pillow through a JPEG or WEBP; quality 1..100."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def pil_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after a JPEG round trip by Pillow; quality 1..100."""
    return compressed(image, "JPEG", quality)


def cv2_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after a JPEG round trip by OpenCV; quality 1..100."""
    import cv2

    _, data = cv2.imencode(
        ".jpg", np.asarray(image)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return Image.fromarray(np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]))


JPEG_ROUND_TRIP: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "pil": pil_jpeg,
    "cv2": cv2_jpeg,
}


def available_jpeg_methods(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the methods whose library is installed, ('pil',) if that leaves none."""
    installed = tuple(
        method for method in asked if method != "cv2" or importlib.util.find_spec("cv2") is not None
    )
    return installed or ("pil",)


@dataclass(frozen=True)
class Degradation:
    """A named chain of steps on RGB images.

    A step is a tuple of texts: its kind and its arguments, as in ('resize', '0.75', 'bilinear').
    """

    name: str
    steps: tuple[tuple[str, ...], ...] = ()

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Apply all steps to an RGB image; `rng` draws the noise."""
        for kind, *arguments in self.steps:
            image = KINDS[kind](*arguments)(image, rng)
        return image

    def then(self, other: "Degradation") -> "Degradation":
        """Return a chain of this, then the other; it is named like the other."""
        return Degradation(other.name, self.steps + other.steps)


NOTHING = Degradation(CLEAN)


def parse_degradation(text: str) -> Degradation:
    """Return the degradation that is written as `text`; 'clean' changes nothing.

    Raises:
        ValueError: an unknown step or a number out of range; the message shows a valid one.
    """
    if text == CLEAN:
        return NOTHING
    steps = []
    for part in text.split("+"):
        kind, *arguments = part.split(":")
        if kind not in KINDS:
            raise ValueError(
                f"{part!r} is not a degradation;"
                f" pass one like {', '.join(EXAMPLES)}, or a chain such as {CHAIN}"
            )
        try:
            KINDS[kind](*arguments)
        except (TypeError, ValueError) as error:
            example = next(text for text in EXAMPLES if text.startswith(kind))
            detail = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(
                f"{part!r} is not a degradation; write it as {example}{detail}"
            ) from None
        steps.append((kind, *arguments))
    return Degradation(text, tuple(steps))


def _number(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low <= value <= high:
        raise ValueError(f"{text} is not between {low:g} and {high:g}")
    return value


def _integer(text: str, low: int, high: int) -> int:
    return int(_number(str(int(text)), low, high))


def _jpeg(quality: str) -> Step:
    value = _integer(quality, 1, 100)
    return lambda image, rng: pil_jpeg(image, value)


def _webp(quality: str) -> Step:
    value = _integer(quality, 1, 100)
    return lambda image, rng: compressed(image, "WEBP", value)


def _resize(factor: str, interpolation: str) -> Step:
    scale, mode = _number(factor, 0.01, 16), InterpolationMode(interpolation)

    def step(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = (max(1, round(side * scale)) for side in image.size)
        return TF.resize(image, [height, width], mode)

    return step


def _blur(sigma: str) -> Step:
    value = _number(sigma, 0, 100)
    return lambda image, rng: gaussian_blur(image, value)


def _noise(sigma: str) -> Step:
    value = _number(sigma, 0, 255)

    def step(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = np.asarray(image, dtype=np.float32)
        noisy = pixels + rng.normal(0, value, pixels.shape).astype(np.float32)
        return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))

    return step


def _crop(share: str) -> Step:
    value = _number(share, 0.01, 1)

    def step(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = (max(1, round(side * value)) for side in image.size)
        return TF.center_crop(image, [height, width])

    return step


KINDS: dict[str, Callable[..., Step]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "resize": _resize,
    "blur": _blur,
    "noise": _noise,
    "crop": _crop,
}
"""Kinds of steps and their numbers.

    jpeg:Q, webp:Q  quality 1..100, by Pillow
    resize:F:I      both sides times F, interpolation I (bilinear, bicubic, ...), antialiased
    blur:S          Gaussian, standard deviation in pixels
    noise:S         Gaussian, standard deviation in grey levels of 0..255
    crop:P          the centre, share P of each side
"""
EXAMPLES = ("jpeg:75", "webp:75", "resize:0.5:bilinear", "blur:1", "noise:5", "crop:0.75")
CHAIN = "resize:0.75:bilinear+jpeg:75"

ROBUSTNESS: dict[str, dict[str, str]] = {
    "JPEG quality": {
        "none": CLEAN,
        **{quality: f"jpeg:{quality}" for quality in ("95", "90", "75", "50")},
    },
    **{
        f"resize, {mode}": {
            "0.5": f"resize:0.5:{mode}",
            "0.75": f"resize:0.75:{mode}",
            "1": CLEAN,
            "1.25": f"resize:1.25:{mode}",
        }
        for mode in ("bilinear", "bicubic")
    },
    "Gaussian blur": {"none": CLEAN, **{sigma: f"blur:{sigma}" for sigma in ("0.5", "1", "2")}},
    "Gaussian noise": {"none": CLEAN, **{sigma: f"noise:{sigma}" for sigma in ("2", "5")}},
    "centre crop": {"1": CLEAN, **{share: f"crop:{share}" for share in ("0.75", "0.5")}},
    "WebP quality": {
        "none": CLEAN,
        **{quality: f"webp:{quality}" for quality in ("90", "75", "50")},
    },
    "chains": {"none": CLEAN, "resize 0.75, JPEG 75": CHAIN, "JPEG 90, JPEG 75": "jpeg:90+jpeg:75"},
}
"""The grid of --robustness: {family: {label: degradation}}."""


def robustness_grid() -> list[Degradation]:
    """Return every degradation of the grid once, the clean images first."""
    names = dict.fromkeys(name for family in ROBUSTNESS.values() for name in family.values())
    return [parse_degradation(name) for name in names]
