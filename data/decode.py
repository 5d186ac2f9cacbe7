"""Decode image files and read how they are encoded, or say why a file cannot be decoded.

The scripts open image files here only. docs/files.md lists how each kind of file is handled.
"""

import io
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, JpegImagePlugin, features
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from util import printable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's decoders that may read a file, whatever its name.

The others are not used: some start programs (EPS: Ghostscript). Beside them AVIF and HEIC are read,
see `_still_opener`.
"""
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
    | {b"mif1", b"mif2", b"msf1", b"miaf"}
)
"""Brands of the file-type box of still images and their sequences; those of videos differ."""
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "HEIF")
"""Formats whose further images are later moments; those of TIFF and MPO are other pages."""
NO_RANGE = {"I": "32-bit or signed integer pixels", "F": "floating-point pixels"}
"""Pixel types without a defined value of white."""
SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}

Image.init()  # registers the decoders
# warnings about metadata and size must not reach the terminal; problems are raised as errors
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImage(ValueError):
    """A file that cannot be decoded; the message is one line without the file's name."""


class NotAnImage(UnreadableImage):
    """A file that does not begin like an image in one of `FORMATS`; it may be a video."""


def read_image(path: str) -> Image.Image:
    """Return a file's image, decoded completely, as 8-bit RGB in its stored size.

    Of a file with several images it is the first.

    Raises:
        UnreadableImage: the file is not an image in one of `FORMATS`, is damaged, is too large, or
            has pixels without a defined range.
    """
    with open_image(path) as image:
        return _decoded(image)


def as_read(image: Image.Image) -> Image.Image:
    """Return any PIL image in the form that `read_image` returns.

    Raises:
        UnreadableImage: see `read_image`.
    """
    try:
        return _decoded(image)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error, "")) from None


def _decoded(image: Image.Image) -> Image.Image:
    """Return what `read_image` returns, for an opened image."""
    return _rgb(_as_stored(image))


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image file and read its header only; the block decodes it.

    Raises:
        UnreadableImage: see `read_image`. Errors inside the `with` block become one, too, so the
            block must do nothing but decode.
    """
    try:
        # opening a pipe would wait for ever
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableImage("not a regular file")
        with open(path, "rb") as file:
            start = file.read(256)
            if not start:
                raise UnreadableImage("empty file")
            file.seek(0)
            # not Image.open: its error for a size beyond the limit does not give the size
            with _opener(start)(file, "") as image:
                _require_limit(image)
                yield image
    except UnreadableImage:
        raise
    # on damaged bytes decoders raise nearly anything, from KeyError to struct.error
    except Exception as error:
        raise UnreadableImage(_reason(error, path)) from None


def _opener(start: bytes) -> Callable[..., Image.Image]:
    """Return the decoder of a file by its first bytes."""
    brands = _brands(start)
    if brands & (AVIF_BRANDS | HEIC_BRANDS):
        return _still_opener(avif=bool(brands & AVIF_BRANDS))
    for opener, accepts in map(Image.OPEN.__getitem__, FORMATS):
        if accepts is not None and accepts(start[:16]) is True:
            return opener
    raise NotAnImage(
        f"not an image in one of the formats that are read: {', '.join(FORMATS)}, AVIF, HEIC"
    )


def _brands(start: bytes) -> frozenset[bytes]:
    """Return the brands of a file-type box (ISO/IEC 14496-12), only the major one of a video.

    Of other major brands, a still image is known by its next box.
    """
    if start[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(start[:4]), len(start))
    major = start[8:12]
    if major not in AVIF_BRANDS | HEIC_BRANDS and start[end + 4 : end + 8] != b"meta":
        return frozenset({major})
    return frozenset({major, *(start[at : at + 4] for at in range(16, end, 4))})


def _still_opener(avif: bool) -> Callable[..., Image.Image]:
    """Return Pillow's decoder of AVIF, or pillow-heif's of HEIC (an optional package).

    Raises:
        UnreadableImage: it is not installed.
    """
    if avif:
        if not features.check("avif"):
            raise UnreadableImage("AVIF, which this Pillow cannot decode; install Pillow 12 by pip")
        return Image.OPEN["AVIF"][0]
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnreadableImage(
            "HEIC, which needs pillow-heif: pip install -r requirements/heic.txt"
        ) from None
    return HeifImageFile


def _require_limit(image: Image.Image) -> None:
    """Raise UnreadableImage where the header of an image or TIFF tile exceeds Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    tile = tags.get(Tag.TileWidth, 1), tags.get(Tag.TileLength, 1)
    for width, height in (image.size, tile):
        if limit is not None and width * height > limit:
            raise UnreadableImage(f"{width}x{height} pixels are more than the limit of {limit:,}")


def _as_stored(image: Image.Image) -> Image.Image:
    """Return the image in its stored orientation.

    Pillow rotates TIFF files, and no others, by their orientation tag.
    """
    if not isinstance(image, TiffImageFile):
        return image
    # Pillow decodes these to 16 bits, nearly black
    if 12 in image.tag_v2.get(Tag.BitsPerSample, ()):
        raise UnreadableImage("12 bits per pixel")
    image.getexif()[Tag.Orientation] = 1
    # the TIFF object may report the rotated size, its copy does not
    return image.copy()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in NO_RANGE:
        raise UnreadableImage(f"{NO_RANGE[image.mode]} have no defined range")
    # convert() would clip 16-bit grey, so keep the high byte, as Pillow does for colour
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception, path: str) -> str:
    # an error of the system: no such file, no permission
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = printable(" ".join(str(error).replace(path, "").split())).strip(" :'\"")
    # some decoders check the limit themselves
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,} ({text})"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"damaged: {type(error).__name__}{': ' if text else ''}{text}"


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
        UnreadableImage: see `open_image`.
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


def read_with_quality(path: str) -> tuple[Image.Image, int | None, int]:
    """Return the image as `read_image` does, its JPEG quality (None for other formats), and the
    number of images of an animation (else 1).

    Raises:
        UnreadableImage: see `read_image`.
    """
    with open_image(path) as image:
        tables = image.quantization if isinstance(image, JpegImagePlugin.JpegImageFile) else {}
        frames = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        return _decoded(image), jpeg_quality(tables), frames


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """Return the quality 1..100 whose standard luminance table is nearest to the file's.

    The standard table is that of ITU-T T.81, annex K. libjpeg scales each of its entries t to
    (t * S + 50) // 100, limited to 1..255, with S = 5000 // q for a quality q < 50, else 200 - 2 q.
    Nearest is the smallest sum of absolute differences of the 64 entries; of equals, the highest
    quality.
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
