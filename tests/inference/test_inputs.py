"""Words of a command line to files: order, links, patterns, lists and problems."""

import codecs
import glob
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference.inputs import IMAGE_ENDINGS, Input, Inputs
from inference.video.frames import EXTENSIONS
from tests.conftest import REPOSITORY
from util import UserError

NAMES = (
    *("b.png", "a/z.JPG", "a/y.gif", "a.png", "a/deep/v.mp4", "notes.txt", ".hidden.png"),
    *(".git/x.png", "c[1].png", "1.HEIC", "2.heic", "3.HIF", "README", "a/3.jxl"),
)


def paths(*words: str | Path) -> list[str]:
    return [file.path for file in Inputs([str(word) for word in words])]


def reader(data: bytes, step: int = 7) -> Callable[[], bytes]:
    blocks = iter([data[start : start + step] for start in range(0, len(data), step)])
    return lambda: next(blocks, b"")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_gives_what_is_below_it_sorted_and_counts_other_endings(tree: Path) -> None:
    inputs = Inputs([str(tree)])
    names = ("1.HEIC", "2.heic", "3.HIF", "a.png", "b.png", "c[1].png")
    names += ("a/y.gif", "a/z.JPG", "a/deep/v.mp4")
    assert list(inputs) == [Input(str(tree / name)) for name in names]
    # nothing hidden
    assert inputs.passed_over == {".txt": 1, ".jxl": 1, "": 1}


def test_the_guide_names_every_ending() -> None:
    text = (REPOSITORY / "docs/predict.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- (?:Image|Video) endings: .*$", text, re.MULTILINE)
    assert set(re.findall(r"\.\w+", " ".join(lines))) == {*IMAGE_ENDINGS, *EXTENSIONS}


def test_named_files_are_taken_in_the_order_of_the_words_whatever_they_are(tree: Path) -> None:
    words = [tree / name for name in ("b.png", "notes.txt", ".git", "nowhere.png", "c[1].png")]
    assert paths(*words) == [*map(str, words[:2]), str(tree / ".git/x.png"), *map(str, words[3:])]


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "a" / "up").symlink_to(tree)
    (tree / "to_a").symlink_to(tree / "a" / "deep")
    (tree / "broken.png").symlink_to(tree / "gone.png")
    (tree / "itself.png").symlink_to(tree / "itself.png")
    problems = {os.path.relpath(path, tree): problem for path, problem in Inputs([str(tree)])}
    assert {name for name, problem in problems.items() if problem} == {"a/up"}
    assert "link" in problems["a/up"]
    assert {"to_a/v.mp4", "broken.png", "itself.png"} <= set(problems)


def test_a_folder_that_cannot_be_listed_is_a_problem(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("inference.inputs.os.scandir", scandir)
    problem = "a folder that cannot be listed: Permission denied"
    assert list(Inputs([str(tree)])) == [Input(str(tree), problem)]


@pytest.mark.parametrize(
    "pattern",
    ("*", "a/*", "**/*.png", "a/**/*.mp4", "?.png", "[ab].png", ".*", "**", "no/*"),
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
    expected = sorted(files.union(*(paths(folder) for folder in below)))
    if expected:
        assert sorted(paths(pattern)) == expected
    else:
        assert list(Inputs([pattern])) == [Input(pattern, "no file matches the pattern")]


def test_patterns_give_files_in_order_and_folders_all_below(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert paths("**/*e*") == ["2.heic", "notes.txt"]  # and no file in a/deep
    assert paths("a*") == ["a/y.gif", "a/z.JPG", "a/deep/v.mp4", "a.png"]
    assert paths("c[1].png") == ["c[1].png"]  # a file of that name


# "/" would be all of the disk
FILES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and name != b"/")


MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@given(st.lists(FILES.filter(lambda name: not os.path.isdir(name))), st.integers(1, 50))
def test_lists_give_every_path_whatever_bytes_it_holds(names: list[bytes], step: int) -> None:
    assume(not b"".join(names[:1]).startswith(MARKS))
    read = reader(b"".join(name + b"\0" for name in names), step)
    assert [os.fsencode(file.path) for file in Inputs(["-"], b"\0", read)] == names


def test_lists_on_lines(tree: Path) -> None:
    text = f"x.png\r\n\n{tree / 'a'}\n*.png\n-\nlast \xe9.png\r"
    listed = [file.path for file in Inputs(["first.png", "-"], read=reader(text.encode()))]
    # no patterns in lists
    expected = ["first.png", "x.png", *paths(tree / "a"), "*.png", "-", "last \xe9.png"]
    assert listed == expected


@pytest.mark.parametrize("encoding", ("utf-8-sig", "utf-16"))
def test_lists_one_after_the_other_may_each_have_a_byte_order_mark(encoding: str) -> None:
    read = reader("a.png\n".encode(encoding) + "图.png\n".encode(encoding), 1000)
    assert [file.path for file in Inputs(["-"], read=read)] == ["a.png", "图.png"]


@pytest.mark.parametrize("separator", ("\n", "\r\n", "\0"))
@pytest.mark.parametrize(
    ("mark", "encoding"),
    (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ),
)
def test_lists_as_editors_and_shells_write_them(mark: bytes, encoding: str, separator: str) -> None:
    if separator == "\0" and (not mark or encoding == "utf-32-le"):
        pytest.skip("between NUL bytes only a byte order mark of UTF-8 or UTF-16 tells")
    names = ["a.png", "图a一.png", "x\xe9 \U0001f600.webp", "last.jpg"]
    data = mark + "".join(name + separator for name in names).encode(encoding)
    ending = separator[-1].encode()
    for step in (1, 7, len(data)):
        read = reader(data, step)
        assert [file.path for file in Inputs(["-"], ending, read)] == names, step


def closed() -> bytes:
    raise OSError(9, "Bad file descriptor")


@pytest.mark.parametrize(
    ("read", "message"),
    (
        (reader(b"a.png\0b.png"), "PATH -: .*--null"),
        (lambda: b"x" * 4096, "PATH -: not a list"),
        (closed, "standard input cannot be read"),
        (reader("a.png".encode("utf-16")[:-1]), "PATH -: not text in utf-16"),
    ),
)
def test_what_is_not_a_list(read: Callable[[], bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(Inputs(["-"], read=read))


def test_a_list_of_100_000_paths_takes_no_memory() -> None:
    blocks = iter([b"nowhere/picture.png\n" * 1000] * 100)
    tracemalloc.start()
    try:
        count = sum(1 for _ in Inputs(["-"], read=lambda: next(blocks, b"")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000 and peak < 2**20
