"""The field's benchmark suites, read from benchmarks.toml: published table, protocol, and what they
are known by."""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA: dict[str, Any] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
AT_LEAST = 4
"""Fewer generators than this could be anybody's folder, and do not make a suite."""


@dataclass(frozen=True)
class Suite:
    """A benchmark of several generators.

    Args:
        table: of the NPR paper (Tan et al., CVPR 2024), None elsewhere. protocol: name of its
            published preprocessing.
        aliases: further folder names. generators: names of its generators' folders.
        shared_real: {generator: folder of its real images}, 'default' for the others; empty where
            each has its own.
    """

    name: str
    protocol: str
    table: str | None = None
    aliases: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()
    shared_real: dict[str, str] = field(default_factory=dict)


def _suite(name: str, values: dict[str, Any]) -> Suite:
    fields: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in values.items()
    }
    return Suite(name, **fields)


SUITES = {name: _suite(name, values) for name, values in DATA["suites"].items()}
"""By name, the published tables first and in their order."""


def plain(name: str) -> str:
    """A folder's name without case, '-', '_' and ' ', so that spellings of one name compare equal."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def suite_called(name: str) -> str | None:
    """The suite that a folder of this name is ('_test' at the end allowed), or None."""
    wanted = plain(name).removesuffix("test")
    for suite in SUITES.values():
        if wanted in {plain(known).removesuffix("test") for known in (suite.name, *suite.aliases)}:
            return suite.name
    return None


def suite_of_generators(names: Collection[str]) -> str | None:
    """The suite that has generators of all these names (at least four); of several, the one with
    the fewest others.

    None where several fit that are preprocessed differently: names that they share do not say which
    it is.
    """
    wanted = {plain(name) for name in names}
    fitting = [
        suite for suite in SUITES.values() if wanted <= {plain(name) for name in suite.generators}
    ]
    if len(wanted) < AT_LEAST or len({suite.protocol for suite in fitting}) != 1:
        return None
    return min(fitting, key=lambda suite: len(suite.generators)).name


def is_generator_of(suite: str, name: str) -> bool:
    """True if the suite has a generator of this name, however it is spelt."""
    return plain(name) in {plain(known) for known in SUITES[suite].generators}
