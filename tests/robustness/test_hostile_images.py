"""Image files of every kind that a dataset may hold, sound and hostile: what docs/files.md says
becomes of them."""

import contextlib
import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
import train
import visualize_attention
from data import evaluation_loader
from data.decode import UnreadableImage, read_format, read_image
from data.layouts import find_sets
from data.loader import ImageLoader
from data.splits import load_set
from data.transforms import Protocol
from evaluation.names import unescaped
from tests.conftest import REPOSITORY, TINY, make_dataroot, make_set
from tests.robustness.image_files import (
    IMAGE_FILES,
    NOISE,
    WIDE,
    encoded,
    png,
    png_chunk,
    tiff,
)
from tests.robustness.isolation import File, IsolatedReader
from tools import recompute
from tools.check_dataset import __main__ as check_dataset
from util import UserError, log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.png"  # the content decides, not the name


@pytest.mark.parametrize("name", IMAGE_FILES)
def test_pixels_are_those_computed_by_hand(name: str, path: Path) -> None:
    data, pixels, tolerance = IMAGE_FILES[name]
    path.write_bytes(data)
    image = read_image(str(path))
    assert image.mode == "RGB"
    decoded = np.asarray(image).astype(float)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded - pixels).max() <= tolerance


RGB, FLOATS = Image.fromarray(NOISE), Image.fromarray(WIDE.astype(np.float32))
NOT_READ = (
    "not an image in one of the formats that are read: PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF, HEIC"
)
UNREADABLE = {
    "empty": (b"", "empty file"),
    "text": (b"not an image\n", NOT_READ),
    **{kind: (encoded(RGB, kind), NOT_READ) for kind in ("EPS", "PPM", "JPEG2000", "ICO")},
    "32-bit integers": (encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"), "integer pixels.*no defined range"),
    "32-bit floats": (encoded(FLOATS, "TIFF"), "floating-point pixels have no defined range"),
    "12-bit grey": (tiff(2, 1, bytes(3), depth=12), "12 bits per pixel"),
    "half a PNG": (encoded(RGB, "PNG")[:1500], "damaged: .*truncated"),
    "half a JPEG": (encoded(RGB, "JPEG")[:900], "damaged: .*truncated"),
    "half a WebP": (encoded(RGB, "WEBP")[:300], "damaged"),
    "half a BMP": (encoded(RGB, "BMP")[:900], "damaged"),
    "half a TIFF": (encoded(RGB, "TIFF")[:900], "damaged"),
    "half a header": (encoded(RGB, "PNG")[:20], "damaged"),
    "a broken stream": (png(8, 8, b"not a deflate stream"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_reason_of_an_unreadable_file(name: str, path: Path) -> None:
    data, reason = UNREADABLE[name]
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(str(path))
    message = str(caught.value)
    assert message.isprintable() and path.name not in message and "  " not in message


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),  # opening it would wait for ever
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: None, "No such file or directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_path_that_is_not_a_file(make: Callable[[Path], None], reason: str, path: Path) -> None:
    make(path)
    for read in (read_image, read_format):
        with pytest.raises(UnreadableImage, match=reason):
            read(str(path))


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "x.png")
        RGB.save(path)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(UnreadableImage, match="^Permission denied$"):
                read_image(str(path))
        finally:
            os.seteuid(user)


def test_not_enough_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RGB.save(path)
    monkeypatch.setattr(Image.Image, "convert", Mock(side_effect=MemoryError))
    with pytest.raises(UnreadableImage, match="^not enough memory$"):
        read_image(str(path))


@pytest.mark.parametrize("kind", ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"))
def test_limit_is_pillows_and_counts_from_the_header(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40)
    RGB.save(path, format=kind)
    assert read_image(str(path)).size == (40, 24)
    Image.new("RGB", (41, 24)).save(path, format=kind)
    for read in (read_image, read_format):
        with pytest.raises(UnreadableImage, match="^41x24 pixels .*960$"):
            read(str(path))


def black_rows(rows: int, width: int) -> bytes:
    """Return a deflate stream of black rows of a PNG file, of one piece that is repeated."""
    squeeze = zlib.compressobj(9)
    start = squeeze.compress(b"\0" * (width + 1)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    piece = squeeze.compress(b"\0" * (width + 1) * 100) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (rows // 100) + squeeze.flush()


def with_bytes(data: bytes, place: int, form: str, *values: int) -> bytes:
    new = struct.pack(form, *values)
    return data[:place] + new + data[place + len(new) :]


def bombs() -> dict[str, tuple[bytes, str]]:
    """Return small files that would take hundreds of MiB to many GiB, and why they are skipped."""
    limit = "pixels are more than the limit of 89,478,485"
    text, swollen = (
        zlib.compress(b"a" * 100_000_000),
        "damaged: ValueError: Decompressed data too large",
    )
    pixel = zlib.compress(b"\0\0")
    late = png_chunk(b"zTXt", b"k\0\0" + text) + png_chunk(b"IEND", b"")
    jpeg, bmp, gif = (encoded(Image.new("L", (8, 8)), kind) for kind in ("JPEG", "BMP", "GIF"))
    tile = tiff(
        8, 8, black_rows(20_000, 19_999), Compression=8, TileWidth=20_000, TileLength=20_000
    )
    largest = (16_383 - 1).to_bytes(3, "little") * 2  # that WebP knows
    webp = b"WEBPVP8X" + struct.pack("<II", 10, 0) + largest + encoded(RGB, "WEBP")[12:]
    return {
        "50000x50000.png": (png(50_000, 50_000, black_rows(50_000, 50_000)), f"50000x50000 {limit}"),
        # below Pillow's own error
        "10000x9000.png": (png(10_000, 9_000, black_rows(9_000, 10_000)), f"10000x9000 {limit}"),
        **{
            f"{kind.decode()}.png": (png(1, 1, pixel, extra=png_chunk(kind, start + text)), swollen)
            for kind, start in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0"))
        },
        "late_text.png": (png(1, 1, pixel)[:-12] + late, swollen),
        "header.tif": (tiff(2**31 - 1, 2**31 - 1, bytes(100)), f"2147483647x2147483647 {limit}"),
        "tile.tif": (tile, f"20000x20000 {limit}"),
        "header.jpg": (with_bytes(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500), f"65500x65500 {limit}"),
        "header.bmp": (with_bytes(bmp, 18, "<ii", 2**30, 2**30), f"1073741824x1073741824 {limit}"),
        "header.gif": (with_bytes(gif, 6, "<HH", 65_535, 65_535), f"65535x65535 {limit}"),
        "frame.gif": (with_bytes(gif, gif.index(b",") + 5, "<HH", 65_535, 65_535),
                      "more pixels than the limit of 89,478,485"),
        "header.webp": (b"RIFF" + struct.pack("<I", len(webp)) + webp, "damaged"),
    }  # fmt: skip


def read_twice(path: Path) -> str:
    """Read the format and the pixels of a file; return why these are not readable."""
    with contextlib.suppress(UnreadableImage):
        read_format(str(path))
    with pytest.raises(UnreadableImage) as caught:
        read_image(str(path))
    return str(caught.value)


def test_bombs_take_no_memory() -> None:
    first = File("empty.png", b"")
    with contextlib.closing(IsolatedReader(read_twice, first, mib=30)) as reader:
        for name, (data, reason) in bombs().items():
            assert reader(File(name, data)).startswith(reason)


def run_test(trained: Path, dataroot: Path, results: Path, *extra: str) -> Path:
    """Run test.py and return the folder of its results."""
    argv = ["--results_dir", str(results), "--bootstrap", "0", *model_and_data(trained, dataroot)]
    assert test_script.main([*argv, *extra]) == 0
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    return folder


def model_and_data(trained: Path, dataroot: Path) -> list[str]:
    model = str(trained / "model_epoch_last.pth")
    return ["--model_path", model, "--dataroot", str(dataroot), "--gpu_ids", "-1", "--num_threads", "0"]  # fmt: skip


def run_train(root: Path, runs: Path, *extra: str) -> Path:
    """Run train.py for an epoch and return the run's folder."""
    argv = ["--name", "n", "--dataroot", str(root), *TINY, "--niter", "1", "--checkpoints_dir", str(runs)]  # fmt: skip
    assert train.main([*argv, *extra]) == 0
    (folder,) = runs.iterdir()
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


EXACT = [name for name, file in IMAGE_FILES.items() if file.tolerance == 0]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a set of all kinds of files and, in `computed`, PNG files of the pixels
    that the sound ones should give."""
    root = tmp_path_factory.mktemp("zoo")
    for place in ("set", "computed"):
        make_set(root / place, 0)
    for number, name in enumerate(EXACT):
        inner = Path("1_fake" if number % 2 else "0_real", f"{number:02d}.png")
        (root / "set" / inner).write_bytes(IMAGE_FILES[name].data)
        Image.fromarray(IMAGE_FILES[name].pixels.astype(np.uint8)).save(root / "computed" / inner)
    for name, (data, _) in UNREADABLE.items():
        (root / "set" / "0_real" / f"{name}.png").write_bytes(data)
    return root


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("geometry", "too_small"),
    [
        ((), {"1x1", "30000x2"}),
        pytest.param(("--loadSize", "24"), set(), marks=pytest.mark.slow),
    ],
)
def test_scores_are_those_of_the_computed_pixels(
    geometry: tuple[str, ...], too_small: set[str], zoo: Path, trained: Path, tmp_path: Path
) -> None:
    """From the files, a new cache, a filled cache, and with worker processes."""

    def run(name: str, place: str, *extra: str) -> tuple[dict[str, float], dict[str, str]]:
        folder = run_test(trained, zoo / place, tmp_path / name, *geometry, *extra)
        scored, skipped = rows_of(folder / "predictions.csv"), rows_of(folder / "left_out.csv")
        logits = {row["path"]: float(row["logit"]) for row in scored}
        return logits, {row["path"]: row["reason"] for row in skipped}

    expected, skipped = run("computed", "computed")
    assert len(expected) == len(EXACT) - len(too_small)
    assert {reason.split()[0] for reason in skipped.values()} == too_small
    cache = ("--cache", str(tmp_path / "cache"))
    logits, all_skipped = run("files", "set")
    assert logits == pytest.approx(expected, abs=1e-5)
    assert len(all_skipped) == len(UNREADABLE) + len(too_small)
    for name, extra in (("new", cache), ("filled", cache), ("workers", ("--num_threads", "2"))):
        assert run(name, "set", *extra) == (pytest.approx(expected, abs=1e-5), all_skipped)


@pytest.mark.usefixtures("without_pictures")
def test_images_smaller_than_the_crop(trained: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", 2)
    (tmp_path / "set/0_real/long.png").write_bytes(IMAGE_FILES["PNG 30000x2"].data)
    native = ("--protocol", "native", "--cropSize", "32")
    folder = run_test(trained, tmp_path / "set", tmp_path / "out", *native)
    (row,) = rows_of(folder / "left_out.csv")
    assert row["path"] == "0_real/long.png"
    assert row["reason"].startswith("30000x2 pixels are fewer than the 32x32 crop")


@pytest.mark.usefixtures("blank_pictures")
def test_skipped_files_are_in_every_artefact(zoo: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "set", tmp_path / "suite" / "gan")
    make_set(tmp_path / "suite" / "whole", 2)
    folder = run_test(trained, tmp_path / "suite", tmp_path / "out")
    names = {f"gan/0_real/{name}.png" for name in UNREADABLE}
    document = json.loads((folder / "metrics.json").read_text())
    assert names <= {skipped["path"] for skipped in document["skipped"]}
    count = len(UNREADABLE) + 2
    assert document["left_out"] == {"suite/gan": count, "suite/whole": 0}
    rows = rows_of(folder / "left_out.csv")
    assert len(rows) == count
    artefacts = ("report.html", "tables.tex", f"{folder.name}.txt")
    texts = [(folder / artefact).read_text() for artefact in artefacts]
    markdown = (folder / "tables.md").read_text().replace("\\", "")
    for row in rows:
        assert row["reason"] and row["condition"] == ""
        assert all(row["path"] in text for text in texts)
        assert row["path"].rsplit("/")[-1] in markdown
    counts = {row["generator"]: row["left_out"] for row in rows_of(folder / "tables.csv")}
    assert counts["gan"] == str(count) and counts["whole"] == "0"
    assert not names & {row["path"] for row in rows_of(folder / "predictions.csv")}
    again = tmp_path / "again"
    assert recompute.main([str(folder), "--output", str(again)]) == 0
    assert (again / "left_out.csv").read_bytes() == (folder / "left_out.csv").read_bytes()
    if shutil.which("pdflatex"):
        start = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}\begin{document}"
        (tmp_path / "x.tex").write_text(f"{start}{texts[1]}\\end{{document}}")
        command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "x.tex"]
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("split", "extra"),
    [
        ("train/car", ()),
        ("train/car", ("--cache", "CACHE")),
        ("val/car", ("--num_threads", "2")),
        ("test/gan", ()),
        ("test/gan", ("--num_threads", "2")),
        ("test/gan", ("--cache", "CACHE")),
        ("visualize", ()),
    ],
)
def test_fail_ends_at_the_first_bad_file(
    split: str, extra: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=3)
    folder = root / ("test/gan" if split == "visualize" else split)
    (folder / "1_fake" / "bad.png").write_bytes(b"")
    words = [word.replace("CACHE", str(tmp_path / "cache")) for word in extra]
    words += ["--on_bad_image", "fail", "--batch_size", "2"]
    with pytest.raises(UserError, match=r"^--on_bad_image fail: .*bad\.png \(empty file\)$"):
        if split == "test/gan":
            run_test(trained, folder, tmp_path / "out", *words)
        elif split == "visualize":
            argv = [*model_and_data(trained, folder), "--output_dir", str(tmp_path / "out")]
            visualize_attention.main([*argv, *words])
        else:
            run_train(root, tmp_path / "runs", *words)


NAMES = [
    os.fsencode(name)
    for name in ("with space.png", "new\nline.png", b"\xff\xfe bytes.png", "-leading.png", "=1+1.png",
                 "$x_1$ & %.png", "a" * 250 + ".png")
]  # fmt: skip


@pytest.mark.slow
def test_names_of_any_kind(trained: Path, tmp_path: Path) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2)
    gan = root / "test" / "gan"
    for number, name in enumerate(map(os.fsdecode, NAMES)):
        image = encoded(Image.fromarray(NOISE + np.uint8(number)), "PNG")
        (gan / "0_real" / name).write_bytes(image)
        for folder in (gan / "1_fake", root / "train/car/1_fake", root / "val/car/0_real"):
            (folder / name).write_bytes(b"no")
    results = run_test(trained, root / "test", tmp_path / "out")
    for file, label in (("predictions.csv", b"0_real"), ("left_out.csv", b"1_fake")):
        paths = {os.fsencode(unescaped(row["path"])) for row in rows_of(results / file)}
        assert {b"gan/%b/%b" % (label, name) for name in NAMES} <= paths
    pictures = tmp_path / "pictures"
    argv = [*model_and_data(trained, gan), "--output_dir", str(pictures), "--save_npr_maps"]
    assert visualize_attention.main([*argv, "--num_maps", "20"]) == 0
    assert len(list((pictures / "npr_artifacts").iterdir())) == len(NAMES) + 4
    statistics = (pictures / "attention_statistics.txt").read_text()
    assert f"skipped: {len(NAMES)} files" in statistics and "new\\x0aline.png" in statistics
    text = (run_train(root, tmp_path / "runs") / "log.log").read_text(encoding="utf-8")
    assert text.count("skipped") >= 2 * len(NAMES)
    assert "new\\nline.png (not an image" in text


def test_links_to_folders_in_class_folders_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Following them could bring in the other class, as here, where a link leads up."""
    folder = make_set(tmp_path / "set", 2)
    (folder / "0_real" / "up").symlink_to("..")
    (folder / "0_real" / "x.png").symlink_to("../1_fake")
    (folder / "0_real" / "linked.png").symlink_to("000.png")
    images = load_set(folder)
    real = [Path(path).name for path, label in zip(images.paths, images.labels, strict=True) if not label]  # fmt: skip
    assert real == ["000.png", "001.png", "linked.png"]
    (line,) = caplog.messages
    assert "not followed" in line and "0_real/up" in line and "0_real/x.png" in line


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the project's messages, whatever the scripts do to its handlers."""
    lines: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return True

    log.addFilter(note)
    try:
        yield lines
    finally:
        log.removeFilter(note)


@pytest.mark.usefixtures("without_pictures")
def test_links_in_a_circle_end_and_empty_class_folders_are_named(
    trained: Path, tmp_path: Path
) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2)
    for place in ("", "train", "test", "train/car", "test/gan/0_real"):
        for number in range(8):
            (root / place / f"loop{number}").symlink_to(root / place, target_is_directory=True)
        (root / place / "nowhere").symlink_to("nowhere")
    (root / "train" / "there").symlink_to(root / "val")
    (root / "val" / "back").symlink_to(root / "train")
    empty = [root / name for name in ("train/cat/0_real", "val/cat/1_fake", "test/empty/0_real")]
    for folder in empty:
        folder.mkdir(parents=True)
    started = time.perf_counter()
    with logged() as lines:
        sets = find_sets(root / "test")
        assert {(images.key, len(images.paths)) for images in sets} == {("test/gan", 4), ("test/diffusion", 4)}  # fmt: skip
        assert any("loop0: " in line and "link" in line for line in lines)
        lines.clear()
        run_train(root, tmp_path / "runs")
        results = run_test(trained, root / "test", tmp_path / "out")
    assert len(rows_of(results / "predictions.csv")) == 8
    assert (results / "left_out.csv").read_text().split() == ["path,reason,condition"]
    for folder in empty:
        said = f"{folder}: a class folder without images"
        assert len([line for line in lines if line.startswith(said)]) == 1
    check_dataset.main([str(root), "--num_threads", "1"])
    assert time.perf_counter() - started < 300


@pytest.fixture
def impatient_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch look every 0.2 s, not every 5 s, whether workers and their parent live."""
    for place in (torch.utils.data._utils, torch.utils.data._utils.worker):
        monkeypatch.setattr(place, "MP_STATUS_CHECK_INTERVAL", 0.2)


def slow_loader(
    folder: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> ImageLoader:
    """Return a loader with two workers; one of them calls `act` at 1_fake/010.png."""

    def read(path: str) -> Image.Image:
        if path.endswith("1_fake/010.png"):
            act()
        return read_image(path)

    monkeypatch.setattr("data.datasets.read_image", read)
    monkeypatch.setattr("data.loader.cores", lambda: 2)
    return evaluation_loader(load_set(make_set(folder, 20)), Protocol("native"), 4, 2)


@pytest.mark.usefixtures("impatient_workers")
@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, "memory ran out"),
        pytest.param(signal.SIGSEGV, "crashed", marks=pytest.mark.slow),
        pytest.param(signal.SIGBUS, "shared memory", marks=pytest.mark.slow),
        (None, "status 3"),
    ],
)
def test_a_worker_that_dies_is_one_line(
    number: int | None,
    cause: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    act = (lambda: os._exit(3)) if number is None else lambda: os.kill(os.getpid(), number)
    with pytest.raises(UserError) as caught:
        list(slow_loader(tmp_path, act, monkeypatch).batches())
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (cause, "--num_threads (0", "/dev/shm"))
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("impatient_workers")
def test_full_shared_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch loses the batch there, and waits for it for ever."""

    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
        )

    loader = slow_loader(tmp_path, lambda: None, monkeypatch)
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match="--num_threads: .*shared memory"):
        list(loader.batches())


def test_an_error_in_a_worker_is_raised_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(slow_loader(tmp_path, fail, monkeypatch).batches())


def test_a_process_ends_although_its_workers_ignore_signals(tmp_path: Path) -> None:
    make_set(tmp_path, 20)
    code = f"""
from pathlib import Path
from data import evaluation_loader
from data.splits import load_set
from data.transforms import Protocol
import data
data.loader.cores = lambda: 2
batches = evaluation_loader(load_set(Path({str(tmp_path)!r})), Protocol("native"), 4, 2).batches()
next(batches)
raise SystemExit(7)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=120, check=False)
    assert ran.returncode == 7


def parent_of_workers(loader: ImageLoader, pipe: Connection) -> None:
    """Lead a session, send the workers' ids, wait for a signal, and send the number of images."""
    os.setsid()
    stopped: list[int] = []
    batches = loader.batches()
    next(batches)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    pipe.send([worker.pid for worker in loader.watched.workers])
    while not stopped:
        time.sleep(0.01)
    pipe.send(4 + sum(len(batch.labels) for batch in batches))
    time.sleep(100)


@pytest.mark.usefixtures("impatient_workers")
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_a_signal_to_the_group_is_the_parents_and_workers_end_with_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    loader = slow_loader(tmp_path, lambda: None, monkeypatch)
    context = multiprocessing.get_context("fork")
    pipe, other = context.Pipe()
    process = context.Process(target=parent_of_workers, args=(loader, other))
    process.start()
    other.close()  # if that process dies, recv fails instead of waiting
    try:
        workers = pipe.recv()
        assert len(workers) == 2 and process.pid is not None
        os.killpg(process.pid, number)
        assert pipe.recv() == 40  # all came after the signal
    finally:
        process.kill()
        process.join()
    until = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert not capfd.readouterr().err
