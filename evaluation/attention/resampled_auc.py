"""AUC of many scores of the same images in many resamples: paired intervals of how it changes."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CELLS = 400_000
"""Images times resamples at a time: what fits a processor's cache."""

Draws = list[NDArray]
"""How often each real and each generated image is drawn, in the order of the images: [[R, n_real],
[R, n_fake]]."""


def draws_of_classes(
    labels: NDArray, images: Sequence[str] | None, resamples: int, seed: int, index: int = 0
) -> Iterator[Draws]:
    """Draws with replacement within each class, blocks of resamples.

    Args:
        labels: [N]. images: N names; the same images of a class are drawn alike whatever the set.
            None: `index` tells sets apart.
    """
    rngs, sizes = [], []
    for label in (0, 1):
        of_class = np.flatnonzero(np.asarray(labels) == label).tolist()
        which = (
            index
            if images is None
            else zlib.crc32("\0".join(images[row] for row in of_class).encode("utf-8", "replace"))
        )
        rngs.append(np.random.default_rng([seed, label, which]))
        sizes.append(len(of_class))
    for rows in _blocks(resamples, max(sizes)):
        block = []
        for rng, size in zip(rngs, sizes, strict=True):
            flat = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
            block.append(
                np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size).astype(float)
            )
        yield block


def _blocks(resamples: int, size: int) -> Iterator[int]:
    most = max(1, CELLS // size)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def resampled_aucs(
    labels: NDArray, scores: NDArray, draws: Iterator[Draws] | Sequence[Draws]
) -> NDArray:
    """ROC AUC of C scores in R resamples: the share of pairs in which the generated image has the
    higher score, ties half.

    Args:
        labels: [N], both classes. scores: [C, N]. draws: blocks of counts, R rows in all.

    Returns:
        [C, R]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    plans = []
    for real, fake in zip(scores[:, labels == 0], scores[:, labels == 1], strict=True):
        order = real.argsort()
        below, up_to = (
            np.searchsorted(real, fake, side, sorter=order) for side in ("left", "right")
        )
        plans.append((order, below, None if np.array_equal(below, up_to) else up_to))
    found = []
    for counts in draws:
        real_counts, fake_counts = (
            np.ascontiguousarray(one.T) for one in counts
        )  # a row per image: rows are gathered fast
        pairs = real_counts.sum(axis=0) * fake_counts.sum(axis=0)
        cumulative = np.zeros((len(real_counts) + 1, real_counts.shape[1]))
        block = []
        for order, below, up_to in plans:
            np.cumsum(real_counts[order], axis=0, out=cumulative[1:])
            outranked = (
                cumulative[below] if up_to is None else (cumulative[below] + cumulative[up_to]) / 2
            )
            block.append(np.einsum("fr,fr->r", outranked, fake_counts) / pairs)
        found.append(np.array(block))
    return np.concatenate(found, axis=1)
