"""The cache of decoded images gives exactly what the files give, and survives interruptions."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import namedtuple
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from PIL import Image

import data.cache
from data import create_dataloader, evaluation_loader
from data.cache import PixelCache, estimated_bytes, open_cache
from data.decode import UnreadableImage, read_image
from data.image_sets import list_images
from data.splits import load_set
from data.transforms import Protocol
from options.train_options import TrainOptions
from tests.conftest import make_dataroot, make_set
from util import UserError

SMALL = {"loadSize": 40, "cropSize": 32, "batch_size": 4, "gpu_ids": (), "num_threads": 0}
NATIVE = Protocol("native")


def epoch_of(dataroot: Path, cache: Path | None, epoch: int = 0, **flags: object) -> torch.Tensor:
    """Return all images of an epoch of training."""
    values = SMALL | {"cache": str(cache) if cache else None} | flags
    loader = create_dataloader(TrainOptions(dataroot=str(dataroot), **values))
    loader.sampler.set_epoch(epoch)
    return torch.cat([images for images, _ in loader])


def cached(cache: Path, paths: list[str], protocol: Protocol = NATIVE) -> PixelCache:
    opened = open_cache(cache, paths, protocol)
    assert opened is not None
    return opened


def folders(cache: Path) -> list[Path]:
    """Return the finished caches."""
    return [path for path in cache.iterdir() if path.is_dir() and path.name[0] != "."]


def refuse(path: str) -> Image.Image:
    raise UnreadableImage("Permission denied")


@pytest.mark.parametrize(
    "flags",
    (
        {"data_aug": True},
        {"num_threads": 2},
        {"no_resize": True, "cropSize": 16, "loadSize": None},
        {"no_crop": True, "cropSize": None},
        {"rz_interp": ("nearest",)},
    ),
)
def test_training_sees_the_same_images_and_decodes_once(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict
) -> None:
    plain = epoch_of(dataroot, None, 3, **flags | {"num_threads": 0})
    assert torch.equal(plain, epoch_of(dataroot, tmp_path, 3, **flags))
    monkeypatch.setattr("data.cache.read_image", refuse)
    monkeypatch.setattr("data.datasets.read_image", refuse)
    assert torch.equal(plain, epoch_of(dataroot, tmp_path, 3, **flags))


@pytest.mark.parametrize(
    "protocol",
    (
        NATIVE,
        Protocol("tile", crop=48, tile=True),
        Protocol("crop", crop=42),
        Protocol("resize", resize=20, interpolation=("nearest", "bicubic")),  # takes the first
    ),
)
def test_evaluation_sees_the_same_images_and_problems(tmp_path: Path, protocol: Protocol) -> None:
    make_set(tmp_path / "x", 3, size=40)
    Image.new("RGB", (50, 44), (9, 8, 7)).save(tmp_path / "x" / "0_real" / "other_size.png")
    (tmp_path / "x" / "1_fake" / "bad.png").write_text("no")
    plain, cached = (
        evaluation_loader(load_set(tmp_path / "x"), protocol, 4, cache=cache)
        for cache in (None, str(tmp_path / "cache"))
    )
    for batch, other in zip(plain.batches(), cached.batches(), strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert torch.equal(batch.indices, other.indices)
    assert plain.left_out == cached.left_out != {}
    assert folders(tmp_path / "cache")


def test_random_resizing_is_not_cached(
    dataroot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {"rz_interp": ("nearest", "bicubic")}
    plain = epoch_of(dataroot, None, **flags)
    assert torch.equal(plain, epoch_of(dataroot, tmp_path / "cache", **flags))
    assert not (tmp_path / "cache").exists() and "--cache: not used" in caplog.text


def test_a_changed_file_or_resize_makes_another_cache(tmp_path: Path) -> None:
    root, cache = make_dataroot(tmp_path / "data", count=1), tmp_path / "cache"
    epoch_of(root, cache)
    epoch_of(root, cache, loadSize=36)
    assert len(folders(cache)) == 2
    path = Path(list_images(root / "train")[0])
    Image.new("RGB", (32, 32)).save(path)
    os.utime(path, (1, 1))
    assert torch.equal(epoch_of(root, None), epoch_of(root, cache))
    assert len(folders(cache)) == 3


def test_a_file_that_may_be_read_again_is_no_longer_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list_images(make_set(tmp_path / "x", 1))
    with monkeypatch.context() as forbidden:
        forbidden.setattr("data.cache.os.access", lambda path, mode: path != paths[0])
        forbidden.setattr("data.cache.read_image", refuse)
        assert cached(tmp_path / "cache", paths).problem(0) == "Permission denied"
    assert cached(tmp_path / "cache", paths).problem(0) is None


def build(cache: Path, folder: Path) -> BaseProcess:
    """Start a process that builds the cache of a folder's images, slowly.

    Its exit status is the number of images that can be read.
    """

    def slow(path: str) -> Image.Image:
        time.sleep(0.01)
        return read_image(path)

    def run() -> None:
        data.cache.read_image = slow
        paths = list_images(folder)
        opened = cached(cache, paths)
        sys.exit(sum(opened.problem(number) is None for number in range(len(paths))))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def test_a_killed_build_leaves_nothing_that_is_taken_for_complete(tmp_path: Path) -> None:
    paths = list_images(make_set(tmp_path / "x", 40, size=16))
    Path(paths[1]).write_text("no")
    process = build(tmp_path / "cache", tmp_path / "x")
    while not list((tmp_path / "cache").glob(".*.tmp/pixels.bin")):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not folders(tmp_path / "cache")
    cache = cached(tmp_path / "cache", paths)
    assert [number for number in range(80) if cache.problem(number)] == [1]
    for number in (0, 2, 50, 79):
        assert torch.equal(cache.pixels(number), NATIVE.begin(read_image(paths[number])))
    assert not list((tmp_path / "cache").glob(".*"))


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    make_set(tmp_path / "x", 20, size=16)
    processes = [build(tmp_path / "cache", tmp_path / "x") for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 40
    (pixels,) = (tmp_path / "cache").glob("*/pixels.bin")
    assert pixels.stat().st_size == 40 * 3 * 16 * 16


def test_a_pickle_for_a_worker_holds_no_pixels(tmp_path: Path) -> None:
    cache = cached(tmp_path / "cache", list_images(make_set(tmp_path / "x", 10, size=64)))
    content = pickle.dumps(cache)
    assert len(content) < 1000
    assert torch.equal(pickle.loads(content).pixels(7), cache.pixels(7))


def test_a_disk_too_small_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list_images(make_set(tmp_path / "x", 2, size=64))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("data.cache.shutil.disk_usage", lambda path: usage(100_000, 60_000, 40_000))
    monkeypatch.setattr("data.cache.read_image", lambda path: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"--cache .*0.05 MiB.* 0.04 MiB"):
        open_cache(tmp_path / "cache", paths, NATIVE)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache .*file: cannot be written"):
        open_cache(tmp_path / "file", [], NATIVE)


def test_size_is_estimated_without_waiting_for_a_pipe(tmp_path: Path) -> None:
    paths = list_images(make_set(tmp_path / "x", 3, size=64))
    assert estimated_bytes(paths, Protocol("r", resize=100)) == 6 * 3 * 100 * 100
    os.mkfifo(tmp_path / "x" / "0_real" / "pipe.png")
    assert estimated_bytes(list_images(tmp_path / "x"), NATIVE) == 7 * 3 * 64 * 64
    assert estimated_bytes([], NATIVE) == 0
