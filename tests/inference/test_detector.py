"""The detector as a library: images in any form, one answer."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import inference.tiles as tiles
from data.decode import UnreadableImage
from device import NotEnoughMemory, OutOfGpuMemory, memory_errors
from inference import load_detector
from inference.detector import NotFinite, as_image
from inference.explain import explain
from inference.prediction import NamedImage, predict_images
from inference.tiles import Box, grid_of, tile_boxes
from networks import ModelConfig, build_model
from networks.calibration import Calibration
from networks.checkpoint_file import save_checkpoint
from networks.npr import npr_residual
from tests.conftest import save_model
from util import UserError

MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)
CALIBRATION = Calibration(2.0, 0.4, 0.2, 0.9, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("detector") / "model.pth", MULTI, seed=3)


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_logit(checkpoint: Path, pixels: np.ndarray) -> float:
    """The formulas written out: scale to [0, 1], ImageNet's mean and standard deviation, the model."""
    model = build_model(MULTI).eval()
    model.load_state_dict(torch.load(checkpoint)["model_state_dict"])
    x = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.no_grad():
        return float(model(x[None]))


def test_every_form_of_an_image_scores_alike(checkpoint: Path, tmp_path: Path) -> None:
    detector = load_detector(checkpoint, "cpu")
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    forms = [
        pixels,
        Image.fromarray(pixels),
        tensor,
        tensor / 255,
        pixels / 255,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ]
    scores = detector.score(forms)
    expected = 1 / (1 + np.exp(-plain_logit(checkpoint, pixels)))
    assert scores.shape == (7,) and np.allclose(scores, expected, atol=1e-6)
    assert detector.score(pixels).shape == (1,)
    assert np.allclose(detector.score(torch.stack([tensor, tensor])), expected, atol=1e-6)
    assert detector.score([]).shape == (0,)


def test_order_stays_whatever_the_sizes_are(checkpoint: Path) -> None:
    detector = load_detector(checkpoint, "cpu")
    many = [picture(24 + 8 * (i % 3), 32, i) for i in range(9)]
    assert np.allclose(
        detector.outputs(many).logits, [plain_logit(checkpoint, one) for one in many], atol=1e-5
    )
    weights = detector.outputs(many).attention_weights
    assert weights is not None and np.allclose(weights.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    (
        ("nowhere.png", UnreadableImage, "image 1: nowhere.png: No such file"),
        (object(), TypeError, "image 1: a object"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "shape"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "shape"),
        (np.full((9, 9, 3), 2.0), ValueError, r"outside \[0, 1\]"),
        (np.full((9, 9, 3), np.nan), ValueError, r"outside \[0, 1\]"),
        (np.zeros((9, 9, 3), np.int64), TypeError, "int64"),
        (torch.zeros(1, 9, 9), ValueError, "shape"),
        (np.zeros((2, 9, 3), np.uint8), ValueError, "9x2 pixels leave none at scale 0.25"),
    ),
)
def test_what_is_not_an_image(
    checkpoint: Path, wrong: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_detector(checkpoint, "cpu").score([picture(), wrong])  # type: ignore[list-item]


ANY = r"expected a path, PIL's image, an array \[H, W, 3\] or \[H, W\], or a tensor \[3, H, W\]"


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    (
        (None, TypeError, f"^image 0: a NoneType, {ANY}$"),
        ([None], TypeError, f"^image 0: a NoneType, {ANY}$"),
        (7, TypeError, f"^image 0: a int, {ANY}$"),
        (b"bytes of a file", TypeError, f"^image 0: a bytes, {ANY}$"),
        ([b"bytes of a file"], TypeError, f"^image 0: a bytes, {ANY}$"),
        ([[1, 2, 3]], TypeError, f"^image 0: a list, {ANY}$"),
        (
            "text that is no path",
            UnreadableImage,
            "^image 0: text that is no path: No such file or directory$",
        ),
        ("with a \0", UnreadableImage, "^image 0: with a \0: .*null"),
        (
            np.zeros(9, np.uint8),
            ValueError,
            r"^image 0: an array of shape \(9,\), expected \[H, W, 3\] or \[H, W\]$",
        ),
        (np.array(9), ValueError, r"an array of shape \(\), expected \[H, W, 3\] or \[H, W\]$"),
        (
            np.zeros((2, 3, 9, 9), np.uint8),
            ValueError,
            r"^image 0: an array of shape \(3, 9, 9\), expected \[H, W, 3\]",
        ),
        (
            np.zeros((1, 1, 9, 9, 3)),
            ValueError,
            r"^image 0: an array of shape \(1, 9, 9, 3\), expected \[H, W, 3\]",
        ),
        (
            np.zeros((9, 9, 3), bool),
            TypeError,
            "^image 0: values of type bool, expected uint8 or floating point",
        ),
        (
            np.zeros((9, 9, 3), complex),
            TypeError,
            "values of type complex128, expected uint8 or floating point",
        ),
        (
            np.zeros((9, 9, 3), object),
            TypeError,
            "values of type object, expected uint8 or floating point",
        ),
        (
            torch.zeros(9, 9),
            ValueError,
            r"^image 0: a tensor of shape \(9, 9\), expected \[3, H, W\]",
        ),
        (
            torch.zeros(3, 9, 9, dtype=torch.int32),
            TypeError,
            "values of type int32, expected uint8 or floating point",
        ),
    ),
)
def test_whatever_is_given_the_error_says_what_is_taken(
    checkpoint: Path, wrong: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_detector(checkpoint, "cpu").score(wrong)


@pytest.mark.parametrize("kind", (torch.float16, torch.bfloat16, torch.float64))
def test_tensors_of_any_floating_point_type(kind: torch.dtype) -> None:
    tensor = torch.rand(3, 8, 9).to(kind)
    expected = (tensor.double() * 255).round().byte().movedim(0, -1).numpy()
    assert np.array_equal(np.asarray(as_image(tensor)), expected)


def test_grey_is_taken_as_colour() -> None:
    grey = picture()[..., 0]
    assert np.array_equal(np.asarray(as_image(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_calibration_is_read_and_used(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no calibration"):
        load_detector(checkpoint, "cpu").probability(picture())
    values = torch.load(checkpoint)
    save_checkpoint(tmp_path / "c.pth", values | {"calibration": CALIBRATION.to_dict()})
    detector = load_detector(tmp_path / "c.pth", "cpu")
    logit = plain_logit(checkpoint, picture())
    assert detector.probability(picture())[0] == pytest.approx(
        1 / (1 + np.exp(-logit / 2)), abs=1e-6
    )
    assert CALIBRATION.rule == '"generated" from 0.900 on, "real" up to 0.200, "unsure" between'
    assert (
        replace(CALIBRATION, upper=1.1, lower=-0.1).rule
        == 'never "generated", never "real", "unsure" between'
    )
    assert (
        replace(CALIBRATION, upper=0.5, lower=0.5).rule
        == '"generated" from 0.500 on, "real" up to 0.500'
    )
    assert [CALIBRATION.verdict(p) for p in (0.2, 0.21, 0.89, 0.9)] == [
        "real",
        "unsure",
        "unsure",
        "generated",
    ]


@pytest.mark.parametrize(
    "change",
    (
        {"temperature": 0.0},
        {"lower": 1.0, "upper": 0.5},
        {"n_real": "3"},
        {"threshold": float("nan")},
        {"other": 1},
        {"temperature": 10**400},
        {"n_real": -5},
        {"ece_after": 1.5},
    ),
)
def test_made_up_calibration_is_refused(
    checkpoint: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    save_checkpoint(
        tmp_path / "c.pth", torch.load(checkpoint) | {"calibration": CALIBRATION.to_dict() | change}
    )
    with pytest.raises(UserError, match="its calibration is not valid"):
        load_detector(tmp_path / "c.pth", "cpu")


def test_a_calibration_is_for_its_protocol(
    checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("npr"), "propagate", True)
    save_checkpoint(
        tmp_path / "c.pth", torch.load(checkpoint) | {"calibration": CALIBRATION.to_dict()}
    )
    assert load_detector(tmp_path / "c.pth", "cpu", protocol="resize256").calibration is None
    assert "native v1" in caplog.text and "resize256 v1" in caplog.text


def test_unknown_protocol(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="--protocol nothing: unknown"):
        load_detector(checkpoint, "cpu", protocol="nothing")


def test_threads_take_turns(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load_detector(checkpoint, "cpu")
    many = [picture(seed=i) for i in range(6)]
    expected = [detector.score(one)[0] for one in many]
    inside, most = 0, 0

    def noting(module: nn.Module, arguments: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)  # lets the others in, if they can come

    def leaving(module: nn.Module, arguments: object, output: object) -> None:
        nonlocal inside
        inside -= 1

    detector.model.register_forward_pre_hook(noting)
    detector.model.register_forward_hook(leaving)
    explaining = threading.Thread(target=explain, args=(detector, Image.fromarray(many[0])))
    explaining.start()
    with ThreadPoolExecutor(len(many)) as pool:
        found = [scores[0] for scores in pool.map(detector.score, many)]
    explaining.join()
    assert found == expected and most == 1


def test_an_image_in_memory_is_taken_as_its_file_is(checkpoint: Path, tmp_path: Path) -> None:
    detector = load_detector(checkpoint, "cpu")
    deep = Image.fromarray((picture()[..., 0].astype(np.uint16) << 8) + 7)
    deep.save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        assert detector.score([opened])[0] == detector.score(tmp_path / "deep.png")[0]
    with pytest.raises(UnreadableImage, match="image 0: floating-point"):
        detector.score(Image.fromarray(np.full((20, 20), 0.5, np.float32)))
    Image.fromarray(picture()).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(UnreadableImage, match="image 1: damaged"),
    ):
        detector.score([picture(), opened])


def test_an_answer_that_is_not_finite_is_none(checkpoint: Path) -> None:
    detector = load_detector(checkpoint, "cpu")
    with torch.no_grad():
        detector.model.classifier.weight.fill_(3e38)
    with pytest.raises(NotFinite, match="image 0: .*not finite"):
        detector.score([picture(), picture(seed=1)])
    with pytest.raises(NotFinite, match="b.png: .*not finite"):
        predict_images(detector, [NamedImage("b.png", Image.fromarray(picture()))])


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 24, 40]))
def test_tiles_cover_every_pixel_once(height: int, width: int, grid: int) -> None:
    boxes = tile_boxes(height, width, grid)
    assert sum(box.height * box.width for box in boxes) == height * width
    for box in boxes:
        assert box.top % grid == box.left % grid == 0
        assert box.top + box.height <= height and box.left + box.width <= width
        assert box.height > 0 and box.width > 0
    for one in boxes:  # equal areas, and no two overlap
        for other in boxes:
            apart_rows = one.top + one.height <= other.top or other.top + other.height <= one.top
            apart_columns = (
                one.left + one.width <= other.left or other.left + other.width <= one.left
            )
            assert one is other or apart_rows or apart_columns
    if height * width > tiles.WHOLE:
        assert all(box.height * box.width <= (tiles.TILE + grid) ** 2 for box in boxes)


def test_a_tile_has_the_residual_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "WHOLE", 64 * 64)
    scales = (0.25, 0.5, 0.75, 0.2)
    grid = grid_of(scales)
    assert grid == 40
    x = torch.randn(1, 3, 200, 240, dtype=torch.float64)
    boxes = tile_boxes(200, 240, grid)
    assert len(boxes) > 4 and Box(0, 0, 200, 240) not in boxes
    for scale in scales:
        whole = npr_residual(x, scale)
        for top, left, height, width in boxes:
            part = x[..., top : top + height, left : left + width]
            assert torch.equal(
                npr_residual(part, scale), whole[..., top : top + height, left : left + width]
            )


def test_large_images_are_scored_in_tiles(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = load_detector(checkpoint, "cpu")
    large = picture(160, 192)
    whole = detector.outputs(large)
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "WHOLE", 64 * 64)
    seen: list[tuple[int, ...]] = []
    run = detector._run

    def noting(pixels: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        seen.append(tuple(pixels.shape[2:]))
        return run(pixels)

    monkeypatch.setattr(detector, "_run", noting)
    outputs = detector.outputs([large, picture()])
    boxes = tile_boxes(160, 192, 8)
    assert len(boxes) == 9 and max(max(size) for size in seen) <= 72
    logits = [plain_logit(checkpoint, large[t : t + h, left : left + w]) for t, left, h, w in boxes]
    areas = [box.height * box.width for box in boxes]
    assert outputs.logits[0] == pytest.approx(np.average(logits, weights=areas), abs=1e-5)
    assert abs(outputs.logits[0] - whole.logits[0]) < 0.1  # borders are padded, so not the same
    assert outputs.logits[1] == pytest.approx(plain_logit(checkpoint, picture()), abs=1e-5)


@pytest.mark.parametrize(
    ("error", "expected"),
    (
        (MemoryError(), NotEnoughMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), NotEnoughMemory),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfGpuMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), OutOfGpuMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfGpuMemory),
        (RuntimeError("GET was unable to find an engine to execute this"), OutOfGpuMemory),
        (RuntimeError("shape mismatch"), RuntimeError),
    ),
)
def test_every_form_of_too_little_memory_is_recognised(
    error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as raised, memory_errors():
        raise error
    assert type(raised.value) is expected
