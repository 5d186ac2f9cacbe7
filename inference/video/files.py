"""Videos to pictures with their times. No other module opens videos; docs/video.md says what
becomes of every kind.

PyAV (FFmpeg) decodes, an optional package (requirements-video.txt).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from inference.video.decode import (
    LOSSLESS,
    Decoding,
    NotTheSame,
    UnreadableVideo,
    opened,
    packet_index,
)
from inference.video.index import Clock, NearestFrames, PacketIndex

__all__ = ["EXTENSIONS", "Frame", "UnreadableVideo", "Video", "VideoInfo"]

EXTENSIONS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".mts",
    ".m2ts",
    ".flv",
    ".wmv",
    ".ogv",
)
"""Lower-case endings of names that are taken for videos where files of several kinds are looked
for."""
SEEKABLE = (
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"},
    {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "ffv1", "mjpeg"},
)
"""Containers and codecs in which decoding from a key frame on gives what decoding from the start
gives (tests compare)."""


class Frame(NamedTuple):
    """Seconds since the first frame, the stored time stamp in ticks of the stream (None: none), and
    8-bit RGB as stored."""

    time: float
    pts: int | None
    image: Image.Image


@dataclass(frozen=True)
class VideoInfo:
    """What a file says before a frame is decoded.

    Args:
        width, height: pixels as stored. codec, container: FFmpeg's names. pixel_format: of the
            stored frames, e.g. "yuv420p".
        duration: seconds, by the time stamps of all frames, or by their number and rate where there
            are none; None: unknown.
        stored_duration: by the header, None if it has none. frame_rate: frames per second, by the
            header; None if unknown.
        frames: how many are stored. variable_rate: they stay for different times.
        bits_per_pixel: bits of the compressed stream for each pixel of each frame. lossless: the
            codec gives back every bit.
    """

    width: int
    height: int
    codec: str
    container: str
    pixel_format: str
    duration: float | None
    stored_duration: float | None
    frame_rate: float | None
    frames: int
    variable_rate: bool
    bits_per_pixel: float
    lossless: bool


class Video:
    """A video file, looked through once, so that its duration and its key frames are known.

    Args:
        path: a regular file with a video stream; of several the first that is no cover picture.

    Attributes:
        info: see `VideoInfo`. interlaced: whether one of the frames given so far is.

    Raises:
        UnreadableVideo: it is none, in a format or of a codec that is not read, or larger than
            Pillow's limit.
        UserError: PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.interlaced = False
        self._decoding: Decoding | None = None
        self._guessed = self._unconverted = 0
        with opened(self.path) as (container, stream):
            self._index = packet_index(container, stream)
            self._tick: Fraction = stream.time_base
            self.info = _info(container, stream, self._index)

    def interval(self, fps: float | None = 1.0, max_frames: int = 300) -> Fraction:
        """Seconds between the times of `frames`: 1 / fps, or more where that gives more than
        max_frames; 0: every frame."""
        wanted = Fraction(0) if fps is None else 1 / Fraction(fps)
        if self.info.duration is None or self.info.frames <= max_frames:
            return wanted
        return max(wanted, Fraction(self.info.duration) / max_frames)

    def frames(
        self, fps: float | None = 1.0, max_frames: int = 300, seek: bool = True
    ) -> Iterator[Frame]:
        """The frames nearest to 0, 1 / fps, 2 / fps, ... seconds after the first, in their order.

        Where these are more than max_frames, the times are spread evenly over the video. A frame
        that is nearest to several of them comes once. Frames that cannot be decoded, and all after
        them up to the next key frame, are left out (see `problem`). No more than one picture is
        held.

        Args:
            fps: above 0; None for every frame. seek: jump to the key frame before each wanted time,
                where that gives the same.

        Raises:
            ValueError: fps or max_frames is not above 0. UnreadableVideo: the file is not what it
                was.
        """
        if (fps is not None and not 0 < fps < math.inf) or max_frames < 1:
            raise ValueError(f"fps {fps} and max_frames {max_frames}, expected numbers above 0")
        nearest = NearestFrames(self.interval(fps, max_frames) / self._tick)
        for time, frame in islice(self._chosen(nearest, seek and nearest.interval > 0), max_frames):
            self.interlaced = self.interlaced or frame.interlaced_frame
            try:
                image = rgb(frame)
            except Exception:  # a pixel format that FFmpeg does not convert, or no memory for it
                self._unconverted += 1
                continue
            yield Frame(float(time * self._tick), frame.pts, image)

    def problem(self) -> str | None:
        """What was wrong with the file, as far as `frames` has read; None if nothing was."""
        found = []
        if self._decoding is not None and self._decoding.errors:
            since = self._decoding.since
            place = "at the start" if since is None else f"after {float(since * self._tick):.2f} s"
            found.append(
                f"damaged, first {place}: frames that could not be decoded whole were left out"
            )
        promised, there = self.info.stored_duration, self.info.duration
        end = (
            0 if self._index.end is None else self._index.end * self._tick
        )  # some headers count from 0, not from the first
        if (
            promised is not None
            and there is not None
            and promised - max(there, end) > max(0.5, promised / 50)
        ):
            found.append(
                f"its pictures end after {there:.2f} s, its header promises {promised:.2f} s"
            )
        if self._unconverted:
            found.append(
                f"{self._unconverted} frames could not be converted to RGB and were left out"
            )
        if self._guessed:
            found.append(
                f"{self._guessed} frames without a usable time stamp were timed by the frame rate"
            )
        return "; ".join(found) or None

    def _chosen(self, nearest: NearestFrames, seek: bool) -> Iterator[tuple[int, Any]]:
        start = self._index.times[0] if self._index.times else None
        step = 1 if self.info.frame_rate is None else round(1 / (self.info.frame_rate * self._tick))
        with opened(self.path) as (container, stream):
            sure = self._index.whole and not self._index.repeats and self._index.times
            seek = bool(sure and seek and _seekable(container, stream))
            clock = Clock(start, step)
            self._decoding = Decoding(container, stream, clock, self._index if seek else None)
            try:
                yield from self._decoding.chosen(nearest)
                return
            except NotTheSame:
                nearest.jump()
            finally:
                self._guessed = clock.guessed
        yield from self._chosen(nearest, seek=False)


def rgb(frame: Any) -> Image.Image:
    """PyAV's frame as 8-bit RGB of the same size.

    Chroma at half resolution is interpolated linearly, much as JPEG decoders do. FFmpeg's default
    repeats each value, and that nearest-neighbour up-sampling is just what the detector takes for a
    generator's trace.
    """
    from av.video.reformatter import Interpolation

    how = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    return Image.fromarray(frame.to_ndarray(format="rgb24", interpolation=how))


def _seekable(container: Any, stream: Any) -> bool:
    return all(one in those for one, those in zip(_kind(container, stream), SEEKABLE, strict=True))


def _kind(container: Any, stream: Any) -> tuple[str, str]:
    return container.format.name, stream.codec_context.codec.canonical_name


def _info(container: Any, stream: Any, index: PacketIndex) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate
    rate = None if not rate else float(rate)
    duration = None
    if index.end is not None:
        duration = float((index.end - index.times[0]) * stream.time_base)
    if rate is not None and index.packets and (duration is None or index.repeats):
        duration = max(duration or 0, index.packets / rate)
    stored = None
    if stream.duration is not None:
        stored = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        stored = container.duration / 1e6  # AV_TIME_BASE
    container_name, codec = _kind(container, stream)
    pixels = stream.width * stream.height * index.packets
    return VideoInfo(
        width=stream.width,
        height=stream.height,
        codec=codec,
        container=container_name,
        pixel_format=stream.codec_context.pix_fmt or "unknown",
        duration=duration,
        stored_duration=stored,
        frame_rate=rate,
        frames=index.packets,
        variable_rate=index.varies,
        bits_per_pixel=8 * index.size / pixels if pixels else 0.0,
        lossless=codec in LOSSLESS,
    )
