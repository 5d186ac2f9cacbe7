"""Pictures that lie where no script reads them, and the bash commands that put them right."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from data.folders import CLASS_FOLDERS, SPLITS, class_folders
from data.image_sets import FAKE, REAL
from tools.check_dataset.findings import NOTE, PROBLEM, WARNING, Finding, Item, bash, below
from tools.check_dataset.tree import SUFFIX_OF, Tree, is_class, within
from util import counted

WORDS = {
    **dict.fromkeys(("real", "reals", "nature", "natural", "authentic", "genuine"), REAL),
    **dict.fromkeys(
        ("fake", "fakes", "generated", "ai", "aigc", "synthetic", "synthesized", "forged"), FAKE
    ),
}
"""Words that tell the class of a folder or file."""
FILLERS = {"image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "face", "faces",
           "sample", "samples", "data", "class", "folder", "train", "val", "test"}  # fmt: skip
"""Words that may stand beside them. With any other word a name is that of something else, such as
Real-ESRGAN."""
USUAL = {REAL: "0_real", FAKE: "1_fake"}
SPLITS_CALLED = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}
EVERY = 10
"""Of so many training pictures one goes to val/ where there is none."""


def told(name: str) -> int | None:
    """The class that the name of a folder or file tells without doubt: 0 real, 1 fake, None in
    doubt."""
    words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word and word not in FILLERS]
    labels = {WORDS.get(word) for word in words}
    return labels.pop() if len(labels) == 1 else None


def misplaced(tree: Tree, is_read: Callable[[str], bool]) -> list[Finding]:
    """All that lies in the wrong place or under the wrong name.

    Args:
        is_read: tells whether a picture, by its path, belongs to a set that a script reads.
    """
    search = Search(tree, is_read)
    return [*search.misnamed_splits(), *search.without_val(), *search.misnamed_classes(), *search.told_by_file_name(),
             *search.in_doubt(), *search.nested_classes(), *_nameless(tree), *_left_out(tree)]  # fmt: skip


class Search:
    """The pictures that no script reads, explained one group after the other; what is explained is
    taken out."""

    def __init__(self, tree: Tree, is_read: Callable[[str], bool]) -> None:
        self.tree, self.root = tree, str(tree.root)
        self.classes = tree.class_folders
        self.is_training = (tree.root / "train").is_dir()
        self.unread: dict[str, list[str]] = {}  # folder -> paths
        for folder, names in tree.pictures.items():
            paths = [name if folder == "." else os.path.join(folder, name) for name in names]
            if paths := [path for path in paths if not is_read(path)]:
                self.unread[folder] = paths

    def item(self, folder: str, note: str = "") -> Item:
        """The unread pictures of a folder and all below it, which count as explained from now on."""
        inner = [place for place in self.unread if within(place, folder)]
        paths = tuple(below(path, self.root) for place in inner for path in self.unread.pop(place))
        return Item(paths, note, below(folder, self.root))

    def places(self, folder: str) -> list[str]:
        """A folder and those above it, from the topmost one inside of the root down."""
        parts = self.tree.parts(folder)
        return [str(Path(self.root, *parts[: depth + 1])) for depth in range(len(parts))]

    def takes_classes(self, folder: str) -> bool:
        """True if class folders directly in a folder would be read, and hide none that is read now."""
        parts = self.tree.parts(folder)
        if any(map(is_class, self.places(folder))) or (
            self.is_training and (not parts or parts[0] not in SPLITS)
        ):
            return False
        return bool(class_folders(Path(folder))) or not any(
            within(place, folder) for place in self.classes
        )

    def target(self, folder: str, label: int) -> str:
        """The folder of a class there: the one that is read already, else the usual name."""
        there = (str(path) for path, own in class_folders(Path(folder)) if own == label)
        return next(there, str(Path(folder, USUAL[label])))

    def _split_folders(self) -> dict[str, str]:
        """Folders at the top that are called like a split, or nearly -> the split."""
        names = (
            parts[0] for folder in self.tree.folders if len(parts := self.tree.parts(folder)) == 1
        )
        return {
            name: SPLITS_CALLED[name.lower()] for name in names if name.lower() in SPLITS_CALLED
        }

    def misnamed_splits(self) -> Iterator[Finding]:
        called = self._split_folders()
        for name, split in called.items():
            # a single folder called Training may be anything
            if name == split or len(called) < 2 or Counter(called.values())[split] > 1:
                continue
            folder, right = str(Path(self.root, name)), str(Path(self.root, split))
            text = f"{below(folder, self.root)}/ is not called {split}/, as the scripts want it"
            items = (item,) if (item := self.item(folder)).paths else ()
            yield Finding(
                "split_name", PROBLEM, text, items, (f"mv -n -- {bash(folder)} {bash(right)}",)
            )

    def without_val(self) -> Iterator[Finding]:
        if not self.is_training or "val" in self._split_folders().values():
            return
        counts = [
            self.tree.count(folder) for folder in self.classes if self.tree.split(folder) == "train"
        ]
        step = min([EVERY, *(count for count in counts if count)])
        text = "there is no val/, and train.py needs it"
        if step < 2:
            yield Finding("no_val", PROBLEM, text)
            return
        text += f"; this moves every {step}th picture there (where several show one scene, choose by scene instead)"
        command = (
            f"(cd -- {bash(self.root)} && find train/ -type f ! -name '.*' -print0 | sort -z | sed -nz '1~{step}p' | "
            "while IFS= read -r -d '' f; do t=val/${f#train/}; "
            'mkdir -p -- "${t%/*}" && mv -n -- "$f" "$t"; done)'
        )
        yield Finding("no_val", PROBLEM, text, (), (command,))

    def misnamed_classes(self) -> Iterator[Finding]:
        items, commands = [], []
        for folder in list(self.unread):
            named = [
                place for place in self.places(folder) if told(os.path.basename(place)) is not None
            ]
            if (
                folder not in self.unread
                or not named
                or any(within(place, named[0]) for place in self.classes)
            ):
                continue
            wrong, parent = named[0], os.path.dirname(named[0]) or "."
            label = told(os.path.basename(wrong))
            if label is None or not self.takes_classes(parent):
                continue
            right = self.target(parent, label)
            if os.path.exists(os.path.join(right, os.path.basename(wrong))):
                continue
            items.append(self.item(wrong))
            commands.append(f"mv -n -- {bash(wrong)} {bash(right)}")
        if items:
            text = (
                f"{counted(len(items), 'class folder')} under a name that the scripts do not know"
            )
            yield Finding("class_name", PROBLEM, text, tuple(items), tuple(commands))

    def told_by_file_name(self) -> Iterator[Finding]:
        moved: dict[str, list[str]] = defaultdict(list)  # class folder -> pictures
        for folder in [folder for folder in self.unread if self.takes_classes(folder)]:
            for path in self.unread.pop(folder):
                label = told(os.path.splitext(os.path.basename(path))[0])
                right = "" if label is None else self.target(folder, label)
                if right and not os.path.lexists(os.path.join(right, os.path.basename(path))):
                    moved[right].append(path)
                else:
                    self.unread.setdefault(folder, []).append(path)
        if moved:
            commands = [f"mkdir -p -- {bash(right)}" for right in moved if not os.path.isdir(right)]
            commands += [
                f"mv -n -- {bash(path)} {bash(right)}/"
                for right, paths in moved.items()
                for path in paths
            ]
            items = tuple(
                Item((below(path, self.root),)) for paths in moved.values() for path in paths
            )
            text = f"{counted(len(items), 'picture')} outside of the class folders, with the class in the name"
            yield Finding("outside", PROBLEM, text, items, tuple(commands))

    def in_doubt(self) -> Iterator[Finding]:
        items = []
        for folder in list(self.unread):
            paths = tuple(below(path, self.root) for path in self.unread[folder])
            items.append(Item(paths, self._why_not_read(folder), below(folder, self.root)))
        if items:
            number = sum(len(item.paths) for item in items)
            text = f"{counted(number, 'picture')} that no script reads, and it cannot be told where they belong"
            yield Finding("unread", PROBLEM, text, tuple(items))

    def _why_not_read(self, folder: str) -> str:
        parts, places = self.tree.parts(folder), self.places(folder)
        if self.is_training and (not parts or parts[0] not in SPLITS):
            return "not in train/, val/ or test/"
        depth = next((depth for depth, place in enumerate(places) if is_class(place)), None)
        if depth is None:
            beside = class_folders(Path(folder))
            return (
                f"beside {' and '.join(below(path, folder) for path, _ in beside)}/"
                if beside
                else "in no class folder"
            )
        if any(map(os.path.islink, places[depth + 1 :])):
            return "links inside of a class folder are not followed"
        above = next(
            (place for place in (self.root, *places)[:depth] if class_folders(Path(place))), None
        )
        if above is not None:
            return f"{below(above, self.root)} has class folders, so that deeper ones are not read"
        return "too deep, or left out with what is above"

    def nested_classes(self) -> Iterator[Finding]:
        items: dict[str, list[Item]] = defaultdict(list)
        commands: dict[str, list[str]] = defaultdict(list)
        # the innermost first, so that the commands work one after the other
        for folder in reversed(self.classes):
            above = [place for place in self.places(folder)[:-1] if is_class(place)]
            if not above or not self.tree.count(folder):
                continue
            name, outer = os.path.basename(folder).lower(), os.path.basename(above[0]).lower()
            if name == os.path.basename(os.path.dirname(folder)).lower():
                kind, right, note = "doubled", os.path.dirname(folder), ""
            elif {name, outer} in ({"0_real", "1_fake"}, {"real", "fake"}):
                kind, right = (
                    "nested",
                    os.path.join(os.path.dirname(above[0]), os.path.basename(folder)),
                )
                note = f"read as {'real' if CLASS_FOLDERS[outer] == REAL else 'fake'}"
            else:
                continue  # pictures of nature among the fakes, say
            items[kind].append(Item((below(folder, self.root),), note))
            commands[kind] += _emptied_into(folder, right)
        for kind, severity, text in (
            ("nested", PROBLEM, "inside of one of the other class"),
            ("doubled", WARNING, "inside of one of the same name"),
        ):
            if kind in items:
                message = f"{counted(len(items[kind]), 'class folder')} {text}"
                yield Finding(kind, severity, message, tuple(items[kind]), tuple(commands[kind]))


def _emptied_into(folder: str, target: str) -> list[str]:
    """The command that moves a folder, or all that is in it, to where it should be; none where a
    name occurs in both."""
    if not os.path.exists(target):
        return [f"mv -n -- {bash(folder)} {bash(target)}"]
    if (set(os.listdir(folder)) & set(os.listdir(target))) - {os.path.basename(folder)}:
        return []
    move = f"find {bash(folder)} -mindepth 1 -maxdepth 1 -exec mv -n -- {{}} {bash(target)}/ \\;"
    return [f"{move} && rmdir -- {bash(folder)}"]


def _nameless(tree: Tree) -> Iterator[Finding]:
    """Pictures whose suffix is not read; one command for all of a folder with the same suffix."""
    alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for path, kind in tree.nameless:
        alike[os.path.dirname(path) or ".", os.path.splitext(path)[1], SUFFIX_OF[kind]].append(path)
    commands = []
    for (folder, old, new), paths in alike.items():
        same_suffix = [
            name for name in os.listdir(folder) if name.endswith(old) and not name.startswith(".")
        ]
        free = [path for path in paths if not os.path.lexists(path + new)]
        if (
            len(paths) > 1
            and re.fullmatch(r"\.\w+", old, re.ASCII)
            and len(same_suffix) == len(free)
        ):
            commands.append(f'for f in {bash(folder)}/*{old}; do mv -n -- "$f" "$f"{new}; done')
        else:
            commands += [f"mv -n -- {bash(path)} {bash(path + new)}" for path in free]
    if alike:
        items = tuple(Item((below(path, tree.root),), f"is {kind}") for path, kind in tree.nameless)
        text = f"{counted(len(items), 'picture')} with a suffix that is not read"
        yield Finding("no_suffix", PROBLEM, text, items, tuple(commands))


def _left_out(tree: Tree) -> Iterator[Finding]:
    """What is left out for good reasons, and links that lead in a circle."""
    if tree.loops:
        text = f"{counted(len(tree.loops), 'link')} to a folder above"
        items = tuple(Item((below(path, tree.root),)) for path in tree.loops)
        yield Finding(
            "loop", WARNING, text, items, tuple(f"unlink {bash(path)}" for path in tree.loops)
        )
    for kind, counts, text in (
        ("not_read", tree.not_read, "in a format that is not read; PNG files would be"),
        ("ignored", tree.ignored, "hidden or of the operating system: left out"),
    ):
        if counts:
            listed = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()))
            yield Finding(kind, NOTE, f"{counted(counts.total(), 'file')} {text} ({listed})")
