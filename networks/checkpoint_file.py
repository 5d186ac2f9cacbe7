"""Checkpoint files: written whole or not at all, with a digest that reading checks, and read
without running code from them."""

import contextlib
import hashlib
import itertools
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from util import UserError

FORMAT = "npr-checkpoint/2"
"""Stored under 'format'; from version 2 on a file holds a digest."""
ZIP_MAGIC = b"PK\x03\x04"
MOST_VALUES, DEEPEST = 2_000_000, 100
"""Plain values in a checkpoint, and how deep they may be nested; that of a thousand processes has
700,000, a few deep."""


class DamagedCheckpoint(UserError):
    """A file whose content is not what was written, or not a checkpoint at all."""


def save_checkpoint(path: Path, values: dict[str, Any], keep_previous: bool = False) -> None:
    """Write a checkpoint beside its place and move it there: at any moment a crash, or a loss of
    power, leaves a whole file.

    Args:
        values: tensors and plain Python values, nested in dictionaries, lists and tuples.
        keep_previous: keep the file that was there, see `previous_of`.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    values = _on_cpu(values) | {"format": FORMAT}
    values.pop("digest", None)  # of a checkpoint that was read and changed
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            _save(values | {"digest": digest(values)}, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            _link(path, previous_of(path))
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _save(values: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(values, file)
    except RuntimeError as error:  # what PyTorch makes of an OSError in the middle of a write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the newest is kept."""
    return path.with_name(f"previous_{path.name}")


def restore_previous(path: Path) -> Path | None:
    """Put the checkpoint before the newest in the place of a damaged one, whose new place is
    returned (None if there is none)."""
    damaged = path.with_name(f"damaged_{path.name}")
    if path.exists():
        os.replace(path, damaged)
    _link(previous_of(path), path)
    return damaged if damaged.exists() else None


def _link(path: Path, other: Path) -> None:
    """Give a file a second name, in place of what had it; a file system without such links gets a
    copy."""
    temporary = other.with_name(f".{other.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        temporary.write_bytes(path.read_bytes())
    os.replace(temporary, other)
    # renaming one name of a file to another of its names does nothing
    temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let a rename reach the disk, where the system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def digest(values: dict[str, Any]) -> str:
    """SHA-256, in hexadecimal, of all keys and plain values and of each tensor's shape, type and
    bytes, in their order."""
    found = hashlib.sha256()
    for part in _parts(values):
        if isinstance(part, Tensor):
            found.update(f"tensor {tuple(part.shape)} {part.dtype};".encode())
            found.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(f"{part!r};".encode())
    return found.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """What nested values are made of, depth first: tensors, plain values, and the kind and size of
    what holds them.

    Raises:
        ValueError: they are nested too deeply, perhaps without end.
    """
    waiting: list[Iterator[Any]] = [iter((value,))]
    while waiting:
        if len(waiting) > DEEPEST:
            raise ValueError("values that hold each other, or are nested too deeply")
        for value in waiting[-1]:
            if isinstance(value, dict):
                yield "dict", len(value)
                waiting.append(itertools.chain.from_iterable(value.items()))
                break
            if isinstance(value, list | tuple | set):
                yield "list", len(value)
                waiting.append(iter(value))
                break
            yield value
        else:
            waiting.pop()


def read_checkpoint(path: Path, flag: str = "--model_path") -> dict[str, Any]:
    """The content of a checkpoint file, tensors on the CPU. Code pickled into it is refused, and so
    is what would swell.

    Args:
        flag: named in errors.

    Raises:
        DamagedCheckpoint: no checkpoint, damaged (also if its digest does not fit), or with pickled
            objects other than tensors and plain Python values.
        UserError: missing.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    try:
        _refuse_compressed(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(values, dict):
            raise ValueError(f"holds a {type(values).__name__}")
        _refuse_swelling(values, path.stat().st_size)
        if values.get("format") == FORMAT and values.pop("digest", None) != digest(values):
            raise ValueError(
                "its digest differs: damaged, or changed by others, who leave out 'format' and 'digest'"
            )
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(
            f"{flag} {path}: holds pickled code or is damaged, refused ({_first_line(error)})"
        ) from None
    except Exception as error:  # damaged bytes can make the reader fail in any way
        raise DamagedCheckpoint(
            f"{flag} {path}: not a readable checkpoint ({_first_line(error)})"
        ) from None
    return values


def _first_line(error: Exception) -> str:
    """The first line of a message; of PyTorch's refusals the line that says what was refused,
    without the advice to load it."""
    advice, refused, text = str(error).partition("WeightsUnpickler error:")
    if not refused:
        text = (
            advice.partition("\n")[2] if advice.startswith("Weights only load failed") else advice
        )
    text = next((line.strip() for line in text.splitlines() if line.strip()), "")
    text = re.split(" In PyTorch | Please use ", text)[0][:300]
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"


def _refuse_compressed(path: Path) -> None:
    """Raises ValueError for an archive that unpacks to more than its own size: torch.save never
    compresses."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or any(
        entry.compress_type != zipfile.ZIP_STORED for entry in entries
    ):
        raise ValueError(
            f"a compressed archive, of {unpacked:,} bytes when unpacked; checkpoints are not compressed"
        )


def _refuse_swelling(values: dict[str, Any], size: int) -> None:
    """Raises ValueError where values claim to be more than a file of this many bytes can hold.

    A tensor may repeat its memory (stride 0), and lists may hold each other, so that a few bytes
    describe terabytes.
    """
    for number, part in enumerate(_parts(values)):
        if number > min(size, MOST_VALUES):
            raise ValueError("values that hold each other, or too many of them")
        if isinstance(part, Tensor):
            if part.device.type != "cpu" or part.layout != torch.strided or part.is_quantized:
                raise ValueError(
                    f"holds a tensor that is not a plain one ({part.layout}, {part.device})"
                )
            if part.nbytes > part.untyped_storage().nbytes():
                raise ValueError(f"a tensor {tuple(part.shape)} larger than its data")
