"""Find sets of which no image, or no image of a class, can be used, with the reason and remedy."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

import distributed
from data.batches import SampleKey
from data.image_sets import FAKE, REAL
from data.loader import ImageLoader
from data.transforms import CROP_PROBLEM
from networks.factory import SIZE_PROBLEMS
from util import UserError, printable

SMALLEST_CROP = 8  # pixels; a smaller --cropSize is no remedy
MOST = 0.5  # share of a class; when more is skipped, training warns
NO_FLAGS = "pass another --protocol"
WRONG_SIZE = "of a size that the network does not take"


def unusable(
    paths: Sequence[str],
    labels: Sequence[int],
    skipped: Mapping[str, str],
    share: float = 1.0,
    remedy: str | None = None,
) -> str | None:
    """Return which classes of a set are skipped, why, and the remedy; None if they are not.

    Args:
        paths: all files of the set.
        labels: of the files, 0 real, 1 fake; a class that the set does not have is not missed.
        skipped: {path: reason} of the files that were skipped.
        share: of a class in (0, 1], from which on it is reported.
        remedy: for images of the wrong size; None = flags of train.py and test.py.
    """
    total = Counter(labels)
    lost = Counter(label for path, label in zip(paths, labels, strict=True) if path in skipped)
    hit = [label for label in total if lost[label] >= share * total[label]]
    if not hit:
        return None
    noun = "image"
    if len(hit) < len(total) or len(total) == 1:
        noun = {REAL: "real image", FAKE: "fake image"}[hit[0]]
    reasons = {
        path: skipped[path]
        for path, label in zip(paths, labels, strict=True)
        if label in hit and path in skipped
    }
    count = sum(total[label] for label in hit)
    usable = count - sum(lost[label] for label in hit)
    return f"{usable:,} of {count:,} {noun}s can be used: {_causes(reasons, remedy)}"


def _causes(reasons: Mapping[str, str], remedy: str | None) -> str:
    """Return how many files were skipped for which cause, and the remedy."""
    sides: Counter[int] = Counter()
    causes: Counter[str] = Counter()
    example = ""  # of a wrong size
    other: dict[str, str] = {}
    for path, why in reasons.items():
        if cropped := re.search(CROP_PROBLEM, why):
            width, height, crop = map(int, cropped.groups())
            sides[min(width, height)] += 1
            causes[f"smaller than the {crop}x{crop} crop"] += 1
        elif any(problem in why for problem in SIZE_PROBLEMS):
            causes[WRONG_SIZE] += 1
            example = example or f" ({why})"
        else:
            other[path] = why
    parts = [f"{n:,} {c}{example if c == WRONG_SIZE else ''}" for c, n in causes.items()]
    if other:
        path, why = next(iter(other.items()))
        parts.append(f"{len(other):,} not usable, such as {printable(path)} ({why})")
    if not causes:
        advice = "python -m tools.check_dataset shows the state of all files"
    elif remedy is not None:
        advice = remedy
    elif not sides:
        advice = "pass a --loadSize that it takes"
    else:
        side, _ = sides.most_common(1)[0]
        advice = f"pass --cropSize {side} or --repeat_small"
        if side < SMALLEST_CROP:
            advice = "pass --repeat_small"
    return f"{', '.join(parts)}; {advice}"


def require_usable(
    loader: ImageLoader, place: str, refusal: Callable[[Tensor], str | None]
) -> None:
    """Decode images, in rank 0, until one of each class of a loader can be used. Collective.

    Usually these are two. Nothing is drawn from the global random numbers.

    Args:
        loader: of a split.
        place: begins the message.
        refusal: returns why a network does not take pixels [3, H, W], None if it does.

    Raises:
        UserError: a class has no such image.
    """
    skipped = distributed.by_first(lambda: _skipped_until_usable(loader, refusal))
    if why := unusable(loader.dataset.paths, loader.dataset.labels, skipped):
        raise UserError(f"{place}: {why}")


def _skipped_until_usable(
    loader: ImageLoader, refusal: Callable[[Tensor], str | None]
) -> dict[str, str]:
    """Return the skipped files {path: reason} among those that were looked at."""
    dataset, skipped = loader.dataset, dict[str, str]()
    missing = set(dataset.labels)
    # not in order: all images of the first folder may be too small
    for index in np.random.default_rng(0).permutation(len(dataset)).tolist():
        if dataset.labels[index] not in missing:
            continue
        sample, *_ = dataset[SampleKey(0, index)]
        problem = sample.problem if sample.pixels is None else refusal(sample.pixels)
        if problem:
            skipped[dataset.paths[index]] = problem
        else:
            missing.discard(dataset.labels[index])
        if not missing:
            break
    return skipped
