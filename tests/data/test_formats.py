"""Encodings read from headers, against what the files were written with; and how much of the class
they give away."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decode import FileFormat, jpeg_quality, read_format, read_image, read_with_quality
from data.splits import load_set
from evaluation.format_leak import format_leak, is_leak, separability

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("quality", (1, 10, 49, 50, 51, 75, 95, 100))
@pytest.mark.parametrize(("subsampling", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_quality_and_subsampling_are_those_of_the_encoder(
    quality: int, subsampling: int, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"  # the name does not matter
    NOISE.save(path, format="JPEG", quality=quality, subsampling=subsampling)
    encoding = read_format(str(path))
    assert encoding == FileFormat("JPEG", 64, 48, path.stat().st_size, quality, name)
    assert encoding.bytes_per_pixel == pytest.approx(path.stat().st_size / (64 * 48))
    image, read_quality, _ = read_with_quality(str(path))
    assert read_quality == quality and image.tobytes() == read_image(str(path)).tobytes()


def test_quality_is_the_nearest_for_tables_of_another_encoder() -> None:
    buffer = io.BytesIO()
    NOISE.save(buffer, format="JPEG", quality=80)
    table = Image.open(buffer).quantization[0]
    changed = [value + (position % 7 == 0) for position, value in enumerate(table)]
    assert jpeg_quality({0: changed}) in range(76, 82)
    assert jpeg_quality({}) is None


def test_other_formats_have_no_quality(tmp_path: Path) -> None:
    for kind in ("png", "webp", "bmp"):
        path = tmp_path / f"x.{kind}"
        NOISE.save(path)
        assert read_format(str(path)) == FileFormat(kind.upper(), 64, 48, path.stat().st_size)
        assert read_with_quality(str(path))[1] is None
    NOISE.convert("L").save(tmp_path / "grey.jpg")
    assert read_format(str(tmp_path / "grey.jpg")).subsampling == "grey"


def encoded_set(folder: Path, real: dict, fake: dict, count: int = 30, fake_size: int = 32) -> Path:
    rng = np.random.default_rng(1)
    for name, how, size in (("0_real", real, 32), ("1_fake", fake, fake_size)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png", **how)
    return folder


@pytest.mark.parametrize(
    ("real", "fake", "fake_size"),
    [
        ({"format": "JPEG"}, {"format": "PNG"}, 32),
        ({"format": "JPEG", "quality": 95}, {"format": "JPEG", "quality": 90}, 32),
        ({"format": "JPEG", "subsampling": 0}, {"format": "JPEG", "subsampling": 2}, 32),
        ({"format": "PNG"}, {"format": "PNG"}, 33),
    ],
)
def test_each_difference_is_found(real: dict, fake: dict, fake_size: int, tmp_path: Path) -> None:
    leak = format_leak(load_set(encoded_set(tmp_path / "x", real, fake, fake_size=fake_size)))
    assert leak is not None and leak > 0.95


def test_classes_encoded_alike_are_not_told_apart(tmp_path: Path) -> None:
    same = {"format": "JPEG", "quality": 90}
    leak = format_leak(load_set(encoded_set(tmp_path / "x", same, same, count=100)))
    assert leak is not None and abs(leak - 0.5) < 0.12


def test_unreadable_files_and_one_class(tmp_path: Path) -> None:
    folder = encoded_set(tmp_path / "x", {"format": "JPEG"}, {"format": "PNG"})
    (folder / "0_real" / "bad.png").write_text("no image")
    assert format_leak(load_set(folder)) == pytest.approx(1)
    for path in (folder / "1_fake").iterdir():
        path.write_text("no image")
    assert format_leak(load_set(folder)) is None


def test_separability_of_chance_and_of_a_perfect_feature() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    assert separability(rng.normal(size=(400, 3)), labels) == pytest.approx(0.5, abs=0.1)
    assert separability(labels[:, None].astype(float), labels) == 1
    assert separability(np.ones((400, 2)), labels) == 0.5  # nothing to learn from
    assert separability(np.ones((3, 1)), np.array([0, 0, 1])) is None


def test_a_small_set_is_no_leak_by_chance() -> None:
    """With 20 images per class, AUC 0.7 is within three standard errors (Hanley and McNeil) of
    chance; with 200 it is not."""
    auc = 0.7
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = ((auc * (1 - auc) + 19 * (q1 - auc**2 + q2 - auc**2)) / 400) ** 0.5
    assert auc - 3 * error < 0.5
    assert not is_leak(auc, 20, 20) and is_leak(auc, 200, 200)
    assert not is_leak(0.6, 10**6, 10**6) and not is_leak(None, 20, 20)
