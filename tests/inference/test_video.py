"""Videos: which frames are taken, of which files, and what is said of them. Every video is encoded
here."""

import csv
import hashlib
import itertools
import json
import os
import struct
import sys
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference import load_detector
from inference.detector import Detector
from inference.video.container import UnreadableVideo
from inference.video.frames import Video, nearest, rgb
from inference.video.scoring import predict_video, write_video_report
from networks import ModelConfig, build_model
from networks.calibration import Calibration
from networks.checkpoint_file import save_checkpoint
from tests.helpers.video_files import HEIGHT, WIDTH, encode, picture, plain
from util import UserError

av = pytest.importorskip("av")

QUIET = {"x265-params": "log-level=none"}
CODECS = [  # name, codec, pixel format, options; all in groups of 12 images
    ("ffv1.mkv", "ffv1", "bgr0", {}),
    ("h264.mp4", "libx264", "yuv420p", {}),
    ("open_groups.mkv", "libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=3"}),
    ("intra_refresh.mp4", "libx264", "yuv420p", {"x264-params": "intra-refresh=1"}),
    ("hevc.mp4", "libx265", "yuv420p", QUIET | {"preset": "ultrafast"}),
    ("hevc_open_groups.mkv", "libx265", "yuv420p", {"x265-params": "log-level=none:open-gop=1"}),
    ("mpeg4.mp4", "mpeg4", "yuv420p", {"bf": "2"}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {"bf": "2"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    ("vp8.webm", "libvpx", "yuv420p", {"deadline": "realtime"}),
    ("av1.mp4", "libsvtav1", "yuv420p", {"preset": "12"}),
    ("mjpeg.mov", "mjpeg", "yuvj420p", {}),
    ("h264.ts", "libx264", "yuv420p", {}),
    ("mpeg2.mpg", "mpeg2video", "yuv420p", {"bf": "2"}),
]


def times_of(path: Path, **how: Any) -> list[float]:
    return [frame.time for frame in Video(path).frames(**how)]


def pixels(image: Image.Image | np.ndarray) -> str:
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


@settings(deadline=None)  # the obvious search is slow
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.fractions(Fraction(1, 2), 100))
def test_nearest_frames_are_those_of_a_search_through_all(
    gaps: list[int], interval: Fraction
) -> None:
    times = [0, *itertools.accumulate(gaps)]
    end = times[-1] + Fraction(gaps[-1], 2)
    wanted = [k * interval for k in range(int(end / interval) + 1)]
    expected = sorted({min(times, key=lambda time: (abs(time - want), time)) for want in wanted})
    timed = [(Fraction(time), f"frame {time}") for time in times]
    assert list(nearest(timed, interval)) == [(time, f"frame {time}") for time in expected]


def test_time_stamps_that_are_missing_or_go_back_get_the_usual_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = (None, 100, 140, None, 220, 100, 140, 400)
    video = Video(encode(tmp_path / "a.mkv", count=1))  # 25 frames a second, ticks of 1 ms
    monkeypatch.setattr(
        video, "_undamaged", lambda *_: (av_frame(picture(0), pts) for pts in stamps)
    )
    times = [round(1000 * frame.time) for frame in video.frames(None)]
    assert times == [0, 40, 80, 120, 160, 200, 240, 340]
    assert "4 frames without a usable time stamp" in str(video.problem())


def av_frame(pixels: np.ndarray, pts: int | None) -> Any:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts = pts
    return frame


@pytest.mark.parametrize(
    ("name", "rate"), [("a.mkv", 25), ("b.mkv", 30), ("c.mp4", 30), ("d.mp4", 24)]
)
def test_steady_rate(tmp_path: Path, name: str, rate: int) -> None:
    """A rate of 30 has no whole number of Matroska's milliseconds between its frames, and still all
    of them come."""
    lossless = name.endswith("mkv")
    path = encode(
        tmp_path / name,
        *(("ffv1", "bgr0") if lossless else ("mpeg4", "yuv420p")),
        count=3 * rate,
        rate=rate,
    )
    exact = 1e-9 if not lossless or 1000 % rate == 0 else 1e-3
    assert times_of(path, fps=1) == pytest.approx([0, 1, 2], abs=exact)
    assert times_of(path, fps=rate / 3) == pytest.approx(
        [3 * k / rate for k in range(rate)], abs=exact
    )
    for fps in (rate, None, 1000):
        assert times_of(path, fps=fps) == pytest.approx(
            [k / rate for k in range(3 * rate)], abs=exact
        )
    info = Video(path).info
    assert (info.frames, info.frame_rate, info.duration, info.variable_rate) == (
        3 * rate,
        rate,
        3.0,
        False,
    )


def test_lossless_pixels_come_as_they_were_written(tmp_path: Path) -> None:
    frames = list(Video(encode(tmp_path / "a.mkv", count=20)).frames(None))
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        assert frame.pts == 40 * index
        assert np.array_equal(np.asarray(frame.image), picture(index))


def test_variable_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", pts=[0, 10, 500, 510, 2000, 2001, 2990])
    video = Video(path)
    assert video.info.variable_rate
    frames = list(
        video.frames(2)
    )  # nearest to 0, 0.5, 1, 1.5, 2, 2.5: 1 has 0.51, 1.5 has 2 (0.5 away; 0.51 is 0.99 away)
    assert [frame.time for frame in frames] == [0, 0.5, 0.51, 2.0, 2.99]
    assert [pixels(frame.image) for frame in frames] == [
        pixels(picture(index)) for index in (0, 2, 3, 4, 6)
    ]
    assert times_of(path, fps=None) == [0, 0.01, 0.5, 0.51, 2.0, 2.001, 2.99]


def test_time_starts_with_the_first_frame(tmp_path: Path) -> None:
    video = Video(encode(tmp_path / "a.mkv", pts=[7000 + 40 * index for index in range(25)]))
    frames = list(video.frames(5))
    assert [frame.time for frame in frames] == [0, 0.2, 0.4, 0.6, 0.8]
    assert frames[0].pts == 7000 and video.info.duration == 1.0 and video.problem() is None


@pytest.mark.skipif(
    not hasattr(os, "sched_getscheduler"), reason="the system has no such priorities"
)
@pytest.mark.parametrize("codec", ("libsvtav1", "libx264"))
def test_making_and_reading_videos_leaves_the_priority_of_the_process(
    tmp_path: Path, codec: str
) -> None:
    before = os.sched_getscheduler(0)
    assert list(Video(encode(tmp_path / "a.mp4", codec, "yuv420p")).frames())
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"), CODECS, ids=[case[0] for case in CODECS]
)
def test_frames_are_the_nearest_of_all_that_ffmpeg_decodes(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV encodes no {codec}")
    path = encode(tmp_path / name, codec, pix_fmt, count=60, options=options)
    every = plain(path)
    start = min(pts for pts, _ in every if pts is not None)
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    for fps in (0.7, 3):
        wanted = [Fraction(k) / Fraction(fps) for k in range(60) if k / fps < 2.38]
        nearest = {
            min(every, key=lambda one: abs((one[0] - start) * tick - want))[0] for want in wanted
        }  # type: ignore[operator]
        expected = [(pts, pixels(array)) for pts, array in every if pts in nearest]
        frames = list(Video(path).frames(fps))
        assert [(frame.pts, pixels(frame.image)) for frame in frames] == expected


def test_at_most_max_frames_spread_over_the_whole_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=100)
    assert times_of(path, fps=None, max_frames=4) == [0, 1, 2, 3]
    assert times_of(path, fps=25, max_frames=8) == pytest.approx(
        [0, 0.48, 1, 1.48, 2, 2.48, 3, 3.48]
    )
    assert times_of(path, fps=1, max_frames=300) == [0, 1, 2, 3]
    assert len(times_of(path, fps=25, max_frames=100)) == 100
    assert times_of(path, max_frames=1) == [0]
    for wrong in (
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": -1},
        {"fps": float("inf")},
        {"max_frames": 0},
    ):
        with pytest.raises(ValueError, match="expected numbers above 0"):
            times_of(path, **wrong)


def test_one_image_is_held_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref] = []
    for frame in Video(encode(tmp_path / "a.mkv", count=30)).frames(None):
        alive.append(weakref.ref(frame.image))
        del frame
        assert sum(one() is not None for one in alive) <= 1
    assert len(alive) == 30


def live(path: Path) -> Path:
    """A Matroska file written to what cannot seek, so that its header has no duration."""

    class Pipe:
        def __init__(self) -> None:
            self.file = path.open("wb")
            self.write, self.close = self.file.write, self.file.close

    encode(Pipe(), format="matroska", count=100)
    return path


def test_duration_is_counted_where_the_header_has_none(tmp_path: Path) -> None:
    video = Video(live(tmp_path / "a.mkv"))
    assert video.info.stored_duration is None and video.info.duration == 4.0
    assert [frame.time for frame in video.frames(25, max_frames=4)] == [0, 1, 2, 3]


def test_a_header_that_lies_changes_nothing(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=100)
    content = bytearray(path.read_bytes())
    # Matroska's Duration, eight bytes: a double, in milliseconds
    place = content.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", content, place) == (4000.0,)
    struct.pack_into(">d", content, place, 1e6)
    path.write_bytes(content)
    video = Video(path)
    assert video.info.duration == 4.0 and video.info.stored_duration == 1000.0
    assert [frame.time for frame in video.frames(25, max_frames=4)] == [0, 1, 2, 3]
    problem = str(video.problem())
    assert "end after 4.00 s" in problem and "promises 1000.00 s" in problem


def test_raw_stream_without_time_stamps_is_timed_by_its_rate(tmp_path: Path) -> None:
    video = Video(encode(tmp_path / "a.h264", "libx264", "yuv420p", format="h264"))
    assert [frame.time for frame in video.frames(5)] == pytest.approx([k / 5 for k in range(10)])
    assert "50 frames without a usable time stamp" in str(video.problem())


def test_joined_files_go_on_where_the_first_ends(tmp_path: Path) -> None:
    once = encode(tmp_path / "a.ts", "libx264", "yuv420p").read_bytes()
    (tmp_path / "b.ts").write_bytes(once * 2)
    assert times_of(tmp_path / "b.ts", fps=5) == pytest.approx(
        [k / 5 for k in range(20)], abs=0.021
    )


@pytest.mark.parametrize("name", ("a.mkv", "a.ts", "a.avi", "a.flv"))
def test_truncated_file_gives_the_frames_before_its_end(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = {"a.mkv": ("ffv1", "bgr0"), "a.flv": ("flv", "yuv420p")}.get(
        name, ("mpeg4", "yuv420p")
    )
    whole = encode(tmp_path / name, codec, pix_fmt, count=100)
    expected = [pixels(array) for _, array in plain(whole)]
    part = tmp_path / f"part_{name}"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    video = Video(part)
    found = [pixels(frame.image) for frame in video.frames(None)]
    assert 5 < len(found) < 90 and found == expected[: len(found)]
    # which may end with any frame: it has no header
    assert video.problem() is not None or name == "a.ts"


@pytest.mark.parametrize("fps", (None, 5))
@pytest.mark.parametrize("name", ("a.mp4", "a.ts"))
def test_damage_in_the_middle_leaves_out_what_it_reaches(
    tmp_path: Path, name: str, fps: float | None
) -> None:
    """No frame comes that is not in the undamaged file, and those after the damage do."""
    whole = encode(tmp_path / name, "libx264", "yuv420p", count=100)
    expected = [pixels(array) for _, array in plain(whole)]
    content = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packet = next(
            packet for packet in container.demux(video=0) if packet.pts * packet.time_base > 1.5
        )
        content[packet.pos : packet.pos + 400] = bytes(400)
    (tmp_path / f"b_{name}").write_bytes(content)
    video = Video(tmp_path / f"b_{name}")
    frames = list(video.frames(fps))
    positions = [expected.index(pixels(frame.image)) for frame in frames]
    assert positions == sorted(set(positions))
    assert frames[-1].time > 3.5 and len(frames) < (100 if fps is None else 20)
    assert "damaged, first after" in str(video.problem())


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((2, 44100), np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])


def write_no_frame(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()


NO_VIDEOS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "audio": (write_audio, "no video stream"),
    "no frame": (write_no_frame, "no video stream in it"),
    "empty": (Path.touch, "empty file"),
    "text": (
        lambda path: path.write_text("hello\n" * 1000),
        "damaged, or in a format that is not read.*MP4",
    ),
    "picture": (
        lambda path: Image.fromarray(picture(0)).save(path, "PNG"),
        "in a format that is not read",
    ),
    "folder": (Path.mkdir, "regular file"),
    "pipe": (os.mkfifo, "regular file"),
    "missing": (lambda path: None, "No such file"),
    "link to nowhere": (lambda path: path.symlink_to("nowhere"), "No such file"),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_not_a_video(tmp_path: Path, kind: str) -> None:
    write, says = NO_VIDEOS[kind]
    write(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match=says) as raised:
        Video(tmp_path / "a.mp4")
    assert "\n" not in str(raised.value) and str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text"),
    (
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("a.txt", "ffconcat version 1.0\nfile other.ts\n"),
    ),
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, name: str, text: str) -> None:
    encode(tmp_path / "other.ts", "libx264", "yuv420p", count=5)
    (tmp_path / name).write_text(text)
    with av.open(str(tmp_path / name)) as container:  # so FFmpeg alone would
        assert len(list(container.decode(video=0))) == 5
    (tmp_path / "a.mp4").write_text(text)
    for path in (tmp_path / name, tmp_path / "a.mp4"):
        with pytest.raises(UnreadableVideo, match="in a format that is not read"):
            Video(path)


def test_more_pixels_than_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mkv", count=2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT)
    assert len(times_of(path, fps=None)) == 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(UnreadableVideo, match="pixels .*3,071"):
        Video(path)


def test_turned_and_interlaced_images_come_as_stored(tmp_path: Path) -> None:
    turned = Video(encode(tmp_path / "a.mp4", "libx264", "yuv420p", count=2, rotate=90))
    assert next(turned.frames()).image.size == (WIDTH, HEIGHT) and not turned.interlaced
    rows = Video(
        encode(tmp_path / "b.mp4", "libx264", "yuv420p", count=4, options={"x264-params": "tff=1"})
    )
    list(rows.frames())
    assert rows.interlaced


def test_colour_at_half_resolution_is_interpolated_not_repeated() -> None:
    """Of blue-difference values that rise evenly from left to right, blue rises evenly; repeated,
    it would rise in steps."""
    y, u, v = np.full((16, 32), 110), np.tile(90 + 4 * np.arange(16), (8, 1)), np.full((8, 16), 128)
    planes = np.concatenate([plane.ravel() for plane in (y, u, v)]).astype(np.uint8).reshape(24, 32)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    blue = np.asarray(rgb(frame))[8, 4:-4, 2].astype(int)
    rise = 1.772 * 255 / 224 * 2  # BT.601, limited range; half a chroma step for each pixel
    assert np.abs(np.diff(blue) - rise).max() < 1.01
    repeated = frame.to_ndarray(format="rgb24")[8, 4:-4, 2].astype(int)
    assert (np.diff(repeated)[::2] == 0).all()  # FFmpeg's default


def test_frames_that_cannot_be_converted_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mkv", count=3)
    video = Video(path)

    def failing(frame: Any) -> Image.Image:
        if frame.pts == 40:
            raise ValueError("no such format")
        return rgb(frame)

    monkeypatch.setattr("inference.video.frames.rgb", failing)
    assert [frame.pts for frame in video.frames(None)] == [0, 80]
    assert "damaged" in str(video.problem())


def test_without_pyav_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mkv", count=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"PyAV.* pip install -r requirements/video\.txt"):
        Video(path)


MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)
SINGLE = ModelConfig("single_scale")
CALIBRATION = Calibration(2.0, 0.4, 0.45, 0.55, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")


def make_detector(
    folder: Path, config: ModelConfig = MULTI, calibration: Calibration | None = None
) -> Detector:
    torch.manual_seed(3)
    values: dict[str, Any] = {
        "model_state_dict": build_model(config).state_dict(),
        "model_config": config.to_dict(),
    }
    if calibration is not None:
        values["calibration"] = calibration.to_dict()
    save_checkpoint(folder / "model.pth", values | {"epoch": 1})
    return load_detector(folder / "model.pth", "cpu")


def test_a_video_is_predicted_by_the_median_of_its_frames(tmp_path: Path) -> None:
    detector = make_detector(tmp_path)
    path = encode(tmp_path / "a.mkv", count=50)
    found = predict_video(detector, path, fps=5)
    outputs = detector.outputs(
        [picture(index) for index in range(0, 50, 5)]
    )  # the codec is lossless
    logits = np.array([frame.prediction.logit for frame in found.frames])
    assert np.allclose(logits, outputs.logits, atol=1e-6) and len(set(logits)) == 10
    ordered = sorted(logits)
    assert found.logit == pytest.approx(
        (ordered[4] + ordered[5]) / 2
    ) and found.mean_logit == pytest.approx(sum(logits) / 10)
    assert found.probability == found.score == pytest.approx(1 / (1 + np.exp(-found.logit)))
    assert (
        found.mean_probability
        == found.mean_score
        == pytest.approx(1 / (1 + np.exp(-found.mean_logit)))
    )
    assert outputs.attention_weights is not None and found.attention is not None
    assert np.allclose(found.attention, outputs.attention_weights.mean(axis=0), atol=1e-6)
    assert found.top_scale == (0.25, 0.5, 0.75)[int(np.argmax(found.attention))]
    generated = sum(logit > 0 for logit in logits) / 10
    assert found.shares == {"real": 1 - generated, "unsure": 0, "generated": generated}
    assert (found.path, found.duration, found.interval, found.codec) == (
        str(path),
        2.0,
        0.2,
        "ffv1",
    )
    assert (found.width, found.height, found.frame_rate, found.problem) == (
        WIDTH,
        HEIGHT,
        25.0,
        None,
    )
    assert found.warnings == ("small: 64x48 pixels",)
    assert [frame.time for frame in found.frames] == pytest.approx([k / 5 for k in range(10)])


def test_the_answer_goes_through_the_calibration(tmp_path: Path) -> None:
    found = predict_video(
        make_detector(tmp_path, calibration=CALIBRATION), encode(tmp_path / "a.mkv"), fps=None
    )
    assert (
        found.probability == pytest.approx(1 / (1 + np.exp(-found.logit / 2))) and found.calibrated
    )
    for frame in found.frames:
        assert frame.prediction.probability == pytest.approx(
            1 / (1 + np.exp(-frame.prediction.logit / 2))
        )
    assert found.verdict == "unsure" == CALIBRATION.verdict(found.probability)
    assert sum(found.shares.values()) == 1


def test_one_strange_frame_moves_the_mean_and_not_the_median(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector(tmp_path)
    logits = iter([-2.0, -1.0, 90.0, -3.0, -2.5])
    outputs = detector.pixel_outputs

    def strange(pixels: Any) -> Any:
        return outputs(pixels)._replace(logits=np.array([next(logits) for _ in pixels], np.float32))

    monkeypatch.setattr(detector, "pixel_outputs", strange)
    found = predict_video(detector, encode(tmp_path / "a.mkv", count=5), fps=None)
    assert (found.logit, found.verdict, found.shares["generated"]) == (-2.0, "real", 0.2)
    assert found.mean_logit == pytest.approx(81.5 / 5)


def test_frames_are_predicted_in_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector(tmp_path)
    monkeypatch.setattr("inference.video.scoring.BATCH_PIXELS", 4 * WIDTH * HEIGHT)
    groups = []
    outputs = detector.pixel_outputs
    monkeypatch.setattr(
        detector, "pixel_outputs", lambda pixels: groups.append(len(pixels)) or outputs(pixels)
    )
    predict_video(detector, encode(tmp_path / "a.mkv", count=10), fps=None)
    assert groups == [4, 4, 2]


def test_what_may_make_the_answer_less_reliable_is_said(tmp_path: Path) -> None:
    detector = make_detector(tmp_path)
    path = encode(
        tmp_path / "a.mp4", "libx264", "yuv420p", count=50, options={"x264-params": "tff=1"}
    )
    warnings = " | ".join(predict_video(detector, path, fps=25, max_frames=3).warnings)
    for word in (
        "small",
        "video compression (h264, ",
        "yuv420p",
        "interlaced",
        "only 3 frames",
        "every 0.667 s instead",
    ):
        assert word in warnings
    varying = predict_video(
        detector, encode(tmp_path / "b.mkv", pts=[0, 10, 500, 510, 2000]), fps=None
    ).warnings
    assert any("frame rate varies" in warning for warning in varying)


@pytest.mark.parametrize(("grey", "told"), (((0, 1, 2), True), ((0,), False)))
def test_what_is_so_of_every_frame_is_said_and_not_of_a_black_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grey: tuple[int, ...], told: bool
) -> None:
    def drawn(index: int, width: int, height: int) -> np.ndarray:
        return (
            np.full((height, width, 3), 50 * index, np.uint8)
            if index in grey
            else picture(index, width, height)
        )

    monkeypatch.setattr("tests.helpers.video_files.picture", drawn)
    found = predict_video(make_detector(tmp_path), encode(tmp_path / "a.mkv", count=3), fps=None)
    grey_frames = ["grey: no colour in it" in frame.prediction.warnings for frame in found.frames]
    assert grey_frames == [index in grey for index in range(3)]
    assert (
        "grey: no colour in it" in found.warnings
    ) == told and "small: 64x48 pixels" in found.warnings


def test_no_frame_and_frames_too_small(tmp_path: Path) -> None:
    detector = make_detector(tmp_path)
    content = encode(tmp_path / "a.flv", "flv", "yuv420p", count=3).read_bytes()
    with av.open(str(tmp_path / "a.flv")) as container:
        first = next(container.demux(video=0)).pos
    (tmp_path / "b.flv").write_bytes(content[: first + 30])
    with pytest.raises(UnreadableVideo, match="no frame could be decoded|damaged"):
        predict_video(detector, tmp_path / "b.flv")
    with pytest.raises(ValueError, match="64x2 pixels .*scale 0.25"):
        predict_video(detector, encode(tmp_path / "a.mkv", size=(64, 2), count=2))


@pytest.mark.parametrize(("config", "calibration"), [(MULTI, CALIBRATION), (SINGLE, None)])
def test_report(tmp_path: Path, config: ModelConfig, calibration: Calibration | None) -> None:
    path = encode(tmp_path / "=a$b.mkv", count=20)
    found = predict_video(make_detector(tmp_path, config, calibration), path, fps=5)
    table, summary, plot = write_video_report(found, tmp_path / "new" / "folder")
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    attention = ["attention_0.25", "attention_0.5", "attention_0.75"] if config is MULTI else []
    assert list(rows[0]) == [
        "time_s",
        "pts",
        "logit",
        "score",
        "probability",
        "verdict",
        *attention,
    ]
    assert [float(row["time_s"]) for row in rows] == [frame.time for frame in found.frames]
    assert [float(row["logit"]) for row in rows] == [
        frame.prediction.logit for frame in found.frames
    ]
    assert [row["pts"] for row in rows] == ["0", "200", "400", "600"]
    assert all(row["verdict"] in ("real", "unsure", "generated") for row in rows)
    if attention:
        assert sum(float(rows[0][name]) for name in attention) == pytest.approx(1)
    document = json.loads(summary.read_text())
    assert (
        document["logit"] == found.logit
        and document["frames"] == 4
        and document["verdict"] == found.verdict
    )
    assert document["calibration"] == (None if calibration is None else calibration.to_dict())
    assert document["calibrated"] == (calibration is not None)
    with Image.open(plot) as image:
        assert image.format == "PNG"
    assert sorted(one.name for one in plot.parent.iterdir()) == [
        "frames.csv",
        "scores.png",
        "summary.json",
    ]


def test_report_where_nothing_can_be_written(tmp_path: Path) -> None:
    found = predict_video(make_detector(tmp_path), encode(tmp_path / "a.mkv", count=2))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_video_report(found, tmp_path / "file" / "folder")
