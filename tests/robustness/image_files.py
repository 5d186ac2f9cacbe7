"""Small image files of every kind that the loader reads, with their pixels, and damaged ones."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.robustness.damage import damaged_bytes, damaged_parts
from tests.robustness.isolation import File

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
GREY, ALPHA = NOISE[..., 0], NOISE[..., 1]
WIDE = RNG.integers(0, 65536, (24, 40), dtype=np.uint16)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each colour type: grey, RGB, palette, grey and alpha, RGB and alpha."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # fmt: skip
"""First column, first row, steps of columns and rows of each pass (PNG specification, 8.2)."""


class ImageFile(NamedTuple):
    """A readable file, its RGB pixels by a computation of our own, and how far they may be off."""

    data: bytes
    pixels: np.ndarray
    tolerance: float = 0


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # copies: saving leaves its settings in an image
    pages = [page.copy() for page in options.pop("append_images", ())]
    image.copy().save(buffer, format=kind, append_images=pages, **options)
    return buffer.getvalue()


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    idat: bytes,
    depth: int = 8,
    colour: int = 0,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """Return a PNG file by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data, end = png_chunk(b"IDAT", idat), png_chunk(b"IEND", b"")
    return PNG_START + png_chunk(b"IHDR", header) + extra + data + end


def png_of(samples: np.ndarray, depth: int, colour: int, interlaced: bool) -> bytes:
    """Return a PNG file of samples [H, W, C]; Pillow writes neither 16-bit colour nor Adam7."""
    rows = b""
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in samples[top::down, left::across]:
            bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
            rows += b"\0" + np.packbits(bits.astype(np.uint8)).tobytes()
    extra = png_chunk(b"PLTE", PALETTE[: 2**depth].tobytes()) if colour == 3 else b""
    height, width = samples.shape[:2]
    return png(width, height, zlib.compress(rows), depth, colour, interlaced, extra)


def png_files() -> Iterator[tuple[str, ImageFile]]:
    """Yield all bit depths and colour types, plain and interlaced."""
    kinds = ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3),
             (8, 3), (8, 4), (16, 4), (8, 6), (16, 6))  # fmt: skip
    for depth, colour in kinds:
        samples = RNG.integers(0, 2**depth, (24, 40, PNG_CHANNELS[colour]))
        if colour == 3:
            pixels = PALETTE[samples[..., 0]]
        else:
            eight = samples // 256 if depth == 16 else samples * 255 // (2**depth - 1)
            pixels = eight[..., :3] if colour in (2, 6) else grey_to_rgb(eight[..., 0])
        for interlaced in (False, True):
            data = png_of(samples, depth, colour, interlaced)
            yield f"PNG {colour}/{depth}{' Adam7' * interlaced}", ImageFile(data, pixels)


def tiff(
    width: int, height: int, data: bytes, order: str = "<", depth: int = 8, **tags: int
) -> bytes:
    """Return a grey TIFF file by hand, in one strip or, with TileWidth, one tile.

    Args:
        width: in pixels. height: in pixels. data: the strip. order: of bytes. depth: in bits.
        tags: Compression, Orientation, or TileWidth with TileLength.
    """
    values = {256: width, 257: height, 258: depth, 259: tags.pop("Compression", 1), 262: 1, 277: 1}
    if "Orientation" in tags:
        values[274] = tags["Orientation"]
    if "TileWidth" in tags:
        values |= {322: tags["TileWidth"], 323: tags["TileLength"]}
    else:
        values[278] = height
    place, size = (324, 325) if "TileWidth" in tags else (273, 279)
    values |= {place: 8 + 2 + 12 * (len(values) + 2) + 4, size: len(data)}
    directory = b""
    for tag, value in sorted(values.items()):
        short = tag in (258, 259, 262, 274, 277)
        form = "HHIHH" if short else "HHII"
        directory += struct.pack(order + form, tag, 3 if short else 4, 1, value, *[0] * short)
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(values))
    return start + directory + bytes(4) + data


def tiff_files() -> Iterator[tuple[str, ImageFile]]:
    high_byte = grey_to_rgb(WIDE // 256)
    for order in "<>":
        data = WIDE.astype(f"{order}u2").tobytes()
        yield f"TIFF 16-bit grey {order}", ImageFile(tiff(40, 24, data, order, 16), high_byte)
    turned = tiff(40, 24, WIDE.tobytes(), depth=16, Orientation=6)
    yield "TIFF 16-bit, turned", ImageFile(turned, high_byte)
    for number in range(2, 9):
        data = tiff(40, 24, GREY.tobytes(), Orientation=number)
        yield f"TIFF orientation {number}", ImageFile(data, grey_to_rgb(GREY))


def bmp_files() -> Iterator[tuple[str, ImageFile]]:
    """Yield two kinds that Pillow does not write: run-length encoding, and OS/2's short header."""
    runs = b"\x15\x05\0\0" * 6 + b"\0\x04\1\2\3\4\x11\x07\0\0" + b"\x15\x09\0\0" * 6 + b"\0\1"
    table = b"".join(bytes((value, 255 - value, value // 2, 0)) for value in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, 21, 13, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(table)
    rows = [[9] * 21] * 6 + [[1, 2, 3, 4] + [7] * 17] + [[5] * 21] * 6  # stored from the bottom
    values = np.array(rows)
    pixels = np.dstack([values // 2, 255 - values, values]).astype(np.uint8)
    before = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start)
    yield "BMP run-length", ImageFile(before + header + table + runs, pixels)
    header = struct.pack("<IHHHH", 12, 40, 24, 1, 24)
    before = b"BM" + struct.pack("<IHHI", 26 + NOISE.size, 0, 0, 26)
    data = before + header + NOISE[::-1, :, ::-1].tobytes()
    yield "BMP OS/2", ImageFile(data, NOISE)


def from_cmyk(pixels: np.ndarray) -> np.ndarray:
    """Return RGB: each ink and black take their share of the light, (1 - C) (1 - K)."""
    inks = pixels.astype(float) / 255
    return 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])


def from_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """Return RGB by ITU-R BT.601 in JFIF's full range."""
    y, cb, cr = np.moveaxis(pixels - np.array([0.0, 128, 128]), -1, 0)
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return rgb.clip(0, 255)


def from_lab(pixels: np.ndarray) -> np.ndarray:
    """Return sRGB of CIE L*a*b* (D50), by way of XYZ with Bradford's adaptation to D65."""
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


def pillow_files() -> Iterator[tuple[str, ImageFile]]:
    """Yield files by Pillow's encoders; where they lose information, of one colour."""
    rgb, grey, second = (Image.fromarray(pixels) for pixels in (NOISE, GREY, 255 - NOISE))
    alpha = Image.fromarray(np.dstack([NOISE, ALPHA]))
    grey_alpha = Image.merge("LA", [grey, Image.fromarray(ALPHA)])
    indices = RNG.integers(0, 16, (24, 40), dtype=np.uint8)
    palette, other = Image.fromarray(indices), Image.fromarray(15 - indices)
    palette.putpalette(PALETTE[:16].tobytes())
    other.putpalette(PALETTE[:16].tobytes())
    colours, bits = PALETTE[indices], grey_to_rgb((GREY > 127) * 255)
    bilevel = Image.fromarray(GREY > 127)
    smooth = np.full((24, 40, 3), (120, 90, 170), dtype=np.uint8)
    plain = Image.fromarray(smooth)
    inks = RNG.integers(0, 256, (24, 40, 4), dtype=np.uint8)
    ink = np.full((24, 40, 4), (200, 30, 90, 60), dtype=np.uint8)
    lab = np.full((24, 40, 3), (150, 20, 236), dtype=np.uint8)
    cmyk, one_ink, lab_image = Image.fromarray(inks, "CMYK"), Image.fromarray(ink, "CMYK"), Image.fromarray(lab, "LAB")  # fmt: skip
    ycbcr = Image.fromarray(smooth, "YCbCr")
    long = RNG.integers(0, 256, (2, 30_000, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    text = PngImagePlugin.PngInfo()
    text.add_text("plain", "text")
    text.add_text("packed", "text" * 20, zip=True)
    text.add_itxt("international", "text", "en", "text", zip=True)
    extras = {"exif": exif, "icc_profile": bytes(range(128)) * 3, "dpi": (72, 72)}
    pages = {"save_all": True, "append_images": [second]}
    best = {"quality": 100}
    rows: list[tuple[str, Image.Image, str, dict, np.ndarray, float]] = [
        ("PNG RGB", rgb, "PNG", {}, NOISE, 0),
        ("PNG grey and alpha", grey_alpha, "PNG", {}, grey_to_rgb(GREY), 0),
        ("PNG transparent palette", palette, "PNG", {"transparency": bytes(range(16))}, colours, 0),
        ("PNG transparent colour", rgb, "PNG", {"transparency": tuple(NOISE[0, 0].tolist())}, NOISE, 0),
        ("PNG extras", alpha, "PNG", {"pnginfo": text, **extras}, NOISE, 0),
        ("PNG animated", rgb, "PNG", pages, NOISE, 0),
        ("PNG 1x1", Image.fromarray(NOISE[:1, :1]), "PNG", {}, NOISE[:1, :1], 0),
        ("PNG 30000x2", Image.fromarray(long), "PNG", {}, long, 0),
        ("JPEG", plain, "JPEG", best, smooth, 2),
        ("JPEG grey", Image.fromarray(smooth[..., 0]), "JPEG", best, grey_to_rgb(smooth[..., 0]), 2),
        ("JPEG CMYK, inverted as Adobe does", one_ink, "JPEG", best, from_cmyk(ink), 3),
        ("JPEG progressive", plain, "JPEG", {"progressive": True, **best}, smooth, 2),
        ("JPEG 4:4:4", plain, "JPEG", {"subsampling": 0, "optimize": True, **best}, smooth, 2),
        ("JPEG restarts", plain, "JPEG", {"restart_marker_blocks": 2, **best}, smooth, 2),
        ("JPEG extras", Image.fromarray(smooth[:, :30]), "JPEG", {"comment": b"x", **extras, **best}, smooth[:, :30], 2),
        ("JPEG with a second image (MPO)", plain, "MPO", pages | best, smooth, 2),
        ("WEBP", plain, "WEBP", best, smooth, 3),
        ("WEBP lossless", rgb, "WEBP", {"lossless": True, "exif": exif}, NOISE, 0),
        ("WEBP alpha", alpha, "WEBP", {"lossless": True, "exact": True, "icc_profile": bytes(128)}, NOISE, 0),
        ("WEBP animated", rgb, "WEBP", {"lossless": True, **pages}, NOISE, 0),
        ("BMP RGB", rgb, "BMP", {}, NOISE, 0),
        ("BMP 1 bit", bilevel, "BMP", {}, bits, 0),
        ("BMP grey", grey, "BMP", {}, grey_to_rgb(GREY), 0),
        ("BMP palette", palette, "BMP", {}, colours, 0),
        ("BMP alpha", alpha, "BMP", {}, NOISE, 0),
        ("GIF palette", palette, "GIF", {"interlace": 0}, colours, 0),
        ("GIF interlaced", grey, "GIF", {"interlace": 1}, grey_to_rgb(GREY), 0),
        ("GIF transparent", palette, "GIF", {"transparency": 3, "comment": b"x"}, colours, 0),
        ("GIF animated", palette, "GIF", {"save_all": True, "append_images": [other], "disposal": 2}, colours, 0),
        ("TIFF 1 bit", bilevel, "TIFF", {}, bits, 0),
        ("TIFF group 3", bilevel, "TIFF", {"compression": "group3"}, bits, 0),
        ("TIFF group 4", bilevel, "TIFF", {"compression": "group4"}, bits, 0),
        ("TIFF grey", grey, "TIFF", {}, grey_to_rgb(GREY), 0),
        ("TIFF palette", palette, "TIFF", {}, colours, 0),
        ("TIFF alpha", alpha, "TIFF", {}, NOISE, 0),
        ("TIFF CMYK", cmyk, "TIFF", {}, from_cmyk(inks), 1.5),
        ("TIFF YCbCr", ycbcr, "TIFF", {"compression": "jpeg", **best}, from_ycbcr(smooth), 3),
        ("TIFF LAB", lab_image, "TIFF", {}, from_lab(lab), 3),
        ("TIFF JPEG", plain, "TIFF", {"compression": "jpeg", **best}, smooth, 2),
        ("TIFF pages", rgb, "TIFF", {"compression": "tiff_lzw", **pages}, NOISE, 0),
        ("TIFF big", rgb, "TIFF", {"big_tiff": True}, NOISE, 0),
        ("TIFF extras", rgb, "TIFF", {"description": "text", **extras}, NOISE, 0),
        *((f"TIFF {packing}", rgb, "TIFF", {"compression": packing}, NOISE, 0)
          for packing in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma")),
    ]  # fmt: skip
    for name, image, kind, options, pixels, tolerance in rows:
        yield name, ImageFile(encoded(image, kind, **options), pixels, tolerance)


IMAGE_FILES = dict([*png_files(), *tiff_files(), *bmp_files(), *pillow_files()])
SMALL = sorted(name for name, file in IMAGE_FILES.items() if len(file.data) < 20_000)
Parts = tuple[bytes, list[bytes]]


def split_png(data: bytes) -> Parts:
    """Return the signature, and the chunks as name and content; that of IDAT is unpacked."""
    parts, place = [], len(PNG_START)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        content = data[place + 8 : place + 8 + length]
        name = data[place + 4 : place + 8]
        parts.append(name + (zlib.decompress(content) if name == b"IDAT" else content))
        place += 12 + length
    return PNG_START, parts


def join_png(start: bytes, parts: list[bytes]) -> bytes:
    """Join chunks with right lengths and checksums, so that a decoder goes on to their content."""
    for part in parts:
        name, content = part[:4].ljust(4), part[4:]
        start += png_chunk(name, zlib.compress(content) if name == b"IDAT" else content)
    return start


def split_tiff(data: bytes) -> Parts:
    """Return the file, and the entries of the first directory (of a BigTIFF 12 bytes each, too)."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    return data, [data[place + 2 + 12 * n : place + 14 + 12 * n] for n in range(max(1, count))]


def join_tiff(start: bytes, parts: list[bytes]) -> bytes:
    """Append a directory of these entries to the file and point to it."""
    order = "<" if start[:2] == b"II" else ">"
    entries = b"".join(part[:12].ljust(12, b"\0") for part in parts)
    head = start[:4] + struct.pack(f"{order}I", len(start)) + start[8:]
    return head + struct.pack(f"{order}H", len(parts)) + entries + bytes(4)


FORMATS = {"PNG": (split_png, join_png), "TIFF": (split_tiff, join_tiff)}
"""Formats of which bytes alone do not reach far: checksums, and places of the parts."""


@st.composite
def damaged_image_files(draw: st.DrawFn) -> File:
    """Damage the bytes of a file, or the parts that its format consists of, or both."""
    name, another = draw(st.sampled_from(SMALL)), draw(st.sampled_from(SMALL))
    way = draw(st.sampled_from(("bytes", "parts", "both")))
    kind, data = name.split()[0], IMAGE_FILES[name].data
    if way != "bytes" and kind in FORMATS:
        split, join = FORMATS[kind]
        alike = draw(st.sampled_from([other for other in SMALL if other.startswith(kind)]))
        (start, parts), (_, others) = split(data), split(IMAGE_FILES[alike].data)
        data = join(start, draw(damaged_parts(parts, others, damaged_part)))
    if way != "parts" or kind not in FORMATS:
        data = draw(damaged_bytes(data, IMAGE_FILES[another].data))
    return File("image.png", data)  # the name does not give the format away


def damaged_part(part: bytes) -> st.SearchStrategy[bytes]:
    """Damage what follows a chunk's name, or an entry's tag and type."""
    return damaged_bytes(part[4:]).map(lambda content: part[:4] + content) | damaged_bytes(part)
