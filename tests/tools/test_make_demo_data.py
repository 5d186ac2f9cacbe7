"""The demo set: bytes, layout, fitted decoders, detail given back, and what trivial features can
see."""

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evaluation.trivial_features import trivial_feature_auc
from tools.make_demo_data import __main__ as tool
from tools.make_demo_data.dataset import GENERATORS, photographer
from tools.make_demo_data.images import SCENES, photograph, power_law_radii
from tools.make_fakes.upsamplers import (
    OPERATORS,
    fit_autoencoder,
    fit_decoder,
    fit_encoder,
    laplacian_covariance,
    restore_detail,
)
from util import UserError

TINY = {"size": 32, "train": 2, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "set"
    tool.make_demo_data(output, **TINY)
    return output


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    pictures = [photograph((7, index), 32, SCENES[index % len(SCENES)]) for index in range(8)]
    return torch.from_numpy(np.stack(pictures))


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_same_settings_give_same_bytes_and_another_seed_other_images(
    demo: Path, tmp_path: Path
) -> None:
    tool.make_demo_data(tmp_path / "again", **TINY)
    tool.make_demo_data(tmp_path / "other", **TINY, seed=1)
    first, again, other = (digests(path) for path in (demo, tmp_path / "again", tmp_path / "other"))
    assert first == again and first.keys() == other.keys()
    # and no image occurs twice
    assert len({*first.values(), *other.values()}) == 2 * len(first)


def test_worker_processes_take_the_same_photographs() -> None:
    seeds, scenes = [(3, 1, index) for index in range(3)], [0, 1, 0]
    with photographer(1) as alone, photographer(2) as shared:
        assert torch.equal(alone(seeds, 32, scenes), shared(seeds, 32, scenes))


def test_layout_counts_and_format(demo: Path) -> None:
    scenes = [f"{split}/{scene}" for split in ("train", "val") for scene in ("leaves", "stones")]
    folders = [*scenes, *(f"test/{generator}" for generator in GENERATORS)]
    expected = {
        f"{folder}/{label}": TINY[folder.split("/")[0]]
        for folder in folders
        for label in ("0_real", "1_fake")
    }
    files = list(demo.rglob("*.png"))
    assert Counter(str(path.parent.relative_to(demo)) for path in files) == expected
    for path in files:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
    report = json.loads((demo / "demo.json").read_text())
    assert report["settings"]["seed"] == 0 and report["psnr_db"].keys() == GENERATORS.keys()
    assert all(value > 30 for value in report["psnr_db"].values())


def test_radii_follow_the_power_law() -> None:
    radii = power_law_radii(np.random.default_rng(0), 200_000, 2.0, 40.0)
    assert radii.min() >= 2
    assert radii.max() <= 40
    # P(r > t) of the density r^-3 between the limits
    for t in (3.0, 6.0, 20.0):
        assert np.mean(radii > t) == pytest.approx(
            (t**-2 - 40.0**-2) / (2.0**-2 - 40.0**-2), rel=0.05
        )


def test_nearest_decoder_is_a_convolution_after_nearest_enlarging(photographs: Tensor) -> None:
    latents = fit_encoder(photographs, 4)(photographs)
    decoder = fit_decoder(OPERATORS["nearest"], latents, photographs)
    padded = F.pad(latents, (1, 1, 1, 1), mode="replicate")
    enlarged = padded.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(enlarged, decoder.kernel, decoder.bias)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(decoder(latents), expected)


@pytest.mark.parametrize("part", ("kernel", "bias"))
@pytest.mark.parametrize("name", OPERATORS)
def test_no_other_decoder_reconstructs_better(name: str, part: str, photographs: Tensor) -> None:
    """The error is convex in kernel and bias, so no small step from its least value is better."""
    latents = fit_encoder(photographs, 6)(photographs)
    decoder = fit_decoder(OPERATORS[name], latents, photographs)
    best, weights = float((decoder(latents) - photographs).square().mean()), getattr(decoder, part)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        change = 1e-3 * torch.randn(weights.shape, dtype=torch.float64, generator=generator)
        for changed in (weights + change, weights - change):
            other = dataclasses.replace(decoder, **{part: changed})
            assert float((other(latents) - photographs).square().mean()) > best


def test_transposed_decoder_is_a_transposed_convolution(photographs: Tensor) -> None:
    latents = fit_encoder(photographs, 6)(photographs)
    decoder = fit_decoder(OPERATORS["transposed"], latents, photographs)
    kernel = decoder.kernel.flip(2, 3).transpose(0, 1)  # [D, C, 4, 4], as conv_transpose2d wants it
    padded = F.pad(latents, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, kernel, decoder.bias, stride=2, padding=3)
    torch.testing.assert_close(decoder(latents), expected)


def test_decoding_blurs_and_noise_gives_the_laplacian_energy_back(photographs: Tensor) -> None:
    def energy(images: Tensor) -> Tensor:
        return laplacian_covariance(images).diagonal(dim1=1, dim2=2).sum(1)

    many = torch.cat([photographs.roll(shift, 2) for shift in range(4)])
    decoded = fit_autoencoder(OPERATORS["nearest"], photographs, (6,))(many)
    restored = restore_detail(many, decoded, torch.Generator().manual_seed(0))
    assert float((energy(decoded) / energy(many)).mean()) < 0.9
    assert float((energy(restored) / energy(many)).mean()) == pytest.approx(1.0, abs=0.05)


def write_set(folder: Path, fake_brightness: int, count: int = 60) -> None:
    rng = np.random.default_rng(0)
    for label, brightness in (("0_real", 100), ("1_fake", fake_brightness)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            level = brightness + rng.integers(-20, 21)
            pixels = np.clip(level + 10 * rng.standard_normal((16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")


def test_trivial_features_see_brightness_and_nothing_in_equal_distributions(tmp_path: Path) -> None:
    write_set(tmp_path / "bright", 180)
    write_set(tmp_path / "equal", 100)
    assert trivial_feature_auc(tmp_path / "bright") > 0.99
    assert 0.3 < trivial_feature_auc(tmp_path / "equal") < 0.7


def test_trivial_features_of_single_images_are_undefined(tmp_path: Path) -> None:
    write_set(tmp_path, 180, count=1)
    assert np.isnan(trivial_feature_auc(tmp_path))


def test_a_second_run_leaves_every_file_alone(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    flags = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    assert tool.main(["--output", str(demo), *flags]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_foreign_folder_is_refused_and_force_keeps_it_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("fill", "measure"):
        monkeypatch.setattr(tool, step, lambda *_: {})
    output = tmp_path / "set"
    output.mkdir()
    (output / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="--output .*set: holds something else"):
        tool.make_demo_data(output, **TINY)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "thesis.txt"]
    assert tool.make_demo_data(output, **TINY, force=True)["made"]
    assert (tmp_path / "set.old1" / "thesis.txt").read_text() == "precious"
    assert (output / "demo.json").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("name", "value"), [("size", 28), ("seed", -1), ("test", 0)])
def test_numbers_out_of_range_are_named(
    name: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.main([f"--{name}", str(value)])
    assert f"--{name}: {value} is not a whole number" in capsys.readouterr().err
