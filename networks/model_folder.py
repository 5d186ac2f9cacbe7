"""Write and read a model as a folder without code: weights as safetensors, the rest as JSON.

model.safetensors   names and values of the weights
config.json         metadata of a checkpoint (see `networks.checkpoint`), and the weights' SHA-256
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load, save
from torch import Tensor

from util import UserError

# stored in config.json under 'format'
FORMAT = "npr-detector/1"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
MAX_CONFIG_BYTES = 2**20  # those written here have a few thousand
# of weights; int64 are the batches that BatchNorm counts
PLAIN_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def write_model_folder(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write both files into a folder that is there.

    Args:
        folder: exists.
        weights: by name; tensors may share memory.
        config: plain values that JSON can hold, `FORMAT` under 'format'.

    Raises:
        OSError: a file cannot be written.
        ValueError: NaN or the like in `config`.
    """
    data = save(
        {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()},
        {"format": "pt"},
    )
    (folder / WEIGHTS_FILE).write_bytes(data)
    write_config(folder, config | {"sha256": {WEIGHTS_FILE: hashlib.sha256(data).hexdigest()}})


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json; errors as for `write_model_folder`."""
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")


def read_model_folder(folder: Path, flag: str = "--model_path") -> tuple[dict[str, Any], str]:
    """Read a model folder in the form of a checkpoint.

    Args:
        folder: see `write_model_folder`.
        flag: named in errors.

    Returns:
        Weights under 'model_state_dict' (on the CPU) beside the content of config.json; and the
        SHA-256 of config.json, which holds that of the weights.

    Raises:
        UserError: a file is missing, damaged or not of this form.
    """
    config, text = _read_config(folder, flag)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(
            f"{flag} {folder}: holds no {WEIGHTS_FILE}; tools.export writes one with --format"
            " safetensors"
        )
    try:
        data = path.read_bytes()
        weights = load(data)
    except Exception as error:  # damaged bytes can make the reader fail in any way
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{flag} {path}: no readable weights ({type(error).__name__}: {first[:300]})"
        ) from None
    digests = config.pop("sha256", None)
    if not isinstance(digests, dict) or hashlib.sha256(data).hexdigest() != digests.get(
        WEIGHTS_FILE
    ):
        raise UserError(
            f"{flag} {path}: damaged, or changed: its SHA-256 is not the one in {CONFIG_FILE}"
        )
    if strange := sorted(
        {str(value.dtype) for value in weights.values() if value.dtype not in PLAIN_TYPES}
    ):
        raise UserError(f"{flag} {path}: weights of type {', '.join(strange)}")
    return config | {"model_state_dict": weights}, hashlib.sha256(text).hexdigest()


def _read_config(folder: Path, flag: str) -> tuple[dict[str, Any], bytes]:
    """Return the content of config.json, and its bytes."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{flag} {folder}: a folder without {CONFIG_FILE}; pass a checkpoint or what"
            " tools.export wrote"
        )
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ValueError(f"more than {MAX_CONFIG_BYTES:,} bytes")
        config = json.loads(text, parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{flag} {path}: not readable ({str(error)[:300]})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise UserError(f"{flag} {path}: its format is {str(found)[:100]!r} instead of {FORMAT!r}")
    if not isinstance(config.get("model_config"), dict):
        raise UserError(f"{flag} {path}: holds no model_config")
    return config, text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}")
