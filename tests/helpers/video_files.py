"""Small videos that the tests encode."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 64, 48


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return uint8 [H, W, 3]: noise that moves, the same for the same index."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    moved = np.roll(noise, 2 * index, axis=1)
    moved[:8, :8] = 5 * index % 256
    return moved


@contextmanager
def as_scheduled() -> Iterator[None]:
    """Put the thread's priority back: root's becomes real-time in SVT-AV1's encoder."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def encode(
    target: Any,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    count: int = 50,
    rate: int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    format: str | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rotate: float | None = None,
) -> Any:
    """Write `picture(0)`, `picture(1)`, ... to a path or an open file.

    Args:
        pts: time stamps in ticks of `time_base`; None: by the rate.
    """
    import av

    place = str(target) if isinstance(target, Path) else target
    with as_scheduled(), av.open(place, "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, pix_fmt, gop
        if rotate is not None:
            stream.set_display_rotation(rotate)
        if pts is not None:
            stream.codec_context.time_base = time_base
        for index in range(count if pts is None else len(pts)):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[index], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


def plain(path: Path) -> list[tuple[int | None, np.ndarray]]:
    """Return (pts, RGB) of all frames by PyAV's loop, with the conversion of the project."""
    import av

    from inference.video.frames import rgb

    with av.open(str(path)) as container:
        return [(frame.pts, np.asarray(rgb(frame))) for frame in container.decode(video=0)]
