"""Scores of one model on one set of images: the input of metrics and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluation.names import escaped, relative_name


@dataclass(frozen=True)
class Scores:
    """Outputs of one model on the N images of one set, in file order, skipped files excluded.

    Args:
        suite: benchmark that the set belongs to, "" for none.
        generator: name of the set.
        paths: N files, distinct.
        labels: [N], 0 real, 1 fake.
        logits: [N].
        attention: [N, S], weights of the scales, rows sum to 1; None for models without attention.
        branch_logits: [N, S], logit of each branch alone, without bias; None for such models.
        skipped: {path: reason} of the files without a score.
    """

    suite: str
    generator: str
    paths: tuple[str, ...]
    labels: NDArray
    logits: NDArray
    attention: NDArray | None = None
    branch_logits: NDArray | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the set: suite/generator."""
        return f"{self.suite}/{self.generator}"

    @cached_property
    def scores(self) -> NDArray:
        """Sigmoid of the logits: [N] in [0, 1], high for fake."""
        return expit(self.logits.astype(np.float64))

    @property
    def weights(self) -> NDArray:
        """Attention of a model that has it: [N, S], float64."""
        assert self.attention is not None
        return np.asarray(self.attention, dtype=float)

    @property
    def names(self) -> list[str]:
        """N names that do not depend on the data root.

        A name is the path below the generator's folder, or the path itself outside of one.
        """
        split = [f"/{path}".split(f"/{self.generator}/", 1) for path in self.paths]
        return [f"{self.key}:{parts[1]}" if len(parts) > 1 else parts[0] for parts in split]

    def take(self, rows: NDArray) -> "Scores":
        """Return these rows (positions or [N] booleans) in their order."""
        rows = np.arange(len(self.paths))[rows]
        attention, branches = (
            None if column is None else column[rows]
            for column in (self.attention, self.branch_logits)
        )
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            logits=self.logits[rows],
            attention=attention,
            branch_logits=branches,
        )

    def for_files(self, suite: str, generator: str, root: Path) -> "Scores":
        """Return the scores under names that are safe in every file.

        Args:
            suite: becomes `escaped`.
            generator: becomes `escaped`.
            root: paths become relative to this folder, and `escaped`.
        """
        return replace(
            self,
            suite=escaped(suite),
            generator=escaped(generator),
            paths=tuple(relative_name(path, root) for path in self.paths),
            skipped={relative_name(path, root): why for path, why in self.skipped.items()},
        )


def first_of_each(sets: Sequence[Scores]) -> NDArray:
    """Return a mask [all images] that is True at the first occurrence of each image.

    Generators may share their real images.
    """
    seen: set[str] = set()
    first = []
    for path in (path for scored in sets for path in scored.paths):
        first.append(path not in seen)
        seen.add(path)
    return np.array(first, dtype=bool)


def set_of_each(sets: Sequence[Scores]) -> NDArray:
    """Return the position of the set of each image, [all images], in the order of the sets."""
    return np.repeat(np.arange(len(sets)), [len(scored.labels) for scored in sets])


def sharing(sets: Sequence[Scores]) -> list[int]:
    """Return a number for each set; sets that share images, also indirectly, get the same one."""
    number, first = list(range(len(sets))), dict[str, int]()
    for index, scored in enumerate(sets):
        joined = {number[first.setdefault(path, index)] for path in scored.paths}
        joined.add(number[index])
        number = [min(joined) if of_set in joined else of_set for of_set in number]
    return number


def pool(sets: Sequence[Scores]) -> Scores:
    """Return one set with the images of all, each file once; attention only if all sets have it."""

    def together(columns: Sequence[NDArray | None]) -> NDArray | None:
        known = [column for column in columns if column is not None]
        return np.concatenate(known) if len(known) == len(columns) else None

    return Scores(
        "",
        "",
        tuple(path for scored in sets for path in scored.paths),
        np.concatenate([scored.labels for scored in sets]),
        np.concatenate([scored.logits for scored in sets]),
        together([scored.attention for scored in sets]),
        together([scored.branch_logits for scored in sets]),
    ).take(first_of_each(sets))


def images_once(sets: Sequence[Scores]) -> Scores:
    """Return `pool` of the sets under a name for all of them."""
    name = sets[0].generator if len(sets) == 1 else f"all {len(sets)} generators"
    return replace(pool(sets), generator=name)
