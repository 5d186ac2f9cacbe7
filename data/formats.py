"""Read how image files are encoded, from their metadata alone."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from PIL import Image, JpegImagePlugin

from data.decode import decoded, open_image

SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True)
class FileFormat:
    """Encoding of one image file.

    Args:
        kind: Pillow's name of the format, 'JPEG'.
        width: in pixels.
        height: in pixels.
        size: in bytes.
        quality: 1..100 of libjpeg with the nearest luminance table; None for other formats.
        subsampling: of the chroma of a JPEG, '4:2:0', 'grey' or 'other'; '' for other formats.
    """

    kind: str
    width: int
    height: int
    size: int
    quality: int | None = None
    subsampling: str = ""

    @property
    def bytes_per_pixel(self) -> float:
        return self.size / (self.width * self.height)


def read_format(path: str) -> FileFormat:
    """Return the encoding of a file, by its content and not by its name.

    Raises:
        UnreadableImage: see `data.decode.open_image`.
    """
    with open_image(path) as image:
        kind, (width, height), size = image.format or "unknown", image.size, os.path.getsize(path)
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return FileFormat(kind, width, height, size)
        subsampling = (
            "grey"
            if image.mode == "L"
            else SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other")
        )
        return FileFormat(
            "JPEG", width, height, size, jpeg_quality(image.quantization), subsampling
        )


def read_with_quality(path: str) -> tuple[Image.Image, int | None]:
    """Return the image as `data.decode.read_image` reads it, and its JPEG quality, None for other
    formats.

    Raises:
        UnreadableImage: see `data.decode.read_image`.
    """
    with open_image(path) as image:
        tables = image.quantization if isinstance(image, JpegImagePlugin.JpegImageFile) else {}
        return decoded(image), jpeg_quality(tables)


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """Return the quality 1..100 whose standard luminance table is nearest to table 0.

    The standard table is that of ITU-T T.81, annex K. libjpeg scales each of its entries t to
    (t * S + 50) // 100, limited to 1..255, with S = 5000 // quality below 50 and 200 - 2 * quality
    from there on. Nearest is the smallest sum of absolute differences of the 64 entries.
    """
    return _nearest_quality(tuple(tables[0])) if 0 in tables else None


@lru_cache(maxsize=1024)
def _nearest_quality(table: tuple[int, ...]) -> int:
    """Return the nearest quality; cached, because a dataset has few different tables."""
    distances = {
        quality: sum(abs(ours - theirs) for ours, theirs in zip(standard, table, strict=False))
        for quality, standard in _standard_tables().items()
    }
    return min(distances, key=lambda quality: (distances[quality], -quality))


@cache
def _standard_tables() -> dict[int, list[int]]:
    """Return the luminance table of each quality, as Pillow's encoder writes it."""
    tables = {}
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            tables[quality] = list(image.quantization[0])
    return tables
