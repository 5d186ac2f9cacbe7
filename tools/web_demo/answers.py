"""The answer to an uploaded file: text, attention and an image of the evidence."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from PIL import Image

from data.decode import NotAnImage, read_with_quality
from inference.detector import Detector
from inference.explain import draw, explain
from inference.prediction import NamedImage, predict_images
from inference.video.container import UnreadableVideo
from inference.video.frames import Video
from inference.video.scoring import predict_video, write_video_report
from networks.calibration import GENERATED, REAL, UNSURE
from networks.model_folder import CONFIG_FILE
from networks.npr import scale_keys
from reports.drawing import Drawer
from util import UserError

MARKS = {GENERATED: "▲", REAL: "●", UNSURE: "?"}
MEANING = {
    GENERATED: "It has traces that generators leave between neighbouring pixels.",
    REAL: "It shows none of the traces that this detector has learned.",
    UNSURE: "The traces do not suffice for a verdict.",
}
VIDEO_PIXELS = 64 * 1920 * 1080  # of all frames together; of larger frames fewer are used
SLOWEST = 10  # frames per second, assumed where a video's duration is unknown
METRICS = {"acc": "accuracy", "ap": "average precision", "auc": "ROC AUC"}


class Limits(NamedTuple):
    """Megabytes of an upload, seconds of a video, and most frames of it to use."""

    megabytes: float
    seconds: float
    frames: int


class Answer(NamedTuple):
    """Text, attention and plot that the page shows for a file.

    Args:
        html: verdict, probability or score, and warnings.
        attention: {scale: weight in [0, 1]}, empty for a model with one scale.
        image: residual maps and evidence of an image, or scores over time of a video.
    """

    html: str
    attention: dict[str, float]
    image: Image.Image | None


def answer(detector: Detector, path: Path, limits: Limits) -> Answer:
    """Predict the image or the video in a file, whatever its name.

    Raises:
        ValueError: it is neither, too small or too long; the message says why, without the path.
    """
    try:
        image = NamedImage(path.name, *read_with_quality(str(path)))
    except NotAnImage as error:
        return _video_answer(detector, path, limits, str(error))
    return _image_answer(detector, image)


def _image_answer(detector: Detector, image: NamedImage) -> Answer:
    (prediction,) = predict_images(detector, [image])
    with TemporaryDirectory() as folder:
        panel = Drawer()(draw, explain(detector, image.image), Path(folder) / "panel.png")
        size = f"{prediction.width} x {prediction.height} pixels"
        return _answer(detector, prediction, [f"{image.name}, {size}"], prediction.warnings, panel)


def _video_answer(detector: Detector, path: Path, limits: Limits, not_an_image: str) -> Answer:
    try:
        info = Video(path).info
    except UnreadableVideo as error:
        raise NotAnImage(f"{not_an_image}. As a video: {error}") from None
    except UserError:  # PyAV is missing
        raise NotAnImage(f"{not_an_image}. Videos are not read on this machine") from None
    seconds = info.frames / SLOWEST if info.duration is None else info.duration
    if seconds > limits.seconds:
        raise ValueError(f"it lasts {seconds:,.0f} s, and the limit is {limits.seconds:g} s")
    frames = max(1, min(limits.frames, VIDEO_PIXELS // max(1, info.width * info.height)))
    prediction = predict_video(detector, path, max_frames=frames)
    shares = [
        f"{100 * share:.0f} % {verdict}" for verdict, share in prediction.shares.items() if share
    ]
    lines = [
        f"{path.name}, {info.width} x {info.height} pixels, {info.codec}",
        f"The verdict is that on the median of {len(prediction.frames)} frames;"
        f" of these, {', '.join(shares)}.",
    ]
    problem = [prediction.problem] if prediction.problem else []
    with TemporaryDirectory() as folder:
        paths = write_video_report(prediction, folder)
        plot = next((path for path in paths if path.suffix == ".png"), None)
        return _answer(detector, prediction, lines, [*prediction.warnings, *problem], plot)


def _answer(
    detector: Detector,
    prediction: Any,
    lines: list[str],
    warnings: Sequence[str],
    image: Path | None,
) -> Answer:
    """Return the answer for the prediction of an image or a video; without a plot for None."""
    number = (
        f"Score {prediction.score:.2f} from 0 (real) to 1 (generated). The detector is not"
        " calibrated, so this is not a probability."
    )
    if detector.calibration is not None:
        number = f"Probability of being generated: {percent(prediction.probability)}."
        lines = [f"Verdicts by probability: {detector.calibration.rule}.", *lines]
    verdict = prediction.verdict
    heading = f"<h2 class='{verdict}' role='status'>{MARKS[verdict]} {verdict.capitalize()}</h2>"
    html = heading + paragraphs([number, MEANING[verdict], *lines])
    if warnings:
        html += f"<h3>What makes this less reliable</h3>{paragraphs(warnings)}"
    attention = dict(zip(scale_keys(detector.scales), prediction.attention or (), strict=False))
    if image is None:
        return Answer(html, attention, None)
    with Image.open(image) as opened:
        return Answer(html, attention, opened.convert("RGB"))


def paragraphs(lines: Sequence[str]) -> str:
    """Return texts as HTML paragraphs."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def percent(share: float) -> str:
    """Return a share in [0, 1] as text that never promises certainty."""
    if share > 0.99:
        return "more than 99 %"
    return "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def facts(detector: Detector) -> list[str]:
    """Return what the checkpoint says of a detector's training and quality, without paths."""
    meta, calibration = detector.loaded.meta, detector.calibration
    options, metrics = meta.get("options") or {}, meta.get("val_metrics") or {}
    folder = detector.loaded.path.is_dir()  # that tools.export or tools.pretrained wrote
    measured = unknown = "the checkpoint does not say"
    trained = f"see {detector.name}/README.md" if folder else unknown
    if options.get("dataroot"):
        classes = ", ".join(options.get("classes") or ["all classes"])
        trained = f"{Path(options['dataroot']).name} ({classes})"
    if metrics:
        named = [f"{name} {metrics[key]:.3f}" for key, name in METRICS.items() if metrics.get(key)]
        counts = f"{metrics['n_real']:,} real and {metrics['n_fake']:,} generated images"
        measured = f"{', '.join(named)} on {counts}"
    calibrated = "none, so scores are not probabilities"
    if calibration is not None:
        calibrated = (
            f"on {calibration.n_real:,} real and {calibration.n_fake:,} generated images of"
            f" {Path(calibration.data).name}, expected calibration error {calibration.ece_after:.3f}"
        )
    scales = ", ".join(f"{scale:g}" for scale in detector.scales)
    return [
        f"Detector: {detector.name}",
        f"Trained on: {trained}",
        f"Epochs: {detector.loaded.epoch or unknown}",
        f"Validation: {measured}",
        f"Calibration: {calibrated}",
        f"NPR scales: {scales}",
        f"Preprocessing: {detector.protocol.name}",
        f"SHA-256 of {CONFIG_FILE if folder else 'the file'}: {detector.loaded.sha256[:12]}...",
    ]
