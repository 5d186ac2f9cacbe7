"""Image files of every kind that a data set may hold, sound and hostile: what docs/files.md says
becomes of them."""

import csv
import gc
import io
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
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import test as test_script
import train
import visualize_attention
from data import evaluation_loader
from data.decode import UnreadableImage, read_format, read_image
from data.layouts import find_sets, load_set
from data.loader import ImageLoader
from data.transforms import Protocol
from evaluation.names import unescaped
from tests.conftest import REPOSITORY, TINY, Ran, make_dataroot, make_set
from tools import recompute
from tools.check_dataset import __main__ as check_dataset
from util import UserError, log

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
GREY = NOISE[..., 0]
ALPHA = NOISE[..., 1]
WIDE = RNG.integers(0, 65536, (24, 40), dtype=np.uint16)


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **how)
    return buffer.getvalue()


def replicated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, idat: bytes, depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG file by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", idat), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png16(samples: np.ndarray, colour: int) -> bytes:
    """A PNG file of 16-bit samples [H, W, C], which Pillow can read but not write."""
    rows = samples.astype(">u2").reshape(samples.shape[0], -1)
    return png(
        samples.shape[1],
        samples.shape[0],
        zlib.compress(b"".join(b"\0" + r.tobytes() for r in rows)),
        16,
        colour,
    )


def tiff(
    width: int, height: int, data: bytes, order: str = "<", depth: int = 8, **tags: int
) -> bytes:
    """A grey TIFF file by hand, in one strip or, with TileWidth, one tile; `order` is that of its
    bytes."""
    values = {256: width, 257: height, 258: depth, 259: tags.pop("Compression", 1), 262: 1, 277: 1}
    values |= (
        {322: tags["TileWidth"], 323: tags["TileLength"]} if "TileWidth" in tags else {278: height}
    )
    values |= {274: tags["Orientation"]} if "Orientation" in tags else {}
    place, size = (324, 325) if "TileWidth" in tags else (273, 279)
    offset = 8 + 2 + 12 * (len(values) + 2) + 4
    entries = sorted((values | {place: offset, size: len(data)}).items())
    short = (258, 259, 262, 274, 277)
    ifd = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        if tag in short
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in entries
    )
    start = b"II" if order == "<" else b"MM"
    return (
        start
        + struct.pack(f"{order}HIH", 42, 8, len(entries))
        + ifd
        + struct.pack(f"{order}I", 0)
        + data
    )


def palette_picture() -> tuple[Image.Image, np.ndarray]:
    colours = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
    indices = RNG.integers(0, 16, (24, 40), dtype=np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(colours.tobytes())
    return image, colours[indices]


def from_cmyk(pixels: np.ndarray) -> np.ndarray:
    """Each ink and black take their share of the light: (1 - C) (1 - K)."""
    inks = pixels.astype(float) / 255
    return 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])


def from_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 in JFIF's full range."""
    y, cb, cr = (
        pixels[..., channel].astype(float) - (128 if channel else 0) for channel in range(3)
    )
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(
        0, 255
    )


def from_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D50) by way of XYZ to sRGB, with Bradford's adaptation to D65."""
    lightness = pixels[..., 0].astype(float) * 100 / 255
    a, b = (pixels[..., channel].astype(np.int8).astype(float) for channel in (1, 2))
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_rgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = (xyz @ np.transpose(to_rgb)).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def cases() -> Iterator[tuple[str, bytes, np.ndarray, float]]:
    """Name, content of the file, its pixels by a computation of our own, and how far rounding may
    be off."""
    rgb = Image.fromarray(NOISE)
    for kind in ("PNG", "BMP", "TIFF"):
        yield f"rgb {kind}", encoded(rgb, kind), NOISE, 0
    yield "rgb WEBP", encoded(rgb, "WEBP", lossless=True), NOISE, 0
    yield "grey", encoded(Image.fromarray(GREY), "PNG"), replicated(GREY), 0
    bits = GREY > 127
    yield "1 bit", encoded(Image.fromarray(bits), "PNG"), replicated(bits * np.uint8(255)), 0
    yield (
        "grey and alpha",
        encoded(Image.merge("LA", [Image.fromarray(c) for c in (GREY, ALPHA)]), "PNG"),
        replicated(GREY),
        0,
    )
    with_alpha = Image.fromarray(np.dstack([NOISE, ALPHA]))
    for kind in ("PNG", "TIFF"):
        yield f"alpha {kind}", encoded(with_alpha, kind), NOISE, 0
    yield "alpha WEBP", encoded(with_alpha, "WEBP", lossless=True, exact=True), NOISE, 0
    image, colours = palette_picture()
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        yield f"palette {kind}", encoded(image, kind), colours, 0
    yield "transparent palette", encoded(image, "PNG", transparency=bytes(range(16))), colours, 0
    yield (
        "transparent colour",
        encoded(rgb, "PNG", transparency=tuple(NOISE[0, 0].tolist())),
        NOISE,
        0,
    )
    yield (
        "16-bit grey PNG",
        png16(WIDE[..., None], 0),
        replicated((WIDE // 256).astype(np.uint8)),
        0,
    )
    yield (
        "16-bit grey and alpha",
        png16(np.dstack([WIDE, WIDE[::-1]]), 4),
        replicated((WIDE // 256).astype(np.uint8)),
        0,
    )
    deep = np.dstack([WIDE, WIDE[::-1], WIDE[:, ::-1]])
    yield "16-bit colour", png16(deep, 2), (deep // 256).astype(np.uint8), 0
    for order in "<>":
        data = WIDE.astype(f"{order}u2").tobytes()
        yield (
            f"16-bit grey TIFF {order}",
            tiff(40, 24, data, order, 16),
            replicated((WIDE // 256).astype(np.uint8)),
            0,
        )
    inks = RNG.integers(0, 256, (24, 40, 4), dtype=np.uint8)
    yield "CMYK TIFF", encoded(Image.fromarray(inks, "CMYK"), "TIFF"), from_cmyk(inks), 1.5
    # JPEG keeps one colour nearly as it is
    flat = np.full((24, 40, 4), (200, 30, 90, 60), dtype=np.uint8)
    yield (
        "CMYK JPEG, inverted as Adobe does",
        encoded(Image.fromarray(flat, "CMYK"), "JPEG", quality=100),
        from_cmyk(flat),
        3,
    )
    smooth = np.full((24, 40, 3), (120, 90, 170), dtype=np.uint8)
    yield "JPEG", encoded(Image.fromarray(smooth), "JPEG", quality=100), smooth, 2
    yield (
        "YCbCr TIFF",
        encoded(Image.fromarray(smooth, "YCbCr"), "TIFF", compression="jpeg", quality=100),
        from_ycbcr(smooth),
        3,
    )
    lab = np.full((24, 40, 3), (150, 20, 236), dtype=np.uint8)
    yield "LAB TIFF", encoded(Image.fromarray(lab, "LAB"), "TIFF"), from_lab(lab), 3
    turned = {"exif": Image.Exif()}
    turned["exif"][274] = 6
    yield "orientation PNG", encoded(rgb, "PNG", **turned), NOISE, 0
    yield (
        "orientation JPEG",
        encoded(Image.fromarray(smooth[:, :30]), "JPEG", quality=100, **turned),
        smooth[:, :30],
        2,
    )
    yield "orientation WEBP", encoded(rgb, "WEBP", lossless=True, **turned), NOISE, 0
    for number in range(2, 9):
        yield (
            f"orientation TIFF {number}",
            tiff(40, 24, GREY.tobytes(), Orientation=number),
            replicated(GREY),
            0,
        )
    yield (
        "orientation 16-bit TIFF",
        tiff(40, 24, WIDE.tobytes(), depth=16, Orientation=6),
        replicated((WIDE // 256).astype(np.uint8)),
        0,
    )
    second = Image.fromarray(255 - NOISE)
    for kind, how in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        yield (
            f"animated {kind}",
            encoded(rgb, kind, save_all=True, append_images=[second], **how),
            NOISE,
            0,
        )
    other = Image.fromarray(15 - np.asarray(image), "L")
    other.putpalette(image.getpalette())
    yield "animated GIF", encoded(image, "GIF", save_all=True, append_images=[other]), colours, 0
    two = encoded(
        Image.fromarray(smooth), "MPO", save_all=True, append_images=[second], quality=100
    )
    yield "two pictures in a JPEG (MPO)", two, smooth, 2
    yield "1x1", encoded(Image.fromarray(NOISE[:1, :1]), "PNG"), NOISE[:1, :1], 0
    long = RNG.integers(0, 256, (2, 30_000, 3), dtype=np.uint8)
    yield "30000x2", encoded(Image.fromarray(long), "PNG"), long, 0


CASES = {name: rest for name, *rest in cases()}


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_computed_by_hand(name: str, tmp_path: Path) -> None:
    data, expected, tolerance = CASES[name]
    path = tmp_path / "x.png"  # the content decides
    path.write_bytes(data)
    image = read_image(str(path))
    assert image.mode == "RGB"
    found = np.asarray(image).astype(float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


FLOATS = np.linspace(0, 1, 24 * 40, dtype=np.float32).reshape(24, 40)
LEFT_OUT = {
    "empty": (b"", "empty file"),
    "text": (
        b"no picture\n",
        "not an image in one of the formats that are read: PNG, JPEG, WEBP, BMP, TIFF, GIF",
    ),
    "PostScript": (encoded(Image.fromarray(NOISE), "EPS"), "not an image in one of the formats"),
    "PPM": (encoded(Image.fromarray(NOISE), "PPM"), "not an image in one of the formats"),
    "JPEG 2000": (
        encoded(Image.fromarray(NOISE), "JPEG2000"),
        "not an image in one of the formats",
    ),
    "AVIF": (encoded(Image.fromarray(NOISE), "AVIF"), "not an image in one of the formats"),
    "icon": (encoded(Image.fromarray(NOISE), "ICO"), "not an image in one of the formats"),
    "32-bit integers": (
        encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"),
        "integer pixels.*no defined range",
    ),
    "32-bit floats": (
        encoded(Image.fromarray(FLOATS), "TIFF"),
        "floating-point pixels have no defined range",
    ),
    "12-bit grey": (tiff(2, 1, bytes(3), depth=12), "12 bits per pixel"),
    "half a PNG": (encoded(Image.fromarray(NOISE), "PNG")[:1500], "damaged: .*truncated"),
    "half a JPEG": (encoded(Image.fromarray(NOISE), "JPEG")[:900], "damaged: .*truncated"),
    "half a WebP": (encoded(Image.fromarray(NOISE), "WEBP")[:300], "damaged"),
    "half a BMP": (encoded(Image.fromarray(NOISE), "BMP")[:900], "damaged"),
    "half a TIFF": (encoded(Image.fromarray(NOISE), "TIFF")[:900], "damaged"),
    "half a header": (encoded(Image.fromarray(NOISE), "PNG")[:20], "damaged"),
    "a broken stream": (png(8, 8, b"no deflate stream"), "damaged"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_picture_is_said_to_be_none(name: str, tmp_path: Path) -> None:
    data, why = LEFT_OUT[name]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=why) as caught:
        read_image(str(path))
    said = str(caught.value)
    assert said.isprintable() and "x.png" not in said and "  " not in said


def folder_called_like_a_picture(path: Path) -> None:
    path.mkdir()


def circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (folder_called_like_a_picture, "not a regular file"),
        (os.mkfifo, "not a regular file"),  # opening it would wait for ever
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: None, "No such file or directory"),
        (lambda path: path.symlink_to(path.parent / "nowhere"), "No such file or directory"),
        (circle, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file(make: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    make(tmp_path / "x.png")
    for read in (read_image, read_format):
        with pytest.raises(UnreadableImage, match=why):
            read(str(tmp_path / "x.png"))


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "x.png")
        Image.fromarray(NOISE).save(path)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(UnreadableImage, match="^Permission denied$"):
                read_image(str(path))
        finally:
            os.seteuid(user)


def test_limit_is_pillows_and_counts_from_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40)
    path = tmp_path / "x.png"
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        Image.fromarray(NOISE).save(path, format=kind)
        assert read_image(str(path)).size == (40, 24)
        Image.new("RGB", (41, 24)).save(path, format=kind)
        for read in (read_image, read_format):
            with pytest.raises(UnreadableImage, match="^41x24 pixels .*960$"):
                read(str(path))


def zeros(rows: int, width: int) -> bytes:
    """A deflate stream of black rows of a PNG file, made of one piece that is repeated."""
    squeeze = zlib.compressobj(9)
    start = squeeze.compress(b"\0" * (width + 1)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    piece = squeeze.compress(b"\0" * (width + 1) * 100) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (rows // 100) + squeeze.flush()


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Name, content, and what is said; each is small as a file, and would fill hundreds of MiB to
    many GiB."""
    limit = "pixels are more than the limit of 89,478,485"
    text = zlib.compress(b"a" * 100_000_000)
    yield "50000x50000.png", png(50_000, 50_000, zeros(50_000, 50_000)), f"50000x50000 {limit}"
    yield "20000x20000.png", png(20_000, 20_000, zeros(20_000, 20_000)), f"20000x20000 {limit}"
    # below Pillow's own error
    yield "10000x9000.png", png(10_000, 9_000, zeros(9_000, 10_000)), f"10000x9000 {limit}"
    for kind, before in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        data = png(1, 1, zlib.compress(b"\0\0"), extra=chunk(kind, before + text))
        yield f"{kind.decode()}.png", data, "damaged: ValueError: Decompressed data too large"
    late = (
        png(1, 1, zlib.compress(b"\0\0"))[:-12]
        + chunk(b"zTXt", b"k\0\0" + text)
        + chunk(b"IEND", b"")
    )
    yield "late_text.png", late, "damaged: ValueError: Decompressed data too large"
    yield "header.tif", tiff(2**31 - 1, 2**31 - 1, b"\0" * 100), f"2147483647x2147483647 {limit}"
    tile = zeros(20_000, 19_999)
    yield (
        "tile.tif",
        tiff(8, 8, tile, Compression=8, TileWidth=20_000, TileLength=20_000),
        f"20000x20000 {limit}",
    )
    jpeg = encoded(Image.new("L", (8, 8)), "JPEG")
    place = jpeg.index(b"\xff\xc0") + 5
    yield (
        "header.jpg",
        jpeg[:place] + struct.pack(">HH", 65_500, 65_500) + jpeg[place + 4 :],
        f"65500x65500 {limit}",
    )
    bmp = encoded(Image.new("L", (8, 8)), "BMP")
    yield (
        "header.bmp",
        bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:],
        f"1073741824x1073741824 {limit}",
    )
    gif = encoded(Image.new("L", (8, 8)), "GIF")
    yield (
        "header.gif.png",
        gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:],
        f"65535x65535 {limit}",
    )
    frame = gif.index(b",") + 5
    data = gif[:frame] + struct.pack("<HH", 65_535, 65_535) + gif[frame + 4 :]
    yield "frame.gif.png", data, "more pixels than the limit of 89,478,485"
    size = (16_383 - 1).to_bytes(3, "little")  # the largest that the format knows
    body = (
        b"WEBPVP8X"
        + struct.pack("<II", 10, 0)
        + size
        + size
        + encoded(Image.new("RGB", (8, 8)), "WEBP")[12:]
    )
    yield "header.webp", b"RIFF" + struct.pack("<I", len(body)) + body, ""


MEASURE = """
import resource, sys
from data.loader import ImageLoader
from data.decode import UnreadableImage, read_format, read_image
from util import keep_freed_memory

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

keep_freed_memory()
read_image(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    for read in (read_image, read_format):
        try:
            read(path)
            print("read")
        except UnreadableImage as error:
            print(error)
print(peak() - before)
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    found = list(bombs())
    for name, data, _ in found:
        (tmp_path / name).write_bytes(data)
    Image.fromarray(NOISE).save(tmp_path / "sound.png")
    paths = [str(tmp_path / name) for name in ("sound.png", *(name for name, *_ in found))]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    *said, grown = ran.stdout.splitlines()
    assert not ran.stderr
    for number, (name, _, why) in enumerate(found):
        assert said[2 * number].startswith(why) and said[2 * number] != "read", (
            name,
            said[2 * number],
        )
    assert int(grown) < 30_000  # KiB


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(CASES)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0.05, 1),
)
def test_damage_is_one_kind_of_error(
    name: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(CASES[name][0])
    for place, value in changes:
        data[int(place * min(len(data), 2000))] = value
    with tempfile.NamedTemporaryFile(suffix=".png") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.write(data[: int(kept * len(data))])
        file.flush()
        for read in (read_image, read_format):
            try:
                read(file.name)
            except UnreadableImage as error:
                assert str(error).isprintable()


def run_test(trained: Path, dataroot: Path, results: Path, *extra: str) -> Path:
    """test.py; returns the folder of its results."""
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(dataroot),
        "--gpu_ids",
        "-1",
    ]
    assert (
        test_script.main(
            [*argv, "--results_dir", str(results), "--num_threads", "0", "--bootstrap", "0", *extra]
        )
        == 0
    )
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


EXACT = [name for name, (_, _, tolerance) in CASES.items() if tolerance == 0]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of all kinds of files, and beside it, in `computed`, PNG files of the pixels that the
    sound ones should give."""
    root = tmp_path_factory.mktemp("zoo")
    for place in ("set", "computed"):
        for label in ("0_real", "1_fake"):
            (root / place / label).mkdir(parents=True)
    for number, name in enumerate(EXACT):
        data, expected, _ = CASES[name]
        inner = Path("1_fake" if number % 2 else "0_real", f"{number:02d}.png")
        (root / "set" / inner).write_bytes(data)
        Image.fromarray(expected).save(root / "computed" / inner)
    for name, (data, _) in LEFT_OUT.items():
        (root / "set" / "0_real" / f"{name}.png").write_bytes(data)
    return root


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("geometry", ((), ("--loadSize", "24")))
def test_scores_are_those_of_the_computed_pixels(
    geometry: tuple[str, ...], zoo: Path, trained: Path, tmp_path: Path
) -> None:
    """From the files, from a cache of them, and with worker processes; native and resized."""
    logits, left_out = [], []
    cache = ("--cache", str(tmp_path / "cache"))
    for number, (place, extra) in enumerate(
        (
            ("computed", ()),
            ("set", ()),
            ("set", cache),
            ("set", cache),
            ("set", ("--num_threads", "2", "--batch_size", "8")),
        )
    ):
        folder = run_test(trained, zoo / place, tmp_path / str(number), *geometry, *extra)
        logits.append(
            {row["path"]: float(row["logit"]) for row in rows_of(folder / "predictions.csv")}
        )
        left_out.append({row["path"]: row["reason"] for row in rows_of(folder / "left_out.csv")})
    small = set() if geometry else {"1x1", "30000x2"}
    assert len(logits[0]) == len(EXACT) - len(small)
    for found in logits[1:]:
        assert found == pytest.approx(logits[0], abs=1e-5)
    assert {
        why.removesuffix(" pixels leave none at scale 0.25") for why in left_out[0].values()
    } == small
    for found in left_out[1:]:
        assert len(found) == len(LEFT_OUT) + len(small)
        assert found == left_out[1]


@pytest.mark.usefixtures("without_pictures")
def test_pictures_smaller_than_the_crop(trained: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", 2)
    Image.fromarray(CASES["30000x2"][1]).save(tmp_path / "set" / "0_real" / "long.png")
    folder = run_test(
        trained, tmp_path / "set", tmp_path / "out", "--protocol", "native", "--cropSize", "32"
    )
    (row,) = rows_of(folder / "left_out.csv")
    assert row["path"] == "0_real/long.png"
    assert row["reason"].startswith("30000x2 pixels are fewer than the 32x32 crop")


@pytest.mark.usefixtures("blank_pictures")
def test_left_out_files_are_in_every_artefact(
    zoo: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(zoo / "set", tmp_path / "suite" / "gan")
    make_set(tmp_path / "suite" / "whole", 2)
    folder = run_test(trained, tmp_path / "suite", tmp_path / "out")
    names = {f"gan/0_real/{name}.png" for name in LEFT_OUT}
    document = json.loads((folder / "metrics.json").read_text())
    assert names <= {one["path"] for one in document["skipped"]}
    count = len(LEFT_OUT) + 2
    assert document["left_out"] == {"suite/gan": count, "suite/whole": 0}
    assert len(rows_of(folder / "left_out.csv")) == count
    for row in rows_of(folder / "left_out.csv"):
        assert row["reason"] and row["condition"] == ""
        for artefact in ("report.html", "tables.tex", f"{folder.name}.txt"):
            assert row["path"] in (folder / artefact).read_text(), artefact
        assert row["path"].rsplit("/")[-1] in (folder / "tables.md").read_text().replace("\\", "")
    counts = {row["generator"]: row["left_out"] for row in rows_of(folder / "tables.csv")}
    assert counts["gan"] == str(count) and counts["whole"] == "0"
    assert not names & {row["path"] for row in rows_of(folder / "predictions.csv")}
    assert recompute.main([str(folder), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "left_out.csv").read_bytes() == (
        folder / "left_out.csv"
    ).read_bytes()
    if shutil.which("pdflatex"):
        start = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}\begin{document}"
        (tmp_path / "x.tex").write_text(
            start + (folder / "tables.tex").read_text() + r"\end{document}"
        )
        command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "x.tex"]
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    del document["left_out"]  # a folder of earlier code
    (folder / "metrics.json").write_text(json.dumps(document))
    (folder / "left_out.csv").unlink()
    assert recompute.main([str(folder)]) == 0
    capsys.readouterr()


@pytest.mark.usefixtures("without_pictures")
def test_nothing_left_out_is_a_header(trained: Path, tmp_path: Path) -> None:
    folder = run_test(trained, make_set(tmp_path / "set", 2), tmp_path / "out")
    assert (folder / "left_out.csv").read_text().split() == ["path,reason,condition"]


def visualize(trained: Path, dataroot: Path, out: Path, *extra: str) -> None:
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        str(dataroot),
        "--gpu_ids",
        "-1",
    ]
    assert (
        visualize_attention.main([*argv, "--output_dir", str(out), "--num_threads", "0", *extra])
        == 0
    )


@pytest.mark.parametrize("extra", ((), ("--num_threads", "2"), ("--cache", "CACHE")))
@pytest.mark.parametrize("script", ("train", "val", "test", "visualize"))
def test_fail_ends_at_the_first_bad_file(
    script: str, extra: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=3)
    place = {"train": "train/car", "val": "val/car"}.get(script, "test/gan")
    (root / place / "1_fake" / "bad.png").write_bytes(b"")
    extra = tuple(
        str(tmp_path / "cache") if word == "CACHE" else word
        for word in (*extra, "--on_bad_image", "fail")
    )
    with pytest.raises(UserError, match=r"^--on_bad_image fail: .*bad\.png \(empty file\)$"):
        if script in ("train", "val"):
            argv = ["--dataroot", str(root), *TINY, "--niter", "1", "--batch_size", "2"]
            train.main([*argv, "--checkpoints_dir", str(tmp_path / "runs"), *extra])
        elif script == "test":
            run_test(trained, root / place, tmp_path / "out", "--batch_size", "2", *extra)
        else:
            visualize(trained, root / place, tmp_path / "out", "--batch_size", "2", *extra)


def test_fail_is_one_line_and_status_2(
    trained: Path, tmp_path: Path, run_as_script: Callable[..., Ran]
) -> None:
    make_set(tmp_path / "set", 1)
    (tmp_path / "set" / "0_real" / "a\nb.png").write_bytes(b"")
    argv = [
        "--model_path",
        str(trained / "model_epoch_last.pth"),
        "--dataroot",
        "set",
        "--on_bad_image",
        "fail",
    ]
    ran = run_as_script("test.py", *argv, "--gpu_ids", "-1", folder=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr == "error: --on_bad_image fail: set/0_real/a\\nb.png (empty file)\n"


NAMES = (
    "with space.png",
    "new\nline.png",
    b"\xff\xfe bytes.png",
    "-leading.png",
    "=1+1.png",
    "$x_1$ & %.png",
    "a" * 250 + ".png",
)


@pytest.mark.slow
def test_names_of_any_kind(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2)
    sound, bad = (root / "test" / "gan" / name for name in ("0_real", "1_fake"))
    for number, name in enumerate(map(os.fsdecode, NAMES)):
        Image.fromarray(NOISE + np.uint8(number)).save(io_buffer := io.BytesIO(), format="PNG")
        (sound / name).write_bytes(io_buffer.getvalue())
        for folder in (bad, root / "train" / "car" / "1_fake", root / "val" / "car" / "0_real"):
            (folder / name).write_bytes(b"no")
    folder = run_test(trained, root / "test", tmp_path / "out")
    scored = {os.fsencode(unescaped(row["path"])) for row in rows_of(folder / "predictions.csv")}
    left_out = {os.fsencode(unescaped(row["path"])) for row in rows_of(folder / "left_out.csv")}
    for name in map(os.fsencode, NAMES):
        assert b"gan/0_real/" + name in scored
        assert b"gan/1_fake/" + name in left_out
    visualize(
        trained, root / "test" / "gan", tmp_path / "pictures", "--save_npr_maps", "--num_maps", "20"
    )
    assert len(list((tmp_path / "pictures" / "npr_artifacts").iterdir())) == len(NAMES) + 4
    statistics = (tmp_path / "pictures" / "attention_statistics.txt").read_text()
    assert f"skipped: {len(NAMES)} files" in statistics and "new\\x0aline.png" in statistics
    argv = [
        "--name",
        "n",
        "--dataroot",
        str(root),
        *TINY,
        "--niter",
        "1",
        "--checkpoints_dir",
        str(tmp_path / "runs"),
    ]
    assert train.main(argv) == 0
    (log,) = (tmp_path / "runs").glob("*/log.log")
    text = log.read_text(encoding="utf-8")
    assert (
        text.count("skipped") + text.count("left out") >= 2 * len(NAMES)
        and "new\\nline.png (not an image" in text
    )
    assert (
        check_dataset.main(
            [str(root), "--num_threads", "1", "--json", str(tmp_path / "found.json")]
        )
        == 1
    )
    found = json.loads((tmp_path / "found.json").read_text())
    (unreadable,) = (one for one in found["findings"] if one["kind"] == "unreadable")
    listed = {
        os.fsencode(unescaped(path)) for item in unreadable["items"] for path in item["paths"]
    }
    assert {b"test/gan/1_fake/" + os.fsencode(name) for name in NAMES} <= listed
    capsys.readouterr()


def test_links_to_folders_in_class_folders_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Following them could bring in the other class, as here, where one leads up."""
    folder = make_set(tmp_path / "set", 2)
    (folder / "0_real" / "up").symlink_to("..")
    (folder / "0_real" / "x.png").symlink_to("../1_fake")
    (folder / "0_real" / "linked.png").symlink_to("000.png")
    images = load_set(folder)
    assert [Path(path).name for path, label in zip(images.paths, images.labels, strict=True) if label == 0] == [
        "000.png", "001.png", "linked.png"
    ]  # fmt: skip
    (line,) = caplog.messages
    assert "not followed" in line and "0_real/up" in line and "0_real/x.png" in line


@pytest.mark.usefixtures("without_pictures")
def test_links_in_a_circle_come_to_an_end(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2)
    for place in (
        root,
        root / "train",
        root / "test",
        root / "train" / "car",
        root / "test" / "gan" / "0_real",
    ):
        for number in range(8):
            (place / f"loop{number}").symlink_to(place, target_is_directory=True)
        (place / "nowhere").symlink_to("nowhere")
    (root / "train" / "there").symlink_to(root / "val")
    (root / "val" / "back").symlink_to(root / "train")
    started = time.perf_counter()
    sets = find_sets(root / "test")
    assert {(found.key, len(found.paths)) for found in sets} == {
        ("test/gan", 4),
        ("test/diffusion", 4),
    }
    assert any("loop0: " in line and "link" in line for line in caplog.messages)
    argv = [
        "--name",
        "n",
        "--dataroot",
        str(root),
        *TINY,
        "--niter",
        "1",
        "--checkpoints_dir",
        str(tmp_path / "runs"),
    ]
    assert train.main([*argv, "--classes", "car"]) == 0
    assert len(rows_of(run_test(trained, root / "test", tmp_path / "out") / "predictions.csv")) == 8
    check_dataset.main([str(root), "--num_threads", "1"])
    assert time.perf_counter() - started < 300
    capsys.readouterr()


@pytest.mark.usefixtures("without_pictures")
def test_class_folders_without_images_are_said(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataroot(tmp_path / "data", ("car",), count=2)
    for place in ("train/cat/0_real", "val/cat/1_fake", "test/empty/0_real"):
        (root / place).mkdir(parents=True)
    argv = [
        "--name",
        "n",
        "--dataroot",
        str(root),
        *TINY,
        "--niter",
        "1",
        "--checkpoints_dir",
        str(tmp_path / "runs"),
    ]
    with said() as lines:
        assert train.main(argv) == 0
        run_test(trained, root / "test", tmp_path / "out")
    for place in ("train/cat/0_real", "val/cat/1_fake", "test/empty/0_real"):
        assert lines.count(f"{root / place}: a class folder without images") == 1


@contextmanager
def said() -> Iterator[list[str]]:
    """The project's messages, whatever the scripts do to its handlers."""
    lines: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return True

    log.addFilter(note)
    try:
        yield lines
    finally:
        log.removeFilter(note)


@pytest.fixture
def impatient_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's workers look every 0.2 s, not every 5 s, whether their parent lives; it waits no
    longer for each to end."""
    for place in (torch.utils.data._utils, torch.utils.data._utils.worker):
        monkeypatch.setattr(place, "MP_STATUS_CHECK_INTERVAL", 0.2)


def slow_loader(
    folder: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> ImageLoader:
    """A loader with two workers; `act` is called in one of them, at 1_fake/010.png."""

    def read(path: str) -> Image.Image:
        if path.endswith("1_fake/010.png"):
            act()
        return read_image(path)

    monkeypatch.setattr("data.datasets.read_image", read)
    monkeypatch.setattr("data.loader.cores", lambda: 2)
    return evaluation_loader(load_set(make_set(folder, 20)), Protocol("native"), 4, 2)


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "memory ran out"),
        pytest.param(signal.SIGSEGV, "crashed", marks=pytest.mark.slow),
        pytest.param(signal.SIGBUS, "shared memory", marks=pytest.mark.slow),
        (None, "status 3"),
    ],
)
def test_a_worker_that_dies_is_one_line(
    number: int | None,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    act = (lambda: os._exit(3)) if number is None else lambda: os.kill(os.getpid(), number)
    with pytest.raises(UserError) as caught:
        list(slow_loader(tmp_path, act, monkeypatch).batches())
    message = str(caught.value)
    assert (
        how in message
        and "--num_threads (0" in message
        and "/dev/shm" in message
        and "\n" not in message
    )
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


def test_an_error_of_ours_in_a_worker_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        list(slow_loader(tmp_path, fail, monkeypatch).batches())


@pytest.mark.usefixtures("impatient_workers")
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_workers_leave_signals_to_their_parent(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ignore it; when the parent closes the loader, they end."""

    def from_another() -> None:
        subprocess.run(["kill", f"-{number}", str(os.getpid())], check=True)
        time.sleep(0.2)

    loader = slow_loader(tmp_path, from_another, monkeypatch)
    assert sum(len(batch.labels) for batch in loader.batches()) == 40
    workers = loader.watched.workers
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    del loader
    gc.collect()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_process_ends_although_its_workers_ignore_signals(tmp_path: Path) -> None:
    make_set(tmp_path, 20)
    code = f"""
from pathlib import Path
from data import evaluation_loader
from data.layouts import load_set
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
    """Leads a session of its own; tells its workers, waits for a signal, tells how many pictures
    came, and waits."""
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
