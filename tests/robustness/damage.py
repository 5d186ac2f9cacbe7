"""Hypothesis strategies that damage bytes, and parts that files consist of."""

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF,
            0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
NUMBERS = [
    struct.pack(form, value % 256 ** struct.calcsize(form))
    for form in (">H", "<H", ">I", "<I")
    for value in EXTREMES
]
FILLINGS = (b"", bytes(4), bytes(1000), bytes(100_000), b"\xff" * 5000)
Part = TypeVar("Part")


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes, other: bytes = b"") -> bytes:
    """Replace up to three pieces, mostly near the start or end, where formats keep what matters.

    Args:
        data: the bytes. other: a piece may become the end of these.
    """
    for _ in range(draw(st.integers(1, 3))):
        length = len(data)
        reach = min(length, draw(st.sampled_from((64, 256, 3000, 60_000, length))))
        # mostly behind the first bytes, which name the format: other formats are not read
        ranges = ((16, reach), (16, reach), (0, reach), (length - reach, length))
        low, high = draw(st.sampled_from(ranges))
        start = draw(st.integers(min(low, high), high))
        size = draw(st.sampled_from((0, 1, 1, 2, 4, 4, 12, 64, 1024, length)))
        piece = data[start : start + size]
        new = draw(
            st.binary(min_size=1, max_size=max(1, min(size, 8)))
            | st.sampled_from([number for number in NUMBERS if len(number) == size] or FILLINGS)
            | st.sampled_from((*FILLINGS, piece * 2, piece[:1024] * 50, piece[::-1], other[start:]))
        )
        data = data[:start] + new + data[start + size :]
    return data


@st.composite
def damaged_parts(
    draw: st.DrawFn,
    parts: Sequence[Part],
    others: Sequence[Part],
    damaged: Callable[[Part], st.SearchStrategy[Part]],
) -> list[Part]:
    """Remove, double, replace or damage up to three parts.

    Args:
        parts: at least one. others: parts to insert or to take instead, besides those of the file.
        damaged: damages the content of a part.
    """
    changed = list(parts)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(changed)))
        old = changed[place : place + 1]
        another = draw(st.sampled_from([*parts, *others]))
        new = draw(st.sampled_from(([], old * 2, [another], [another, *old], [another] * 50)))
        if old and draw(st.booleans()):
            new = [draw(damaged(old[0]))]
        changed[place : place + 1] = new
    return changed
