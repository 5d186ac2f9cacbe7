"""The detector as a library: images in any form, tiles, calibration, threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import inference.tiles as tiles
from data.decode import UnreadableImage
from device import NotEnoughMemory, OutOfGpuMemory, memory_errors
from evaluation.fitting import suite_protocol
from inference import load_detector
from inference.detector import Detector, NotFinite
from inference.explain import explain
from inference.prediction import NamedImage, predict_images
from inference.tiles import grid_of, tile_boxes
from networks import ModelConfig
from networks.calibration import Calibration
from networks.model_folder import FORMAT, write_model_folder
from networks.npr import npr_residual
from options.test_options import TestOptions
from tests.conftest import save_model
from util import UserError, start_logging

MULTI = ModelConfig("multiscale_attention", (0.25, 0.5, 0.75), 16, 4)
CALIBRATION = Calibration(2.0, 0.4, 0.2, 0.9, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("detector") / "model.pth"
    return load_detector(save_model(path, MULTI, seed=3), "cpu")


def draw(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_logit(detector: Detector, pixels: np.ndarray) -> float:
    """Apply the formulas: scale to [0, 1], ImageNet's mean and deviation, the model."""
    x = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        return float(detector.model(((x - mean) / deviation)[None]))


def test_every_form_of_an_image_scores_alike(detector: Detector, tmp_path: Path) -> None:
    pixels, path = draw(), tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    scores = detector.score(
        [pixels, Image.fromarray(pixels), tensor, tensor / 255, pixels / 255, path, str(path)]
    )
    expected = 1 / (1 + np.exp(-plain_logit(detector, pixels)))
    assert scores.shape == (7,) and np.allclose(scores, expected, atol=1e-6)
    for image in (pixels, tensor, path):
        assert detector.score(image) == pytest.approx([expected], abs=1e-6)
    assert np.allclose(detector.score(torch.stack([tensor, tensor])), expected, atol=1e-6)
    assert detector.score([]).shape == (0,)


def test_the_shipped_detector_is_used_where_none_is_named(
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "pretrained"
    monkeypatch.setattr("networks.run_folder.PRETRAINED", folder)
    with pytest.raises(UserError, match="no shipped detector in .*pretrained; pass a checkpoint"):
        load_detector(device="cpu")
    folder.mkdir()
    config = {"format": FORMAT, "model_config": MULTI.to_dict()}
    write_model_folder(folder, detector.model.state_dict(), config)
    start_logging()
    shipped = load_detector(device="cpu")
    assert "shipped detector" in capsys.readouterr().out
    assert shipped.name == "pretrained" and shipped.score(draw()) == detector.score(draw())


def test_order_stays_whatever_the_sizes_are(detector: Detector) -> None:
    images = [draw(24 + 8 * (i % 3), 32, i) for i in range(6)]
    outputs = detector.outputs(images)
    expected = [plain_logit(detector, image) for image in images]
    assert np.allclose(outputs.logits, expected, atol=1e-5)
    assert outputs.attention_weights is not None
    assert np.allclose(outputs.attention_weights.sum(1), 1, atol=1e-6)


ANY = r"expected a path, PIL's image, an array \[H, W, 3\] or \[H, W\], or a tensor \[3, H, W\]$"


@pytest.mark.parametrize(
    ("images", "error", "message"),
    (
        (None, TypeError, f"^image 0: a NoneType, {ANY}"),
        (b"bytes of a file", TypeError, f"^image 0: a bytes, {ANY}"),
        ([draw(), object()], TypeError, f"^image 1: a object, {ANY}"),
        ([[1, 2, 3]], TypeError, f"^image 0: a list, {ANY}"),
        ("nowhere.png", UnreadableImage, "^image 0: nowhere.png: No such file or directory$"),
        ("with a \0", UnreadableImage, "^image 0: with a \0: .*null"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"^image 0: an array of shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"shape \(0, 4, 3\), expected \[H, W, 3\]"),
        (np.array(9), ValueError, r"shape \(\), expected \[H, W, 3\] or \[H, W\]$"),
        (np.zeros((1, 1, 9, 9, 3)), ValueError, r"^image 0: an array of shape \(1, 9, 9, 3\)"),
        (np.full((9, 9, 3), 2.0), ValueError, r"outside \[0, 1\]"),
        (np.full((9, 9, 3), np.nan), ValueError, r"outside \[0, 1\]"),
        (np.zeros((9, 9, 3), bool), TypeError, "type bool, expected uint8 or floating point"),
        (torch.zeros(9, 9), ValueError, r"a tensor of shape \(9, 9\), expected \[3, H, W\]"),
        (torch.zeros(3, 9, 9, dtype=torch.int32), TypeError, "type int32, expected uint8"),
        (np.zeros((2, 9, 3), np.uint8), ValueError, "9x2 pixels leave none at scale 0.25"),
        (Image.fromarray(np.zeros((9, 9), np.float32)), UnreadableImage, "floating-point"),
    ),
)
def test_what_is_not_an_image_is_an_error_that_says_what_is(
    detector: Detector, images: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        detector.score(images)


def test_an_open_image_is_taken_as_its_file_is(detector: Detector, tmp_path: Path) -> None:
    deep = Image.fromarray((draw()[..., 0].astype(np.uint16) << 8) + 7)
    deep.save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        assert detector.score([opened]) == detector.score(tmp_path / "deep.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "deep.png").read_bytes()[:2000])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(UnreadableImage, match="image 1: damaged"),
    ):
        detector.score([draw(), opened])


def save_calibrated(path: Path, **changes: Any) -> Path:
    return save_model(path, MULTI, seed=3, calibration=CALIBRATION.to_dict() | changes)


def test_calibration_is_used_with_its_protocol_only(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="holds no calibration"):
        detector.probability(draw())
    path = save_calibrated(tmp_path / "c.pth")
    expected = 1 / (1 + np.exp(-plain_logit(detector, draw()) / 2))
    assert load_detector(path, "cpu").probability(draw()) == pytest.approx([expected], abs=1e-6)
    assert load_detector(path, "cpu", protocol="resize256").calibration is None
    assert "native v1" in caplog.text and "resize256 v1" in caplog.text


def test_a_calibrated_checkpoint_scores_as_it_was_calibrated(
    detector: Detector, tmp_path: Path
) -> None:
    image = Image.fromarray(draw(41, 52))
    larger = image.resize((65, 51), Image.Resampling.BILINEAR)
    enlarged = load_detector(save_calibrated(tmp_path / "c.pth", protocol="enlarged v1"), "cpu")
    assert enlarged.calibration is not None
    assert enlarged.score(image) == pytest.approx(detector.score(larger), abs=1e-6)
    assert enlarged.score(image) != pytest.approx(detector.score(image), abs=1e-4)
    opt = TestOptions(model_path=("x",))
    assert suite_protocol(enlarged.loaded, "", opt) == enlarged.protocol
    assert suite_protocol(enlarged.loaded, "ForenSynths", opt).name == "resize256"
    unknown = load_detector(save_calibrated(tmp_path / "u.pth", protocol="mine v3"), "cpu")
    assert unknown.protocol.name == "native" and unknown.calibration is None


@pytest.mark.parametrize(
    ("lower", "upper", "rule"),
    (
        (0.2, 0.9, '"generated" from 0.900 on, "real" up to 0.200, "unsure" between'),
        (-0.1, 1.1, 'never "generated", never "real", "unsure" between'),
        (0.5, 0.5, '"generated" from 0.500 on, "real" up to 0.500'),
    ),
)
def test_rule_and_verdicts_of_a_calibration(lower: float, upper: float, rule: str) -> None:
    values = CALIBRATION.to_dict() | {"lower": lower, "upper": upper}
    calibration = Calibration.from_dict(values)
    assert calibration.rule == rule
    for probability in (0.0, 0.2, 0.21, 0.5, 0.89, 0.9, 1.0):
        expected = "unsure"
        if probability >= upper:
            expected = "generated"
        elif probability <= lower:
            expected = "real"
        assert calibration.verdict(probability) == expected


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
def test_made_up_calibration_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="its calibration is not valid"):
        load_detector(save_calibrated(tmp_path / "c.pth", **change), "cpu")


def test_threads_take_turns(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [draw(seed=i) for i in range(4)]
    expected = [detector.score(image) for image in images]
    running, forward = threading.Lock(), detector.model.forward

    def alone(*arguments: Any, **how: Any) -> Any:
        assert running.acquire(blocking=False)
        time.sleep(0.02)  # lets the others in, if they can come
        outputs = forward(*arguments, **how)
        running.release()
        return outputs

    monkeypatch.setattr(detector.model, "forward", alone)
    with ThreadPoolExecutor(len(images) + 1) as pool:
        explanation = pool.submit(explain, detector, Image.fromarray(images[0]))
        assert list(pool.map(detector.score, images)) == expected
        assert explanation.result().attention is not None


def test_a_logit_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    detector = load_detector(save_model(tmp_path / "model.pth", MULTI, seed=3), "cpu")
    with torch.no_grad():
        detector.model.classifier.weight.fill_(3e38)
    with pytest.raises(NotFinite, match="image 0: .*not finite"):
        detector.score([draw(), draw(seed=1)])
    with pytest.raises(NotFinite, match="b.png: .*not finite"):
        predict_images(detector, [NamedImage("b.png", Image.fromarray(draw()))])


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 24, 40]))
def test_tiles_cover_every_pixel_once(height: int, width: int, grid: int) -> None:
    boxes = tile_boxes(height, width, grid)
    assert all(box.top % grid == box.left % grid == 0 for box in boxes)
    rows, columns = (
        {(box.top, box.height) for box in boxes},
        {(box.left, box.width) for box in boxes},
    )
    # a table of rows and columns, each of which covers its side
    assert len(boxes) == len(set(boxes)) == len(rows) * len(columns)
    for spans, length in ((rows, height), (columns, width)):
        covered = [pixel for start, size in sorted(spans) for pixel in range(start, start + size)]
        assert covered == list(range(length))
    if height * width > tiles.WHOLE:
        assert all(box.height * box.width <= (tiles.TILE + grid) ** 2 for box in boxes)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "WHOLE", 64 * 64)


def test_a_tile_has_the_residual_of_the_image(small_tiles: None) -> None:
    scales = (0.25, 0.5, 0.75, 0.2)
    assert grid_of(scales) == 40
    x = torch.randn(1, 3, 200, 240, dtype=torch.float64)
    boxes = tile_boxes(200, 240, 40)
    assert len(boxes) > 4
    for scale in scales:
        residual = npr_residual(x, scale)
        for top, left, height, width in boxes:
            rows, columns = slice(top, top + height), slice(left, left + width)
            tile = npr_residual(x[..., rows, columns], scale)
            assert torch.equal(tile, residual[..., rows, columns])


def test_large_images_are_scored_in_tiles(
    detector: Detector, small_tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, sizes, run = draw(160, 192), [], detector._run

    def record(pixels: Tensor) -> Any:
        sizes.append(max(pixels.shape[2:]))
        return run(pixels)

    monkeypatch.setattr(detector, "_run", record)
    logits = detector.outputs([large, draw()]).logits
    boxes = tile_boxes(160, 192, 8)
    assert len(boxes) == 9 and max(sizes) <= 72
    parts = [plain_logit(detector, large[t : t + h, x : x + w]) for t, x, h, w in boxes]
    mean = np.average(parts, weights=[box.height * box.width for box in boxes])
    assert logits == pytest.approx([mean, plain_logit(detector, draw())], abs=1e-5)
    # borders are padded, so not the same
    assert logits[0] == pytest.approx(plain_logit(detector, large), abs=0.1)


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


def test_another_detector_leaves_the_precision_of_the_first(
    detector: Detector, tmp_path: Path
) -> None:
    """TensorFloat-32 is a setting of the whole process."""
    settings: list[bool] = []
    hook = detector.model.register_forward_hook(
        lambda *_: settings.append(torch.backends.cudnn.allow_tf32)
    )
    before = torch.backends.cudnn.allow_tf32
    other = load_detector(save_model(tmp_path / "other.pth", MULTI), "cpu", precision="bf16")
    for one in (detector, other, detector):
        one.score(draw())
    hook.remove()
    assert settings == [False, False] and torch.backends.cudnn.allow_tf32 == before
