"""Files as a stream of answers: the order, what is skipped, how far is read ahead, and how it
stops."""

import itertools
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import inference.stream as streaming
from data.decode import UnreadableImage, read_image
from inference import load_detector
from inference.detector import Detector, Said
from inference.explain import write_explanation
from inference.inputs import Input
from inference.prediction import Judgement
from inference.stream import Outcome, judged
from inference.video.scoring import VideoJudgement, judge_video
from networks import ModelConfig
from tests.conftest import save_model
from tests.helpers.video_files import encode
from util import UserError

CONFIG = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return load_detector(
        save_model(tmp_path_factory.mktemp("stream") / "model.pth", CONFIG, seed=6), "cpu"
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of several sizes, one too small, and files that are none."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for i in range(40):
        size = [(32, 32), (24, 40), (64, 48), (3, 3)][i % 4]
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    (folder / "05.png").write_bytes(b"")
    (folder / "10.png").write_bytes((folder / "09.png").read_bytes()[:60])
    return [*sorted(folder.iterdir()), folder / "missing.png"]


def no_video(path: str) -> None:
    raise AssertionError(path)


def run(
    detector: Detector, inputs: Iterator[Input], threads: int = 3, video: Callable = no_video
) -> list[Outcome]:
    with closing(judged(detector, inputs, threads, video)) as outcomes:
        return list(outcomes)


@pytest.mark.parametrize("threads", (1, 7))
def test_answers_are_those_of_a_plain_loop_in_its_order(
    detector: Detector, mixed: list[Path], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "AHEAD", 5)
    outcomes = run(detector, (Input(str(path)) for path in mixed), threads)
    assert [outcome.path for outcome in outcomes] == list(map(str, mixed))
    for outcome in outcomes:
        try:
            expected = detector.said(read_image(outcome.path)).logits[0]
        except (UnreadableImage, ValueError) as error:
            assert outcome.judgement is None and outcome.problem == str(error).removeprefix(
                "image 0: "
            )
        else:
            assert outcome.judgement is not None and outcome.judgement.logit == pytest.approx(
                expected, abs=1e-4
            )
            assert outcome.picture is not None and outcome.picture.name == outcome.path
    assert sum(outcome.judgement is None for outcome in outcomes) == 10 + 2 + 1


def test_pictures_that_are_ready_are_judged_together(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    judge = streaming.judge

    def noting(detector: Detector, pictures: list, pixels: list) -> list:
        sizes.append(len(pictures))
        time.sleep(0.2)  # time for the threads to read what follows
        return judge(detector, pictures, pixels)

    monkeypatch.setattr(streaming, "judge", noting)
    run(detector, (Input(str(path)) for path in mixed))
    assert sum(sizes) == 28 and max(sizes) > 5


def test_pixels_under_way_are_bounded(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most the room, or one picture more: the one that is waited for."""
    largest = 64 * 48 * streaming.BYTES_PER_PIXEL
    monkeypatch.setattr(streaming, "ROOM", largest)
    taken = []
    take = streaming._Room.take

    def noting(room: streaming._Room, place: int, size: int) -> None:
        take(room, place, size)
        taken.append(room._taken)

    monkeypatch.setattr(streaming._Room, "take", noting)
    outcomes = run(detector, (Input(str(path)) for path in mixed), 8)
    assert len(outcomes) == len(mixed) and max(taken) <= 2 * largest
    monkeypatch.setattr(streaming, "ROOM", 1)  # not even one fits
    assert [
        outcome.path for outcome in run(detector, (Input(str(path)) for path in mixed), 8)
    ] == list(map(str, mixed))


def test_nothing_is_waited_for_but_the_next_answer(detector: Detector, mixed: list[Path]) -> None:
    """A list that comes slowly: its first answer is there before its second path."""
    asked = threading.Event()

    def slowly() -> Iterator[Input]:
        yield Input(str(mixed[0]))
        assert asked.wait(120)
        yield Input(str(mixed[1]))

    with closing(judged(detector, slowly(), 2, no_video)) as outcomes:
        assert next(outcomes).path == str(mixed[0])
        asked.set()
        assert [outcome.path for outcome in outcomes] == [str(mixed[1])]


def test_it_reads_no_further_than_it_may_and_stops_when_closed(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "AHEAD", 4)
    given = itertools.count()
    endless = (Input(str(mixed[next(given) % 2])) for _ in itertools.repeat(None))
    before = threading.active_count()
    with closing(judged(detector, endless, 2, no_video)) as outcomes:
        for _ in range(3):
            next(outcomes)
        time.sleep(0.2)
        assert next(given) <= 3 + 4 + 1  # the one that waits to be let in
    deadline = time.monotonic() + 120
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_many_paths_take_no_memory(detector: Detector) -> None:
    few, many = 2_000, 12_000

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            with closing(
                judged(detector, (Input("/nowhere.png") for _ in range(count)), 2, no_video)
            ) as outcomes:
                assert (
                    sum(outcome.problem == "No such file or directory" for outcome in outcomes)
                    == count
                )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(few)
    assert peak(many) < peak(few) + 200_000  # 20 bytes for each would be more


def test_videos_come_in_their_turn(detector: Detector, mixed: list[Path]) -> None:
    words = [str(mixed[0]), "a.mp4", str(mixed[1]), "b.MKV", "c.mov"]

    def judge(path: str) -> str:
        if path == "b.MKV":
            raise UserError("no")
        if path == "c.mov":
            raise ValueError("too small")
        return f"judged {path}"

    outcomes = run(detector, (Input(word, found=True) for word in words), 2, judge)
    assert [outcome.path for outcome in outcomes] == words
    assert outcomes[1].judgement == "judged a.mp4"
    assert [outcome.problem for outcome in outcomes] == ["", "", "", "no", "too small"]


def test_named_files_are_tried_as_videos_whatever_their_names(
    detector: Detector, mixed: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("av")
    for name, codec in (
        ("clip.ts", "libx264"),
        ("clip.3gp", "libx264"),
        ("clip", "libx264"),
        ("clip.mxf", "mpeg2video"),
    ):
        form = {"clip.ts": "mpegts", "clip.mxf": "mxf"}.get(name, "mp4")
        encode(tmp_path / name, codec, "yuv420p", count=25, format=form)
    (tmp_path / "picture.ts").write_bytes(mixed[0].read_bytes())
    (tmp_path / "picture.mp4").write_bytes(mixed[0].read_bytes())
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "notes.ts").write_text("let x: number")
    (tmp_path / "cut.png").write_bytes(mixed[0].read_bytes()[:60])
    encode(tmp_path / "found.png", format="matroska", count=2)
    inputs = [
        *(Input(str(path), found=path.name == "found.png") for path in sorted(tmp_path.iterdir()))
    ]
    found = {
        Path(one.path).name: one
        for one in run(detector, iter(inputs), 2, partial(judge_video, detector))
    }
    for name in ("clip.ts", "clip.3gp", "clip", "clip.mxf"):
        assert isinstance(found[name].judgement, VideoJudgement), found[name].problem
    for name in ("picture.ts", "picture.mp4"):
        assert isinstance(found[name].judgement, Judgement)
    assert found["notes.mp4"].problem.startswith("damaged, or in no format")
    assert re.match(
        "no picture in one of the formats.*; as a video: damaged, or in no format",
        found["notes.ts"].problem,
    )
    # a damaged picture is no video; nor is what a folder was searched for
    for name in ("cut.png", "found.png"):
        assert found[name].problem and "video" not in found[name].problem


def test_without_pyav_both_reasons_are_given(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "notes.ts"
    path.write_text("let x: number")
    (one,) = run(detector, iter([Input(str(path))]), 1, partial(judge_video, detector))
    assert re.match("no (picture|image) .*video.*PyAV.* pip install", one.problem)


def test_too_little_memory_of_a_gpu_ends_the_run(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a picture, in a video, and in a panel."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    picture, video = Input(str(mixed[0])), Input("a.mp4", found=True)
    (judged,) = run(detector, iter([picture]))
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        run(detector, iter([video, picture]), 2, full)
    monkeypatch.setattr(detector, "said_of_pixels", full)
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        run(detector, iter([picture]))
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        write_explanation(detector, judged, tmp_path, 0)


def test_too_little_memory_is_the_problem_of_the_file_that_needs_it(
    detector: Detector,
    mixed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PyTorch's own error, where pictures of 64x48 are judged, alone or with others; Python's,
    where one is decoded."""
    as_before, decode = detector.said_of_pixels, streaming.read_with_quality

    def small(pixels: list[Tensor]) -> Said:
        if any(one.shape[1:] == (64, 48) for one in pixels):
            torch.empty(10**16, dtype=torch.uint8)
        return as_before(pixels)

    def decoding(path: str, before: Callable) -> object:
        if path == str(mixed[0]):
            raise MemoryError
        return decode(path, before)

    expected = {
        outcome.path: outcome for outcome in run(detector, (Input(str(path)) for path in mixed))
    }
    monkeypatch.setattr(detector, "said_of_pixels", small)
    monkeypatch.setattr(streaming, "read_with_quality", decoding)
    outcomes = run(detector, (Input(str(path)) for path in mixed))
    assert [outcome.path for outcome in outcomes] == list(expected)
    lacking = [outcome.path for outcome in outcomes if outcome.problem == "not enough memory"]
    assert lacking == [
        str(path) for i, path in enumerate(mixed[:40]) if (i % 4 == 2 and i != 10) or i == 0
    ]
    for outcome in outcomes:
        before = expected[outcome.path].judgement
        if outcome.path not in lacking and before is not None:
            assert outcome.judgement is not None and outcome.judgement.logit == pytest.approx(
                before.logit, abs=1e-4
            )

    (video,) = run(
        detector, iter([Input("a.mp4", found=True)]), 2, lambda path: torch.empty(10**16)
    )
    assert (video.judgement, video.problem) == (None, "not enough memory")
    assert write_explanation(detector, expected[str(mixed[2])], tmp_path, 0) is None
    assert caplog.messages == [f"{mixed[2]}: no panel of it, not enough memory"]


def test_an_answer_that_is_not_finite_is_the_problem_of_its_file(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before = detector.said_of_pixels

    def overflowing(pixels: list[Tensor]) -> Said:
        said = as_before(pixels)
        return said._replace(
            logits=np.where([one.shape[1:] == (24, 40) for one in pixels], np.nan, said.logits)
        )

    monkeypatch.setattr(detector, "said_of_pixels", overflowing)
    outcomes = run(detector, (Input(str(path)) for path in mixed))
    problems = [str(path) for i, path in enumerate(mixed[:40]) if i % 4 == 1 and i != 5]
    assert [
        one.path for one in outcomes if one.problem == "the model's score is not finite"
    ] == problems
    assert sum(one.judgement is not None for one in outcomes) == 28 - len(problems)


def test_what_goes_wrong_in_finding_files_ends_the_stream(
    detector: Detector, mixed: list[Path]
) -> None:
    def broken() -> Iterator[Input]:
        yield Input(str(mixed[0]))
        raise UserError("the list")

    with closing(judged(detector, broken(), 2, no_video)) as outcomes:
        assert next(outcomes).judgement is not None
        with pytest.raises(UserError, match="the list"):
            next(outcomes)
