"""Degradations against Pillow and SciPy used by hand; images that come once per variant."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from data import evaluation_loader
from data.decode import read_image
from data.degradations import EXAMPLES, NOTHING, ROBUSTNESS, parse_degradation, robustness_grid
from data.splits import load_set
from data.transforms import Protocol
from tests.conftest import make_set

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def degraded(text: str, image: Image.Image = NOISE, seed: int = 0) -> Image.Image:
    return parse_degradation(text)(image, np.random.default_rng(seed))


def encoded(image: Image.Image, **how: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clean", NOISE),
        ("jpeg:75", encoded(NOISE, format="JPEG", quality=75)),
        ("webp:50", encoded(NOISE, format="WEBP", quality=50)),
        ("resize:0.5:bilinear", NOISE.resize((30, 20), Image.Resampling.BILINEAR)),
        ("resize:1.25:bicubic", NOISE.resize((75, 50), Image.Resampling.BICUBIC)),
        ("crop:0.5", NOISE.crop((15, 10, 45, 30))),
        ("noise:0", NOISE),
        (
            "resize:0.75:bilinear+jpeg:75",
            encoded(NOISE.resize((45, 30), Image.Resampling.BILINEAR), format="JPEG", quality=75),
        ),
        (
            "jpeg:90+jpeg:75",
            encoded(encoded(NOISE, format="JPEG", quality=90), format="JPEG", quality=75),
        ),
    ],
)
def test_is_what_the_library_does(text: str, expected: Image.Image) -> None:
    assert np.array_equal(np.asarray(degraded(text)), np.asarray(expected))


def test_blur_is_scipys_on_each_channel() -> None:
    expected = [gaussian_filter(np.asarray(NOISE, np.float32)[:, :, c], 1.0) for c in range(3)]
    assert np.abs(np.asarray(degraded("blur:1"), float) - np.stack(expected, axis=2)).max() <= 0.51


def test_noise_has_its_standard_deviation_and_follows_the_generator() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    first, again, other = (np.asarray(degraded("noise:5", grey, seed), float) for seed in (1, 1, 2))
    assert first.std() == pytest.approx(5, rel=0.02)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gif:3", "'gif:3' is not a degradation.*jpeg:75"),
        ("jpeg", "write it as jpeg:75"),
        ("jpeg:0", "write it as jpeg:75.*not between 1 and 100"),
        ("jpeg:x", "write it as jpeg:75"),
        ("jpeg:1:2", "write it as jpeg:75"),
        ("resize:0.5", "write it as resize:0.5:bilinear"),
        ("resize:0.5:cubic", "write it as resize:0.5:bilinear"),
        ("blur:-1", "not between"),
        ("jpeg:75+", "is not a degradation"),
        ("blur:nan", "not between"),
    ],
)
def test_mistakes_say_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_degradation(text)


def test_grid_begins_clean_and_has_each_condition_once() -> None:
    names = [degradation.name for degradation in robustness_grid()]
    assert names[0] == "clean" and len(set(names)) == len(names)
    steps = ["blur:0.5", "blur:1", "blur:2", *(f"jpeg:{quality}" for quality in (95, 90, 75, 50))]
    steps += [f"resize:{f}:{i}" for f in ("0.5", "0.75", "1.25") for i in ("bilinear", "bicubic")]
    assert set(steps) <= set(names)
    assert all(parse_degradation(example) for example in EXAMPLES)
    assert all("clean" in family.values() for family in ROBUSTNESS.values())


def test_equalising_comes_first_and_keeps_the_conditions_name() -> None:
    both = parse_degradation("jpeg:90").then(parse_degradation("blur:1"))
    expected = degraded("blur:1", degraded("jpeg:90"))
    assert both.name == "blur:1"
    assert np.array_equal(np.asarray(both(NOISE, np.random.default_rng(0))), np.asarray(expected))


def variants(
    folder: Path, batch_size: int, workers: int = 0
) -> tuple[dict[tuple[int, int], torch.Tensor], list[dict[str, str]]]:
    """Return images by (file, variant), and the skipped files of each variant."""
    conditions = [NOTHING, parse_degradation("resize:0.5:bilinear"), parse_degradation("noise:3")]
    loader = evaluation_loader(
        load_set(folder), Protocol("p", crop=20), batch_size, workers, conditions
    )
    images = {}
    for batch in loader.batches():
        assert len(batch.pixels) <= max(batch_size, len(conditions))
        keys = zip(batch.indices.tolist(), batch.variants.tolist(), strict=True)
        images |= dict(zip(keys, batch.pixels, strict=True))
    return images, loader.left_out_of


def test_every_file_is_decoded_once_and_comes_once_per_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(tmp_path, 3, size=40)
    for name in ("0_real", "1_fake"):
        Image.new("RGB", (24, 24), (128, 128, 128)).save(tmp_path / name / "000.png")
    opened: list[str] = []
    monkeypatch.setattr(
        "data.datasets.read_image", lambda path: opened.append(path) or read_image(path)
    )
    images, _ = variants(tmp_path, batch_size=8)
    assert len(opened) == len(set(opened)) == 6
    # the grey images of 24x24 pixels are too small for the crop of 20 at half their size
    assert set(images) == {(i, v) for i in range(6) for v in range(3)} - {(0, 1), (3, 1)}
    # noise differs between files of the same pixels
    assert torch.equal(images[0, 0], images[3, 0]) and not torch.equal(images[0, 2], images[3, 2])
    for batch_size, workers in ((1, 0), (4, 2)):
        others, _ = variants(tmp_path, batch_size, workers)
        assert all(torch.equal(images[key], others[key]) for key in images)


def test_an_image_too_small_for_one_variant_is_skipped_in_that_only(tmp_path: Path) -> None:
    make_set(tmp_path, 1, size=40)
    small, text = tmp_path / "0_real" / "small.png", tmp_path / "0_real" / "text.png"
    Image.new("RGB", (24, 24)).save(small)
    text.write_text("no")
    _, skipped = variants(tmp_path, batch_size=8)
    expected = [{str(text)}, {str(text), str(small)}, {str(text)}]
    assert [set(files) for files in skipped] == expected
