"""Predict a video from frames taken by time, and write its report."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from evaluation.names import escaped
from inference.detector import BATCH_PIXELS, Detector
from inference.prediction import NamedImage, Prediction, decide, predict_images, top_scale
from inference.video.container import LOSSLESS, UnreadableVideo
from inference.video.frames import Frame, Video
from networks.calibration import GENERATED, REAL, UNSURE, Calibration
from networks.npr import scale_keys
from reports.drawing import Drawer
from util import atomic_file, writing

FRAMES_FILE, SUMMARY_FILE, PLOT_FILE = "frames.csv", "summary.json", "scores.png"
SCHEMA = "npr-video/1"
FEW_FRAMES = 5  # below this, the median is hardly better than a single frame
SUBSAMPLED = ("420", "422", "411", "410", "440", "nv12", "p010")  # in names of pixel formats


@dataclass(frozen=True)
class FramePrediction:
    """The prediction for a frame, with its time in seconds and its stored time stamp (or None)."""

    time: float
    pts: int | None
    prediction: Prediction


@dataclass(frozen=True)
class VideoPrediction:
    """The prediction for a video.

    It follows from the median of the frames' logits. The median stays within the range of the other
    frames, whatever up to half of the frames show (titles, fades, motion blur). The mean is there,
    too, because the two differ if only a part of the video is generated.
    """

    path: str  # as the caller passed it
    frames: tuple[FramePrediction, ...]  # in the order of their times, at least one
    logit: float  # median of the frames' logits; the next three follow as in a `Prediction`
    score: float
    probability: float
    verdict: str
    mean_logit: float  # mean of the frames' logits; the next two follow from it
    mean_score: float
    mean_probability: float
    calibration: Calibration | None  # fitted on single images; None if not calibrated
    shares: dict[str, float]  # share of the frames in [0, 1] by verdict, all three
    scales: tuple[float, ...]  # [S] of the model
    attention: tuple[float, ...] | None  # [S] means over the frames; None without attention
    top_scale: float | None  # with the largest mean weight
    interval: float  # seconds between the times of the frames; 0 for every frame
    duration: float | None  # seconds, None if unknown
    frame_rate: float | None  # by the header, None if missing
    codec: str  # FFmpeg's name
    width: int  # pixels as stored
    height: int
    warnings: tuple[str, ...]  # reasons why the prediction is less reliable
    problem: str | None  # defects of the file, None without any

    @property
    def calibrated(self) -> bool:
        """Return True if a calibration gave probability and verdict."""
        return self.calibration is not None


def predict_video(
    detector: Detector, path: str | Path, fps: float | None = 1.0, max_frames: int = 300
) -> VideoPrediction:
    """Return the prediction for a video; memory does not grow with its length.

    Args:
        detector: the detector.
        path: the video.
        fps: frames to take from each second of the video, above 0; None for all.
        max_frames: most frames to take, spread evenly over the video (see `Video.frames`).

    Raises:
        UnreadableVideo: no frame can be decoded; the message has the reason, without the path.
        ValueError: the frames are too small for the protocol or the model; or fps or max_frames is
            not above 0.
        UserError: PyAV is not installed.
    """
    video = Video(path)
    frames = tuple(_predict_frames(detector, str(path), video.frames(fps, max_frames)))
    if not frames:
        raise UnreadableVideo(
            f"no frame could be decoded ({video.problem() or 'the file holds none'})"
        )
    interval = float(video.interval(fps, max_frames))
    warnings = tuple(_warnings(video, frames, 0.0 if fps is None else 1 / fps, interval))
    return _combined(detector, str(path), video, frames, interval, warnings)


def _combined(
    detector: Detector,
    path: str,
    video: Video,
    frames: tuple[FramePrediction, ...],
    interval: float,
    warnings: tuple[str, ...],
) -> VideoPrediction:
    """Return the prediction that follows from those of the frames."""
    logits = np.array([frame.prediction.logit for frame in frames])
    median, mean = float(np.median(logits)), float(logits.mean())
    size = frames[0].prediction.width, frames[0].prediction.height
    score, probability, verdict = decide(detector, median, *size)
    mean_score, mean_probability, _ = decide(detector, mean, *size)
    verdicts = Counter(frame.prediction.verdict for frame in frames)
    weights = [frame.prediction.attention for frame in frames if frame.prediction.attention]
    attention = tuple(map(float, np.mean(weights, axis=0))) if weights else None
    return VideoPrediction(
        path=path,
        frames=frames,
        logit=median,
        score=score,
        probability=probability,
        verdict=verdict,
        mean_logit=mean,
        mean_score=mean_score,
        mean_probability=mean_probability,
        calibration=detector.calibration,
        shares={verdict: verdicts[verdict] / len(frames) for verdict in (REAL, UNSURE, GENERATED)},
        scales=detector.scales,
        attention=attention,
        top_scale=top_scale(detector, attention),
        interval=interval,
        duration=video.info.duration,
        frame_rate=video.info.frame_rate,
        codec=video.info.codec,
        width=video.info.width,
        height=video.info.height,
        warnings=warnings,
        problem=video.problem(),
    )


def _predict_frames(
    detector: Detector, path: str, frames: Iterator[Frame]
) -> Iterator[FramePrediction]:
    """Yield the predictions for frames, in groups that fill one pass through the network."""
    while group := list(_one_pass(detector, frames)):
        images = [NamedImage(f"{path} at {frame.time:.3f} s", frame.image) for frame, _ in group]
        predictions = predict_images(detector, images, [pixels for _, pixels in group])
        for (frame, _), prediction in zip(group, predictions, strict=True):
            yield FramePrediction(frame.time, frame.pts, prediction)


def _one_pass(detector: Detector, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Tensor]]:
    room = BATCH_PIXELS
    while room > 0 and (frame := next(frames, None)) is not None:
        pixels = detector.pixels(frame.image)
        room -= pixels[0].numel()
        yield frame, pixels


def _warnings(
    video: Video, frames: tuple[FramePrediction, ...], asked: float, interval: float
) -> Iterator[str]:
    """Yield reasons why the prediction is less reliable; intervals, asked and real, in seconds."""
    info = video.info
    first, *others = (frame.prediction.warnings for frame in frames)
    # only warnings of every frame, because a single black frame is grey, too
    yield from (warning for warning in first if all(warning in other for other in others))
    if info.codec not in LOSSLESS:
        yield (
            f"video compression ({info.codec}, {info.bits_per_pixel:.2g} bits per pixel);"
            " detectors learn from single images"
        )
    if any(name in info.pixel_format for name in SUBSAMPLED):
        yield f"colour interpolated from a lower resolution ({info.pixel_format})"
    if video.interlaced:
        yield "interlaced: neighbouring rows show two moments"
    if len(frames) < FEW_FRAMES:
        yield f"only {len(frames)} frame{'s' * (len(frames) != 1)}"
    if interval > asked:
        instead = f"every {asked:.3g} s" if asked else "each one"
        yield (
            f"a frame was taken every {interval:.3g} s instead of {instead}: the video has more"
            " frames than the limit"
        )


def write_video_report(
    prediction: VideoPrediction, folder: str | Path, draw: Drawer | None = None
) -> tuple[Path, ...]:
    """Write frames.csv, summary.json and scores.png into `folder`; return their paths.

    A plot that cannot be drawn is skipped with a warning, by `draw` if it is given.

    frames.csv has a line for each frame: time_s, pts, logit, score, probability, verdict,
    attention_<scale> of each scale.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    draw, folder = draw or Drawer(OSError), Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_frames(folder / FRAMES_FILE, prediction)
        with atomic_file(folder / SUMMARY_FILE) as file:
            file.write(json.dumps(_summary(prediction), indent=2, allow_nan=False) + "\n")
        plot = draw(_draw_scores, prediction, folder / PLOT_FILE)
    return (folder / FRAMES_FILE, folder / SUMMARY_FILE, *([plot] if plot else []))


def _draw_scores(prediction: VideoPrediction, path: Path) -> Path:
    from reports.plots.video import plot_video  # matplotlib

    calibration, frames = prediction.calibration, prediction.frames
    attention = [frame.prediction.attention for frame in frames]
    return plot_video(
        [frame.time for frame in frames],
        [frame.prediction.probability for frame in frames],
        prediction.probability,
        prediction.mean_probability,
        path,
        band=None if calibration is None else (calibration.lower, calibration.upper),
        attention=attention if prediction.attention else None,
        scales=prediction.scales,
        title=f"{Path(prediction.path).name}: {prediction.verdict}",
        duration=prediction.duration,
    )


def _write_frames(path: Path, prediction: VideoPrediction) -> None:
    keys = () if prediction.attention is None else scale_keys(prediction.scales)
    names = ("time_s", "pts", "logit", "score", "probability", "verdict")
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *(f"attention_{key}" for key in keys)])
        for frame in prediction.frames:
            scored = frame.prediction
            numbers = (scored.logit, scored.score, scored.probability)
            weights = scored.attention or ()
            writer.writerow([frame.time, frame.pts, *numbers, scored.verdict, *weights])


def _summary(prediction: VideoPrediction) -> dict[str, Any]:
    """Return all of a prediction but its frames, as values for JSON."""
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    calibration = prediction.calibration
    return {
        "schema": SCHEMA,
        **values,
        "path": escaped(prediction.path),
        "frames": len(prediction.frames),
        "calibrated": prediction.calibrated,
        "calibration": None if calibration is None else calibration.to_dict(),
    }
