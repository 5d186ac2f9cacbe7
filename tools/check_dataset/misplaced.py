"""Find images that no script reads, and the `mv` commands that fix whole folders."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from data.folders import EXPECTED, SPLIT_NAMES, SPLITS, class_folders
from data.image_sets import CLASS_FOLDERS, REAL, WRITTEN_CLASS_FOLDERS
from tools.check_dataset.findings import NOTE, PROBLEM, Finding, Item, below, move_command
from tools.check_dataset.tree import Tree, within
from util import counted

OTHER_CLASS = ({"0_real", "1_fake"}, {"real", "fake"})


def misplaced(tree: Tree, is_read: Callable[[str], bool]) -> list[Finding]:
    """Return findings about everything in the wrong place or under the wrong name.

    Commands of later findings hold after those of earlier ones: inner folders move first.

    Args:
        tree: content of the folder.
        is_read: tells whether a script reads an image path.
    """
    search = Search(tree, is_read)
    return [
        *search.nested_classes(),
        *search.split_names(),
        *search.class_names(),
        *search.unread_images(),
        *_not_images(tree),
    ]


class Search:
    """A search among the unread images; each finding removes those that it explains."""

    def __init__(self, tree: Tree, is_read: Callable[[str], bool]) -> None:
        self.tree, self.root, self.classes = tree, str(tree.root), tree.class_folders
        self.is_training = (tree.root / "train").is_dir()
        unread = {
            folder: [path for path in paths if not is_read(path)]
            for folder, paths in tree.images.items()
        }
        self.unread = {folder: paths for folder, paths in unread.items() if paths}

    def explain(self, folder: str) -> Item:
        """Return the unread images in a folder and below, and remove them."""
        inner = [place for place in self.unread if within(place, folder)]
        paths = tuple(below(path, self.root) for place in inner for path in self.unread.pop(place))
        return Item(paths, "", below(folder, self.root))

    def path_to(self, folder: str) -> list[str]:
        """Return the folders from directly below the root down to a folder."""
        parts = Path(folder).relative_to(self.root).parts
        return [str(Path(self.root, *parts[: depth + 1])) for depth in range(len(parts))]

    def nested_classes(self) -> Iterator[Finding]:
        """Find class folders inside folders of the other class, the innermost first."""
        items: list[Item] = []
        commands: list[str] = []
        for folder in reversed(self.classes):
            outer = next(
                (place for place in self.path_to(folder)[:-1] if self.tree.is_exact(place)), ""
            )
            name, outer_name = os.path.basename(folder).lower(), os.path.basename(outer).lower()
            if {name, outer_name} in OTHER_CLASS and self.tree.count(folder):
                read_as = "real" if CLASS_FOLDERS[outer_name] == REAL else "fake"
                items.append(Item((below(folder, self.root),), f"read as {read_as}"))
                target = os.path.join(os.path.dirname(outer), os.path.basename(folder))
                if not os.path.exists(target):
                    commands += move_command(folder, target)
        if items:
            text = f"{counted(len(items), 'class folder')} inside one of the other class"
            yield Finding("nested", PROBLEM, text, tuple(items), tuple(commands))

    def split_names(self) -> Iterator[Finding]:
        """Find folders at the top with nearly the name of a split, and a missing val/."""
        tops = {self.path_to(folder)[0] for folder in self.tree.images if folder != self.root}
        names = sorted(os.path.basename(top) for top in tops)
        splits = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
        for name, split in splits.items():
            # a single folder called Training may hold anything
            if name == split or len(splits) < 2 or Counter(splits.values())[split] > 1:
                continue
            folder = str(Path(self.root, name))
            text = f"{below(folder, self.root)}/ is not read; expected {split}/"
            item = self.explain(folder)
            commands = move_command(folder, str(Path(self.root, split)))
            yield Finding("split_name", PROBLEM, text, (item,) if item.paths else (), commands)
        if self.is_training and "val" not in splits.values():
            text = (
                "val/ is missing; train.py needs it with the class folders of train/: move about"
                " one image in ten of each class there (all images of a scene together)"
            )
            yield Finding("no_val", PROBLEM, text)

    def class_names(self) -> Iterator[Finding]:
        """Find folders whose name tells a class, but is not read as one."""
        items: list[Item] = []
        commands: list[str] = []
        for folder in list(self.unread):
            labels = [
                (place, self.tree.names.label(os.path.basename(place)))
                for place in self.path_to(folder)
            ]
            named = [(place, label) for place, label in labels if label is not None]
            # an earlier item may have explained the folder
            if not named or folder not in self.unread:
                continue
            wrong, label = named[0]
            parent = os.path.dirname(wrong) or "."
            own = (str(path) for path, other in self._classes_in(parent) if other == label)
            target = next(own, str(Path(parent, WRITTEN_CLASS_FOLDERS[label])))
            occupied = os.path.exists(os.path.join(target, os.path.basename(wrong)))
            inside = any(within(place, wrong) for place in self.classes)
            if not inside and not occupied and self._takes_classes(parent):
                items.append(self.explain(wrong))
                commands += move_command(wrong, target)
        if items:
            text = f"{counted(len(items), 'class folder')} with a name that is not read"
            text += f"; expected {EXPECTED}"
            yield Finding("class_name", PROBLEM, text, tuple(items), tuple(commands))

    def _classes_in(self, folder: str) -> tuple[tuple[Path, int], ...]:
        return class_folders(Path(folder), self.tree.names)

    def _takes_classes(self, folder: str) -> bool:
        """Return True if class folders in a folder would be read and hide no others."""
        if any(map(self.tree.is_exact, self.path_to(folder))) or self._outside_splits(folder):
            return False
        has_classes = any(self.tree.is_exact(str(path)) for path, _ in self._classes_in(folder))
        return has_classes or not any(within(place, folder) for place in self.classes)

    def _outside_splits(self, folder: str) -> bool:
        top = self.path_to(folder)[:1]
        return self.is_training and (not top or os.path.basename(top[0]) not in SPLITS)

    def unread_images(self) -> Iterator[Finding]:
        """Find all other images that no script reads."""
        items: list[Item] = []
        other_splits: list[Item] = []
        for folder, paths in self.unread.items():
            names = tuple(below(path, self.root) for path in paths)
            is_split = not self.is_training and set(self.tree.above_class(folder)) & set(SPLITS)
            group = other_splits if is_split else items
            group.append(Item(names, self._why_unread(folder), below(folder, self.root)))
        for kind, severity, group, text in (
            ("unread", PROBLEM, items, f"that no script reads; expected in {EXPECTED}"),
            (
                "other_split",
                NOTE,
                other_splits,
                "that test.py does not read: it takes test/, else val/",
            ),
        ):
            if group:
                number = sum(len(item.paths) for item in group)
                yield Finding(kind, severity, f"{counted(number, 'image')} {text}", tuple(group))

    def _why_unread(self, folder: str) -> str:
        if self._outside_splits(folder):
            return "not in train/, val/ or test/"
        if not any(map(self.tree.is_exact, self.path_to(folder))):
            return "in no class folder"
        return "deeper than the class folders that are read, or behind a link"


def _not_images(tree: Tree) -> Iterator[Finding]:
    """Find files that are not read as images."""
    if tree.wrong_suffix:
        items = tuple(
            Item((below(path, tree.root),), f"is {kind}") for path, kind in tree.wrong_suffix
        )
        text = f"{counted(len(items), 'image')} with a suffix that is not read; rename the files"
        yield Finding("no_suffix", PROBLEM, text, items)
    for kind, counts, text in (
        ("not_read", tree.not_read, "not read as an image"),
        ("ignored", tree.ignored, "skipped: hidden or of the operating system"),
    ):
        if counts:
            names = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()))
            yield Finding(kind, NOTE, f"{counted(counts.total(), 'file')} {text} ({names})")
