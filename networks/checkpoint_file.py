"""Checkpoint files: written whole or not at all, checked by a digest, read without running code."""

import hashlib
import itertools
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from networks.foreign import kind_of, plain_data
from util import UserError, atomic_file

# stored under 'format' of checkpoints that hold a digest
FORMAT = "npr-checkpoint/2"
ZIP_MAGIC = b"PK\x03\x04"
MAX_VALUES = 2_000_000  # plain values; a checkpoint of a thousand processes has 700,000
MAX_DEPTH = 100  # of nested values; ours are a few levels deep


class DamagedCheckpoint(UserError):
    """File whose content is not what was written, or not a checkpoint at all."""


def save_checkpoint(path: Path, values: dict[str, Any], keep_previous: bool = False) -> None:
    """Write a checkpoint so that a crash at any moment leaves a whole file.

    With `keep_previous` that file is at `path` or at `previous_of(path)`.

    Args:
        path: where the file goes.
        values: tensors and plain Python values, nested in dictionaries, lists and tuples.
        keep_previous: rename the file that was there to `previous_of(path)`.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    values = _on_cpu(values) | {"format": FORMAT}
    values.pop("digest", None)  # of a checkpoint that was read and changed
    with atomic_file(path, "wb") as file:
        _save(values | {"digest": digest(values)}, file)
        if keep_previous and path.exists():
            # the new file must be on the disk before the old one leaves its place
            file.flush()
            os.fsync(file.fileno())
            os.replace(path, previous_of(path))


def _save(values: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(values, file)
    except RuntimeError as error:  # what PyTorch makes of an OSError in the middle of a write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def previous_of(path: Path) -> Path:
    """Return where the checkpoint before the newest is kept."""
    return path.with_name(f"previous_{path.name}")


def restore_previous(path: Path) -> Path | None:
    """Put the checkpoint before the newest in the place of a damaged one.

    Returns:
        Where the damaged one is now; None if it was missing.
    """
    damaged = path.with_name(f"damaged_{path.name}") if path.exists() else None
    if damaged is not None:
        os.replace(path, damaged)
    os.replace(previous_of(path), path)
    return damaged


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def digest(values: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a checkpoint's content in its order.

    It covers all keys and plain values, and the shape, type and bytes of each tensor.

    Raises:
        ValueError: see `_parts`.
    """
    checksum = hashlib.sha256()
    for part in _parts(values):
        if isinstance(part, Tensor):
            checksum.update(f"tensor {tuple(part.shape)} {part.dtype};".encode())
            checksum.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            checksum.update(f"{part!r};".encode())
    return checksum.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """Yield what nested values consist of, depth first.

    These are tensors, plain values, and the kind and size of each container.

    Raises:
        ValueError: containers hold each other, or hold tensors other than plain ones.
    """
    waiting: list[Iterator[Any]] = [iter((value,))]
    count = 0
    while waiting:
        for value in waiting[-1]:
            count += 1
            if count > MAX_VALUES or len(waiting) > MAX_DEPTH:
                raise ValueError("values that hold each other, or too many or too deep ones")
            if isinstance(value, dict):
                yield "dict", len(value)
                waiting.append(itertools.chain.from_iterable(value.items()))
                break
            if isinstance(value, list | tuple | set):
                yield "list", len(value)
                waiting.append(iter(value))
                break
            if isinstance(value, Tensor) and not _is_plain(value):
                raise ValueError(f"a tensor {tuple(value.shape)} that is not a plain one")
            yield value
        else:
            waiting.pop()


def _is_plain(tensor: Tensor) -> bool:
    """Return True if a tensor has memory of its own size; a repeated one could ask for more."""
    dense = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return dense and tensor.nbytes <= tensor.untyped_storage().nbytes()


def read_checkpoint(path: Path, flag: str = "--model_path") -> dict[str, Any]:
    """Read a checkpoint file, tensors on the CPU, without running code from it.

    Args:
        path: the file.
        flag: named in errors.

    Raises:
        DamagedCheckpoint: not a checkpoint, damaged (also if its digest does not fit), or with
            pickled objects other than tensors and plain Python values.
        UserError: missing.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    try:
        _refuse_compressed(path)
        with plain_data(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol that damaged bytes seem to name
            values = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(values, dict):
            raise ValueError(f"holds a {type(values).__name__}")
        stored, form = values.pop("digest", None), str(values.get("format"))
        if form.startswith("npr-checkpoint/") and form != FORMAT:
            raise ValueError(f"of format {form} instead of {FORMAT}")
        if digest(values) != stored and form == FORMAT:
            raise ValueError(
                "its digest differs: damaged, or changed by others, who leave out 'format' and"
                " 'digest'"
            )
    except Exception as error:  # damaged bytes can make the reader fail in any way
        raise DamagedCheckpoint(f"{flag} {path}: {_problem(path, error)}") from None
    return values


def _problem(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that cannot be read, and what to do."""
    try:
        kind = kind_of(path)
    except OSError:
        kind = None
    if kind is not None:
        return f"is {kind}"
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"holds pickled code or is damaged, refused ({_first_line(error)}); save its weights"
            " alone, as torch.save(model.state_dict(), FILE) does, or download it again"
        )
    return f"not a readable checkpoint ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    """Return the line of a message that says what was refused, without advice to load it anyway."""
    advice, refused, text = str(error).partition("WeightsUnpickler error:")
    if not refused:
        text = (
            advice.partition("\n")[2] if advice.startswith("Weights only load failed") else advice
        )
    text = next((line.strip() for line in text.splitlines() if line.strip()), "")
    text = re.split(" In PyTorch | Please use ", text)[0][:300]
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive that unpacks to more than its own size: torch.save never compresses.

    Raises:
        ValueError: it is compressed.
    """
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
            f"a compressed archive, of {unpacked:,} bytes when unpacked; checkpoints are not"
            " compressed"
        )


def state_dict_of(
    values: dict[str, Any], path: Path, flag: str = "--model_path"
) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of any form, without wrappers' prefixes of names.

    Args:
        values: content of a checkpoint of this project, of the published NPR code (weights alone,
            or under 'model'), of the earlier multi-scale code, or with one dictionary of weights
            under another key.
        path: named in errors.
        flag: likewise.

    Raises:
        UserError: without weights, or with several dictionaries of them.
    """
    usual = ((key, values.get(key)) for key in ("model_state_dict", "model", "state_dict"))
    # a key such as 'model' may also hold settings, or the weights one level deeper
    dictionaries = [(key, value) for key, value in usual if isinstance(value, dict)]
    holding = (place for place in dictionaries if any(map(torch.is_tensor, place[1].values())))
    places = list(itertools.islice(holding, 1)) or list(_weights_in(values))
    if not places:
        raise UserError(f"{flag} {path}: holds no weights")
    if len(places) > 1:
        names = ", ".join(key for key, _ in places)[:300]
        raise UserError(
            f"{flag} {path}: holds several models ({names}); save one of them alone, with"
            " torch.save"
        )
    weights = {
        _plain_name(name): value
        for name, value in places[0][1].items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not weights:
        raise UserError(f"{flag} {path}: holds no weights")
    return weights


def _weights_in(values: dict[Any, Any], key: str = "") -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield the dictionaries of weights in a checkpoint, each with its key; not the optimizer's."""
    if any(
        isinstance(value, Tensor) and value.ndim > 0 and value.is_floating_point()
        for value in values.values()
    ):
        yield key or "weights", values
        return
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(name, str) and "optim" not in name.lower():
            yield from _weights_in(value, f"{key}.{name}".lstrip("."))


def _plain_name(name: str) -> str:
    for prefix in ("module.", "_orig_mod.", "model.", "net."):
        while name.startswith(prefix):
            name = name.removeprefix(prefix)
    return name
