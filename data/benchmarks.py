"""The field's benchmark suites, read from benchmarks.toml: table, protocol and folder names."""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA: dict[str, Any] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
MIN_GENERATORS = 4  # fewer names than this could occur in any folder


@dataclass(frozen=True)
class Suite:
    """A benchmark of several generators.

    Args:
        name: as tables show it.
        protocol: name of its published preprocessing.
        table: of the NPR paper (Tan et al., CVPR 2024), None elsewhere.
        aliases: further folder names.
        generators: names of its generators' folders.
        shared_real: {generator: folder of its real images}, 'default' for the others; empty where
            each generator has its own real images.
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
"""Suites by name, the published tables first and in their order."""


def plain(name: str) -> str:
    """Return a name without case, '-', '_' and ' ', so that its spellings compare equal."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def suite_called(name: str) -> str | None:
    """Return the suite with this folder name ('_test' at the end allowed), or None."""
    wanted = plain(name).removesuffix("test")
    for suite in SUITES.values():
        if wanted in {plain(known).removesuffix("test") for known in (suite.name, *suite.aliases)}:
            return suite.name
    return None


def suite_of_generators(names: Collection[str]) -> str | None:
    """Return the suite that has generators of all these names, or None.

    Of several such suites it is the one with the fewest other generators.

    None where there are fewer than `MIN_GENERATORS` names, or where the suites differ in their
    preprocessing: then the names do not decide between them.
    """
    wanted = {plain(name) for name in names}
    fitting = [
        suite for suite in SUITES.values() if wanted <= {plain(name) for name in suite.generators}
    ]
    if len(wanted) < MIN_GENERATORS or len({suite.protocol for suite in fitting}) != 1:
        return None
    return min(fitting, key=lambda suite: len(suite.generators)).name


def is_generator_of(suite: str, name: str) -> bool:
    """Return True if the suite has a generator of this name, in any spelling."""
    return plain(name) in {plain(known) for known in SUITES[suite].generators}
