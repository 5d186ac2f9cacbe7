"""Image files to pictures, and why some give none. No other module opens the image files of a data
set.

docs/files.md says what happens to every kind of file.
"""

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from util import printable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's decoders that may look at a file, whatever its name; some of the others start programs
(EPS: Ghostscript)."""
NO_RANGE = {"I": "integer pixels of 32 bits, or with a sign,", "F": "floating-point pixels"}
"""Pixel types of which no value is known to be white."""

Image.init()  # registers the decoders
# remarks about metadata and size must not reach the terminal; what matters is raised
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImage(ValueError):
    """A file gives no picture; the message says why, on one line and without the file's name."""


class NotAnImage(UnreadableImage):
    """It does not even begin like a picture in one of `FORMATS`; it may be a video, or anything."""


def read_image(path: str) -> Image.Image:
    """Decode a file completely, its first picture if it has several, as 8-bit RGB of the size in
    which it is stored.

    Raises:
        UnreadableImage: it is no picture in one of `FORMATS`, is damaged, too large, or has pixels
            of no defined range.
    """
    with open_image(path) as image:
        return decoded(image)


def as_read(image: Image.Image) -> Image.Image:
    """A picture of PIL's, from wherever it is, as `read_image` would give it.

    Raises:
        UnreadableImage: see `read_image`.
    """
    try:
        return decoded(image)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error, "")) from None


def decoded(image: Image.Image) -> Image.Image:
    """What `read_image` returns, of a file that `open_image` has opened and within its block."""
    return _rgb(_as_stored(image))


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """A file of which the header has been read, and nothing else yet.

    Raises:
        UnreadableImage: see `read_image`; also for whatever is raised in the block, which is to
            decode and no more.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise UnreadableImage("no regular file")
        with open(path, "rb") as file:
            start = file.read(16)
            if not start:
                raise UnreadableImage("empty file")
            for make, accepts in map(Image.OPEN.__getitem__, FORMATS):
                # not Image.open: beyond twice the limit it does not say how large the picture is
                if accepts is not None and accepts(start) is True:
                    file.seek(0)
                    with make(file, "") as image:
                        _require_limit(image)
                        yield image
                    return
        raise NotAnImage(f"no picture in one of the formats that are read: {', '.join(FORMATS)}")
    except UnreadableImage:
        raise
    # on damaged bytes decoders raise nearly anything, from KeyError to struct.error
    except Exception as error:
        raise UnreadableImage(_reason(error, path)) from None


def _require_limit(image: Image.Image) -> None:
    """Raises UnreadableImage where a header promises more pixels than Pillow's limit, in the
    picture or in one TIFF tile."""
    limit = Image.MAX_IMAGE_PIXELS
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    tile = tags.get(Tag.TileWidth, 1), tags.get(Tag.TileLength, 1)
    for width, height in (image.size, tile):
        if limit is not None and width * height > limit:
            raise UnreadableImage(f"{width}x{height} pixels are more than the limit of {limit:,}")


def _as_stored(image: Image.Image) -> Image.Image:
    """The picture without the turn that Pillow gives to TIFF files, and to no others, by their
    orientation."""
    if not isinstance(image, TiffImageFile):
        return image
    if 12 in image.tag_v2.get(Tag.BitsPerSample, ()):  # Pillow gives them as 16 bits, nearly black
        raise UnreadableImage("12 bits per pixel")
    image.getexif()[Tag.Orientation] = 1
    return image.copy()  # its size is that of its pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in NO_RANGE:
        raise UnreadableImage(f"{NO_RANGE[image.mode]} have no defined range")
    # the high byte, as Pillow takes it of 16-bit colour; its conversion would clip
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OSError) and error.strerror:  # the system's: no such file, no permission
        return error.strerror
    text = " ".join(printable(str(error).replace(path, "")).split()).strip(" :'\"")
    # some decoders ask for the limit themselves
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,} ({text})"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"damaged: {type(error).__name__}{': ' if text else ''}{text}"
