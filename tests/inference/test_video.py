"""Videos, all encoded here: which frames are taken, of which files, and the prediction."""

import csv
import hashlib
import itertools
import json
import os
import struct
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference import load_detector
from inference.detector import Detector
from inference.video.container import UnreadableVideo
from inference.video.frames import Video, nearest, rgb
from inference.video.scoring import VideoPrediction, predict_video, write_video_report
from networks import ModelConfig
from networks.calibration import Calibration
from tests.conftest import save_model
from tests.helpers.video_files import HEIGHT, WIDTH, encode, picture, plain

av = pytest.importorskip("av")

X265 = {"x265-params": "log-level=none:open-gop=1", "preset": "ultrafast"}
CODECS = {  # codec, pixel format, options; all in groups of 12 images
    "ffv1.mkv": ("ffv1", "bgr0", {}),
    "h264.mp4": ("libx264", "yuv420p", {}),
    "open_groups.mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=3"}),
    "intra_refresh.mp4": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1"}),
    "hevc_open_groups.mkv": ("libx265", "yuv420p", X265),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"preset": "12"}),
    "mjpeg.mov": ("mjpeg", "yuvj420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"bf": "2"}),
}


def times_of(path: Path, **how: Any) -> list[float]:
    return [frame.time for frame in Video(path).frames(**how)]


def pixels(image: Image.Image | np.ndarray) -> str:
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


@settings(max_examples=50, deadline=None)  # the obvious search is slow
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


def test_time_stamps_that_are_missing_or_do_not_rise_get_the_usual_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Video(encode(tmp_path / "a.mkv", count=1))  # 25 frames a second, ticks of 1 ms
    frames = []
    for pts in (None, 100, 140, None, 220, 220, 140, 400):
        frames.append(av.VideoFrame.from_ndarray(picture(0), format="rgb24"))
        frames[-1].pts = pts
    monkeypatch.setattr(video, "_undamaged", lambda *_: frames)
    times = [round(1000 * frame.time) for frame in video.frames(None)]
    assert times == [0, 40, 80, 120, 160, 200, 240, 340]
    assert "4 frames without a usable time stamp" in str(video.problem())


@pytest.mark.parametrize(
    ("name", "codec", "rate", "exact"),
    (("a.mkv", ("ffv1", "bgr0"), 30, 1e-3), ("b.mp4", ("mpeg4", "yuv420p"), 24, 1e-9)),
)
def test_steady_rate(
    tmp_path: Path, name: str, codec: tuple[str, str], rate: int, exact: float
) -> None:
    """All frames come, although 1/30 s is no whole number of Matroska's milliseconds."""
    path = encode(tmp_path / name, *codec, count=2 * rate, rate=rate)
    times = [k / rate for k in range(2 * rate)]
    for fps, every in ((1, rate), (rate / 3, 3), (rate, 1), (None, 1), (1000, 1)):
        assert times_of(path, fps=fps) == pytest.approx(times[::every], abs=exact)
    info = Video(path).info
    assert (info.frames, info.frame_rate, info.duration) == (2 * rate, rate, 2.0)


def test_variable_rate_and_times_since_the_first_frame(tmp_path: Path) -> None:
    stamps = [7000 + time for time in (0, 10, 500, 510, 2000, 2001, 2990)]
    video = Video(encode(tmp_path / "a.mkv", pts=stamps))
    # nearest to 0, 0.5, 1, 1.5, 2, 2.5: 1 has 0.51, 1.5 has 2 (0.5 away; 0.51 is 0.99 away)
    chosen = {0: 0, 2: 0.5, 3: 0.51, 4: 2.0, 6: 2.99}
    frames = list(video.frames(2))
    assert [frame.time for frame in frames] == [*chosen.values()]
    assert [frame.pts for frame in frames] == [stamps[index] for index in chosen]
    assert all(map(np.array_equal, (frame.image for frame in frames), map(picture, chosen)))
    assert [frame.time for frame in video.frames(None)] == [0, 0.01, 0.5, 0.51, 2.0, 2.001, 2.99]
    assert video.info.duration == pytest.approx(3.03, abs=0.05) and video.problem() is None


@pytest.mark.parametrize("name", CODECS)
def test_frames_are_the_nearest_of_all_that_ffmpeg_decodes(tmp_path: Path, name: str) -> None:
    codec, pix_fmt, options = CODECS[name]
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV encodes no {codec}")
    path = encode(tmp_path / name, codec, pix_fmt, count=40, options=options)
    every = plain(path)
    start = min(pts for pts, _ in every if pts is not None)
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    wanted = [Fraction(k, 3) for k in range(5)]
    times: dict[Any, Fraction] = {pts: (pts - start) * tick for pts, _ in every}
    chosen = {min(times, key=lambda pts: abs(times[pts] - want)) for want in wanted}
    expected = [(pts, pixels(array)) for pts, array in every if pts in chosen]
    assert [(frame.pts, pixels(frame.image)) for frame in Video(path).frames(3)] == expected


def test_at_most_max_frames_spread_over_the_whole_video_one_at_a_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=100)
    assert times_of(path, fps=None, max_frames=4) == [0, 1, 2, 3]
    half_seconds = [0, 0.48, 1, 1.48, 2, 2.48, 3, 3.48]
    assert times_of(path, fps=25, max_frames=8) == pytest.approx(half_seconds)
    assert times_of(path, max_frames=1) == [0]
    alive: list[weakref.ref] = []
    for frame in Video(path).frames(25, max_frames=100):
        alive.append(weakref.ref(frame.image))
        del frame
        assert sum(image() is not None for image in alive) <= 1
    assert len(alive) == 100
    for wrong in ({"fps": 0}, {"fps": float("nan")}, {"fps": float("inf")}, {"max_frames": 0}):
        with pytest.raises(ValueError, match="expected numbers above 0"):
            times_of(path, **wrong)


class Pipe:
    """A file that cannot seek, so that Matroska's header has no duration."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.write, self.close = self.file.write, self.file.close


def test_duration_is_that_of_the_frames_whatever_the_header_says(tmp_path: Path) -> None:
    without, wrong = tmp_path / "without.mkv", encode(tmp_path / "wrong.mkv", count=100)
    encode(Pipe(without), format="matroska", count=100)
    content = bytearray(wrong.read_bytes())
    # Matroska's Duration, eight bytes: a double, in milliseconds
    place = content.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", content, place) == (4000.0,)
    struct.pack_into(">d", content, place, 1e6)
    wrong.write_bytes(content)
    problem = "its frames end after 4.00 s, its header promises 1000.00 s"
    for path, expected in ((without, None), (wrong, problem)):
        video = Video(path)
        assert [frame.time for frame in video.frames(25, max_frames=4)] == [0, 1, 2, 3]
        assert (video.info.duration, video.problem()) == (4.0, expected)


def test_raw_stream_without_time_stamps_is_timed_by_its_rate(tmp_path: Path) -> None:
    video = Video(encode(tmp_path / "a.h264", "libx264", "yuv420p", format="h264"))
    assert [frame.time for frame in video.frames(5)] == pytest.approx([k / 5 for k in range(10)])
    assert "50 frames without a usable time stamp" in str(video.problem())


def test_joined_files_go_on_where_the_first_ends(tmp_path: Path) -> None:
    once = encode(tmp_path / "a.ts", "libx264", "yuv420p").read_bytes()
    (tmp_path / "b.ts").write_bytes(once * 2)
    expected = [k / 5 for k in range(20)]
    assert times_of(tmp_path / "b.ts", fps=5) == pytest.approx(expected, abs=0.021)


@pytest.mark.parametrize(
    ("name", "codec"),
    (
        ("a.mkv", ("ffv1", "bgr0")),
        ("a.ts", ("mpeg4", "yuv420p")),
        ("a.avi", ("mpeg4", "yuv420p")),
        ("a.flv", ("flv", "yuv420p")),
    ),
)
def test_truncated_file_gives_the_frames_before_its_end(
    tmp_path: Path, name: str, codec: tuple[str, str]
) -> None:
    path = encode(tmp_path / name, *codec, count=100)
    expected = [pixels(array) for _, array in plain(path)]
    os.truncate(path, path.stat().st_size // 2)
    video = Video(path)
    frames = [pixels(frame.image) for frame in video.frames(None)]
    assert 5 < len(frames) < 90 and frames == expected[: len(frames)]
    # .ts has no header and may end with any frame
    assert video.problem() is not None or name == "a.ts"


@pytest.mark.parametrize(("name", "fps"), (("a.mp4", None), ("a.ts", 5)))
def test_damage_in_the_middle_skips_what_it_reaches(
    tmp_path: Path, name: str, fps: float | None
) -> None:
    """No frame comes that is not in the undamaged file, and those after the damage do."""
    path = encode(tmp_path / name, "libx264", "yuv420p", count=100)
    expected = [pixels(array) for _, array in plain(path)]
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = container.demux(video=0)
        place = next(packet.pos for packet in packets if packet.pts * packet.time_base > 1.5)
    content[place : place + 400] = bytes(400)
    path.write_bytes(content)
    video = Video(path)
    frames = list(video.frames(fps))
    positions = [expected.index(pixels(frame.image)) for frame in frames]
    assert positions == sorted(set(positions))
    assert frames[-1].time > 3.5 and len(frames) < (100 if fps is None else 20)
    assert "damaged, first after" in str(video.problem())


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = np.zeros((2, 44100), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])


NO_VIDEOS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "audio": (write_audio, "no video stream in it"),
    "empty": (Path.touch, "empty file"),
    "text": (lambda path: path.write_text("hello\n" * 1000), "in a format that is not read.*MP4"),
    "folder": (Path.mkdir, "regular file"),
    "pipe": (os.mkfifo, "regular file"),
    "missing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_not_a_video(tmp_path: Path, kind: str) -> None:
    write, message = NO_VIDEOS[kind]
    write(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match=message) as raised:
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


def test_rotated_frames_come_as_stored(tmp_path: Path) -> None:
    video = Video(encode(tmp_path / "a.mp4", "libx264", "yuv420p", count=2, rotate=90))
    assert next(video.frames()).image.size == (WIDTH, HEIGHT) and not video.interlaced


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
    def convert(frame: Any) -> Image.Image:
        if frame.pts == 40:
            raise ValueError("no such format")
        return rgb(frame)

    monkeypatch.setattr("inference.video.frames.rgb", convert)
    video = Video(encode(tmp_path / "a.mkv", count=3))
    assert [frame.pts for frame in video.frames(None)] == [0, 80]
    assert "damaged" in str(video.problem())


MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)
CALIBRATION = Calibration(2.0, 0.4, 0.45, 0.55, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("video") / "model.pth"
    return load_detector(save_model(path, MULTI, seed=3), "cpu")


def sigmoid(logit: float) -> float:
    return 1 / (1 + np.exp(-logit))


def test_a_video_is_predicted_by_the_median_of_its_frames(
    detector: Detector, tmp_path: Path
) -> None:
    path = encode(tmp_path / "a.mkv", count=50)  # lossless
    video = predict_video(detector, path, fps=5)
    outputs = detector.outputs([picture(index) for index in range(0, 50, 5)])
    logits = [frame.prediction.logit for frame in video.frames]
    assert np.allclose(logits, outputs.logits, atol=1e-6) and len(set(logits)) == 10
    assert video.logit == pytest.approx(sum(sorted(logits)[4:6]) / 2)
    assert video.mean_logit == pytest.approx(sum(logits) / 10)
    assert video.probability == video.score == pytest.approx(sigmoid(video.logit))
    assert video.mean_probability == video.mean_score == pytest.approx(sigmoid(video.mean_logit))
    assert outputs.attention_weights is not None and video.attention is not None
    assert np.allclose(video.attention, outputs.attention_weights.mean(axis=0), atol=1e-6)
    assert video.top_scale == (0.25, 0.5, 0.75)[int(np.argmax(video.attention))]
    generated = sum(logit > 0 for logit in logits) / 10
    assert video.shares == {"real": 1 - generated, "unsure": 0, "generated": generated}
    metadata = (video.path, video.duration, video.interval, video.codec, video.frame_rate)
    assert metadata == (str(path), 2.0, 0.2, "ffv1", 25.0)
    assert (video.width, video.height, video.problem) == (WIDTH, HEIGHT, None)
    assert video.warnings == ("small: 64x48 pixels",)
    assert [frame.time for frame in video.frames] == pytest.approx([k / 5 for k in range(10)])


def test_frames_are_predicted_in_groups_of_bounded_size_and_one_does_not_move_the_median(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.video.scoring.BATCH_PIXELS", 2 * WIDTH * HEIGHT)
    groups, outputs = [], detector.pixel_outputs
    logits = iter([-2.0, -1.0, 90.0, -3.0, -2.5])

    def replace_logits(pixels: Any) -> Any:
        groups.append(len(pixels))
        return outputs(pixels)._replace(logits=np.array([next(logits) for _ in pixels], np.float32))

    monkeypatch.setattr(detector, "pixel_outputs", replace_logits)
    video = predict_video(detector, encode(tmp_path / "a.mkv", count=5), fps=None)
    assert groups == [2, 2, 1]
    assert (video.logit, video.verdict, video.shares["generated"]) == (-2.0, "real", 0.2)
    assert video.mean_logit == pytest.approx(81.5 / 5)


def test_warnings_of_the_file(detector: Detector, tmp_path: Path) -> None:
    options = {"x264-params": "tff=1"}
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", count=50, options=options)
    small, compression, colour, rows, few, interval = predict_video(
        detector, path, fps=25, max_frames=3
    ).warnings
    assert small == "small: 64x48 pixels" and few == "only 3 frames"
    assert compression.startswith("video compression (h264, ") and "yuv420p" in colour
    assert rows.startswith("interlaced") and "every 0.667 s instead of every 0.04 s" in interval


@pytest.mark.parametrize(("grey", "warned"), (((0, 1, 2), True), ((0, 1), False)))
def test_warnings_are_those_of_every_frame(
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grey: tuple[int, ...],
    warned: bool,
) -> None:
    def draw(index: int, width: int, height: int) -> np.ndarray:
        image = picture(index, width, height)
        return np.full_like(image, 50 * index) if index in grey else image

    monkeypatch.setattr("tests.helpers.video_files.picture", draw)
    video = predict_video(detector, encode(tmp_path / "a.mkv", count=3), fps=None)
    frames = ["grey: no colour in it" in frame.prediction.warnings for frame in video.frames]
    assert frames == [index in grey for index in range(3)]
    assert ("grey: no colour in it" in video.warnings) == warned


def test_no_frame_and_frames_too_small(detector: Detector, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flv", "flv", "yuv420p", count=3)
    with av.open(str(path)) as container:
        first = next(container.demux(video=0)).pos
    os.truncate(path, first + 30)
    with pytest.raises(UnreadableVideo, match="no frame could be decoded|damaged"):
        predict_video(detector, path)
    with pytest.raises(ValueError, match="64x2 pixels .*scale 0.25"):
        predict_video(detector, encode(tmp_path / "a.mkv", size=(64, 2), count=2))


def require_report(video: VideoPrediction, folder: Path, attention: list[str]) -> dict[str, Any]:
    """Check frames.csv and the names of the files; return summary.json."""
    table, summary, plot = write_video_report(video, folder)
    assert {path.name for path in folder.iterdir()} == {table.name, summary.name, plot.name}
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ["time_s", "pts", "logit", "score", "probability", "verdict"]
    assert list(rows[0]) == [*names, *attention]
    for row, frame in zip(rows, video.frames, strict=True):
        assert (float(row["time_s"]), int(row["pts"])) == (frame.time, frame.pts)
        for name in ("logit", "score", "probability"):
            assert float(row[name]) == getattr(frame.prediction, name)
        assert row["verdict"] == frame.prediction.verdict
        assert [float(row[name]) for name in attention] == [*(frame.prediction.attention or ())]
    with Image.open(plot) as image:
        assert image.format == "PNG"
    document: dict[str, Any] = json.loads(summary.read_text())
    assert (document["logit"], document["verdict"]) == (video.logit, video.verdict)
    return document


def test_report_of_a_calibrated_detector(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.pth", MULTI, seed=3, calibration=CALIBRATION.to_dict())
    video = predict_video(
        load_detector(path, "cpu"), encode(tmp_path / "=a$b.mkv", count=20), fps=5
    )
    assert video.calibrated and sum(video.shares.values()) == 1
    assert video.probability == pytest.approx(sigmoid(video.logit / 2))
    assert video.verdict == "unsure" == CALIBRATION.verdict(video.probability)
    for frame in video.frames:
        expected = sigmoid(frame.prediction.logit / 2)
        assert frame.prediction.probability == pytest.approx(expected)
    attention = ["attention_0.25", "attention_0.5", "attention_0.75"]
    document = require_report(video, tmp_path / "new" / "folder", attention)
    assert (document["calibrated"], document["frames"]) == (True, 4)
    assert document["calibration"] == CALIBRATION.to_dict()
