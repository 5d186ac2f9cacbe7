"""Image files of every kind that a data set may hold, sound and hostile: what docs/files.md says becomes of them."""

import io
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from data import evaluation_loader
from data.decode import FORMATS, UnreadableImage, read_image
from data.formats import read_format
from data.image_sets import ImageSet
from data.transforms import Protocol
from tests.conftest import REPOSITORY

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


def png(width: int, height: int, idat: bytes, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG file by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", idat), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png16(samples: np.ndarray, colour: int) -> bytes:
    """A PNG file of 16-bit samples [H, W, C], which Pillow can read but not write."""
    rows = samples.astype(">u2").reshape(samples.shape[0], -1)
    return png(
        samples.shape[1], samples.shape[0], zlib.compress(b"".join(b"\0" + r.tobytes() for r in rows)), 16, colour
    )


def tiff(width: int, height: int, data: bytes, order: str = "<", depth: int = 8, **tags: int) -> bytes:
    """A grey TIFF file by hand, in one strip or, with TileWidth, one tile; `order` is that of its bytes."""
    values = {256: width, 257: height, 258: depth, 259: tags.pop("Compression", 1), 262: 1, 277: 1}
    values |= {322: tags["TileWidth"], 323: tags["TileLength"]} if "TileWidth" in tags else {278: height}
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
    return start + struct.pack(f"{order}HIH", 42, 8, len(entries)) + ifd + struct.pack(f"{order}I", 0) + data


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
    y, cb, cr = (pixels[..., channel].astype(float) - (128 if channel else 0) for channel in range(3))
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 255)


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
    """Name, content of the file, its pixels by a computation of our own, and how far rounding may be off."""
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
    yield "transparent colour", encoded(rgb, "PNG", transparency=tuple(NOISE[0, 0].tolist())), NOISE, 0
    yield "16-bit grey PNG", png16(WIDE[..., None], 0), replicated((WIDE // 256).astype(np.uint8)), 0
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
        yield f"16-bit grey TIFF {order}", tiff(40, 24, data, order, 16), replicated((WIDE // 256).astype(np.uint8)), 0
    inks = RNG.integers(0, 256, (24, 40, 4), dtype=np.uint8)
    yield "CMYK TIFF", encoded(Image.fromarray(inks, "CMYK"), "TIFF"), from_cmyk(inks), 1.5
    flat = np.full((24, 40, 4), (200, 30, 90, 60), dtype=np.uint8)  # JPEG keeps one colour nearly as it is
    yield (
        "CMYK JPEG, inverted as Adobe does",
        encoded(Image.fromarray(flat, "CMYK"), "JPEG", quality=100),
        from_cmyk(flat),
        3,
    )
    smooth = np.full((24, 40, 3), (120, 90, 170), dtype=np.uint8)
    yield "JPEG", encoded(Image.fromarray(smooth), "JPEG", quality=100), smooth, 2
    yield "YCbCr TIFF", encoded(Image.fromarray(smooth, "YCbCr"), "TIFF"), from_ycbcr(smooth), 2
    lab = np.full((24, 40, 3), (150, 20, 236), dtype=np.uint8)
    yield "LAB TIFF", encoded(Image.fromarray(lab, "LAB"), "TIFF"), from_lab(lab), 3
    turned = {"exif": Image.Exif()}
    turned["exif"][274] = 6
    yield "orientation PNG", encoded(rgb, "PNG", **turned), NOISE, 0
    yield "orientation JPEG", encoded(Image.fromarray(smooth[:, :30]), "JPEG", quality=100, **turned), smooth[:, :30], 2
    yield "orientation WEBP", encoded(rgb, "WEBP", lossless=True, **turned), NOISE, 0
    for number in range(2, 9):
        yield f"orientation TIFF {number}", tiff(40, 24, GREY.tobytes(), Orientation=number), replicated(GREY), 0
    yield (
        "orientation 16-bit TIFF",
        tiff(40, 24, WIDE.tobytes(), depth=16, Orientation=6),
        replicated((WIDE // 256).astype(np.uint8)),
        0,
    )
    second = Image.fromarray(255 - NOISE)
    for kind, how in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        yield f"animated {kind}", encoded(rgb, kind, save_all=True, append_images=[second], **how), NOISE, 0
    other = Image.fromarray(15 - np.asarray(image), "L")
    other.putpalette(image.getpalette())
    yield "animated GIF", encoded(image, "GIF", save_all=True, append_images=[other]), colours, 0
    two = encoded(Image.fromarray(smooth), "MPO", save_all=True, append_images=[second], quality=100)
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
    "text": (b"no picture\n", "in none of the formats that are read: PNG, JPEG, WEBP, BMP, TIFF, GIF"),
    "PostScript": (encoded(Image.fromarray(NOISE), "EPS"), "in none of the formats"),
    "PPM": (encoded(Image.fromarray(NOISE), "PPM"), "in none of the formats"),
    "JPEG 2000": (encoded(Image.fromarray(NOISE), "JPEG2000"), "in none of the formats"),
    "AVIF": (encoded(Image.fromarray(NOISE), "AVIF"), "in none of the formats"),
    "icon": (encoded(Image.fromarray(NOISE), "ICO"), "in none of the formats"),
    "32-bit integers": (encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"), "integer pixels.*no defined range"),
    "32-bit floats": (encoded(Image.fromarray(FLOATS), "TIFF"), "floating-point pixels have no defined range"),
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
        (folder_called_like_a_picture, "no regular file"),
        (os.mkfifo, "no regular file"),  # opening it would wait for ever
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
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


def test_limit_is_pillows_and_counts_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40)
    path = tmp_path / "x.png"
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        Image.fromarray(NOISE).save(path, format=kind)
        assert read_image(str(path)).size == (40, 24)
        Image.new("RGB", (41, 24)).save(path, format=kind)
        for read in (read_image, read_format):
            with pytest.raises(UnreadableImage, match="^41x24 pixels are more than the limit of 960$"):
                read(str(path))


def zeros(rows: int, width: int) -> bytes:
    """A deflate stream of black rows of a PNG file, made of one piece that is repeated."""
    squeeze = zlib.compressobj(9)
    start = squeeze.compress(b"\0" * (width + 1)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    piece = squeeze.compress(b"\0" * (width + 1) * 100) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (rows // 100) + squeeze.flush()


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Name, content, and what is said; each is small as a file, and would fill hundreds of MiB to many GiB."""
    limit = "pixels are more than the limit of 89,478,485"
    text = zlib.compress(b"a" * 100_000_000)
    yield "50000x50000.png", png(50_000, 50_000, zeros(50_000, 50_000)), f"50000x50000 {limit}"
    yield "20000x20000.png", png(20_000, 20_000, zeros(20_000, 20_000)), f"20000x20000 {limit}"
    yield "10000x9000.png", png(10_000, 9_000, zeros(9_000, 10_000)), f"10000x9000 {limit}"  # below Pillow's own error
    for kind, before in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        data = png(1, 1, zlib.compress(b"\0\0"), extra=chunk(kind, before + text))
        yield f"{kind.decode()}.png", data, "damaged: ValueError: Decompressed data too large"
    late = png(1, 1, zlib.compress(b"\0\0"))[:-12] + chunk(b"zTXt", b"k\0\0" + text) + chunk(b"IEND", b"")
    yield "late_text.png", late, "damaged: ValueError: Decompressed data too large"
    yield "header.tif", tiff(2**31 - 1, 2**31 - 1, b"\0" * 100), f"2147483647x2147483647 {limit}"
    tile = zeros(20_000, 19_999)
    yield "tile.tif", tiff(8, 8, tile, Compression=8, TileWidth=20_000, TileLength=20_000), f"20000x20000 {limit}"
    jpeg = encoded(Image.new("L", (8, 8)), "JPEG")
    place = jpeg.index(b"\xff\xc0") + 5
    yield "header.jpg", jpeg[:place] + struct.pack(">HH", 65_500, 65_500) + jpeg[place + 4 :], f"65500x65500 {limit}"
    bmp = encoded(Image.new("L", (8, 8)), "BMP")
    yield "header.bmp", bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:], f"1073741824x1073741824 {limit}"
    gif = encoded(Image.new("L", (8, 8)), "GIF")
    yield "header.gif.png", gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:], f"65535x65535 {limit}"
    frame = gif.index(b",") + 5
    data = gif[:frame] + struct.pack("<HH", 65_535, 65_535) + gif[frame + 4 :]
    yield "frame.gif.png", data, "more pixels than the limit of 89,478,485"
    size = (16_383 - 1).to_bytes(3, "little")  # the largest that the format knows
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + size + encoded(Image.new("RGB", (8, 8)), "WEBP")[12:]
    yield "header.webp", b"RIFF" + struct.pack("<I", len(body)) + body, ""


MEASURE = """
import resource, sys
from data.decode import UnreadableImage, read_image
from data.formats import read_format
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
        [sys.executable, "-c", MEASURE, *paths], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    *said, grown = ran.stdout.splitlines()
    assert not ran.stderr
    for number, (name, _, why) in enumerate(found):
        assert said[2 * number].startswith(why) and said[2 * number] != "read", (name, said[2 * number])
    assert int(grown) < 30_000  # KiB


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(CASES)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0.05, 1),
)
def test_damage_is_one_kind_of_error(name: str, changes: list[tuple[float, int]], kept: float) -> None:
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
