"""Files judged as a stream: threads read ahead, pictures are scored together, answers come in the
order of the files."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from data.decode import NotAnImage
from data.formats import read_with_quality
from inference.detector import BATCH_PIXELS, Detector
from inference.inputs import Input
from inference.memory import OutOfGpuMemory, memory_errors
from inference.prediction import Judgement, Picture, judge
from inference.video.files import UnreadableVideo
from inference.video.scoring import VideoJudgement
from util import UserError

AHEAD = 128
"""Files that may be read, and not yet judged, at any time."""
ROOM = 512 * 2**20
"""Bytes that their pixels may take together."""
BYTES_PER_PIXEL = 8
"""While it is decoded, see docs/files.md; afterwards a picture takes 7, as Pillow's RGB and as a
tensor."""
TOGETHER = 4 * BATCH_PIXELS
"""Pixels after which no more pictures are waited for before they are judged."""


class Outcome(NamedTuple):
    """What became of a file: its judgement, or why there is none.

    picture: what was judged, to be explained; None for a video or without a judgement.
    """

    path: str
    judgement: Judgement | VideoJudgement | None
    problem: str = ""
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file as a thread hands it over: a picture and its pixels, a problem, or a video that is
    still to be opened.

    no_picture: why a file that is tried as a video is no picture; "" where its ending is a video's.
    """

    path: str
    picture: Picture | None = None
    pixels: Tensor | None = None
    problem: str = ""
    no_picture: str = ""
    size: int = 0

    @property
    def is_video(self) -> bool:
        return self.picture is None and not self.problem


class _NoMore(Exception):
    """After the last file."""


class _Room:
    """Bytes for pictures under way; the one that everything waits for gets in, however large it is."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._awaited, self._closed = size, 0, 0, False
        self._changed = threading.Condition()

    def take(self, place: int, size: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or place <= self._awaited or self._taken + size <= self._size
            )
            if self._closed:
                raise RuntimeError("nobody waits for this any more")
            self._taken += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def await_place(self, place: int) -> None:
        with self._changed:
            self._awaited = place
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Ahead:
    """Files that threads read ahead, at most `AHEAD` of them and, but for one, `ROOM` bytes."""

    def __init__(self, detector: Detector, inputs: Iterable[Input], threads: int) -> None:
        self._detector, self._inputs = detector, inputs
        self._pool = ThreadPoolExecutor(threads, "read")
        self._free, self._room = threading.Semaphore(AHEAD), _Room(ROOM)
        self._queue: queue.SimpleQueue[Future[_Loaded] | BaseException] = queue.SimpleQueue()
        self._stopped = False
        # not one of the pool, which Python waits for at its end: this one may wait for a list that
        # never ends
        threading.Thread(target=self._feed, name="find", daemon=True).start()

    def _feed(self) -> None:
        """Put every file into the pool and the queue, then `_NoMore`, or what went wrong."""
        try:
            for place, one in enumerate(self._inputs):
                self._free.acquire()
                if self._stopped:
                    return
                self._queue.put(self._pool.submit(self._load, place, one))
            self._queue.put(_NoMore())
        except BaseException as error:
            self._queue.put(error)

    def _load(self, place: int, one: Input) -> _Loaded:
        if one.problem or (one.found and one.is_video):
            return _Loaded(one.path, problem=one.problem)
        taken = 0

        def make_room(width: int, height: int) -> None:
            nonlocal taken
            self._room.take(place, width * height * BYTES_PER_PIXEL)
            taken = width * height * BYTES_PER_PIXEL

        try:
            with memory_errors():
                image, quality = read_with_quality(one.path, make_room)
                return _Loaded(
                    one.path,
                    Picture(one.path, image, quality),
                    self._detector.pixels(image),
                    size=taken,
                )
        except NotAnImage as error:
            if one.found:
                return _Loaded(one.path, problem=str(error))
            return _Loaded(one.path, no_picture="" if one.is_video else str(error))
        except ValueError as error:  # UnreadableImage and NotEnoughMemory are some
            self._room.give_back(taken)
            return _Loaded(one.path, problem=str(error))

    def groups(self) -> Iterator[deque[_Loaded]]:
        """Files in their order, as many as are ready, up to `TOGETHER` pixels or a video; only the
        first is waited for.

        So nobody waits for the next path of a list that comes slowly, and where the model is what
        takes time, groups are large.
        """
        place = 0
        following: Future[_Loaded] | BaseException | None = self._queue.get()
        while isinstance(following, Future):
            self._room.await_place(place)
            group: deque[_Loaded] = deque()
            while isinstance(following, Future) and (not group or following.done()):
                group.append(following.result())
                pixels = sum(one.size for one in group) // BYTES_PER_PIXEL
                full = group[-1].is_video or pixels >= TOGETHER
                following = None if full or self._queue.empty() else self._queue.get()
            place += len(group)
            yield group
            following = following or self._queue.get()
        if following is not None and not isinstance(following, _NoMore):
            raise following

    def let_go(self, one: _Loaded) -> None:
        """Make room for the next after one that has been dealt with."""
        self._room.give_back(one.size)
        self._free.release()

    def close(self) -> None:
        self._stopped = True
        self._room.close()
        self._free.release()
        self._pool.shutdown(wait=False, cancel_futures=True)


def judged(
    detector: Detector,
    inputs: Iterable[Input],
    threads: int,
    judge_video: Callable[[str], VideoJudgement],
) -> Generator[Outcome, None, None]:
    """Judge files, in their order; memory does not grow with their number.

    Pictures of one size that are ready at a time go through the network together. A file that was
    not found by its ending is tried as a picture, then as a video. Close the iterator to stop
    before its end.

    Args:
        threads: that decode pictures, at least 1. judge_video: how a video is judged; ValueError or
            UserError says why it is not.

    Raises:
        OutOfGpuMemory: see `inference.memory`. Whatever iterating over `inputs` raises.
    """
    ahead = _Ahead(detector, inputs, threads)
    try:
        for group in ahead.groups():
            answers = iter(_judge(detector, group))
            while group:
                one = group.popleft()
                if one.is_video:
                    yield _of_video(one, judge_video)
                else:
                    answer = one.problem or next(answers)
                    if isinstance(answer, str):
                        yield Outcome(one.path, None, answer)
                    else:
                        yield Outcome(one.path, answer, picture=one.picture)
                ahead.let_go(one)
    finally:
        ahead.close()


def _judge(detector: Detector, group: Iterable[_Loaded]) -> list[Judgement | str]:
    """Judgements of a group's pictures, or why there is none."""
    ready = [
        (one.picture, one.pixels)
        for one in group
        if one.picture is not None and one.pixels is not None
    ]
    if not ready:
        return []
    pictures, pixels = zip(*ready, strict=True)
    try:
        with memory_errors():
            return list(judge(detector, pictures, pixels))
    except ValueError:  # the fault of one of them, or of all together
        return [_judge_alone(detector, *one) for one in ready]


def _judge_alone(detector: Detector, picture: Picture, pixels: Tensor) -> Judgement | str:
    try:
        with memory_errors():
            return judge(detector, [picture], [pixels])[0]
    except ValueError as error:
        return str(error).removeprefix(f"{picture.name}: ")


def _of_video(one: _Loaded, judge_video: Callable[[str], VideoJudgement]) -> Outcome:
    try:
        with memory_errors():
            return Outcome(one.path, judge_video(one.path))
    except OutOfGpuMemory:  # the next file would meet it, too
        raise
    except (UnreadableVideo, UserError) as error:  # the second: no PyAV
        problem = str(error).removeprefix(f"{one.path}: ")
        return Outcome(
            one.path,
            None,
            f"{one.no_picture}; as a video: {problem}" if one.no_picture else problem,
        )
    except ValueError as error:
        return Outcome(one.path, None, str(error))
