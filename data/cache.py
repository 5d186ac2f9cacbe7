"""Cache of decoded images: uint8 pixels after a protocol's first half, in a memory-mapped file.

A cache is a folder below the one that the user names. Its name is a digest of the files (path,
size, time of change, permission) and of the protocol's first half, so changed files or another
resize make another cache. Files in it:

    pixels.bin      one image after the other, [3, H, W] each
    index.npy       rows (offset into pixels.bin, H, W) in the order of the files; 0: unreadable
    problems.json   reason by number of the file, for unreadable files
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import distributed
from data.decode import UnreadableImage, open_image, read_image
from data.transforms import Protocol
from util import UserError, atomic_folder, log

FORMAT = 3  # of the files in the folder; part of the digest
SAMPLE_FILES = 200  # whose headers are read to estimate the size of images of their own sizes
CHUNK = 64  # images that are decoded before they are written


class PixelCache:
    """Images of a list of files, by their number in it; worker processes map the same file.

    Args:
        folder: a finished cache, as `open_cache` returns it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = np.load(folder / "index.npy")
        self._problems = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
        self._pixels = np.zeros(0, np.uint8)
        if self._index.any():  # an empty file cannot be mapped
            self._pixels = np.memmap(folder / "pixels.bin", np.uint8, mode="c")

    def __reduce__(self) -> tuple[type["PixelCache"], tuple[Path]]:
        # a pickle names the folder instead of holding the pixels
        return PixelCache, (self.folder,)

    def problem(self, number: int) -> str | None:
        """Return why a file has no pixels; None if it has."""
        return self._problems.get(str(number))

    def pixels(self, number: int) -> Tensor:
        """Return uint8 [3, H, W], a view into the file; writing to it changes this process only."""
        offset, height, width = self._index[number].tolist()
        view = self._pixels[offset : offset + 3 * height * width]
        return torch.from_numpy(view.reshape(3, height, width))


def open_cache(
    root: str | Path, paths: Sequence[str], protocol: Protocol, threads: int = 1
) -> PixelCache | None:
    """Open the cache of these files under this protocol's first half, after building a missing one.

    Of several processes that ask at once, one builds and the others wait.

    Args:
        root: folder of caches, made when needed.
        paths: the files.
        protocol: its first half, `Protocol.begin`, is applied before caching.
        threads: decoders while building.

    Returns:
        None, after a warning, where the first half is random.

    Raises:
        UserError: the folder cannot be written or the disk is too small.
    """
    if not protocol.begins_alike:
        log.warning(
            "--cache: not used, --rz_interp draws another interpolation for every image and epoch"
        )
        return None
    folder = Path(root) / _digest(paths, protocol)[:20]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _check_disk(folder.parent, paths, protocol)
                with atomic_folder(folder) as new:
                    _build(new, paths, protocol, threads)
    except OSError as error:
        raise UserError(f"--cache {root}: cannot be written ({error.strerror})") from None
    return PixelCache(folder)


def _digest(paths: Sequence[str], protocol: Protocol) -> str:
    """Return the cache's name: a digest of the files' state and the protocol's first half."""
    interpolation = protocol.interpolation[0] if protocol.resize else None
    geometry = [FORMAT, protocol.resize, protocol.enlarge, interpolation]
    digest = hashlib.sha256(json.dumps(geometry).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns} {os.access(path, os.R_OK)}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(os.path.abspath(path)) + b"\0" + state.encode() + b"\0")
    return digest.hexdigest()


def _build(folder: Path, paths: Sequence[str], protocol: Protocol, threads: int) -> None:
    """Decode all files, in order, into a new folder."""

    def decode(path: str) -> Tensor | str:
        try:
            return protocol.for_evaluation().begin(read_image(path))
        except UnreadableImage as error:
            return str(error)

    index, problems = np.zeros((len(paths), 3), dtype=np.int64), {}
    hidden = distributed.no_bar()
    with (
        open(folder / "pixels.bin", "wb") as pixels,
        # Pillow decodes without holding the interpreter's lock
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(paths), desc="cache", unit="image", disable=hidden, leave=False) as bar,
    ):
        for start in range(0, len(paths), CHUNK):
            for number, image in enumerate(pool.map(decode, paths[start : start + CHUNK]), start):
                if isinstance(image, str):
                    problems[number] = image
                else:
                    index[number] = (pixels.tell(), *image.shape[1:])
                    pixels.write(image.numpy().tobytes())
                bar.update()
    np.save(folder / "index.npy", index)
    (folder / "problems.json").write_text(json.dumps(problems), encoding="utf-8")


def _check_disk(root: Path, paths: Sequence[str], protocol: Protocol) -> None:
    """Log the size of the cache to be built; UserError if the disk is too small for it."""
    needed, free = estimated_bytes(paths, protocol), shutil.disk_usage(root).free
    sizes = f"about {needed / 2**20:,.2f} MiB, and the disk has {free / 2**20:,.2f} MiB free"
    if needed > 0.98 * free:
        raise UserError(f"--cache {root}: needs {sizes}")
    log.info("decoding %d images into %s: %s", len(paths), root, sizes)


def estimated_bytes(paths: Sequence[str], protocol: Protocol) -> int:
    """Return the bytes of these images: exact with a resize, else from some of their headers."""
    if protocol.resize is not None:
        return 3 * protocol.resize**2 * len(paths)
    sizes = [0]
    for path in paths[:: max(1, len(paths) // SAMPLE_FILES)]:
        with suppress(UnreadableImage), open_image(path) as image:
            sizes.append(3 * image.width * image.height)
    return round(protocol.enlarge**2 * sum(sizes)) * len(paths) // max(1, len(sizes) - 1)
