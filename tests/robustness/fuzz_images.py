"""Damaged image files: small files of every kind that the loader reads, and what can happen to
their bytes."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from data.datasets import ImageDataset, collate
from data.decode import UnreadableImage, read_image
from data.samplers import SampleKey
from data.transforms import Augmentation, Protocol
from tests.robustness.fuzz_engine import Kind, kind_of, require
from util import printable

EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF,
            0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
SIZE = (21, 13)
NO_RANGE = ("tiff F",)
"""Files whose pixels have no range that says which value is white; they are not read."""
PNG_START = b"\x89PNG\r\n\x1a\n"
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row, steps of columns and rows of each pass (PNG specification, 8.2)."""
TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma")


def base_picture(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """A gradient with noise, so that no encoder finds it trivial."""
    width, height = size
    ramp = (
        np.add.outer(np.arange(height) * 255 // height, np.arange(width) * 255 // width)[..., None]
        // 2
    )
    noise = np.random.default_rng(seed).integers(0, 64, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def encoded(
    image: Image.Image, kind: str, append: Sequence[Image.Image] = (), **options: object
) -> bytes:
    buffer = io.BytesIO()
    if append:
        options |= {"save_all": True, "append_images": [page.copy() for page in append]}
    image.copy().save(buffer, kind, **options)  # copies: saving leaves its settings in a picture
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(depth: int, colour: int, interlaced: bool) -> bytes:
    """A PNG file of any bit depth and colour type, written by hand: Pillow writes neither 16 bits
    of colour nor Adam7."""
    width, height = SIZE
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(depth + 16 * colour).integers(
        0, 2**depth, (height, width, channels)
    )
    rows = b""
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in values[top::down, left::across]:
            bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
            rows += b"\0" + np.packbits(bits.astype(np.uint8)).tobytes() if bits.size else b""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = (
        png_chunk(b"PLTE", bytes(range(0, 48)) if depth < 8 else bytes(768)) if colour == 3 else b""
    )
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return PNG_START + png_chunk(b"IHDR", header) + palette + data + png_chunk(b"IEND", b"")


def bmp_run_length() -> bytes:
    """An 8-bit BMP with run-length encoding, which Pillow reads and does not write: runs, literals,
    a move, ends of lines."""
    data = (
        b"\x15\x05\0\0" * 6 + b"\0\x04\1\2\3\4\0\2\3\1\x05\x07\0\0" + b"\x15\x09\0\0" * 5 + b"\0\1"
    )
    palette = b"".join(bytes((value, 255 - value, value // 2, 0)) for value in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, *SIZE, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def bmp_of_os2() -> bytes:
    """A 24-bit BMP with the 12-byte header of OS/2."""
    width, height = SIZE
    data = bytes((width * 3 + 3) // 4 * 4 * height)
    return (
        b"BM"
        + struct.pack("<IHHI", 26 + len(data), 0, 0, 26)
        + struct.pack("<IHHHH", 12, width, height, 1, 24)
        + data
    )


@functools.cache
def seeds() -> dict[str, bytes]:
    """{name: file} of the formats that the loader reads, all readable."""
    rgb = base_picture()
    grey, other, alpha = rgb.convert("L"), base_picture(seed=1), rgb.copy()
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    found = {
        f"png {mode}": encoded(rgb.convert(mode), "PNG")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    }
    for depth, colour in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3),
                          (8, 4), (16, 4), (8, 6), (16, 6)):  # fmt: skip
        for interlaced in (False, True):
            found[f"png {colour}/{depth}{' interlaced' * interlaced}"] = png(
                depth, colour, interlaced
            )
    about = PngImagePlugin.PngInfo()
    about.add_text("plain", "text")
    about.add_text("packed", "text" * 20, zip=True)
    about.add_itxt("international", "text", "en", "text", zip=True)
    profile = bytes(range(128)) * 3
    found["png extras"] = encoded(
        alpha, "PNG", pnginfo=about, exif=exif, icc_profile=profile, dpi=(72, 72)
    )
    found["png transparent"] = encoded(rgb, "PNG", transparency=(1, 2, 3))
    found["png P transparent"] = encoded(rgb.convert("P"), "PNG", transparency=bytes(range(200)))
    found["png animated"] = encoded(rgb, "PNG", append=[other, rgb])
    found |= {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg L": encoded(grey, "JPEG"),
        "jpeg CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg 4:4:4": encoded(rgb, "JPEG", subsampling=0, quality=98, optimize=True),
        "jpeg restarts": encoded(base_picture((70, 50)), "JPEG", restart_marker_blocks=2),
        "jpeg extras": encoded(
            rgb, "JPEG", exif=exif, icc_profile=profile, comment=b"comment", dpi=(300, 300)
        ),
        "mpo": encoded(rgb, "MPO", append=[other]),
        "webp": encoded(rgb, "WEBP", quality=80),
        "webp lossless": encoded(rgb, "WEBP", lossless=True),
        "webp alpha": encoded(alpha, "WEBP", exif=exif, icc_profile=profile),
        "webp animated": encoded(rgb, "WEBP", append=[other, rgb], duration=5),
        "bmp run-length": bmp_run_length(),
        "bmp OS/2": bmp_of_os2(),
        "gif": encoded(rgb, "GIF"),
        "gif interlaced": encoded(grey, "GIF", interlace=1),
        "gif transparent": encoded(rgb.convert("P"), "GIF", transparency=3, comment=b"comment"),
        "gif animated": encoded(rgb, "GIF", append=[other, rgb], duration=5, loop=0, disposal=2),
    }
    found |= {
        f"bmp {mode}": encoded(rgb.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")
    }
    found |= {
        f"tiff {packing}": encoded(rgb, "TIFF", compression=packing)
        for packing in TIFF_COMPRESSIONS
    }
    found |= {
        f"tiff {mode}": encoded(rgb.convert(mode), "TIFF")
        for mode in ("1", "L", "P", "RGBA", "CMYK", "F")
    }
    found |= {
        f"tiff {fax}": encoded(rgb.convert("1"), "TIFF", compression=fax)
        for fax in ("group3", "group4")
    }
    found |= {
        "tiff 16 bits": encoded(
            Image.fromarray(np.arange(273, dtype=np.uint16).reshape(13, 21) * 200), "TIFF"
        ),
        "tiff LAB": encoded(
            Image.frombytes("LAB", SIZE, rgb.tobytes()), "TIFF"
        ),  # Pillow's conversion is not repeatable
        "tiff YCbCr": encoded(rgb.convert("YCbCr"), "TIFF", compression="jpeg"),
        "tiff pages": encoded(rgb, "TIFF", append=[other, grey], compression="tiff_lzw"),
        "tiff big": encoded(rgb, "TIFF", big_tiff=True),
        "tiff extras": encoded(
            rgb, "TIFF", exif=exif, icc_profile=profile, description="text", dpi=(72, 72)
        ),
    }
    return found


@functools.cache
def foreign() -> dict[str, bytes]:
    """{name: file} of formats that Pillow knows and the loader does not read."""
    rgb = base_picture()
    kinds = ("AVIF", "DDS", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "PCX", "PPM", "SGI", "TGA")
    return {kind.lower(): encoded(rgb, kind) for kind in kinds} | {"psd": b"8BPS\0\1" + bytes(60)}


# what can happen to any bytes


def position(rng: random.Random, length: int) -> int:
    """Anywhere, rather at the beginning, where formats keep what matters, and seldom in the first
    bytes, which name the format."""
    end = min(length, rng.choice((64, 256, length, length)))
    start = rng.choice((0, 8, 8, 8, 16, 16))
    return rng.randrange(start if start < end else 0, end) if end else 0


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64)) if data else 0):
        changed[position(rng, len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if data else 0):
        changed[position(rng, len(data))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256))
        )
    return bytes(changed)


def set_number(rng: random.Random, data: bytes) -> bytes:
    """A field of 16 or 32 bits gets an extreme value, or one that is off by a little."""
    form = rng.choice((">H", "<H", ">I", "<I"))
    width = struct.calcsize(form)
    if len(data) < width:
        return data
    place = min(position(rng, len(data)), len(data) - width)
    (old,) = struct.unpack_from(form, data, place)
    value = rng.choice((*EXTREMES, old + 1, old - 1, old * 2, old // 2)) % 256**width
    return data[:place] + struct.pack(form, value) + data[place + width :]


def piece(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = position(rng, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 12, 64, 1024)))


def delete(rng: random.Random, data: bytes) -> bytes:
    start, end = piece(rng, data)
    return data[:start] + data[end:]


def duplicate(rng: random.Random, data: bytes) -> bytes:
    start, end = piece(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def swap(rng: random.Random, data: bytes) -> bytes:
    (a, b), (c, d) = sorted((piece(rng, data), piece(rng, data)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[
        : rng.choice(
            (rng.randrange(len(data) + 1), position(rng, len(data)), max(0, len(data) - 1))
        )
    ]


def insert(rng: random.Random, data: bytes) -> bytes:
    place = position(rng, len(data))
    garbage = rng.choice(
        (rng.randbytes(rng.choice((1, 2, 4, 100, 5000))), bytes(rng.choice((1, 4, 1000, 100_000))))
    )
    return data[:place] + garbage + data[place:]


ANY_BYTES = (flip_bits, set_bytes, set_number, delete, duplicate, swap, truncate, insert)


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    at = rng.random() if rng.random() < 0.5 else None
    first = rng.randrange(len(data) + 1) if at is None else int(at * len(data))
    second = rng.randrange(len(other) + 1) if at is None else int(at * len(other))
    return data[:first] + other[second:]


# what can happen to the parts that formats are made of

Parts = list[bytes]


def png_parts(data: bytes) -> Parts:
    """The chunks as name and content; what does not parse is left out."""
    parts, place = [], len(PNG_START)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        parts.append(data[place + 4 : place + 8 + length])
        place += 12 + length
    return parts


def from_png_parts(parts: Parts) -> bytes:
    """Chunks with their right lengths and check sums, so that a decoder goes on to what is in them."""
    return PNG_START + b"".join(png_chunk(part[:4], part[4:]) for part in parts)


def jpeg_parts(data: bytes) -> Parts:
    """The segments as marker and content; the scan and all behind it is the last."""
    parts, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        parts.append(data[place + 1 : place + 2] + data[place + 4 : place + 2 + length])
        place += 2 + length
    return [*parts, b"\xda" + data[place + 2 :]]


def from_jpeg_parts(parts: Parts) -> bytes:
    whole = b"\xff\xd8"
    for part in parts:
        length = b"" if part[:1] == b"\xda" else struct.pack(">H", min(0xFFFF, len(part) + 1))
        whole += b"\xff" + part[:1] + length + part[1:]
    return whole


def webp_parts(data: bytes) -> Parts:
    parts, place = [], 12
    while place + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        parts.append(data[place : place + 4] + data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return parts


def from_webp_parts(parts: Parts) -> bytes:
    padded = [
        part[:4] + struct.pack("<I", max(0, len(part) - 4)) + part[4:] + b"\0" * (len(part) % 2)
        for part in parts
    ]
    body = b"WEBP" + b"".join(padded)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_directory(data: bytes) -> tuple[str, int, int]:
    """Byte order, place of the first directory's first entry, and number of entries; (.., 0, 0) for
    a BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    version, place = struct.unpack_from(f"{order}HI", data, 2)
    if version != 42 or place + 2 > len(data):
        return order, 0, 0
    return order, place + 2, struct.unpack_from(f"{order}H", data, place)[0]


def change_tiff(rng: random.Random, data: bytes) -> bytes:
    """Tags, types, counts and values of the first directory's entries: changed, copied over each
    other, removed."""
    order, start, count = tiff_directory(data)
    entries = [data[start + 12 * n : start + 12 * (n + 1)] for n in range(count)]
    if not entries:
        return set_number(rng, data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        number = rng.randrange(count)
        tag, kind, length, value = struct.unpack(f"{order}HHII", entries[number])
        extreme = rng.choice((*EXTREMES, value + 1, value * 2, len(data), len(data) - 1)) % 2**32
        known = rng.choice(
            (
                256,
                257,
                258,
                259,
                262,
                273,
                277,
                278,
                279,
                284,
                317,
                320,
                322,
                323,
                338,
                339,
                530,
                34665,
            )
        )
        entries[number] = rng.choice(
            (
                struct.pack(f"{order}HHII", tag, kind, length, extreme),
                struct.pack(f"{order}HHII", tag, kind, extreme, value),
                struct.pack(f"{order}HHII", tag, rng.randrange(20), length, value),
                struct.pack(f"{order}HHII", known, kind, length, value),
                struct.pack(f"{order}HHII", tag, kind, length, rng.randrange(40)),
                rng.choice(entries),
            )
        )
    return data[:start] + b"".join(entries) + data[start + 12 * count :]


def change_parts(rng: random.Random, parts: Parts, others: Parts) -> Parts:
    """Parts removed, doubled, swapped, taken from another file, or changed within."""
    parts = list(parts)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not parts:
            break
        number = rng.randrange(len(parts))
        match rng.randrange(7):
            case 0:
                del parts[number]
            case 1:
                parts.insert(rng.randrange(len(parts) + 1), parts[number])
            case 2:
                parts[0], parts[number] = parts[number], parts[0]
            case 3:
                parts.insert(number, rng.choice(others) if others else b"")
            case _:
                name = 1 if len(parts[number]) < 5 else 4
                parts[number] = parts[number][:name] + rng.choice(ANY_BYTES)(
                    rng, parts[number][name:]
                )
    return parts


def change_png_rows(rng: random.Random, data: bytes) -> bytes:
    """Damage within the compressed rows, compressed again: wrong filters, too few and too many
    rows."""
    parts = png_parts(data)
    rows = zlib.decompress(b"".join(part[4:] for part in parts if part[:4] == b"IDAT"))
    damaged = rng.choice((rng.choice(ANY_BYTES)(rng, rows), rows * rng.choice((2, 100)), b""))
    packed = zlib.compress(damaged)
    return from_png_parts(
        [part for part in parts[:-1] if part[:4] != b"IDAT"] + [b"IDAT" + packed, b"IEND"]
    )


def bomb(rng: random.Random, data: bytes) -> bytes:
    """A small PNG file that claims, or unpacks to, a lot."""
    parts = png_parts(data)
    zeros = zlib.compress(bytes(rng.choice((10**5, 10**7, 5 * 10**7))))
    match rng.randrange(4):
        case 0:
            side = struct.pack(
                ">II", *(rng.choice((1, 9_000, 40_000, 2**24, 2**31 - 1)) for _ in range(2))
            )
            return from_png_parts([parts[0][:4] + side + parts[0][12:], *parts[1:]])
        case 1:
            return from_png_parts([*parts[:1], b"zTXtx\0\0" + zeros, *parts[1:]])
        case 2:
            return from_png_parts([*parts[:1], b"iCCPx\0\0" + zeros, *parts[1:]])
    return from_png_parts([*parts[:1], *([b"tEXtx\0y"] * rng.choice((100, 20_000))), *parts[1:]])


PARTS: dict[str, tuple[Callable[[bytes], Parts], Callable[[Parts], bytes]]] = {
    "png": (png_parts, from_png_parts),
    "jpeg": (jpeg_parts, from_jpeg_parts),
    "mpo": (jpeg_parts, from_jpeg_parts),
    "webp": (webp_parts, from_webp_parts),
}


def damaged_parts(rng: random.Random, kind: str, data: bytes, files: Sequence[str]) -> bytes:
    """One change that knows the format."""
    if kind == "png" and rng.random() < 0.3:
        return change_png_rows(rng, data)
    if kind == "png" and rng.random() < 0.05:
        return bomb(rng, data)
    if kind == "tiff":
        return change_tiff(rng, data)
    if kind not in PARTS:
        return set_number(rng, data)
    take, put = PARTS[kind]
    other = seeds()[rng.choice([name for name in files if name.split()[0] == kind])]
    return put(change_parts(rng, take(data), take(other)))


def image_case(seed: int, number: int) -> tuple[str, bytes]:
    """What case `number` of a seed is made from, and the file: the undamaged files first, then
    damaged ones."""
    undamaged = seeds() | foreign()
    names = list(undamaged)
    if number < len(names):
        return names[number], undamaged[names[number]]
    rng = random.Random(f"image {seed} {number}")
    files = list(seeds())
    name = rng.choice(names if rng.random() < 0.05 else files)
    data = undamaged[name]
    if rng.random() < 0.5:
        data = damaged_parts(rng, name.split()[0], data, files)
    if rng.random() < 0.1:
        data = splice(rng, data, seeds()[rng.choice(files)])
    if rng.random() < 0.6 or data == undamaged[name]:
        for _ in range(rng.choice((1, 1, 1, 2))):
            data = rng.choice(ANY_BYTES)(rng, data)
    return name, data


def write_image(seed: int, number: int, folder: Path) -> Path:
    """The file of a case; its name says nothing about its format."""
    path = folder / f"case{number}.png"
    path.write_bytes(image_case(seed, number)[1])
    return path


def check_image(path: Path, number: int) -> str:
    """Read a file: an RGB picture or UnreadableImage with a reason on one line; every so often
    through a data set, too."""
    try:
        image = read_image(str(path))
        why = ""
    except UnreadableImage as error:
        why = str(error)
        require(
            bool(why) and printable(why) == why and path.name not in why,
            f"a reason that is none: {why!r}",
        )
    if not why:
        require(
            image.mode == "RGB" and min(image.size) > 0,
            f"a picture of mode {image.mode}, size {image.size}",
        )
        pixels = np.asarray(image)
        require(
            pixels.shape == (image.height, image.width, 3) and pixels.dtype == np.uint8, "no pixels"
        )
        int(pixels.max())
    undamaged = list(seeds() | foreign())
    if number < len(undamaged):
        wanted = undamaged[number] in seeds() and undamaged[number] not in NO_RANGE
        require(wanted == (not why), f"{undamaged[number]}, undamaged: {why or 'is read'}")
    if number % 16 == 0 or number < len(undamaged):
        check_dataset(path, number, why)
    return f"left out: {kind_of(why)}" if why else "read"


def check_dataset(path: Path, number: int, why: str) -> None:
    """A data set under a random protocol gives what `read_image` gave: one picture of the
    protocol's size, or the reason."""
    augment = Augmentation(blur_prob=0.5, jpeg_prob=0.5) if number % 32 else None
    protocol = Protocol("fuzz", resize=24, crop=16, augment=augment)
    dataset = ImageDataset([str(path)], [1], protocol, seed=number)
    loaded = collate([dataset[SampleKey(0, 0)]])
    if why:
        require(
            not loaded.groups and loaded.left_out == [(0, 0, why)],
            f"the data set says {loaded.left_out}, not {why}",
        )
    else:
        (batch,) = loaded.groups
        require(
            tuple(batch.pixels.shape) == (1, 3, 16, 16), f"a batch of {tuple(batch.pixels.shape)}"
        )
        require(
            bool(torch.isfinite(protocol.normalise(batch.pixels)).all()),
            "pixels that are not finite",
        )


IMAGES = Kind("image", write_image, check_image)
