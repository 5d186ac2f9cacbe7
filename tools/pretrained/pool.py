"""Read the pool: a training root with val/ and dev/ sets, and provenance.csv beside them.

provenance.csv has the columns path, label, generator and source_picture. Files without a row are
named PICTURE_CROP.jpg. Crops of one source picture are one observation.
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.image_sets import CLASS_FOLDERS, REAL
from util import UserError

TRAINED = ("web", "mixed", "t2i", "gallery", "early")  # class folders of train/
EVALUATED = ("val", "dev")
WHOLE_PHOTOGRAPHS = "dev/camera_whole_real_only"  # not crops: for the question of large images


@dataclass(frozen=True)
class PoolImage:
    """An image of val or dev.

    Args:
        path: relative to the pool.
        label: 0 real, 1 generated.
        set: as in 'dev/playground_v2'.
        generator: 'real' for real images; the set's name where the pool does not say.
        picture: source picture.
        source: of a real image, the folder of its source picture.
    """

    path: str
    label: int
    set: str
    generator: str
    picture: str
    source: str


def read_pool(root: Path) -> list[PoolImage]:
    """Return all images of val and dev, sorted by path.

    Raises:
        UserError: provenance.csv or the folders are missing.
    """
    table = root / "provenance.csv"
    if not table.is_file():
        raise UserError(f"--pool {root}: holds no provenance.csv; pass the folder of the pool")
    with open(table, newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    images = []
    for part in EVALUATED:
        for path in sorted((root / part).glob("*/*/*")):
            images.append(_image(path.relative_to(root), rows.get(str(path.relative_to(root)))))
    if not images:
        raise UserError(f"--pool {root}: holds no images in val/ and dev/")
    return images


def _image(path: Path, row: dict[str, str] | None) -> PoolImage:
    label = CLASS_FOLDERS[path.parent.name]
    name = "/".join(path.parts[:2])
    if row is None:
        kind = "real" if label == REAL else path.parts[1]
        picture = f"{kind}/{re.sub(r'_[0-9]+$', '', path.stem)}"
        return PoolImage(str(path), label, name, kind, picture, "imagenet")
    picture = row["source_picture"]
    # leftovers of ImageNet are of the same source as the files without a row
    source = picture.split("/")[0].replace("old_imagenet_leftover", "imagenet")
    return PoolImage(str(path), label, name, row["generator"], picture, source)


def first_half(images: Sequence[PoolImage]) -> list[bool]:
    """Return True for each image of the half of the source pictures that the threshold is fitted to.

    Of each real source, and of each set's generated images, every other picture belongs to it, in
    the order of their names' SHA-256. Images of a picture stay together.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for image in images:
        groups[image.source if image.label == REAL else image.set].add(image.picture)
    chosen: set[str] = set()
    seen: set[str] = set()
    for name in sorted(groups):
        # a picture that has crops in several sets keeps its half
        ordered = sorted(groups[name] - seen, key=lambda p: hashlib.sha256(p.encode()).digest())
        seen |= groups[name]
        chosen |= set(ordered[::2])
    return [image.picture in chosen for image in images]
