"""Predict files as a stream: threads read ahead, predictions come in the order of the files."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from data.decode import NotAnImage
from data.formats import read_with_quality
from device import OutOfGpuMemory, memory_errors
from inference.detector import BATCH_PIXELS, Detector
from inference.inputs import Input
from inference.prediction import NamedImage, Prediction, predict_images
from inference.video.frames import EXTENSIONS
from inference.video.scoring import VideoPrediction
from util import UserError

GROUP_PIXELS = 4 * BATCH_PIXELS  # pixels after which a group of images takes no more
WINDOW_PER_THREAD = 2  # files read ahead: one that a thread decodes, one that is ready


class Outcome(NamedTuple):
    """The result for one file.

    Args:
        path: of the file.
        prediction: None where the file was skipped.
        problem: reason why it was skipped, else "".
        image: the predicted image; None for a video or a skipped file.
    """

    path: str
    prediction: Prediction | VideoPrediction | None
    problem: str = ""
    image: NamedImage | None = None


@dataclass(frozen=True)
class _Loaded:
    """A file from a loading thread: an image, a problem, or else a video that is not opened yet.

    Args:
        path: of the file.
        image: decoded.
        pixels: of the image, [3, H, W].
        problem: reason why the file is skipped.
        not_an_image: reason why a file that may be a video is not an image.
    """

    path: str
    image: NamedImage | None = None
    pixels: Tensor | None = None
    problem: str = ""
    not_an_image: str = ""

    @property
    def size(self) -> int:
        """Return the number of pixels."""
        return 0 if self.pixels is None else self.pixels[0].numel()


def predict_files(
    detector: Detector,
    inputs: Iterable[Input],
    threads: int,
    predict_video: Callable[[str], VideoPrediction],
) -> Generator[Outcome, None, None]:
    """Yield the results for files, in their order; memory does not grow with their number.

    A file that does not begin like an image is tried as a video. Close the iterator to stop early.

    Args:
        detector: the detector.
        inputs: the files; asking for the next one may block.
        threads: number of threads that decode images, at least 1.
        predict_video: predicts a video; the message of its ValueError or UserError is the reason
            why the video is skipped.

    Raises:
        OutOfGpuMemory: see `device.memory_errors`.
        Exception: whatever iterating over `inputs` raises.
    """

    with closing(_ready_groups(detector, inputs, threads)) as groups:
        for group in groups:
            outcomes = iter(_predict_images(detector, [file for file in group if file.image]))
            for file in group:
                if file.problem:
                    yield Outcome(file.path, None, file.problem)
                elif file.image is None:
                    yield _predict_video(file, predict_video)
                else:
                    yield next(outcomes)


def _ready_groups(
    detector: Detector, inputs: Iterable[Input], threads: int
) -> Generator[list[_Loaded], None, None]:
    """Yield the loaded files in order, in groups of files that are ready.

    Only the first file of a group is waited for. So a prediction never waits for the next path of a
    slow list, and groups are large if the model takes most of the time.
    """
    window: queue.Queue[Future[_Loaded | None]] = queue.Queue(WINDOW_PER_THREAD * threads)
    pool = ThreadPoolExecutor(threads, "load")
    closed = threading.Event()

    def feed() -> None:
        end: Future[_Loaded | None] = Future()
        try:
            for file in inputs:
                window.put(pool.submit(_load, detector, file))
                if closed.is_set():
                    return
            end.set_result(None)
        except BaseException as error:
            end.set_exception(error)
        window.put(end)

    # not in the pool, whose threads Python waits for when it ends: a list may never end
    threading.Thread(target=feed, name="feed", daemon=True).start()
    group: list[_Loaded] = []
    try:
        while True:
            future = window.get()
            if group and not (future.done() and future.exception() is None):
                yield group
                group = []
            file = future.result()
            if file is None:
                break
            group.append(file)
            if window.empty() or sum(file.size for file in group) >= GROUP_PIXELS:
                yield group
                group = []
        if group:
            yield group
    finally:
        closed.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # make room, so that `feed` does not wait for ever
        with suppress(queue.Empty):
            while True:
                window.get_nowait()


def _load(detector: Detector, file: Input) -> _Loaded:
    if file.problem:
        return _Loaded(file.path, problem=file.problem)
    try:
        with memory_errors():
            image = NamedImage(file.path, *read_with_quality(file.path))
            return _Loaded(file.path, image, detector.pixels(image.image))
    except NotAnImage as error:
        return _Loaded(file.path, not_an_image=str(error))
    except ValueError as error:  # UnreadableImage, NotEnoughMemory, or too small
        return _Loaded(file.path, problem=str(error))


def _predict_images(detector: Detector, files: list[_Loaded]) -> list[Outcome]:
    """Return the results for images, predicted together or, after an error, one by one."""
    images = [file.image for file in files if file.image is not None]
    pixels = [file.pixels for file in files if file.pixels is not None]
    try:
        with memory_errors():
            predictions = predict_images(detector, images, pixels)
    except ValueError as error:
        if len(files) > 1:
            return [outcome for file in files for outcome in _predict_images(detector, [file])]
        path = files[0].path
        return [Outcome(path, None, str(error).removeprefix(f"{path}: "))]
    return [
        Outcome(image.name, prediction, image=image)
        for image, prediction in zip(images, predictions, strict=True)
    ]


def _predict_video(file: _Loaded, predict_video: Callable[[str], VideoPrediction]) -> Outcome:
    try:
        with memory_errors():
            return Outcome(file.path, predict_video(file.path))
    # the next file would raise it, too
    except OutOfGpuMemory:
        raise
    except (ValueError, UserError) as error:  # a UserError says that PyAV is missing
        problem = str(error).removeprefix(f"{file.path}: ")
    if not file.path.lower().endswith(EXTENSIONS):
        problem = f"{file.not_an_image}; as a video: {problem}"
    return Outcome(file.path, None, problem)
