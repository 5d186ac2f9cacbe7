"""The prediction for one image, and its warnings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decode import read_image
from data.protocols import EVALUATION_PROTOCOLS
from inference import load_detector
from inference.detector import Detector
from inference.prediction import NamedImage, decide, image_warnings, predict_images
from networks import ModelConfig
from networks.calibration import Calibration
from tests.conftest import save_model

CONFIG = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("prediction") / "model.pth"
    return load_detector(save_model(path, CONFIG, seed=4), "cpu")


def draw(height: int, width: int, quality: int | None = None) -> NamedImage:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return NamedImage(f"{height}x{width}", Image.fromarray(pixels), quality)


def test_predictions_are_those_of_the_detector(detector: Detector, tmp_path: Path) -> None:
    images = [draw(40, 48), draw(130, 140)]
    outputs = detector.outputs([image.image for image in images])
    assert outputs.attention_weights is not None
    band = Calibration(2.0, 0.5, 0.0, 1.0, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")
    path = save_model(tmp_path / "c.pth", CONFIG, seed=4, calibration=band.to_dict())
    calibrated = predict_images(load_detector(path, "cpu"), images)
    for prediction, unsure, logit, weights in zip(
        predict_images(detector, images),
        calibrated,
        outputs.logits,
        outputs.attention_weights,
        strict=True,
    ):
        assert prediction.logit == pytest.approx(logit, abs=1e-5)
        assert prediction.score == pytest.approx(1 / (1 + np.exp(-logit)))
        assert (prediction.verdict == "generated") == (logit > 0) and not prediction.calibrated
        assert prediction.attention == pytest.approx(weights, abs=1e-5)
        assert prediction.top_scale == CONFIG.scales[weights.argmax()]
        assert unsure.calibrated and unsure.verdict == "unsure"
        assert unsure.probability == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-5)
    assert decide(detector, 0.0) == (0.5, 0.5, "real")


@pytest.mark.parametrize(("larger", "protocol"), ((True, "native"), (False, "enlarged")))
def test_images_larger_than_the_calibration_show_their_tiles(
    larger: bool, protocol: str, tmp_path: Path
) -> None:
    detector = load_detector(save_model(tmp_path / "m.pth", CONFIG, seed=4), "cpu", protocol)
    # sides 64 and 128: tiles of 32 x 32 cover them exactly
    image, small = draw(64, 128), draw(24, 32)
    pixels = np.asarray(image.image)
    tiles = [pixels[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32, 64, 96)]
    logits = detector.outputs(tiles).logits
    threshold = float(1 / (1 + np.exp(-np.sort(logits)[2:4].mean())))  # five of eight lie above
    band = Calibration(1.0, threshold, 0.0, 0.0, 0.05, 0.1, 0.02, 30, 30, "val", f"{protocol} v1")
    band = replace(band, side=32, larger=larger)
    path = save_model(tmp_path / "c.pth", CONFIG, seed=4, calibration=band.to_dict())
    beyond, inside = predict_images(load_detector(path, "cpu"), [image, small])
    assert beyond.tiles_above == pytest.approx(5 / 8)
    assert any("62 % of 8 tiles above" in warning for warning in beyond.warnings)
    assert beyond.verdict == ("generated" if larger else "unsure")
    assert inside.tiles_above is None and inside.verdict == "generated"
    assert not any("tiles" in warning for warning in inside.warnings)


@pytest.mark.parametrize(
    ("protocol", "image", "expected"),
    (
        ("native", draw(128, 500, 70), []),
        ("native", draw(127, 500), ["small"]),
        ("native", draw(200, 200, 69), ["JPEG quality about 69"]),
        ("resize256", draw(256, 256), []),
        ("resize256", draw(256, 300), ["resized from 300x256 to 256x256"]),
        ("crop224", draw(256, 256), ["central 224x224"]),
        ("crop224", draw(300, 300), ["resized", "central 224x224"]),
        ("genimage-tile", draw(224, 224), []),
        ("genimage-tile", draw(224, 300), ["central 224x224"]),
        ("genimage-tile", draw(200, 300), ["repeated until it covers 224x224"]),
    ),
)
def test_warnings(
    detector: Detector, protocol: str, image: NamedImage, expected: list[str]
) -> None:
    protocol_of_detector = EVALUATION_PROTOCOLS[protocol]
    warnings = image_warnings(
        Detector(detector.loaded, detector.device, protocol_of_detector), image
    )
    assert len(warnings) == len(expected)
    assert all(part in text for part, text in zip(expected, warnings, strict=True))


NOISE = draw(140, 150).image
GREY = "grey: no colour in it"


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    (
        (NOISE, "JPEG", None),
        (NOISE.convert("L"), "JPEG", GREY),
        (NOISE.convert("L").convert("RGB"), "JPEG", GREY),  # saved again in colour
        (NOISE.convert("LA"), "PNG", GREY),
        (Image.fromarray(np.asarray(NOISE)[..., 0].astype(np.uint16) * 256), "PNG", GREY),
        (NOISE.quantize(7), "GIF", "few colours: 7"),
        (NOISE.quantize(256).convert("RGB"), "PNG", "few colours: 256"),
        (NOISE.resize((16, 16)), "PNG", None),  # has no more pixels than that
        (NOISE.resize((16, 16)).convert("L"), "PNG", GREY),
    ),
)
def test_grey_images_and_palettes_are_told(
    detector: Detector, tmp_path: Path, image: Image.Image, kind: str, expected: str | None
) -> None:
    image.save(tmp_path / "image", kind)
    read = read_image(str(tmp_path / "image"))
    small = ["small: 16x16 pixels"] if read.size == (16, 16) else []
    warnings = image_warnings(detector, NamedImage("image", read))
    assert warnings == [*small, *([expected] if expected else [])]
