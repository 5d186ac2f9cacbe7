"""The panel of an image: contributions that add up to its logit, parts of large images."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inference.explain as explaining
from data.transforms import Protocol
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
    path = tmp_path_factory.mktemp("explain") / "model.pth"
    return load_detector(save_model(path, MODELS[request.param], 5), "cpu")


def noise(height: int = 48, width: int = 64) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def sum_in_title(explanation: Explanation) -> tuple[float, float]:
    """Return the logit and bias of the title, which the contributions in the labels connect."""
    sums = r"logit ([+-][\d.]+) = bias ([+-][\d.]+) \+ what the scales add"
    ((logit, bias),) = [map(float, numbers) for numbers in re.findall(sums, explanation.title)]
    labels = sum(round(float(part), 3) for part in explanation.adds)
    assert logit == pytest.approx(bias + labels, abs=0.0025)
    return logit, bias


def test_the_evidence_adds_up_to_the_logit(detector: Detector) -> None:
    image = noise()
    explanation = explain(detector, image, "an image")
    logit = detector.outputs(image).logits[0]
    single = len(detector.scales) == 1
    bias = detector.model.get_parameter(f"{'fc1' if single else 'classifier'}.bias").item()
    means = explanation.evidence.mean(dim=(1, 2))
    assert means.sum().item() + bias == pytest.approx(logit, abs=1e-4)
    assert explanation.exact and torch.equal(explanation.adds, means)
    assert (explanation.attention is None) == single
    assert sum_in_title(explanation) == pytest.approx((logit, bias), abs=6e-4)
    assert explanation.title.startswith("an image; logit") and explanation.box == (0, 0, 48, 64)
    assert torch.equal((explanation.image * 255).round().byte(), detector.pixels(image))


def test_of_a_large_image_the_most_telling_part_is_shown(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "SHOWN", 32)
    image = noise(64, 96)
    explanation = explain(detector, image, "large")
    top, left, height, width = explanation.box
    assert explanation.image.shape == (3, height, width) == (3, 32, 32)
    corners = [(y, x) for y in range(0, 64, 32) for x in range(0, 96, 32)]
    tiles = [image.crop((x, y, x + 32, y + 32)) for y, x in corners]
    outputs, shown = detector.outputs(tiles), corners.index((top, left))
    logit = outputs.logits[shown]
    assert logit == (outputs.logits.max() if outputs.logits.mean() > 0 else outputs.logits.min())
    if outputs.attention_weights is not None:
        assert np.array_equal(explanation.attention, outputs.attention_weights[shown])
    assert f"rows {top}-{top + 31}, columns {left}-{left + 31} of 96x64" in explanation.title
    assert sum_in_title(explanation)[0] == pytest.approx(logit, abs=6e-4)
    normalised = detector.protocol(image)[None]
    for residual, scale in zip(explanation.residuals.values(), detector.scales, strict=True):
        expected = npr_residual(normalised, scale)[0, :, top : top + height, left : left + width]
        assert torch.allclose(residual, expected, atol=1e-6)


@pytest.mark.parametrize("detector", ("multi",), indirect=True)
def test_a_resizing_protocol_is_in_the_title_and_any_name_is_drawn(
    detector: Detector, tmp_path: Path
) -> None:
    protocol = Protocol("small", resize=32)
    explanation = explain(
        Detector(detector.loaded, detector.device, protocol), noise(5, 400), "name\n\udcff$x$"
    )
    assert explanation.image.shape == (3, 32, 32)
    assert "; 400x5 made 32x32 by protocol small; " in explanation.title
    with Image.open(draw(explanation, tmp_path / "folder" / "a.png")) as drawn:
        assert min(drawn.size) > 300


def test_grad_cam_is_not_said_to_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contributions are what the scales add, not the means of the maps."""
    config = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4, backbone="resnet18")
    detector = load_detector(save_model(tmp_path / "model.pth", config), "cpu")
    image = noise(96, 96)
    explanation = explain(detector, image)
    means = explanation.evidence.mean(dim=(1, 2))
    assert not explanation.exact and not torch.allclose(explanation.adds, means, atol=1e-4)
    assert sum_in_title(explanation)[0] == pytest.approx(
        detector.outputs(image).logits[0], abs=6e-4
    )
    assert explanation.title.endswith("; Grad-CAM shows where evidence is, not how much it adds")
    drawn: dict[str, object] = {}
    monkeypatch.setattr("reports.plots.images.plot_npr_maps", lambda *_, **how: drawn.update(how))
    draw(explanation, tmp_path / "a.png")
    assert drawn["adds"] is explanation.adds and drawn["exact"] is False
