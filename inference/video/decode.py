"""Opened video files: which are let in, their packets, and the frames that come out whole."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from inference.video.index import Clock, NearestFrames, PacketIndex
from util import UserError, printable

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,yuv4mpegpipe,h264,hevc"
"""FFmpeg's demuxers that may look at a file, whatever its name; none of them opens other files or
addresses, as playlists do."""
LOSSLESS = ("ffv1", "ffvhuff", "huffyuv", "utvideo", "rawvideo", "png", "qtrle")
CODECS = (
    *(
        "h264",
        "hevc",
        "av1",
        "libdav1d",
        "vp8",
        "vp9",
        "mpeg4",
        "mpeg2video",
        "mpeg1video",
        "mjpeg",
        "prores",
        "dnxhd",
    ),
    *(
        "theora",
        "h263",
        "flv",
        "msmpeg4",
        "msmpeg4v1",
        "msmpeg4v2",
        "wmv1",
        "wmv2",
        "wmv3",
        "vc1",
        "dvvideo",
        "vp6f",
    ),
    *LOSSLESS,
)
"""FFmpeg's decoders that may look at a stream."""
MAX_ERRORS = 100
"""Errors in a row after which nothing more is expected of a file."""
READ = "MP4, MOV, MKV, WebM, AVI, MPEG, FLV, WMV, OGG, MXF"


class UnreadableVideo(ValueError):
    """A file gives no frame; the message says why, on one line and without the file's name."""


class NotTheSame(Exception):
    """A jump did not lead where the index says, or there is damage: decoding from the start would
    give other frames."""


class _Nameless:
    """A file of which FFmpeg sees the content only: it would guess the format by the name, too."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and the first video stream that is no cover picture.

    Raises:
        UnreadableVideo: see `inference.video.files.Video`. UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path}: reading videos needs PyAV: pip install -r requirements-video.txt"
        ) from None
    options = {
        "max_pixels": str(Image.MAX_IMAGE_PIXELS or 2**31 - 1),
        "codec_whitelist": ",".join(CODECS),
    }
    # nothing else may be opened from within
    only = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with ExitStack() as stack:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
                raise UnreadableVideo("no regular file")
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise UnreadableVideo(error.strerror or str(error)) from None
        if not file.read(1):
            raise UnreadableVideo("empty file")
        file.seek(0)
        try:
            container = av.open(_Nameless(file), options=options, container_options=only)
        except Exception as error:  # on damaged bytes demuxers raise nearly anything
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UnreadableVideo(
                f"damaged, or in no format that is read: {READ} ({printable(reason)})"
            ) from None
        with container:
            yield container, _video_stream(container, options)


def _video_stream(container: Any, options: dict[str, str]) -> Any:
    from av.stream import Disposition

    streams = [
        one for one in container.streams.video if not one.disposition & Disposition.attached_pic
    ]
    if not streams:
        others = sorted({one.type or "data" for one in container.streams if one.type != "video"})
        raise UnreadableVideo(
            "no video stream in it" + (f", only {', '.join(others)}" if others else "")
        )
    stream = streams[0]
    if stream.codec_context is None or stream.codec_context.name not in CODECS:
        name = "unknown" if stream.codec_context is None else stream.codec_context.name
        raise UnreadableVideo(f"codec {name} is not read")
    limit, pixels = Image.MAX_IMAGE_PIXELS, stream.width * stream.height
    if not pixels or (
        limit is not None and pixels > limit
    ):  # FFmpeg forgets a size that max_pixels does not let it look at
        most = "" if limit is None else f", or more pixels than the limit of {limit:,}"
        raise UnreadableVideo(f"no size of its pictures{most}")
    stream.codec_context.options = options
    return stream


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, the last of them empty (it makes the decoder give what it holds
    back); None for damage."""
    from av.error import FFmpegError

    packets, failures = container.demux(stream), 0
    while failures <= MAX_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:
            failures += 1
            packets = container.demux(stream)
            yield None
        else:
            failures = 0
            yield packet


def packet_index(container: Any, stream: Any) -> PacketIndex:
    """Read all packets; none is decoded."""
    index = PacketIndex()
    for packet in read_packets(container, stream):
        if packet is None or packet.is_corrupt:
            index.whole = False
        if packet is not None and packet.size:
            index.add(packet)
    index.finish()
    return index


class Decoding:
    """One pass through an opened stream.

    Frames that are damaged, or may be because they build on one that is, are left out: all up to
    the next key frame.

    Args:
        clock: for the times of the frames. index: with it, key frames are jumped to.

    Attributes:
        errors: damaged places. since: ticks of the last frame before the first damage; None: no
            frame.
    """

    def __init__(
        self, container: Any, stream: Any, clock: Clock, index: PacketIndex | None
    ) -> None:
        self.errors = 0
        self.since: int | None = None
        self._container, self._stream, self._clock, self._index = container, stream, clock, index
        self._time: int | None = None
        self._damaged = False
        # times of the key frames that went in since the last damage
        self._keys: set[int | None] = set()
        # time of the key frame whose group of pictures is being read
        self._group: int | None = None
        self._first: int | None = None  # time of the first frame to come after a jump

    def chosen(self, nearest: NearestFrames) -> Iterator[tuple[int, Any]]:
        """The frames that `nearest` wants, with their ticks.

        Raises:
            NotTheSame: only where there is an index; decode again without, `nearest` knows what has
                been given.
        """
        for packet in self._packets(nearest):
            for frame in self._whole(packet):
                self._time = self._clock.ticks(frame.pts)
                if (found := nearest.offer(self._time, frame)) is not None:
                    yield found
        if self._first is not None:
            raise NotTheSame
        if (found := nearest.last()) is not None:
            yield found

    def _packets(self, nearest: NearestFrames) -> Iterator[Any]:
        packets = read_packets(self._container, self._stream)
        while True:
            key = self._key_ahead(nearest)
            if key is not None:
                self._jump(key)
                nearest.jump()
            try:
                packet = next(packets)
            except StopIteration:
                return
            if key is not None:
                self._check_landing(packet, key)
            if packet is not None and packet.is_keyframe:
                self._group = packet.pts
                self._keys.add(packet.pts)
            yield packet

    def _key_ahead(self, nearest: NearestFrames) -> int | None:
        """Time of the key frame before the next wanted time, if it has not been read yet."""
        if self._index is None or self._group is None:
            return None
        key = self._index.key_before(self._index.times[0] + nearest.wanted)
        return key if key is not None and key > self._group else None

    def _jump(self, key: int) -> None:
        from av.error import FFmpegError

        try:
            self._container.seek(key, stream=self._stream)
        except FFmpegError:
            raise NotTheSame from None

    def _check_landing(self, packet: Any, key: int) -> None:
        assert self._index is not None and self._group is not None
        lands = packet is not None and packet.is_keyframe and packet.pts in self._index.keys
        if not lands or not self._group < packet.pts <= key:
            raise NotTheSame
        self._first = packet.pts

    def _whole(self, packet: Any) -> Iterator[Any]:
        """The undamaged frames that come out when a packet (None: damage) goes in."""
        from av.error import EOFError, FFmpegError

        frames = []
        if packet is not None:
            try:
                frames = packet.decode()
            except EOFError:  # nothing held back
                return
            except FFmpegError:
                packet = None
        if packet is None:
            self._note_damage()
        for frame in frames:
            if frame.is_corrupt:
                self._note_damage(frame)
            elif frame.key_frame and frame.pts in self._keys:
                self._damaged = False
            if not self._damaged and (self._first is None or self._reached(frame.pts)):
                yield frame
        if packet is not None and packet.is_corrupt:
            self._note_damage()

    def _reached(self, pts: int | None) -> bool:
        """Whether the first frame after a jump is there; frames before it lean on what was jumped
        over."""
        assert self._first is not None
        if pts is None or pts > self._first:
            raise NotTheSame
        if pts < self._first:
            return False
        self._first = None
        return True

    def _note_damage(self, frame: Any = None) -> None:
        """Damage in the frame that came out, or in what goes in now: then key frames that are still
        held back are from before."""
        if self._index is not None:
            raise NotTheSame
        if not self.errors:
            self.since = self._time
        self.errors += 1
        self._damaged = True
        after = None if frame is None else frame.pts
        self._keys = (
            set()
            if after is None
            else {key for key in self._keys if key is not None and key > after}
        )
