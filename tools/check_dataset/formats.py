"""Summarise how the files of a class are encoded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data.decode import FileFormat


def class_formats(formats: Sequence[FileFormat]) -> dict[str, Any]:
    """Return the encoding of the readable files of one class, at least one.

    Returns:
        files: their number.
        kinds: share in [0, 1] of each of Pillow's formats, the largest first.
        quality: median, lowest and highest of the JPEG files; None without any.
        subsamplings: share in [0, 1] of each chroma subsampling of the JPEG files.
        width, height: median, lowest and highest in pixels.
        sizes: number of different sizes.
        bytes_per_pixel: the median.
    """
    qualities = [encoding.quality for encoding in formats if encoding.quality is not None]
    subsamplings = (encoding.subsampling for encoding in formats if encoding.subsampling)
    return {
        "files": len(formats),
        "kinds": _shares(encoding.kind for encoding in formats),
        "quality": _spread(qualities) if qualities else None,
        "subsamplings": _shares(subsamplings),
        "width": _spread([encoding.width for encoding in formats]),
        "height": _spread([encoding.height for encoding in formats]),
        "sizes": len({(encoding.width, encoding.height) for encoding in formats}),
        "bytes_per_pixel": float(np.median([encoding.bytes_per_pixel for encoding in formats])),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    median, lowest, highest = np.median(values), min(values), max(values)
    return {"median": float(median), "lowest": float(lowest), "highest": float(highest)}


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


def cells(formats: dict[str, Any]) -> list[str]:
    """Return format, JPEG quality, chroma, size, different sizes, bytes per pixel as text."""
    sides = zip(formats["width"].values(), formats["height"].values(), strict=True)
    sizes = [f"{width:g}x{height:g}" for width, height in sides]
    qualities = [f"{quality:g}" for quality in (formats["quality"] or {}).values()]
    return [
        _listed(formats["kinds"]),
        _with_range(*qualities) if qualities else "-",
        _listed(formats["subsamplings"]),
        _with_range(*sizes),
        f"{formats['sizes']:,}",
        f"{formats['bytes_per_pixel']:.2f}",
    ]


def _with_range(median: str, lowest: str, highest: str) -> str:
    """Return '256x256', or '512x384 (100x80-1024x768)'."""
    return median if lowest == highest else f"{median} ({lowest}-{highest})"


def _listed(shares: dict[str, float]) -> str:
    """Return 'PNG', 'JPEG 75.0%, PNG 25.0%', or '-'."""
    if len(shares) < 2:
        return next(iter(shares), "-")
    return ", ".join(f"{value} {share:.1%}" for value, share in shares.items())
