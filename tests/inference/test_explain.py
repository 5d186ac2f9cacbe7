"""The panel of one picture: numbers that add up to its logit, parts of large images, any model,
any size."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import inference.explain as explaining
from inference import load_detector
from inference.detector import Detector
from inference.explain import Explanation, draw, explain
from networks import ModelConfig
from networks.npr import npr_residual
from tests.conftest import save_model

MODELS = {
    "multi": ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4),
    "residual": ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4, attention_residual=True),
    "single": ModelConfig("single_scale"),
}


@pytest.fixture(scope="module", params=MODELS)
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return load_detector(
        save_model(tmp_path_factory.mktemp("explain") / "model.pth", MODELS[request.param], 5),
        "cpu",
    )


def picture(height: int = 48, width: int = 64) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def sum_in_title(found: Explanation) -> tuple[float, float]:
    """Logit and bias that the title gives; the labels give the rest."""
    (numbers,) = re.findall(
        r"logit ([+-][\d.]+) = bias ([+-][\d.]+) \+ what the scales add", found.title
    )
    logit, bias = map(float, numbers)
    assert logit == pytest.approx(
        bias + sum(round(float(part), 3) for part in found.adds), abs=0.0025
    )
    return logit, bias


def test_the_evidence_adds_up_to_the_logit(detector: Detector) -> None:
    image = picture()
    found = explain(detector, image, "a picture")
    logit = detector.outputs(image).logits[0]
    last = "fc1" if len(detector.scales) == 1 else "classifier"
    bias = detector.model.get_parameter(f"{last}.bias").item()
    assert found.evidence.mean(dim=(1, 2)).sum().item() + bias == pytest.approx(logit, abs=1e-4)
    assert found.exact and torch.equal(found.adds, found.evidence.mean(dim=(1, 2)))
    assert (found.attention is None) == (len(detector.scales) == 1)
    assert sum_in_title(found) == pytest.approx((logit, bias), abs=6e-4)
    assert found.title.startswith("a picture; logit") and found.box == (0, 0, 48, 64)
    assert torch.equal((found.image * 255).round().byte(), detector.pixels(image))


def test_of_a_large_picture_the_most_telling_part_is_shown(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(explaining, "SHOWN", 32)
    image = picture(96, 128)
    found = explain(detector, image, "large")
    top, left, height, width = found.box
    assert found.image.shape == (3, height, width) and height * width < 96 * 128
    parts = [
        detector.outputs(image.crop((x, y, x + 32, y + 32))).logits[0]
        for y in range(0, 96, 32)
        for x in range(0, 128, 32)
    ]
    chosen = parts[top // 32 * 4 + left // 32]
    assert chosen == pytest.approx(max(parts) if np.mean(parts) > 0 else min(parts), abs=1e-5)
    assert f"rows {top}-{top + 31}, columns {left}-{left + 31} of 128x96" in found.title
    assert sum_in_title(found)[0] == pytest.approx(chosen, abs=6e-4)
    whole = detector.protocol(image)[None]
    for residual, scale in zip(found.residuals.values(), detector.scales, strict=True):
        expected = npr_residual(whole, scale)[0, :, top : top + height, left : left + width]
        assert torch.allclose(residual, expected, atol=1e-6)
    assert Image.open(draw(found, tmp_path / "folder" / "large.png")).width > 500


def test_the_title_says_what_the_protocol_did(detector: Detector) -> None:
    resizing = Detector(
        detector.loaded, detector.device, type(detector.protocol)("small", resize=32)
    )
    found = explain(resizing, picture(), "a")
    assert found.title.startswith(
        "a; 64x48 made 32x32 by protocol small; "
    ) and found.image.shape == (3, 32, 32)


@pytest.mark.parametrize(("height", "width"), ((4, 5), (5, 400), (400, 5)))
def test_any_shape_is_drawn(detector: Detector, tmp_path: Path, height: int, width: int) -> None:
    path = draw(explain(detector, picture(height, width), "name\n\udcff$x$"), tmp_path / "a.png")
    with Image.open(path) as drawn:
        assert min(drawn.size) > 300


def test_grad_cam_is_not_said_to_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are what the scales add, not the means of the maps, and these are called by their
    name."""
    config = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4, backbone="resnet18")
    detector, image = (
        load_detector(save_model(tmp_path / "model.pth", config), "cpu"),
        picture(96, 96),
    )
    found = explain(detector, image)
    assert not found.exact and not torch.allclose(
        found.adds, found.evidence.mean(dim=(1, 2)), atol=1e-4
    )
    assert sum_in_title(found)[0] == pytest.approx(detector.outputs(image).logits[0], abs=6e-4)
    assert found.title.endswith("; Grad-CAM shows where evidence is, not how much it adds")
    shown: dict[str, Any] = {}
    monkeypatch.setattr(
        "reports.plots.images.plot_npr_maps", lambda *args, **more: shown.update(more)
    )
    draw(found, tmp_path / "a.png")
    assert shown["adds"] is found.adds and shown["exact"] is False


def test_too_small(detector: Detector) -> None:
    with pytest.raises(ValueError, match="leave none at scale"):
        explain(detector, picture(1, 40))
