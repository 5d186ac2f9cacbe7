"""Attention of one model on sets of images, some of which may be in several sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Attended:
    """Attention of one model on the N images of one generator.

    Args:
        name: generator. family: suite. labels: [N], 0 real, 1 generated. scores: [N] in [0, 1].
            weights: [N, S], rows sum to 1.
        branch_logits: [N, S], each branch's logit without bias, or None.
        images: N names; an image that comes in several sets (real ones that generators share)
            counts once in what is said of all images. None: all are taken as different.
    """

    name: str
    family: str
    labels: NDArray
    scores: NDArray
    weights: NDArray
    branch_logits: NDArray | None = None
    images: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.family}/{self.name}"


def first_of_each(sets: Sequence[Attended]) -> NDArray:
    """Which of the images of all sets, in their order, come for the first time: [all images], bool."""
    seen: set[Any] = set()
    first = []
    for position, one in enumerate(sets):
        for name in one.images or [(position, row) for row in range(len(one.labels))]:
            first.append(name not in seen)
            seen.add(name)
    return np.array(first, dtype=bool)


def sharing(sets: Sequence[Attended]) -> list[int]:
    """A number for each set, the same for sets that share images, also through others."""
    number, first = list(range(len(sets))), dict[str, int]()
    for index, one in enumerate(sets):
        joined = {number[first.setdefault(name, index)] for name in one.images or ()} | {
            number[index]
        }
        number = [min(joined) if of_set in joined else of_set for of_set in number]
    return number


def set_of_each(sets: Sequence[Attended]) -> NDArray:
    """The position of its set for each image of all sets, in their order: [all images]."""
    return np.repeat(np.arange(len(sets)), [len(one.labels) for one in sets])
