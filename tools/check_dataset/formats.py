"""Summarise how the files of a class are encoded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.decode import FileFormat


@dataclass(frozen=True)
class Spread:
    """Median and range of a number."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the summary of at least one value."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    def __str__(self) -> str:
        if self.lowest == self.highest:
            return f"{self.median:g}"
        return f"{self.median:g} ({self.lowest:g}-{self.highest:g})"


@dataclass(frozen=True)
class ClassFormats:
    """Encoding of the readable files of one class.

    Args:
        files: their number, at least 1.
        kinds: share in [0, 1] of each of Pillow's formats, the largest first.
        quality: of the JPEG files; None without any.
        subsamplings: share in [0, 1] of each chroma subsampling of the JPEG files.
        width: in pixels.
        height: in pixels.
        sizes: number of different sizes.
        bytes_per_pixel: the median.
    """

    files: int
    kinds: dict[str, float]
    quality: Spread | None
    subsamplings: dict[str, float]
    width: Spread
    height: Spread
    sizes: int
    bytes_per_pixel: float

    @classmethod
    def of(cls, formats: Sequence[FileFormat]) -> "ClassFormats":
        """Return the summary of at least one file."""
        qualities = [encoding.quality for encoding in formats if encoding.quality is not None]
        return cls(
            files=len(formats),
            kinds=_shares(encoding.kind for encoding in formats),
            quality=Spread.of(qualities) if qualities else None,
            subsamplings=_shares(
                encoding.subsampling for encoding in formats if encoding.subsampling
            ),
            width=Spread.of([encoding.width for encoding in formats]),
            height=Spread.of([encoding.height for encoding in formats]),
            sizes=len({(encoding.width, encoding.height) for encoding in formats}),
            bytes_per_pixel=Spread.of([encoding.bytes_per_pixel for encoding in formats]).median,
        )

    def cells(self) -> list[str]:
        """Return format, JPEG quality, chroma, size, different sizes, bytes per pixel as text."""
        quality, density = str(self.quality or "-"), f"{self.bytes_per_pixel:.2f}"
        kinds, chroma = _listed(self.kinds), _listed(self.subsamplings)
        return [kinds, quality, chroma, self.size(), f"{self.sizes:,}", density]

    def size(self) -> str:
        """Return median and range of the sides: '256x256', '512x384 (100x80-1024x768)'."""
        median, lowest, highest = (
            f"{getattr(self.width, name):g}x{getattr(self.height, name):g}"
            for name in ("median", "lowest", "highest")
        )
        return median if lowest == highest else f"{median} ({lowest}-{highest})"


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


def _listed(shares: dict[str, float]) -> str:
    """Return 'PNG', 'JPEG 75.0%, PNG 25.0%', or '-'."""
    if len(shares) < 2:
        return next(iter(shares), "-")
    return ", ".join(f"{value} {share:.1%}" for value, share in shares.items())
