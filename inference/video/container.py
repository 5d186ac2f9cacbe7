"""Open video files with PyAV (an optional package), and read their metadata."""

import math
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from util import UserError, printable

# FFmpeg's demuxers that may read a file; none opens other files or addresses, as playlists do
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,"
    "yuv4mpegpipe,h264,hevc"
)
LOSSLESS = ("ffv1", "ffvhuff", "huffyuv", "utvideo", "rawvideo", "png", "qtrle")
# FFmpeg's decoders that may read a stream
CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video"),
    *("mjpeg", "prores", "dnxhd", "theora", "h263", "flv", "msmpeg4", "msmpeg4v1", "msmpeg4v2"),
    *("wmv1", "wmv2", "wmv3", "vc1", "dvvideo", "vp6f"),
    *LOSSLESS,
)
FORMATS_READ = "MP4, MOV, MKV, WebM, AVI, MPEG, FLV, WMV, OGG, MXF"


class UnreadableVideo(ValueError):
    """A file gives no frame; the message has the reason on one line, without the file's name."""


@dataclass(frozen=True)
class VideoInfo:
    """Metadata of a video, from its packets if they have it.

    Args:
        width: pixels as stored.
        height: likewise.
        codec: FFmpeg's name.
        pixel_format: of the stored frames, e.g. "yuv420p".
        duration: seconds, by the time stamps of all frames. By their number and rate if time stamps
            are missing or repeat. None if unknown.
        promised: seconds by the header, if these are clearly more than the frames last; else None.
        frame_rate: frames per second by the header, None if missing.
        frames: number of stored frames.
        bits_per_pixel: bits of the compressed stream for each pixel of each frame.
    """

    width: int
    height: int
    codec: str
    pixel_format: str
    duration: float | None
    promised: float | None
    frame_rate: float | None
    frames: int
    bits_per_pixel: float


class _Nameless:
    """A file without a name, because FFmpeg would also guess the format by the name."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield PyAV's container and the first video stream that is not a cover image.

    Raises:
        UnreadableVideo: see `inference.video.frames.Video`.
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path}: reading videos needs PyAV: pip install -r requirements/video.txt"
        ) from None
    options = {
        "max_pixels": str(Image.MAX_IMAGE_PIXELS or 2**31 - 1),
        "codec_whitelist": ",".join(CODECS),
    }
    # the file may not open other files or addresses
    only = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with ExitStack() as stack:
        try:
            # opening a pipe would wait for ever
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise UnreadableVideo("not a regular file")
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise UnreadableVideo(error.strerror or str(error)) from None
        if not file.read(1):
            raise UnreadableVideo("empty file")
        file.seek(0)
        try:
            container = av.open(_Nameless(file), options=options, container_options=only)
        # on damaged bytes demuxers raise nearly anything
        except Exception as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UnreadableVideo(
                f"damaged, or in a format that is not read ({printable(reason)}); read are"
                f" {FORMATS_READ}"
            ) from None
        with container:
            stream = _video_stream(container)
            stream.codec_context.options = options
            yield container, stream


def _video_stream(container: Any) -> Any:
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise UnreadableVideo("no video stream in it")
    stream = streams[0]
    codec = "unknown" if stream.codec_context is None else stream.codec_context.name
    if codec not in CODECS:
        raise UnreadableVideo(f"codec {codec} is not read")
    pixels = stream.width * stream.height  # 0 where FFmpeg's max_pixels has refused the size
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if not 0 < pixels <= limit:
        raise UnreadableVideo(
            f"its frames have no size, or more pixels than the limit of {limit:,}"
        )
    return stream


def read_info(container: Any, stream: Any) -> VideoInfo:
    """Return the metadata of a video; all packets are read, none is decoded."""
    from av.error import FFmpegError

    times: list[int] = []
    ends: list[int] = [0]
    sizes: list[int] = []
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                sizes.append(packet.size)
                if packet.pts is not None and not packet.is_discard:
                    times.append(packet.pts)
                    ends.append(packet.pts + (packet.duration or 0))
    rate = stream.average_rate or stream.guessed_rate
    duration = None
    if times:
        duration = float((max(ends) - min(times)) * stream.time_base)
    if rate and sizes and (not times or len(set(times)) < len(times)):
        duration = max(duration or 0, len(sizes) / float(rate))
    promised = None
    if stream.duration is not None:
        promised = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        promised = container.duration / 1e6  # AV_TIME_BASE
    # some headers count from 0, not from the first frame
    last = max(duration or 0.0, float(max(ends) * stream.time_base))
    if duration is None or promised is None or promised - last <= max(0.5, promised / 50):
        promised = None
    pixels = stream.width * stream.height * len(sizes)
    return VideoInfo(
        width=stream.width,
        height=stream.height,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=stream.codec_context.pix_fmt or "unknown",
        duration=duration,
        promised=promised,
        frame_rate=float(rate) if rate else None,
        frames=len(sizes),
        bits_per_pixel=8 * sum(sizes) / pixels if pixels else 0.0,
    )
