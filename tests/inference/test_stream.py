"""Files as a stream of predictions: order, skipped files, reading ahead, and stopping."""

import itertools
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

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
from reports.drawing import Drawer
from tests.conftest import save_model
from tests.helpers.video_files import encode
from util import UserError

CONFIG = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4)
SIZES = ((32, 32), (24, 40), (64, 48), (3, 3))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("stream") / "model.pth"
    return load_detector(save_model(path, CONFIG, seed=6), "cpu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of `SIZES` in turn, of which the last is too small, and three unreadable files."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 256, (*SIZES[i % 4], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (folder / "05.png").write_bytes(b"")
    (folder / "10.png").write_bytes((folder / "09.png").read_bytes()[:60])
    return [*map(str, sorted(folder.iterdir())), str(folder / "missing.png")]


@pytest.fixture(scope="module")
def expected(detector: Detector, mixed: list[str]) -> dict[str, float | str]:
    """Logit or problem of each file, by a plain loop."""
    results: dict[str, float | str] = {}
    for path in mixed:
        try:
            results[path] = float(detector.outputs(read_image(path)).logits[0])
        except (UnreadableImage, ValueError) as error:
            results[path] = str(error).removeprefix("image 0: ")
    return results


def no_video(path: str) -> None:
    raise AssertionError(path)


def run(
    detector: Detector, paths: Iterable[str], threads: int = 3, video: Callable = no_video
) -> list[Outcome]:
    with closing(predict_files(detector, map(Input, paths), threads, video)) as outcomes:
        return list(outcomes)


def require_equal(outcomes: list[Outcome], expected: dict[str, float | str]) -> None:
    assert [outcome.path for outcome in outcomes] == list(expected)
    for outcome, result in zip(outcomes, expected.values(), strict=True):
        if isinstance(result, str):
            assert (outcome.prediction, outcome.image, outcome.problem) == (None, None, result)
        else:
            assert outcome.prediction is not None and outcome.image is not None
            assert outcome.prediction.logit == pytest.approx(result, abs=1e-4)
            assert outcome.image.name == outcome.path


@pytest.mark.parametrize("threads", (1, 7))
def test_predictions_are_those_of_a_plain_loop_in_its_order(
    detector: Detector, mixed: list[str], expected: dict[str, float | str], threads: int
) -> None:
    require_equal(run(detector, mixed, threads), expected)
    assert sum(isinstance(result, str) for result in expected.values()) == 10 + 2 + 1


def test_ready_images_are_predicted_together_up_to_a_number_of_pixels(
    detector: Detector, mixed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = []
    pixel_outputs = detector.pixel_outputs

    def slowly(pixels: list[Tensor]) -> ModelOutputs:
        groups.append([image[0].numel() for image in pixels])
        time.sleep(0.05)  # time for the threads to read what follows
        return pixel_outputs(pixels)

    monkeypatch.setattr(detector, "pixel_outputs", slowly)
    run(detector, mixed, 8)
    assert sum(map(len, groups)) == 28 and max(map(len, groups)) > 4
    groups.clear()
    monkeypatch.setattr(streaming, "GROUP_PIXELS", 2 * 64 * 48)
    run(detector, mixed, 8)
    assert max(map(len, groups)) > 1 and all(sum(sizes[:-1]) < 2 * 64 * 48 for sizes in groups)


def test_an_image_of_100_megapixels_is_skipped_by_its_header(
    detector: Detector, mixed: list[str], tmp_path: Path
) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    tracemalloc.start()
    try:
        first, huge, last = run(detector, (mixed[0], str(tmp_path / "huge.png"), mixed[1]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert first.prediction is not None and last.prediction is not None
    assert "10000x10000 pixels are more than the limit of" in huge.problem and peak < 10_000_000


def test_only_the_next_prediction_is_waited_for(detector: Detector, mixed: list[str]) -> None:
    """The first prediction of a slow list is there before its second path, or its error."""
    asked = threading.Event()

    def slowly() -> Iterator[Input]:
        yield Input(mixed[0])
        assert asked.wait(120)
        yield Input(mixed[1])
        raise UserError("the list")

    with closing(predict_files(detector, slowly(), 2, no_video)) as outcomes:
        assert next(outcomes).path == mixed[0]
        asked.set()
        assert next(outcomes).path == mixed[1]
        with pytest.raises(UserError, match="the list"):
            next(outcomes)


def test_it_reads_no_further_than_it_may_and_stops_when_closed(
    detector: Detector, mixed: list[str]
) -> None:
    count = itertools.count()
    endless = (Input(mixed[next(count) % 2]) for _ in itertools.repeat(None))
    before = threading.active_count()
    with closing(predict_files(detector, endless, 2, no_video)) as outcomes:
        for _ in range(3):
            next(outcomes)
        time.sleep(0.2)
        assert next(count) < 40
    deadline = time.monotonic() + 120
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_memory_does_not_grow_with_the_number_of_paths(detector: Detector) -> None:
    def peak(count: int) -> int:
        files = (Input("/nowhere.png") for _ in range(count))
        tracemalloc.start()
        try:
            with closing(predict_files(detector, files, 2, no_video)) as outcomes:
                problems = sum(outcome.problem != "" for outcome in outcomes)
            assert problems == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(500)
    assert peak(5_000) < peak(500) + 90_000  # 20 bytes for each would be as much


def write_text(path: Path) -> str:
    path.write_text("neither image nor video")
    return str(path)


def test_videos_come_in_their_turn(detector: Detector, mixed: list[str], tmp_path: Path) -> None:
    a, b, c = (write_text(tmp_path / name) for name in ("a.mp4", "b.MKV", "c.mov"))
    errors: dict[str, Exception] = {b: UserError("no"), c: ValueError(f"{c}: too small")}

    def predict_video(path: str) -> Any:
        if path in errors:
            raise errors[path]
        return f"prediction for {path}"

    outcomes = run(detector, [mixed[0], a, mixed[1], b, c], 2, predict_video)
    problems = {outcome.path: outcome.problem for outcome in outcomes}
    assert problems == {mixed[0]: "", a: "", mixed[1]: "", b: "no", c: "too small"}
    assert outcomes[1].prediction == f"prediction for {a}" and [*problems][1] == a


def test_files_are_images_or_videos_by_their_content(
    detector: Detector, mixed: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("av")
    encode(tmp_path / "clip", "libx264", "yuv420p", count=2, format="mp4")
    encode(tmp_path / "clip.ts", "libx264", "yuv420p", count=2, format="mpegts")
    encode(tmp_path / "clip.mxf", "mpeg2video", "yuv420p", count=2, format="mxf")
    encode(tmp_path / "clip.png", format="matroska", count=2)
    (tmp_path / "image.mp4").write_bytes(Path(mixed[0]).read_bytes())
    (tmp_path / "cut.png").write_bytes(Path(mixed[0]).read_bytes()[:60])
    notes = [write_text(tmp_path / name) for name in ("notes.mp4", "notes.ts")]
    paths = map(str, sorted(tmp_path.iterdir()))
    outcomes = run(detector, paths, 2, partial(predict_video, detector))
    kinds = {Path(outcome.path).name: type(outcome.prediction) for outcome in outcomes}
    videos = ("clip", "clip.mxf", "clip.png", "clip.ts")
    assert kinds == dict.fromkeys(videos, VideoPrediction) | {"image.mp4": Prediction} | {
        name: type(None) for name in ("cut.png", "notes.mp4", "notes.ts")
    }
    problems = {outcome.path: outcome.problem for outcome in outcomes}
    assert problems[notes[0]].startswith("damaged, or in a format")
    assert re.search("PNG.*; as a video: damaged, or in a format", problems[notes[1]])
    # a damaged image is not tried as a video
    assert "video" not in problems[str(tmp_path / "cut.png")]


def test_too_little_memory_of_a_gpu_ends_the_run(
    detector: Detector, mixed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In an image, in a video, and in a panel."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    message = "--gpu_ids: out of GPU memory"
    (outcome,) = run(detector, mixed[:1])
    with pytest.raises(UserError, match=message):
        run(detector, [write_text(tmp_path / "a.mp4")], 2, full)
    monkeypatch.setattr(detector, "pixel_outputs", full)
    with pytest.raises(UserError, match=message):
        run(detector, mixed[:1])
    with pytest.raises(UserError, match=message):
        write_explanation(detector, outcome, tmp_path, 0, Drawer(OSError, MemoryError))


def test_too_little_memory_is_the_problem_of_the_file_that_needs_it(
    detector: Detector,
    mixed: list[str],
    expected: dict[str, float | str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PyTorch's error for images of 64x48, alone or with others; Python's where one is decoded."""
    pixel_outputs, decode = detector.pixel_outputs, streaming.read_with_quality
    large = run(detector, mixed[2:3])[0]

    def small_only(pixels: list[Tensor]) -> ModelOutputs:
        if any(image.shape[1:] == (64, 48) for image in pixels):
            torch.empty(10**16, dtype=torch.uint8)
        return pixel_outputs(pixels)

    def decode_all_but_the_first(path: str) -> object:
        if path == mixed[0]:
            raise MemoryError
        return decode(path)

    monkeypatch.setattr(detector, "pixel_outputs", small_only)
    monkeypatch.setattr(streaming, "read_with_quality", decode_all_but_the_first)
    lacking = [mixed[i] for i in range(40) if (i % 4 == 2 and i != 10) or i == 0]
    require_equal(run(detector, mixed), expected | dict.fromkeys(lacking, "not enough memory"))
    video = write_text(tmp_path / "a.mp4")
    (outcome,) = run(detector, [video], 2, lambda path: torch.empty(10**16))
    assert outcome == Outcome(video, None, "not enough memory")
    assert write_explanation(detector, large, tmp_path, 0, Drawer(OSError, MemoryError)) is None
    assert caplog.messages == [f"{mixed[2]}: panel skipped, not enough memory"]


def still(path: Path, **more: Any) -> Path:
    """Write noise as AVIF or HEIC, whatever the name."""
    if more.get("format") == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **more)
    return path


@pytest.mark.parametrize("kind", ("AVIF", "HEIF"))
@pytest.mark.parametrize("name", ("a.avif", "a.heic", "a.jpg", "a.mp4"))
def test_still_images_are_no_videos_whatever_their_name(
    kind: str, name: str, detector: Detector, tmp_path: Path
) -> None:
    path = still(tmp_path / name, format=kind)
    (outcome,) = run(detector, [str(path)])
    assert isinstance(outcome.prediction, Prediction), outcome.problem
    assert (outcome.prediction.width, outcome.prediction.height) == (80, 64)


@pytest.mark.parametrize("kind", ("AVIF", "HEIF"))
def test_still_images_are_known_by_any_of_their_brands(
    kind: str, detector: Detector, tmp_path: Path
) -> None:
    path = still(tmp_path / "a.mp4", format=kind)
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"isom" + data[12:])
    (outcome,) = run(detector, [str(path)])
    assert isinstance(outcome.prediction, Prediction), outcome.problem
    path.write_bytes(data[: len(data) // 2])
    (outcome,) = run(detector, [str(path)])
    assert outcome.problem.startswith("damaged: ") and "\\n" not in outcome.problem


def test_heic_without_its_package_is_one_line(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = [b"heic", b"mif1", b"msf1", b"heix", b"hevc"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for head in heads:
        path = tmp_path / f"{head.decode()}.mp4"
        path.write_bytes(b"\0\0\0\x18ftyp" + head + bytes(4) + b"mif1heic" + bytes(99))
        (outcome,) = run(detector, [str(path)])
        assert outcome.problem == (
            "HEIC, which needs pillow-heif: pip install -r requirements/heic.txt"
        )


@pytest.mark.parametrize("kind", ("AVIF", "GIF", "WEBP", "PNG"))
def test_an_animation_says_how_many_images_it_has(
    kind: str, detector: Detector, tmp_path: Path
) -> None:
    more = [Image.new("RGB", (80, 64), colour) for colour in ("red", "blue")]
    path = still(tmp_path / "a.png", format=kind, save_all=True, append_images=more)
    (outcome,) = run(detector, [str(path)])
    assert isinstance(outcome.prediction, Prediction)
    assert "animated: only the first of 3 images was used" in outcome.prediction.warnings
