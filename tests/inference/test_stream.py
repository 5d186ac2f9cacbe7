"""Files as a stream of predictions: the order, skipped files, how far is read ahead, and how it
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
from inference.detector import Detector, ModelOutputs
from inference.explain import write_explanation
from inference.inputs import Input
from inference.prediction import Prediction
from inference.stream import Outcome, predict_files
from inference.video.scoring import VideoPrediction, predict_video
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
    """Images of several sizes, one too small, and files that are none."""
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
    with closing(predict_files(detector, inputs, threads, video)) as outcomes:
        return list(outcomes)


@pytest.mark.parametrize("threads", (1, 7))
def test_predictions_are_those_of_a_plain_loop_in_its_order(
    detector: Detector, mixed: list[Path], threads: int
) -> None:
    outcomes = run(detector, (Input(str(path)) for path in mixed), threads)
    assert [outcome.path for outcome in outcomes] == list(map(str, mixed))
    for outcome in outcomes:
        try:
            expected = detector.outputs(read_image(outcome.path)).logits[0]
        except (UnreadableImage, ValueError) as error:
            assert outcome.prediction is None and outcome.problem == str(error).removeprefix(
                "image 0: "
            )
        else:
            assert outcome.prediction is not None and outcome.prediction.logit == pytest.approx(
                expected, abs=1e-4
            )
            assert outcome.image is not None and outcome.image.name == outcome.path
    assert sum(outcome.prediction is None for outcome in outcomes) == 10 + 2 + 1


def test_images_that_are_ready_are_predicted_together(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    predict_images = streaming.predict_images

    def noting(detector: Detector, images: list, pixels: list) -> list:
        sizes.append(len(images))
        time.sleep(0.2)  # time for the threads to read what follows
        return predict_images(detector, images, pixels)

    monkeypatch.setattr(streaming, "predict_images", noting)
    run(detector, (Input(str(path)) for path in mixed))
    assert sum(sizes) == 28 and max(sizes) > 4


def test_groups_have_a_bounded_number_of_pixels(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "GROUP_PIXELS", 2 * 64 * 48)
    groups = []
    pixel_outputs = detector.pixel_outputs

    def slowly(pixels: list[Tensor]) -> ModelOutputs:
        groups.append([image[0].numel() for image in pixels])
        time.sleep(0.05)  # time for the threads to read what follows
        return pixel_outputs(pixels)

    monkeypatch.setattr(detector, "pixel_outputs", slowly)
    run(detector, (Input(str(path)) for path in mixed), 8)
    assert max(map(len, groups)) > 1 and all(sum(sizes[:-1]) < 2 * 64 * 48 for sizes in groups)


def test_an_image_of_100_megapixels_is_skipped_by_its_header(
    detector: Detector, mixed: list[Path], tmp_path: Path
) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    tracemalloc.start()
    try:
        first, huge, last = run(
            detector, iter(map(Input, map(str, (mixed[0], tmp_path / "huge.png", mixed[1]))))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert first.prediction is not None and last.prediction is not None
    assert "10000x10000 pixels are more than the limit of" in huge.problem and peak < 10_000_000


def test_nothing_is_waited_for_but_the_next_answer(detector: Detector, mixed: list[Path]) -> None:
    """A list that comes slowly: its first answer is there before its second path."""
    asked = threading.Event()

    def slowly() -> Iterator[Input]:
        yield Input(str(mixed[0]))
        assert asked.wait(120)
        yield Input(str(mixed[1]))

    with closing(predict_files(detector, slowly(), 2, no_video)) as outcomes:
        assert next(outcomes).path == str(mixed[0])
        asked.set()
        assert [outcome.path for outcome in outcomes] == [str(mixed[1])]


def test_it_reads_no_further_than_it_may_and_stops_when_closed(
    detector: Detector, mixed: list[Path]
) -> None:
    given = itertools.count()
    endless = (Input(str(mixed[next(given) % 2])) for _ in itertools.repeat(None))
    before = threading.active_count()
    with closing(predict_files(detector, endless, 2, no_video)) as outcomes:
        for _ in range(3):
            next(outcomes)
        time.sleep(0.2)
        assert next(given) < 40
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
                predict_files(detector, (Input("/nowhere.png") for _ in range(count)), 2, no_video)
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


def not_an_image(path: Path) -> str:
    path.write_text("neither image nor video")
    return str(path)


def test_videos_come_in_their_turn(detector: Detector, mixed: list[Path], tmp_path: Path) -> None:
    a, b, c = (not_an_image(tmp_path / name) for name in ("a.mp4", "b.MKV", "c.mov"))
    paths = [str(mixed[0]), a, str(mixed[1]), b, c]

    def predict_video(path: str) -> str:
        if path == b:
            raise UserError("no")
        if path == c:
            raise ValueError("too small")
        return f"prediction for {path}"

    outcomes = run(detector, (Input(path) for path in paths), 2, predict_video)
    assert [outcome.path for outcome in outcomes] == paths
    assert outcomes[1].prediction == f"prediction for {a}"
    assert [outcome.problem for outcome in outcomes] == ["", "", "", "no", "too small"]


def test_files_are_images_or_videos_by_their_content(
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
    encode(tmp_path / "video.png", format="matroska", count=2)
    inputs = [*(Input(str(path)) for path in sorted(tmp_path.iterdir()))]
    found = {
        Path(one.path).name: one
        for one in run(detector, iter(inputs), 2, partial(predict_video, detector))
    }
    for name in ("clip.ts", "clip.3gp", "clip", "clip.mxf", "video.png"):
        assert isinstance(found[name].prediction, VideoPrediction), found[name].problem
    for name in ("picture.ts", "picture.mp4"):
        assert isinstance(found[name].prediction, Prediction)
    assert found["notes.mp4"].problem.startswith("damaged, or in a format")
    assert re.search("PNG.*; as a video: damaged, or in a format", found["notes.ts"].problem)
    # a damaged image is not tried as a video
    assert found["cut.png"].problem and "video" not in found["cut.png"].problem


def test_without_pyav_both_reasons_are_given(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "notes.ts"
    path.write_text("let x: number")
    (one,) = run(detector, iter([Input(str(path))]), 1, partial(predict_video, detector))
    assert re.match("not an image .*video.*PyAV.* pip install", one.problem)


def test_too_little_memory_of_a_gpu_ends_the_run(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a picture, in a video, and in a panel."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    image, video = Input(str(mixed[0])), Input(not_an_image(tmp_path / "a.mp4"))
    (outcome,) = run(detector, iter([image]))
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        run(detector, iter([video, image]), 2, full)
    monkeypatch.setattr(detector, "pixel_outputs", full)
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        run(detector, iter([image]))
    with pytest.raises(UserError, match="--gpu_ids: out of GPU memory"):
        write_explanation(detector, outcome, tmp_path, 0)


def test_too_little_memory_is_the_problem_of_the_file_that_needs_it(
    detector: Detector,
    mixed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PyTorch's own error, where images of 64x48 are predicted, alone or with others; Python's,
    where one is decoded."""
    as_before, decode = detector.pixel_outputs, streaming.read_with_quality

    def small(pixels: list[Tensor]) -> ModelOutputs:
        if any(one.shape[1:] == (64, 48) for one in pixels):
            torch.empty(10**16, dtype=torch.uint8)
        return as_before(pixels)

    def decoding(path: str) -> object:
        if path == str(mixed[0]):
            raise MemoryError
        return decode(path)

    expected = {
        outcome.path: outcome for outcome in run(detector, (Input(str(path)) for path in mixed))
    }
    monkeypatch.setattr(detector, "pixel_outputs", small)
    monkeypatch.setattr(streaming, "read_with_quality", decoding)
    outcomes = run(detector, (Input(str(path)) for path in mixed))
    assert [outcome.path for outcome in outcomes] == list(expected)
    lacking = [outcome.path for outcome in outcomes if outcome.problem == "not enough memory"]
    assert lacking == [
        str(path) for i, path in enumerate(mixed[:40]) if (i % 4 == 2 and i != 10) or i == 0
    ]
    for outcome in outcomes:
        before = expected[outcome.path].prediction
        if outcome.path not in lacking and before is not None:
            assert outcome.prediction is not None and outcome.prediction.logit == pytest.approx(
                before.logit, abs=1e-4
            )

    (video,) = run(
        detector,
        iter([Input(not_an_image(tmp_path / "a.mp4"))]),
        2,
        lambda path: torch.empty(10**16),
    )
    assert (video.prediction, video.problem) == (None, "not enough memory")
    assert write_explanation(detector, expected[str(mixed[2])], tmp_path, 0) is None
    assert caplog.messages == [f"{mixed[2]}: panel skipped, not enough memory"]


def test_an_answer_that_is_not_finite_is_the_problem_of_its_file(
    detector: Detector, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before = detector.pixel_outputs

    def overflowing(pixels: list[Tensor]) -> ModelOutputs:
        outputs = as_before(pixels)
        return outputs._replace(
            logits=np.where([one.shape[1:] == (24, 40) for one in pixels], np.nan, outputs.logits)
        )

    monkeypatch.setattr(detector, "pixel_outputs", overflowing)
    outcomes = run(detector, (Input(str(path)) for path in mixed))
    problems = [str(path) for i, path in enumerate(mixed[:40]) if i % 4 == 1 and i != 5]
    assert [
        one.path for one in outcomes if one.problem == "the model's score is not finite"
    ] == problems
    assert sum(one.prediction is not None for one in outcomes) == 28 - len(problems)


def test_what_goes_wrong_in_finding_files_ends_the_stream(
    detector: Detector, mixed: list[Path]
) -> None:
    def broken() -> Iterator[Input]:
        yield Input(str(mixed[0]))
        raise UserError("the list")

    with closing(predict_files(detector, broken(), 2, no_video)) as outcomes:
        assert next(outcomes).prediction is not None
        with pytest.raises(UserError, match="the list"):
            next(outcomes)
