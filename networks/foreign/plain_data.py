"""Types of plain data that checkpoints of other programs hold beside their weights."""

import argparse
import collections
import datetime
import pathlib
import types
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from torch.serialization import safe_globals

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
