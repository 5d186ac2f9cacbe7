"""Pictures decoded once: uint8 pixels of a list of files under a protocol's first half, in one
memory-mapped file.

A cache lies in its own folder below the one that the user names, called after a digest of the files
(path, size, time of change, permission) and of what was done to them: changed files or another
resize make another cache. Files in it:

    about.json  what it holds     lock        held by the process that builds
    pixels.bin  one picture after the other, [3, H, W] each
    index.bin   int64 rows (offset into pixels.bin, H, W) in the order of the files; H = 0: cannot be read, see problems.jsonl

Both .bin files only grow, pixels first, so that an interrupted building goes on where it stopped.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import distributed
from data.decode import UnreadableImage, open_image, read_image
from data.transforms import Protocol
from util import UserError, log

FORMAT = 2
ROW = np.dtype([("offset", "<i8"), ("height", "<i8"), ("width", "<i8")])
SAMPLE = 200
"""Files whose headers are read to estimate the size of a cache of pictures of their own sizes."""


class PixelCache:
    """Pictures of a list of files, by their number in it; safe to hand to worker processes.

    Args:
        folder: a finished cache, as `open_cache` returns it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self._index = np.fromfile(self.folder / "index.bin", dtype=ROW)
        file = self.folder / "pixels.bin"
        self._pixels = (
            np.memmap(file, dtype=np.uint8, mode="c")
            if file.stat().st_size
            else np.zeros(0, np.uint8)
        )
        lines = (self.folder / "problems.jsonl").read_text(encoding="utf-8").splitlines()
        self._problems: dict[int, str] = dict(json.loads(line) for line in lines)

    def __getstate__(self) -> dict[str, Any]:
        # a worker maps the file itself instead of getting a copy of the pixels
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder = state["folder"]
        self._open()

    def __len__(self) -> int:
        return len(self._index)

    def problem(self, number: int) -> str | None:
        """Why a file has no pixels; None if it has."""
        return self._problems.get(number)

    def pixels(self, number: int) -> Tensor:
        """uint8 [3, H, W], a view into the file; writing to it changes this process' copy only."""
        offset, height, width = (int(value) for value in self._index[number])
        return torch.from_numpy(
            self._pixels[offset : offset + 3 * height * width].reshape(3, height, width)
        )


def open_cache(
    root: str | Path, paths: Sequence[str], protocol: Protocol, threads: int = 1
) -> PixelCache | None:
    """The cache of these files under this protocol's first half (`Protocol.begin`), built first
    where it is not finished.

    Several processes may ask at once: one builds, the others wait.

    Args:
        root: folder of caches, made when needed. threads: decoders while building.

    Returns:
        None, saying so, where the first half is random.

    Raises:
        UserError: the folder cannot be written or the disk is too small; the message names the
            sizes.
    """
    if not protocol.begins_alike:
        log.warning(
            "--cache: not used, --rz_interp draws another interpolation for every picture and epoch"
        )
        return None
    about = _about(paths, protocol)
    folder = Path(root) / about["digest"][:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            _wait_for(lock, folder)
            if not (folder / "about.json").exists():
                _build(folder, paths, protocol, threads)
                (folder / "about.json.tmp").write_text(
                    json.dumps(about, indent=2) + "\n", encoding="utf-8"
                )
                os.replace(folder / "about.json.tmp", folder / "about.json")
    except OSError as error:
        raise UserError(f"--cache {root}: cannot be written ({error.strerror})") from None
    return PixelCache(folder)


def _about(paths: Sequence[str], protocol: Protocol) -> dict[str, Any]:
    """What makes a cache the right one, and its digest."""
    first_half = {
        "resize": protocol.resize,
        "interpolation": protocol.interpolation[0] if protocol.resize else None,
    }
    digest = hashlib.sha256(json.dumps([FORMAT, first_half]).encode())
    for path in paths:
        try:
            found = os.stat(path)
            state = f"{found.st_size} {found.st_mtime_ns} {os.access(path, os.R_OK)}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(os.path.abspath(path)) + b"\0" + state.encode() + b"\0")
    return {"format": FORMAT, **first_half, "files": len(paths), "digest": digest.hexdigest()}


def _wait_for(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another process builds %s: waiting for it", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _build(folder: Path, paths: Sequence[str], protocol: Protocol, threads: int) -> None:
    """Decode what is missing, in order, and append it."""
    done = _resumable(folder)
    _check_disk(folder, paths[done:], protocol)
    with (
        open(folder / "pixels.bin", "ab") as pixels,
        open(folder / "index.bin", "ab") as index,
        open(folder / "problems.jsonl", "a", encoding="utf-8") as problems,
        tqdm(
            total=len(paths),
            initial=done,
            desc="cache",
            unit="image",
            disable=distributed.no_bar(),
            leave=False,
        ) as bar,
    ):
        for number, found in enumerate(_in_order(paths[done:], protocol, threads), start=done):
            row = np.zeros((), dtype=ROW)
            row["offset"] = pixels.tell()
            if isinstance(found, str):
                problems.write(json.dumps([number, found]) + "\n")
                problems.flush()
            else:
                row["height"], row["width"] = found.shape[1:]
                pixels.write(found.numpy().tobytes())
            index.write(row.tobytes())
            if number % 256 == 255:  # pixels first: a row must never point to what is not there
                pixels.flush()
                index.flush()
            bar.update()
        for file in (pixels, index, problems):
            file.flush()
            os.fsync(file.fileno())


def _resumable(folder: Path) -> int:
    """How many pictures of an interrupted building are whole; what lies behind them is cut off."""
    for name in ("pixels.bin", "index.bin", "problems.jsonl"):
        (folder / name).touch()
    index = np.fromfile(folder / "index.bin", dtype=ROW)
    ends = index["offset"] + 3 * index["height"] * index["width"]
    whole = int((ends <= (folder / "pixels.bin").stat().st_size).cumprod().sum())
    os.truncate(folder / "index.bin", whole * ROW.itemsize)
    os.truncate(folder / "pixels.bin", int(ends[whole - 1]) if whole else 0)
    lines = (folder / "problems.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)[0] < whole]
    (folder / "problems.jsonl").write_text("".join(kept), encoding="utf-8")
    if whole:
        log.info("going on with the cache in %s after %d pictures", folder, whole)
    return whole


def _in_order(paths: Sequence[str], protocol: Protocol, threads: int) -> Iterator[Tensor | str]:
    """Pixels of each file, or why there are none, a few ahead of what is taken."""

    def decode(path: str) -> Tensor | str:
        try:
            return protocol.for_evaluation().begin(read_image(path))
        except UnreadableImage as error:
            return str(error)

    # Pillow decodes without holding the interpreter's lock
    with ThreadPoolExecutor(max(1, threads)) as pool:
        rest = iter(paths)
        ahead = [pool.submit(decode, path) for path in islice(rest, 4 * max(1, threads))]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(decode, path) for path in islice(rest, 1)]


def _check_disk(folder: Path, paths: Sequence[str], protocol: Protocol) -> None:
    """Say how large the cache will be; UserError if the disk has no room for it."""
    needed = estimated_bytes(paths, protocol)
    free = shutil.disk_usage(folder).free
    log.info(
        "decoding %d pictures into %s: about %s, %s free",
        len(paths),
        folder,
        _size(needed),
        _size(free),
    )
    if needed > 0.98 * free:
        raise UserError(
            f"--cache {folder.parent}: needs about {_size(needed)}, and the disk has {_size(free)} free"
        )


def estimated_bytes(paths: Sequence[str], protocol: Protocol) -> int:
    """Bytes of these pictures: exact with a resize, else from the headers of up to 200 of them."""
    if protocol.resize is not None:
        return 3 * protocol.resize**2 * len(paths)
    sizes = []
    for path in paths[:: max(1, len(paths) // SAMPLE)]:
        try:
            with open_image(path) as image:
                sizes.append(3 * image.width * image.height)
        except UnreadableImage:
            continue
    return int(np.mean(sizes) * len(paths)) if sizes else 0


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
