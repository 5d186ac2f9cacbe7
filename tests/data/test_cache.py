"""The cache of decoded pictures gives exactly what the files give, and survives what can happen to
it."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import namedtuple
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.cache
from data import create_dataloader, evaluation_loader
from data.cache import PixelCache, estimated_bytes, open_cache
from data.decode import UnreadableImage, read_image
from data.image_sets import list_images
from data.layouts import load_set
from data.transforms import Augmentation, Protocol
from options.train_options import TrainOptions
from tests.conftest import make_dataroot, make_set
from util import UserError

SMALL = {"loadSize": 40, "cropSize": 32, "batch_size": 4, "gpu_ids": ()}


def everything(
    dataroot: Path, cache: Path | None, epoch: int = 0, **values: object
) -> tuple[torch.Tensor, torch.Tensor]:
    opt = TrainOptions(
        dataroot=str(dataroot),
        cache=str(cache) if cache else None,
        **(SMALL | {"num_threads": 0} | values),
    )
    loader = create_dataloader(opt)
    loader.sampler.set_epoch(epoch)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_threads": 2},
        {"data_aug": True},
        {"no_resize": True, "cropSize": 16, "loadSize": None},
        {"no_crop": True, "cropSize": None},
        {"rz_interp": ("nearest",)},
    ],
)
def test_training_sees_exactly_the_same(dataroot: Path, tmp_path: Path, values: dict) -> None:
    for epoch in (0, 3):
        for plain, cached in zip(
            everything(dataroot, None, epoch, **values),
            everything(dataroot, tmp_path, epoch, **values),
            strict=True,
        ):
            assert torch.equal(plain, cached)


def test_evaluation_sees_exactly_the_same(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 3, size=40)
    Image.new("RGB", (50, 44), (9, 8, 7)).save(tmp_path / "x" / "0_real" / "other_size.png")
    (tmp_path / "x" / "1_fake" / "bad.png").write_text("no")
    for protocol in (
        Protocol("native"),
        Protocol("tile", crop=48, tile=True),
        Protocol("crop", crop=42),
        Protocol("r", resize=20),
    ):
        found = []
        for cache in (None, str(tmp_path / "cache")):
            loader = evaluation_loader(load_set(tmp_path / "x"), protocol, 4, cache=cache)
            pictures = [(batch.pixels, batch.indices) for batch in loader.batches()]
            found.append((pictures, loader.left_out))
        assert found[0][1] == found[1][1] and len(found[0][1]) >= 1
        for plain, cached in zip(found[0][0], found[1][0], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(plain, cached, strict=True))


def test_files_are_decoded_once(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(dataroot, tmp_path)
    monkeypatch.setattr(
        "data.cache.read_image", lambda path: pytest.fail(f"{path} is decoded again")
    )
    monkeypatch.setattr(
        "data.datasets.read_image", lambda path: pytest.fail(f"{path} is decoded again")
    )
    everything(dataroot, tmp_path, epoch=1)


def folders(cache: Path) -> list[Path]:
    """Finished caches."""
    return [path for path in cache.iterdir() if path.is_dir() and path.name[0] != "."]


def test_a_changed_file_or_resize_makes_another_cache(tmp_path: Path) -> None:
    root = make_dataroot(tmp_path / "data", count=2)
    everything(root, tmp_path / "cache")
    everything(root, tmp_path / "cache", loadSize=36)
    assert len(folders(tmp_path / "cache")) == 2
    path = Path(list_images(root / "train")[0])
    Image.new("RGB", (32, 32)).save(path)
    os.utime(path, (1, 1))
    for plain, cached in zip(
        everything(root, None), everything(root, tmp_path / "cache"), strict=True
    ):
        assert torch.equal(plain, cached)
    assert len(folders(tmp_path / "cache")) == 3


def test_a_file_that_may_be_read_again_is_no_longer_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list_images(make_set(tmp_path / "x", 1))
    with monkeypatch.context() as forbidden:
        forbidden.setattr("data.cache.os.access", lambda path, mode: path != paths[0])
        forbidden.setattr("data.cache.read_image", _forbidden)
        cache = open_cache(tmp_path / "cache", paths, Protocol("native"))
    assert cache is not None and cache.problem(0) == "Permission denied"
    cache = open_cache(tmp_path / "cache", paths, Protocol("native"))
    assert cache is not None and cache.problem(0) is None


def _forbidden(path: str) -> Image.Image:
    raise UnreadableImage("Permission denied")


def test_a_pipe_does_not_keep_the_estimate_waiting(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 1, size=64)
    os.mkfifo(tmp_path / "x" / "0_real" / "pipe.png")
    assert estimated_bytes(list_images(tmp_path / "x"), Protocol("native")) == 3 * 3 * 64 * 64


def test_random_resizing_is_not_cached(
    dataroot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, cached = (
        everything(dataroot, c, rz_interp=("nearest", "bicubic"))[0]
        for c in (None, tmp_path / "cache")
    )
    assert torch.equal(plain, cached) and not (tmp_path / "cache").exists()
    assert "--cache: not used" in caplog.text
    # evaluation takes the first
    assert Protocol("x", resize=8, interpolation=("nearest", "bicubic")).begins_alike
    assert not Protocol(
        "x", resize=8, interpolation=("nearest", "bicubic"), augment=Augmentation()
    ).begins_alike


def build(cache: Path, folder: Path) -> BaseProcess:
    """Start a process that builds the cache of a folder's images, slowly.

    Its exit status is the number of images that can be read.
    """

    def slow(path: str) -> Image.Image:
        time.sleep(0.01)
        return read_image(path)

    def run() -> None:
        data.cache.read_image = slow
        found = open_cache(cache, list_images(folder), Protocol("native"))
        assert found is not None
        sys.exit(sum(found.problem(number) is None for number in range(len(list_images(folder)))))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def test_a_killed_building_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 40, size=16)
    paths = list_images(tmp_path / "x")
    (tmp_path / "x" / "0_real" / "001.png").write_text("no")
    process = build(tmp_path / "cache", tmp_path / "x")
    while not list((tmp_path / "cache").glob(".*.tmp/pixels.bin")):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not folders(tmp_path / "cache")
    cache = open_cache(tmp_path / "cache", paths, Protocol("native"))
    assert cache is not None and [n for n in range(80) if cache.problem(n)] == [1]
    for number in (0, 2, 50, 79):
        expected = np.asarray(Image.open(paths[number])).transpose(2, 0, 1)
        assert np.array_equal(cache.pixels(number).numpy(), expected)
    assert not list((tmp_path / "cache").glob(".*"))


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 20, size=16)
    both = [build(tmp_path / "cache", tmp_path / "x") for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 40
    (pixels,) = (tmp_path / "cache").glob("*/pixels.bin")
    assert pixels.stat().st_size == 40 * 3 * 16 * 16


def test_a_worker_maps_the_file_and_copies_nothing(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 50, size=64)
    cache = open_cache(tmp_path / "cache", list_images(tmp_path / "x"), Protocol("native"))
    assert cache is not None and len(pickle.dumps(cache)) < 1000
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.map(_sum, [cache]) == [int(cache.pixels(7).sum())]


def _sum(cache: PixelCache) -> int:
    return int(cache.pixels(7).sum())


def test_a_disk_too_small_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(tmp_path / "x", 2, size=64)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("data.cache.shutil.disk_usage", lambda path: usage(100_000, 60_000, 40_000))
    monkeypatch.setattr("data.cache.read_image", lambda path: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"--cache .*0.05 MiB.* 0.04 MiB"):
        open_cache(tmp_path / "cache", list_images(tmp_path / "x"), Protocol("native"))


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache .*file: cannot be written"):
        open_cache(tmp_path / "file", [], Protocol("native"))


def test_size_is_estimated(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 3, size=64)
    paths = list_images(tmp_path / "x")
    assert estimated_bytes(paths, Protocol("native")) == 6 * 3 * 64 * 64
    assert estimated_bytes(paths, Protocol("r", resize=100)) == 6 * 3 * 100 * 100
    assert estimated_bytes([], Protocol("native")) == 0


@pytest.mark.slow
def test_two_hundred_thousand_files_start_quickly(tmp_path: Path) -> None:
    # a file system allows some ten thousand names of one file
    folder = make_set(tmp_path / "x", 10, size=8)
    for number in range(100_000):
        for name in ("0_real", "1_fake"):
            os.link(folder / name / f"{number % 10:03d}.png", folder / name / f"{number:06d}_.png")
    images = load_set(folder)
    cache = open_cache(tmp_path / "cache", images.paths, Protocol("native"), threads=2)
    assert cache is not None
    started = time.perf_counter()
    images = load_set(folder)
    assert open_cache(tmp_path / "cache", images.paths, Protocol("native")) is not None
    elapsed = time.perf_counter() - started
    print(f"{len(images.paths)} files: listed and opened in {elapsed:.2f} s")
    assert elapsed < 3
