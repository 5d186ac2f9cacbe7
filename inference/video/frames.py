"""Frames of a video with their times, decoded in order.

docs/video.md says what happens to every kind of file.
"""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from inference.video.container import opened, read_info

# lower-case endings of the files that are taken for videos in a folder
EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".flv"),
    *(".wmv", ".ogv"),
)
MAX_FAILURES = 100  # packets in a row that cannot be decoded; after these the file counts as over

T = TypeVar("T")


class Frame(NamedTuple):
    """One decoded frame.

    Args:
        time: seconds since the first frame.
        pts: stored time stamp in ticks of the stream, None if missing.
        image: 8-bit RGB of the stored size.
    """

    time: float
    pts: int | None
    image: Image.Image


class Video:
    """A video file.

    Its packets are read once, so that the duration is known before decoding.

    Args:
        path: a regular file with a video stream; the first that is not a cover image is used.

    Attributes:
        info: metadata.
        interlaced: True if one of the frames decoded so far is interlaced.

    Raises:
        UnreadableVideo: it is not a video, its format or codec is not read, or it has more pixels
            than Pillow's limit.
        UserError: PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.interlaced = False
        self._time: Fraction | None = None  # of the last decoded frame
        self._damage: str | None = None  # place of the first damage
        self._untimed = 0  # frames without a usable time stamp
        with opened(self.path) as (container, stream):
            self.info = read_info(container, stream)

    def interval(self, fps: float | None = 1.0, max_frames: int = 300) -> Fraction:
        """Return the seconds between the times of `frames`; 0 for every frame.

        They are 1 / fps, or more if that gives more than max_frames.
        """
        interval = Fraction(0) if fps is None else 1 / Fraction(fps)
        if self.info.duration is None or self.info.frames <= max_frames:
            return interval
        return max(interval, Fraction(self.info.duration) / max_frames)

    def frames(self, fps: float | None = 1.0, max_frames: int = 300) -> Iterator[Frame]:
        """Yield the frames nearest to 0, 1 / fps, 2 / fps, ... seconds after the first, in order.

        If these are more than max_frames, the times are spread evenly over the video. A frame that
        is nearest to several times comes once. One frame is held at a time.

        Args:
            fps: above 0; None for every frame.
            max_frames: most frames to yield, at least 1.

        Raises:
            ValueError: fps or max_frames is out of range.
            UnreadableVideo: the file has changed since it was opened.
        """
        if (fps is not None and not 0 < fps < math.inf) or max_frames < 1:
            raise ValueError(f"fps {fps} and max_frames {max_frames}, expected numbers above 0")
        with opened(self.path) as (container, stream):
            timed = self._timed(self._undamaged(container, stream), stream.time_base)
            chosen = nearest(timed, self.interval(fps, max_frames))
            for time, frame in islice(chosen, max_frames):
                self.interlaced = self.interlaced or frame.interlaced_frame
                try:
                    image = rgb(frame)
                # FFmpeg cannot convert this pixel format
                except Exception:
                    self._note_damage()
                    continue
                yield Frame(float(time), frame.pts, image)

    def problem(self) -> str | None:
        """Return the defects of the file as far as `frames` has read it; None without any."""
        problems, info = [], self.info
        if self._damage is not None:
            problems.append(
                f"damaged, first {self._damage}: frames that cannot be decoded whole were skipped"
            )
        if info.promised is not None:
            problems.append(
                f"its frames end after {info.duration:.2f} s, its header promises"
                f" {info.promised:.2f} s"
            )
        if self._untimed:
            problems.append(
                f"{self._untimed} frames without a usable time stamp were timed by the frame rate"
            )
        return "; ".join(problems) or None

    def _undamaged(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield the frames that are decoded whole.

        Frames after damage build on it, so all up to the next key frame are skipped. The decoder
        may hold back a key frame from before the damage, so their time stamps are kept.
        """
        from av.error import EOFError, FFmpegError

        skipping = False
        keys: set[int | None] = set()  # time stamps of the key frames since the damage
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in container.demux(stream):
                    if packet.is_keyframe:
                        keys.add(packet.pts)
                    frames, failures = packet.decode(), 0
                    for frame in frames:
                        if packet.is_corrupt or frame.is_corrupt:
                            self._note_damage()
                            skipping = True
                            keys.clear()
                        elif frame.key_frame and frame.pts in keys:
                            skipping = False
                        if not skipping:
                            yield frame
                return
            # the decoder holds nothing back
            except EOFError:
                return
            # decoding continues after the damaged packet
            except FFmpegError:
                self._note_damage()
                skipping = True
                keys.clear()
                failures += 1

    def _note_damage(self) -> None:
        time = self._time
        place = "at the start" if time is None else f"after {float(time):.2f} s"
        self._damage = self._damage or place

    def _timed(self, frames: Iterable[Any], tick: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield frames with their seconds since the first.

        A time stamp that is missing or does not rise is replaced by the frame rate.
        """
        step = tick if self.info.frame_rate is None else 1 / Fraction(self.info.frame_rate)
        start: Fraction | None = None
        self._time, self._untimed = None, 0
        for frame in frames:
            expected = Fraction(0) if self._time is None else self._time + step
            time = expected
            if frame.pts is not None:
                start = frame.pts * tick - expected if start is None else start
                time = frame.pts * tick - start
            if frame.pts is None or (self._time is not None and time <= self._time):
                self._untimed += 1
                time = expected
            self._time = time
            yield time, frame


def nearest(
    timed: Iterable[tuple[Fraction, T]], interval: Fraction
) -> Iterator[tuple[Fraction, T]]:
    """Yield the frames nearest to 0, interval, 2 * interval, ..., each at most once.

    Of two equally near frames, the earlier is taken. The frame shown at a time would be wrong: time
    stamps are rounded, and all frames of a steady rate must come when they are asked for at that
    rate.

    Args:
        timed: (time, frame) pairs with rising times, in seconds.
        interval: seconds; 0 takes every frame.
    """
    wanted, gap = Fraction(0), Fraction(0)
    held: tuple[Fraction, T] | None = None
    for current in timed:
        if held is not None:
            gap = current[0] - held[0]
            if wanted <= (until := held[0] + gap / 2):
                yield held
                # no loop: a time stamp may be years ahead
                wanted = (until // interval + 1) * interval if interval else wanted
        held = current
    # the last frame stays as long as the one before
    if held is not None and wanted <= held[0] + gap / 2:
        yield held


def rgb(frame: Any) -> Image.Image:
    """Return PyAV's frame as 8-bit RGB of the same size.

    Chroma at half resolution is interpolated linearly, much as JPEG decoders do. FFmpeg's default
    repeats each value. The detector takes that nearest-neighbour up-sampling for a generator's
    trace.
    """
    from av.video.reformatter import Interpolation

    flags = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    return Image.fromarray(frame.to_ndarray(format="rgb24", interpolation=flags))
