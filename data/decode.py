"""Files to pictures, and why some cannot be read."""

from PIL import Image, UnidentifiedImageError

from data.formats import require_regular_file

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged, truncated, no images, or unreasonably large."""


def read_image(path: str) -> Image.Image:
    """Decode a file completely, as RGB.

    Raises:
        OSError, ValueError, SyntaxError: the file cannot be read, is empty, truncated or no image, or is too large.
    """
    require_regular_file(path)
    with Image.open(path) as image:
        return image.convert("RGB")


def reason(error: BaseException, path: str) -> str:
    """Why a file was left out, on one line and without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    text = " ".join(str(error).replace(path, "").split()).strip(" :'\"")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
