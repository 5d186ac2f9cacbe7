"""The prediction for one image, and its warnings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.decode import read_image
from data.protocols import EVALUATION_PROTOCOLS
from inference import load_detector
from inference.detector import Detector
from inference.prediction import NamedImage, few_colours, image_warnings, predict_images
from networks import ModelConfig
from networks.calibration import Calibration
from networks.checkpoint_file import save_checkpoint
from tests.conftest import save_model

CONFIG = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("prediction") / "model.pth", CONFIG, seed=4)


def picture(height: int, width: int, quality: int | None = None) -> NamedImage:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return NamedImage(f"{height}x{width}", Image.fromarray(pixels), quality)


def test_predictions_are_those_of_the_detector(checkpoint: Path, tmp_path: Path) -> None:
    images = [picture(40, 48), picture(130, 140)]
    plain, outputs = (
        load_detector(checkpoint, "cpu"),
        load_detector(checkpoint, "cpu").outputs([p.image for p in images]),
    )
    assert outputs.attention_weights is not None
    for one, logit, weights in zip(
        predict_images(plain, images), outputs.logits, outputs.attention_weights, strict=True
    ):
        assert one.logit == pytest.approx(logit, abs=1e-5) and one.score == pytest.approx(
            1 / (1 + np.exp(-logit))
        )
        assert (one.verdict == "generated") == (logit > 0) and not one.calibrated
        assert one.attention == pytest.approx(weights, abs=1e-5)
        assert one.top_scale == CONFIG.scales[weights.argmax()]
    band = Calibration(2.0, 0.5, 0.0, 1.0, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")
    save_checkpoint(tmp_path / "c.pth", torch.load(checkpoint) | {"calibration": band.to_dict()})
    for one, logit in zip(
        predict_images(load_detector(tmp_path / "c.pth", "cpu"), images),
        outputs.logits,
        strict=True,
    ):
        assert one.calibrated and one.verdict == "unsure"
        assert one.probability == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-5)


@pytest.mark.parametrize(
    ("protocol", "given", "expected"),
    (
        ("native", picture(128, 500, 70), []),
        ("native", picture(127, 500), ["small"]),
        ("native", picture(200, 200, 69), ["JPEG quality about 69"]),
        ("resize256", picture(256, 256), []),
        ("resize256", picture(256, 300), ["resized from 300x256 to 256x256"]),
        ("crop224", picture(256, 256), ["central 224x224"]),
        ("crop224", picture(300, 300), ["resized", "central 224x224"]),
        ("genimage-tile", picture(224, 224), []),
        ("genimage-tile", picture(224, 300), ["central 224x224"]),
        ("genimage-tile", picture(200, 300), ["repeated until it covers 224x224"]),
    ),
)
def test_reservations(
    checkpoint: Path, protocol: str, given: NamedImage, expected: list[str]
) -> None:
    loaded = load_detector(checkpoint, "cpu").loaded
    found = image_warnings(
        Detector(loaded, torch.device("cpu"), EVALUATION_PROTOCOLS[protocol]), given
    )
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True)), found


NOISE = picture(140, 150).image
GREY = "grey: no colour in it"


@pytest.mark.parametrize(
    ("made", "kind", "expected"),
    (
        (NOISE, "PNG", None),
        (NOISE, "JPEG", None),
        (NOISE.convert("L"), "JPEG", GREY),
        (NOISE.convert("L").convert("RGB"), "JPEG", GREY),  # saved again in colour
        (NOISE.convert("LA"), "PNG", GREY),
        (NOISE.convert("1"), "PNG", GREY),
        (Image.fromarray(np.asarray(NOISE)[..., 0].astype(np.uint16) * 256), "PNG", GREY),
        (NOISE.quantize(7), "PNG", "few colours: 7"),
        (NOISE.quantize(7), "GIF", "few colours: 7"),
        (NOISE.quantize(256).convert("RGB"), "PNG", "few colours: 256"),
        (NOISE.resize((16, 16)), "PNG", None),  # has no more pixels than that
        (NOISE.resize((16, 16)).convert("L"), "PNG", GREY),
    ),
)
def test_grey_images_and_palettes_are_told(
    checkpoint: Path, tmp_path: Path, made: Image.Image, kind: str, expected: str | None
) -> None:
    made.save(tmp_path / "picture", kind)
    image = read_image(str(tmp_path / "picture"))
    assert few_colours(image) == expected
    small = ["small: 16x16 pixels"] if image.size == (16, 16) else []
    warnings = image_warnings(load_detector(checkpoint, "cpu"), NamedImage("picture", image))
    assert warnings == [*small, *([expected] if expected else [])]
