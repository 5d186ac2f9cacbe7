"""How the files of each class are encoded, side by side."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.formats import FileFormat


@dataclass(frozen=True)
class Spread:
    """Median and range of a number."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Spread | None":
        """None where there are no numbers."""
        values = np.fromiter(numbers, dtype=float)
        return (
            cls(float(np.median(values)), float(values.min()), float(values.max()))
            if len(values)
            else None
        )

    def __str__(self) -> str:
        same = self.lowest == self.highest
        return f"{self.median:g}" if same else f"{self.median:g} ({self.lowest:g}-{self.highest:g})"


@dataclass(frozen=True)
class ClassFormats:
    """Encoding of the readable files of one class.

    Args:
        kinds: share in [0, 1] of each of Pillow's formats, the largest first. subsamplings: the
            same of the JPEG files' chroma.
        quality: of the JPEG files. width, height: pixels. sizes: how many different ones.
            bytes_per_pixel: the median.
    """

    files: int
    kinds: dict[str, float]
    quality: Spread | None
    subsamplings: dict[str, float]
    width: Spread | None
    height: Spread | None
    sizes: int
    bytes_per_pixel: float | None

    @classmethod
    def of(cls, formats: Sequence[FileFormat]) -> "ClassFormats":
        density = Spread.of(one.bytes_per_pixel for one in formats)
        return cls(
            len(formats),
            _shares(one.kind for one in formats),
            Spread.of(one.quality for one in formats if one.quality is not None),
            _shares(one.subsampling for one in formats if one.subsampling),
            Spread.of(one.width for one in formats),
            Spread.of(one.height for one in formats),
            len({(one.width, one.height) for one in formats}),
            density.median if density else None,
        )

    def cells(self) -> list[str]:
        """The cells of a table's row: format, JPEG quality, chroma, size, how many different sizes,
        bytes per pixel."""
        density = "-" if self.bytes_per_pixel is None else f"{self.bytes_per_pixel:.2f}"
        quality = str(self.quality or "-")
        return [
            shown(self.kinds),
            quality,
            shown(self.subsamplings),
            self.size(),
            f"{self.sizes:,}",
            density,
        ]

    def size(self) -> str:
        """Median and range of the sides: '256x256', '512x384 (100x80-1024x768)'."""
        if self.width is None or self.height is None:
            return "-"
        median, lowest, highest = (
            f"{getattr(self.width, name):g}x{getattr(self.height, name):g}"
            for name in ("median", "lowest", "highest")
        )
        return median if lowest == highest else f"{median} ({lowest}-{highest})"


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


def shown(shares: dict[str, float]) -> str:
    """'PNG', 'JPEG 75%, PNG 25%', '-' where there is none."""
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{value} {_per_cent(share)}%" for value, share in shares.items()) or "-"


def _per_cent(share: float) -> str:
    """Whole per cent, but never 0 or 100 for what is neither."""
    return "<1" if share < 0.005 else ">99" if share > 0.995 else f"{100 * share:.0f}"
