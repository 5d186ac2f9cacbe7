"""What a detector says of a video: of frames taken by time, and of all of them together."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evaluation.names import escaped
from inference.detector import BATCH_PIXELS, Detector
from inference.prediction import Judgement, Picture, answer, judge
from inference.video.files import Frame, UnreadableVideo, Video
from networks.calibration import GENERATED, REAL, UNSURE, Calibration
from networks.npr import scale_keys
from util import writing

FRAMES_FILE, SUMMARY_FILE, PLOT_FILE = "frames.csv", "summary.json", "scores.png"
SCHEMA = "npr-video/1"
FEW_FRAMES = 5
"""Below that many frames the median is hardly better than one of them."""


@dataclass(frozen=True)
class JudgedFrame:
    """A frame's answer, at `time` seconds after the first frame; pts: its stored time stamp, None
    where it has none."""

    time: float
    pts: int | None
    judgement: Judgement


@dataclass(frozen=True)
class VideoJudgement:
    """What a detector says of a video.

    The video's answer is that to the median of its frames' logits: whatever up to half of the
    frames say (titles, fades, motion blur), it stays within what the others say, and there is
    nothing to tune. The mean stands beside it: the two part where a video is generated only in
    part.

    Args:
        path: as given. frames: in the order of their times, at least one.
        logit, score, probability, verdict: as those of a `Judgement`, of the median of the frames'
            logits.
        mean_logit, mean_score, mean_probability: of the mean of the frames' logits, beside it.
        calibration: with which probability and verdict were made; it was fitted on single pictures.
            None: uncalibrated.
        shares: {verdict: share of the frames, in [0, 1]}, all three verdicts.
        scales: [S] of the model; attention: [S] mean weights over the frames, None for a model
            without.
        interval: seconds between the times at which frames were looked for; 0: every frame.
        duration: seconds, None if unknown. frame_rate: as the header says, None if it does not.
        codec, width, height: as stored. warnings: what may make the answer less reliable.
        problem: what was wrong with the file, such as where it breaks off; None if nothing was.
    """

    path: str
    frames: tuple[JudgedFrame, ...]
    logit: float
    score: float
    probability: float
    verdict: str
    mean_logit: float
    mean_score: float
    mean_probability: float
    calibration: Calibration | None
    shares: dict[str, float]
    scales: tuple[float, ...]
    attention: tuple[float, ...] | None
    interval: float
    duration: float | None
    frame_rate: float | None
    codec: str
    width: int
    height: int
    warnings: tuple[str, ...]
    problem: str | None

    @property
    def calibrated(self) -> bool:
        return self.calibration is not None

    @property
    def top_scale(self) -> float | None:
        """The scale with the largest mean weight."""
        return None if self.attention is None else self.scales[int(np.argmax(self.attention))]


def judge_video(
    detector: Detector,
    path: str | Path,
    fps: float | None = 1.0,
    max_frames: int = 300,
    progress: bool = False,
) -> VideoJudgement:
    """Judge frames of a video; memory does not grow with its length.

    Args:
        fps: frames to look at for each second of the video, above 0; None for all. max_frames: at
            most that many; where there are more they are spread evenly over the video (see
            `inference.video.files.Video.frames`).
        progress: show a bar on a terminal's standard error.

    Raises:
        UnreadableVideo: no frame could be had; the message says why, without the path.
        ValueError: the frames are too small for the protocol or the model; or fps or max_frames is
            not above 0.
        UserError: PyAV is not installed.
    """
    video = Video(path)
    frames = tuple(_judged(detector, str(path), _with_bar(video, fps, max_frames, progress)))
    if not frames:
        raise UnreadableVideo(
            f"no frame could be decoded ({video.problem() or 'there is none in it'})"
        )
    logits = np.array([frame.judgement.logit for frame in frames])
    middle, mean = (answer(detector, float(logit)) for logit in (np.median(logits), logits.mean()))
    verdicts = Counter(frame.judgement.verdict for frame in frames)
    attention = [
        frame.judgement.attention for frame in frames if frame.judgement.attention is not None
    ]
    interval = float(video.interval(fps, max_frames))
    return VideoJudgement(
        path=str(path),
        frames=frames,
        logit=middle.logit,
        score=middle.score,
        probability=middle.probability,
        verdict=middle.verdict,
        mean_logit=mean.logit,
        mean_score=mean.score,
        mean_probability=mean.probability,
        calibration=detector.calibration,
        shares={verdict: verdicts[verdict] / len(frames) for verdict in (REAL, UNSURE, GENERATED)},
        scales=detector.scales,
        attention=tuple(map(float, np.mean(attention, axis=0))) if attention else None,
        interval=interval,
        duration=video.info.duration,
        frame_rate=video.info.frame_rate,
        codec=video.info.codec,
        width=video.info.width,
        height=video.info.height,
        warnings=tuple(_reservations(video, frames, fps, interval)),
        problem=video.problem(),
    )


def _with_bar(video: Video, fps: float | None, max_frames: int, progress: bool) -> Iterator[Frame]:
    interval, duration = video.interval(fps, max_frames), video.info.duration
    expected = video.info.frames
    if interval and duration is not None:
        expected = min(expected, int(np.ceil(duration / float(interval))))
    bar = tqdm(
        video.frames(fps, max_frames),
        total=min(expected, max_frames) or None,
        desc=escaped(video.path.name),
        unit="frame",
        leave=False,
        disable=None if progress else True,  # None: on a terminal only
    )
    yield from bar


def _judged(detector: Detector, path: str, frames: Iterator[Frame]) -> Iterator[JudgedFrame]:
    """Judge frames in groups that fill a pass through the network, and are let go before the next."""
    group: list[tuple[Frame, Any]] = []
    size = 0
    for frame in frames:
        pixels = detector.pixels(frame.image)
        group.append((frame, pixels))
        size += pixels.shape[1] * pixels.shape[2]
        if size >= BATCH_PIXELS:
            yield from _judge_group(detector, path, group)
            group, size = [], 0
    if group:
        yield from _judge_group(detector, path, group)


def _judge_group(
    detector: Detector, path: str, group: list[tuple[Frame, Any]]
) -> Iterator[JudgedFrame]:
    pictures = [Picture(f"{path} at {frame.time:.3f} s", frame.image) for frame, _ in group]
    answers = judge(detector, pictures, [pixels for _, pixels in group])
    for (frame, _), one in zip(group, answers, strict=True):
        yield JudgedFrame(frame.time, frame.pts, one)


def _reservations(
    video: Video, frames: tuple[JudgedFrame, ...], fps: float | None, interval: float
) -> Iterator[str]:
    """What may make the answer less reliable, in words."""
    info = video.info
    first, *others = (frame.judgement.warnings for frame in frames)
    # not of a black frame alone
    yield from (warning for warning in first if all(warning in other for other in others))
    if not info.lossless:
        yield f"video compression ({info.codec}, {info.bits_per_pixel:.2g} bits per pixel); detectors learn from single pictures"
    if any(
        mark in info.pixel_format for mark in ("420", "422", "411", "410", "440", "nv12", "p010")
    ):
        yield f"colour interpolated from a lower resolution ({info.pixel_format})"
    if video.interlaced:
        yield "interlaced: neighbouring rows show two moments"
    if info.variable_rate:
        yield "the frame rate varies: frames were taken by their time stamps"
    if len(frames) < FEW_FRAMES:
        yield f"only {len(frames)} {'frame' if len(frames) == 1 else 'frames'}"
    asked = 0.0 if fps is None else 1 / fps
    if interval > asked:
        instead = f"every {asked:.3g} s" if asked else "each one"
        yield f"a frame was taken every {interval:.3g} s instead of {instead}: the video has more than were to be looked at"


def write_video_report(judgement: VideoJudgement, folder: str | Path) -> tuple[Path, ...]:
    """Write frames.csv, summary.json and scores.png into `folder`, which is made; returns their
    paths.

    frames.csv has a line for each frame: time_s, pts, logit, score, probability, verdict,
    attention_<scale> of each scale.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    from reports.plots.video import plot_video  # matplotlib

    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_frames(folder / FRAMES_FILE, judgement)
        text = json.dumps(_summary(judgement), indent=2, allow_nan=False) + "\n"
        (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
        calibration = judgement.calibration
        plot_video(
            [frame.time for frame in judgement.frames],
            [frame.judgement.probability for frame in judgement.frames],
            judgement.probability,
            judgement.mean_probability,
            folder / PLOT_FILE,
            band=None if calibration is None else (calibration.lower, calibration.upper),
            attention=None
            if judgement.attention is None
            else [frame.judgement.attention for frame in judgement.frames],
            scales=judgement.scales,
            title=f"{Path(judgement.path).name}: {judgement.verdict}",
            duration=judgement.duration,
        )
    return folder / FRAMES_FILE, folder / SUMMARY_FILE, folder / PLOT_FILE


def _write_frames(path: Path, judgement: VideoJudgement) -> None:
    keys = scale_keys(judgement.scales) if judgement.attention is not None else ()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "time_s",
                "pts",
                "logit",
                "score",
                "probability",
                "verdict",
                *(f"attention_{key}" for key in keys),
            ]
        )
        for frame in judgement.frames:
            one = frame.judgement
            numbers = map(repr, (one.logit, one.score, one.probability))
            weights = map(repr, one.attention or ())
            pts = "" if frame.pts is None else frame.pts
            writer.writerow([repr(frame.time), pts, *numbers, one.verdict, *weights])


def _summary(judgement: VideoJudgement) -> dict[str, Any]:
    """All of a judgement but its frames, as JSON has it."""
    fields = {
        key: value for key, value in vars(judgement).items() if key not in ("frames", "calibration")
    }
    calibration = None if judgement.calibration is None else judgement.calibration.to_dict()
    return (
        {"schema": SCHEMA}
        | fields
        | {
            "path": escaped(judgement.path),
            "frames": len(judgement.frames),
            "top_scale": judgement.top_scale,
            "calibrated": judgement.calibrated,
            "calibration": calibration,
        }
    )
