"""Blur and JPEG round trips of RGB pictures, in memory."""

import importlib.util
import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def gaussian_blur(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur of an RGB picture, standard deviation in pixels."""
    blurred = gaussian_filter(np.asarray(image, np.float32), sigma=(sigma, sigma, 0))
    return Image.fromarray(blurred.round().astype(np.uint8))


def pil_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """JPEG round trip by Pillow; quality 1..100."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cv2_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """JPEG round trip by OpenCV; quality 1..100."""
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
    """The asked methods whose library is installed; Pillow where none is."""
    found = tuple(
        method for method in asked if method != "cv2" or importlib.util.find_spec("cv2") is not None
    )
    return found or ("pil",)
