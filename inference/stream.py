"""Predict files as a stream: threads read ahead, predictions come in the order of the files."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import NamedTuple

from torch import Tensor

from data.decode import NotAnImage, read_with_quality
from device import OutOfGpuMemory, memory_errors
from inference.detector import BATCH_PIXELS, Detector
from inference.inputs import Input
from inference.prediction import NamedImage, Prediction, predict_images
from inference.video.frames import EXTENSIONS
from inference.video.scoring import VideoPrediction
from util import UserError

GROUP_PIXELS = 4 * BATCH_PIXELS  # a group of images is closed once it has this many pixels
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


class _Loaded(NamedTuple):
    """A file from a loading thread.

    Args:
        path: of the file.
        decoded: the image and its pixels [3, H, W]; None without an image.
        problem: reason why it is not an image.
        may_be_video: True if it does not begin like an image.
    """

    path: str
    decoded: tuple[NamedImage, Tensor] | None = None
    problem: str = ""
    may_be_video: bool = False


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
        predict_video: predicts a video; if it raises ValueError or UserError, the video is skipped
            with that message.

    Raises:
        OutOfGpuMemory: see `device.memory_errors`.
        Exception: whatever iterating over `inputs` raises.
    """
    with closing(_ready_groups(detector, inputs, threads)) as groups:
        for group in groups:
            decoded = [file.decoded for file in group if file.decoded is not None]
            outcomes = iter(_predict_images(detector, decoded))
            for file in group:
                if file.decoded is not None:
                    yield next(outcomes)
                elif file.may_be_video:
                    yield _predict_video(file, predict_video)
                else:
                    yield Outcome(file.path, None, file.problem)


def _ready_groups(
    detector: Detector, inputs: Iterable[Input], threads: int
) -> Generator[list[_Loaded], None, None]:
    """Yield the loaded files in order, in groups of files that are ready.

    Wait for the first file of a group, then add those that are decoded already, and wait for no
    more: a prediction must not wait for the next path of a slow list.
    """
    # the last item is the exception of `inputs`, or None
    window: queue.Queue[Future[_Loaded] | BaseException | None] = queue.Queue(
        WINDOW_PER_THREAD * threads
    )
    pool = ThreadPoolExecutor(threads, "load")
    closed = threading.Event()

    def feed() -> None:
        end: BaseException | None = None
        try:
            for file in inputs:
                window.put(pool.submit(_load, detector, file))
                if closed.is_set():
                    return
        except BaseException as error:
            end = error
        window.put(end)

    # a daemon: Python waits for the threads of a pool at its exit, and a list may never end
    threading.Thread(target=feed, name="feed", daemon=True).start()
    group: list[_Loaded] = []
    group_pixels = 0  # pixels of the group
    try:
        while isinstance(future := window.get(), Future):
            if group and not (future.done() and group_pixels < GROUP_PIXELS):
                yield group
                group, group_pixels = [], 0
            file = future.result()
            group.append(file)
            group_pixels += file.decoded[1][0].numel() if file.decoded is not None else 0
            if window.empty():
                yield group
                group, group_pixels = [], 0
        if group:
            yield group
        if future is not None:
            raise future
    finally:
        closed.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # room for the one item that `feed` may be about to put
        with suppress(queue.Empty):
            window.get_nowait()


def _load(detector: Detector, file: Input) -> _Loaded:
    if file.problem:
        return _Loaded(file.path, problem=file.problem)
    try:
        with memory_errors():
            image = NamedImage(file.path, *read_with_quality(file.path))
            return _Loaded(file.path, (image, detector.pixels(image.image)))
    except ValueError as error:  # UnreadableImage, NotEnoughMemory, or too small
        return _Loaded(file.path, None, str(error), isinstance(error, NotAnImage))


def _predict_images(detector: Detector, files: list[tuple[NamedImage, Tensor]]) -> list[Outcome]:
    """Return the results for images, predicted together or, after an error, one by one."""
    images, pixels = [image for image, _ in files], [pixels for _, pixels in files]
    try:
        with memory_errors():
            predictions = predict_images(detector, images, pixels)
    except ValueError as error:
        if len(files) > 1:
            return [outcome for file in files for outcome in _predict_images(detector, [file])]
        path = images[0].name
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
        problem = f"{file.problem}; as a video: {problem}"
    return Outcome(file.path, None, problem)
