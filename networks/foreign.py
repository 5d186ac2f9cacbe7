"""Checkpoint files of other programs: plain data beside the weights, and files that are none."""

import argparse
import collections
import datetime
import pathlib
import re
import types
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from torch.serialization import safe_globals

from util import text_encoding

AGAIN = "download the file itself"
UNPACK = "unpack it and pass the checkpoint in it"
ANOTHER = "pass a PyTorch checkpoint (.pth)"
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer to the weights",
        "run git lfs pull in its repository, or download the file itself",
    ),
    (rb"\s*<(!doctype html|html|head|script|!--)", "a saved web page", AGAIN),
    (rb"\s*<(\?xml|error)", "an XML document, such as a server's error message", AGAIN),
    (rb'\s*[\[{]\s*["{}\[\]]', "JSON text, such as a server's error message", AGAIN),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a compressed archive", UNPACK),
    (rb".{257}ustar", "a tar archive", UNPACK),
    (rb"\0{300}", "zeros, such as an unfinished download", AGAIN),
    (rb"\0\x05\x16\x07", "metadata of macOS", "pass the file of that name without ._"),
    (
        rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|....ftyp",
        "an image or a video",
        ANOTHER,
    ),
    (rb"%PDF", "a PDF document", ANOTHER),
    (rb"GGUF|GGML|lmgg|tjgg", "a GGUF or GGML model", ANOTHER),
    (rb"\x08[\x01-\x20](\x12|:)", "an ONNX model", "pass the checkpoint that it was made from"),
    (rb"....TFL3|\x89HDF|\x0a.{1,3}saved_model", "a TensorFlow or Keras model", ANOTHER),
    (rb"\x93NUMPY", "a NumPy array", ANOTHER),
    (
        rb'.{4}\0{4}\{\s*"',
        "a safetensors file",
        "pass the folder of tools.export that holds it, or a PyTorch checkpoint (.pth)",
    ),
)
"""Pattern of the first bytes, name, and advice; tried in this order."""
TENSORFLOW_NAME = re.compile(r"\.(pb|keras|index|meta|data-\d+-of-\d+)$")


def kind_of(path: Path) -> str | None:
    """Return 'KIND; ADVICE' for a file that PyTorch cannot read; None where it may be damaged."""
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start:
        return f"an empty file; {AGAIN}"
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if TENSORFLOW_NAME.search(path.name):
        return f"a TensorFlow or Keras model; {ANOTHER}"
    text = _text(start)
    plain = text.encode() if text else start
    for pattern, kind, advice in KINDS:
        if re.match(pattern, plain, re.DOTALL | re.IGNORECASE):
            return f"{kind}; {advice}"
    if text:
        return f"text that begins with {' '.join(text.split())[:60]!r}; {AGAIN}"
    return None


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged bytes can make the reader fail in any way
        return f"a checkpoint or another archive, damaged or incomplete; {AGAIN}"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return "a TorchScript model; pass the checkpoint that it was made from"
    if any(name.endswith("/data.pkl") for name in names):
        return None
    inside = [name for name in names if not name.endswith("/")]
    return f"a ZIP archive of {', '.join(inside[:3])[:200] or 'nothing'}; {UNPACK}"


def _text(start: bytes) -> str:
    """Return the beginning of a text without a byte order mark; "" for other bytes."""
    try:
        text = start.decode(text_encoding(start))
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return ""
        text = start[: error.start].decode(error.encoding)
    printable = sum(character.isprintable() or character.isspace() for character in text)
    return text if printable == len(text) else ""


PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def _array_makers() -> list[tuple[Any, str]]:
    """Return the functions behind NumPy's pickles, under their names of NumPy 1 and 2."""
    scalar: Any = np.float64(0).__reduce__()[0]
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    return [
        (function, f"numpy.{core}.multiarray.{name}")
        for function, name in ((scalar, "scalar"), (reconstruct, "_reconstruct"))
        for core in ("core", "_core")
    ]


def _dictionary(*_: Any) -> dict[Any, Any]:
    """Return an empty dictionary of a class that `torch.load` fills."""
    return collections.OrderedDict()


def _list(*_: Any) -> list[Any]:
    """Return an empty list for a deque that `torch.load` fills."""
    return []


def _path(name: str) -> type[pathlib.PurePath]:
    """Return a class of paths that touches no file; Windows' own exist on Windows only."""
    return pathlib.PureWindowsPath if "Windows" in name else pathlib.PurePosixPath


ALLOWED: list[Any] = [
    *(bool, int, float, str, list, tuple),  # what defaultdict makes
    *(frozenset, (_list, "collections.deque")),
    *(argparse.Namespace, types.SimpleNamespace),
    *((_dictionary, name) for name in ("collections.defaultdict", "builtins.dict")),
    *((collections.OrderedDict, name) for name in ("easydict.EasyDict", "yacs.config.CfgNode")),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    *((_path(name), f"pathlib{part}.{name}") for name in PATHS for part in ("", "._local")),
    *(np.ndarray, np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"]}),
    *_array_makers(),
]
"""The closed list: values, and no function that does anything but make one."""


def plain_data() -> AbstractContextManager[None]:
    """Let `torch.load(weights_only=True)` read the types of `ALLOWED` in the block."""
    return safe_globals(ALLOWED)
