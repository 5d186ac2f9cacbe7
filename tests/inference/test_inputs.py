"""Words of a command line to files: order, links, patterns, lists, and what is no file."""

import glob
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.inputs import IMAGE_ENDINGS, Input, Inputs
from inference.video.frames import EXTENSIONS
from tests.conftest import REPOSITORY
from util import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths(*words: str | Path) -> list[str]:
    return [one.path for one in Inputs([str(word) for word in words])]


def reader(data: bytes, step: int = 7) -> Callable[[], bytes]:
    blocks = iter([data[start : start + step] for start in range(0, len(data), step)])
    return lambda: next(blocks, b"")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    names = (
        "b.png",
        "a/z.JPG",
        "a/y.gif",
        "a.png",
        "a/deep/v.mp4",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "c[1].png",
    )
    touch(*(root / name for name in names))
    return root


def test_a_folder_gives_what_is_below_it_sorted(tree: Path) -> None:
    inputs = Inputs([str(tree)])
    found = list(inputs)
    assert [os.path.relpath(one.path, tree) for one in found] == [
        *("a.png", "b.png", "c[1].png", "a/y.gif", "a/z.JPG", "a/deep/v.mp4")
    ]
    assert inputs.passed_over == {".txt": 1}  # nothing hidden
    assert not any(one.problem for one in found)


def test_what_is_passed_over_is_counted_by_its_ending(tree: Path) -> None:
    for name in ("1.HEIC", "2.heic", "README", "a/3.jxl", "4.avif"):
        touch(tree / name)
    inputs = Inputs([str(tree)])
    list(inputs)
    assert inputs.passed_over == {".txt": 1, ".heic": 2, ".jxl": 1, ".avif": 1, "": 1}


def test_the_guide_names_every_ending() -> None:
    text = (REPOSITORY / "docs/predict.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- (?:Image|Video) endings: .*$", text, re.MULTILINE)
    assert set(re.findall(r"\.\w+", " ".join(lines))) == {*IMAGE_ENDINGS, *EXTENSIONS}


def test_words_are_taken_in_their_order_and_named_files_whatever_they_are(tree: Path) -> None:
    words = (
        tree / "b.png",
        tree / "notes.txt",
        tree / ".git",
        tree / "nowhere.png",
        tree / "c[1].png",
    )
    assert paths(*words) == [
        str(words[0]),
        str(words[1]),
        str(tree / ".git/x.png"),
        str(words[3]),
        str(words[4]),
    ]


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "a" / "up").symlink_to(tree)
    (tree / "to_a").symlink_to(tree / "a" / "deep")
    (tree / "broken.png").symlink_to(tree / "gone.png")
    (tree / "itself.png").symlink_to(tree / "itself.png")
    found = {os.path.relpath(one.path, tree): one.problem for one in Inputs([str(tree)])}
    assert {name for name, problem in found.items() if problem} == {"a/up"}
    assert "link" in found["a/up"]
    assert {"to_a/v.mp4", "broken.png", "itself.png"} <= set(found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_a_problem(tree: Path) -> None:
    (tree / "a").chmod(0)
    try:
        problems = [one for one in Inputs([str(tree)]) if one.problem]
    finally:
        (tree / "a").chmod(0o755)
    assert [one.path for one in problems] == [str(tree / "a")] and "Permission" in problems[
        0
    ].problem


def test_a_folder_that_vanishes_is_a_problem(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("inference.inputs.os.scandir", scandir)
    (one,) = Inputs([str(tree)])
    assert (one.path, one.problem) == (
        str(tree),
        "a folder that cannot be listed: Permission denied",
    )


@pytest.mark.parametrize(
    "pattern",
    (
        "*",
        "*.png",
        "a/*",
        "**/*.png",
        "**/deep/*",
        "a/**/*.mp4",
        "?.png",
        "[ab].png",
        ".*",
        ".git/*",
        "**",
        "a/**",
        "no/*",
    ),
)
@pytest.mark.parametrize("absolute", (True, False))
def test_patterns_match_what_glob_matches(
    tree: Path, pattern: str, absolute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    pattern = f"{tree}/{pattern}" if absolute else pattern

    matches = glob.glob(pattern, recursive=True)
    files = {path for path in matches if os.path.isfile(path)}
    below = {path for path in matches if os.path.isdir(path) and "**" not in pattern}
    expected = files.union(*(paths(folder) for folder in below))
    if not expected:
        assert [one.problem for one in Inputs([pattern])] == ["no file matches the pattern"]
    else:
        assert sorted(paths(pattern)) == sorted(expected)


def test_patterns_give_files_once_and_folders_all_below(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert paths("**/*") == [
        "a.png",
        "a/deep/v.mp4",
        "a/y.gif",
        "a/z.JPG",
        "b.png",
        "c[1].png",
        "notes.txt",
    ]
    assert paths("a*") == ["a/y.gif", "a/z.JPG", "a/deep/v.mp4", "a.png"]
    assert paths("c[1].png") == ["c[1].png"]  # a file of that name
    (one,) = Inputs(["*.webp"])
    assert one == Input("*.webp", "no file matches the pattern")


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)
FILES = NAMES.filter(lambda name: not os.path.isdir(name))  # "/" would be all of the disk


@given(st.lists(FILES), st.integers(1, 50))
def test_lists_give_every_path_whatever_bytes_it_holds(names: list[bytes], step: int) -> None:
    read = reader(b"".join(name + b"\0" for name in names), step)
    found = [os.fsencode(one.path) for one in Inputs(["-"], read, b"\0")]
    assert found == names


def test_lists_on_lines(tree: Path) -> None:
    read = reader(f"x.png\r\n\n{tree / 'a'}\n*.png\n-\nlast \xe9.png".encode())
    found = [one.path for one in Inputs(["first.png", "-"], read)]
    # no patterns in lists
    expected = ["first.png", "x.png", *paths(tree / "a"), "*.png", "-", "last \xe9.png"]
    assert found == expected
    with pytest.raises(UserError, match="PATH -: .*--null"):
        list(Inputs(["-"], reader(b"a.png\0b.png")))


def test_a_list_that_is_none() -> None:
    with pytest.raises(UserError, match="PATH -: not a list"):
        list(Inputs(["-"], lambda: b"x" * 4096))

    def closed() -> bytes:
        raise OSError(9, "Bad file descriptor")

    with pytest.raises(UserError, match="standard input cannot be read"):
        list(Inputs(["-"], closed))


def test_a_long_list_takes_no_memory() -> None:
    blocks = 1000

    def read() -> bytes:
        nonlocal blocks
        blocks -= 1
        return b"nowhere/picture.png\n" * 100 if blocks >= 0 else b""

    tracemalloc.start()
    try:
        count = sum(1 for _ in Inputs(["-"], read))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000 and peak < 2**20
