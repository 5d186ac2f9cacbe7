"""How image files are encoded, read from their headers alone: what could tell classes apart without
any trace in the pixels."""

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
        kind: Pillow's name of the format, 'JPEG'. width, height: pixels. size: bytes.
        quality: of the libjpeg scale 1..100 that has the nearest luminance table, None for other
            formats.
        subsampling: of the chroma, '4:2:0' and the like, 'grey' or 'other' for a JPEG, '' for other
            formats.
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
    """The encoding of a file, by its content and not by its name.

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
    """Quality 1..100 whose standard luminance table (ITU-T T.81, annex K, scaled as libjpeg does)
    is nearest to table 0.

    libjpeg scales each entry t of the standard table to (t * S + 50) // 100, kept in 1..255, with S
    = 5000 // quality below 50 and 200 - 2 * quality from there on; nearest is the smallest sum of
    absolute differences of the 64 entries.
    """
    return _nearest_quality(tuple(tables[0])) if 0 in tables else None


@lru_cache(maxsize=1024)
def _nearest_quality(table: tuple[int, ...]) -> int:
    """A data set has few different tables, and comparing one with a hundred others takes longer
    than reading a header."""
    distances = {
        quality: sum(abs(ours - theirs) for ours, theirs in zip(standard, table, strict=False))
        for quality, standard in _standard_tables().items()
    }
    return min(distances, key=lambda quality: (distances[quality], -quality))


@cache
def _standard_tables() -> dict[int, list[int]]:
    """Luminance table of each quality, as Pillow's own encoder writes it."""
    tables = {}
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            tables[quality] = list(image.quantization[0])
    return tables
