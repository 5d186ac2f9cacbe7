"""What the page says of a file, as HTML: verdict, reservations, attention, and pictures of what was
looked at."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from data.decode import NotAnImage, UnreadableImage
from data.formats import read_with_quality
from device import NotEnoughMemory, OutOfGpuMemory, memory_errors
from inference.detector import Detector
from inference.explain import draw, explain
from inference.prediction import NamedImage, Prediction, predict_images
from inference.video.container import UnreadableVideo, VideoInfo
from inference.video.frames import Video
from inference.video.scoring import VideoPrediction, predict_video, write_video_report
from networks.calibration import GENERATED, REAL, UNSURE
from networks.npr import scale_keys
from reports.html import Picture as Drawing
from tools.web_demo.models import facts
from util import UserError

MEANING = {
    GENERATED: "It has traces of the kind that generators leave between neighbouring pixels.",
    REAL: "It shows none of the traces that this detector has learned.",
    UNSURE: "The traces do not suffice for a verdict.",
}
MARKS = {GENERATED: "▲", REAL: "●", UNSURE: "?"}
VIDEO_PIXELS = 64 * 1920 * 1080
"""Pixels of all frames together that are looked at; of larger frames there are fewer."""
SLOWEST = 10
"""Frames per second that are taken for granted where a video does not say how long it lasts."""
THUMBNAIL = 320
"""Pixels of the longer side of the picture beside the verdict."""


class NoAnswer(ValueError):
    """A file that cannot be judged; the message says why, to the person who sent it."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a video may last, and how many of its frames are looked at at most."""

    seconds: float
    frames: int


def answer(detector: Detector, path: Path, limits: Limits) -> str:
    """Judge the picture or the video in a file, whatever its name, and show why: HTML.

    Raises:
        NoAnswer: there is nothing to judge, or not enough memory for it.
    """
    try:
        with memory_errors():
            try:
                picture = NamedImage(path.name, *read_with_quality(str(path)))
            except NotAnImage as error:
                return of_video(detector, require_video(path, str(error), limits), path, limits)
            except UnreadableImage as error:
                raise NoAnswer(f"{path.name} cannot be read: {error}.") from None
            return of_picture(detector, picture)
    except (NotEnoughMemory, OutOfGpuMemory):
        raise NoAnswer(
            f"{path.name} cannot be judged: not enough memory for a picture of this size."
        ) from None


def of_picture(detector: Detector, picture: NamedImage) -> str:
    """Raises NoAnswer where it is too small."""
    try:
        (found,) = predict_images(detector, [picture])
        explanation = explain(detector, picture.image)
    except ValueError as error:
        raise NoAnswer(f"{picture.name} cannot be judged: {error}.") from None
    with TemporaryDirectory() as folder:
        panel = Drawing(
            draw(explanation, Path(folder) / "panel.png"), panel_text(found, detector.scales)
        )
        about = f"{picture.name}, {found.width} x {found.height} pixels"
        return rendered(
            "answer.html",
            **said(detector, found),
            about=about,
            panel=panel,
            thumbnail=thumbnail(picture.image),
        )


def require_video(path: Path, no_picture: str, limits: Limits) -> VideoInfo:
    """Raises NoAnswer where a file is no video, either, or too long; `no_picture` is why it is
    none."""
    try:
        info = Video(path).info
    except UnreadableVideo as error:
        raise NoAnswer(f"{path.name} cannot be read: {no_picture}. As a video: {error}.") from None
    except UserError:  # PyAV is missing
        raise NoAnswer(
            f"{path.name} cannot be read: {no_picture}. Videos are not read on this machine."
        ) from None
    lasts = info.frames / SLOWEST if info.duration is None else info.duration
    if lasts > limits.seconds:
        raise NoAnswer(
            f"{path.name} lasts {lasts:,.0f} s; a video may last up to {limits.seconds:g} s here."
        )
    return info


def of_video(detector: Detector, info: VideoInfo, path: Path, limits: Limits) -> str:
    """Raises NoAnswer where no frame can be judged."""
    frames = max(1, min(limits.frames, VIDEO_PIXELS // max(1, info.width * info.height)))
    try:
        found = predict_video(detector, path, max_frames=frames)
    except ValueError as error:
        raise NoAnswer(f"{path.name} cannot be judged: {error}.") from None
    with TemporaryDirectory() as folder:
        *_, plot = write_video_report(found, folder)
        text = f"Score of each frame over time, their median and mean; the verdict on the median is {found.verdict}."
        about = f"{path.name}, {found.width} x {found.height} pixels, {info.codec}; median of {counted(len(found.frames))}"
        return rendered(
            "answer.html",
            **said(detector, found),
            about=about,
            plot=Drawing(plot, text),
            shares=shares_text(found.shares),
        )


def shares_text(shares: dict[str, float]) -> str:
    """{"real": 0.875, "unsure": 0.0, "generated": 0.125} -> "88 % are called real, 12 % generated"."""
    words = [
        f"{share:.0%} {verdict}".replace("%", " %") for verdict, share in shares.items() if share
    ]
    return ", ".join(words).replace(" % ", " % are called ", 1)


def counted(frames: int) -> str:
    return f"{frames} frame{'s' * (frames != 1)}"


def said(detector: Detector, found: Prediction | VideoPrediction) -> dict[str, Any]:
    """What is said of pictures and videos alike, in the template's terms."""
    fitted = detector.calibration
    problem = getattr(found, "problem", None)
    return {
        "found": found,
        "headline": found.verdict.capitalize(),
        "mark": MARKS[found.verdict],
        "meaning": MEANING[found.verdict],
        "likely": percent(found.probability),
        "band": None if fitted is None else (max(0.0, fitted.lower), min(1.0, fitted.upper)),
        "bars": list(zip(scale_keys(detector.scales), found.attention or (), strict=False)),
        "warnings": [*found.warnings, *([problem] if problem else [])],
    }


def percent(share: float) -> str:
    """A share in words that never promise certainty."""
    if share > 0.99:
        return "more than 99 %"
    return "less than 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def panel_text(found: Prediction, scales: Sequence[float]) -> str:
    """What a person who does not see the panel should know of it."""
    names = ", ".join(f"{scale:g}" for scale in scales)
    return f"Residual maps of {found.name} at scale {names}, and where the evidence lies; the verdict is {found.verdict}."


def thumbnail(image: Image.Image) -> str:
    """A small copy as a data URL; reduced in two steps, since a picture may have 89 million pixels."""
    small = (
        image.copy()
        if max(image.size) <= THUMBNAIL
        else image.reduce(max(1, min(image.size) // (2 * THUMBNAIL)))
    )
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def problem(text: str) -> str:
    """HTML of why there is no answer."""
    return rendered("problem.html", text=text)


def about(detector: Detector) -> str:
    """HTML of what a model is, and of what it is blind to."""
    return rendered("about.html", name=detector.name, facts=facts(detector))


def rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
