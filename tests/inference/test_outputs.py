"""Answers written down: exact names, no control characters on terminals, files that are whole or
say that they are not."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.names import unescaped
from inference.inputs import Inputs
from inference.outputs import PARTIAL, Summary, Writer, log_summary, open_output, record
from inference.prediction import NamedImage, Prediction
from inference.stream import Outcome
from util import CannotWrite, Stopped, UserError

SCALES = (0.25, 0.5)
NAMES = st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode)


def outcome(
    path: str = "a.png", attention: tuple[float, ...] | None = (0.75, 0.25), **changes: Any
) -> Outcome:
    values: dict[str, Any] = {"name": path, "logit": 2.0, "score": 0.8807970779778823, "probability": 0.7310585786300049,
                  "calibrated": True, "verdict": "generated", "attention": attention, "width": 64, "height": 48,
              "top_scale": None if attention is None else 0.25, "warnings": ("small: 64x48 pixels", "another")}  # fmt: skip
    return Outcome(
        path, Prediction(**(values | changes)), "", NamedImage(path, Image.new("RGB", (64, 48)))
    )


def skipped(path: str = "bad.png") -> Outcome:
    return Outcome(path, None, "empty file")


def written(
    style: str,
    outcomes: list[Outcome],
    scales: tuple[float, ...] = SCALES,
    calibrated: bool = True,
) -> str:
    file = io.StringIO()
    to = Writer(file, style, scales, calibrated)
    for one in outcomes:
        to.write(record(one, SCALES))
    return file.getvalue()


def test_json_lines_hold_everything() -> None:
    scored, bad = map(json.loads, written("jsonl", [outcome(), skipped()]).splitlines())
    assert scored == {
        "path": "a.png", "kind": "picture", "verdict": "generated", "score": 0.8807970779778823,
        "probability": 0.7310585786300049, "calibrated": True, "logit": 2.0, "top_scale": 0.25,
        "attention": {"0.25": 0.75, "0.5": 0.25}, "width": 64, "height": 48, "frames": None,
        "warnings": ["small: 64x48 pixels", "another"], "error": None, "explained": None,
    }  # fmt: skip
    assert list(bad) == list(scored)
    assert {name: value for name, value in bad.items() if value is not None} == {
        "path": "bad.png",
        "error": "empty file",
    }


def test_csv_says_the_same() -> None:
    first, second = csv.DictReader(io.StringIO(written("csv", [skipped(), outcome()])))
    assert (first["path"], first["error"], first["score"], first["attention_0.25"]) == (
        "bad.png",
        "empty file",
        "",
        "",
    )
    assert (second["score"], second["attention_0.5"], second["calibrated"]) == (
        "0.8807970779778823",
        "0.25",
        "true",
    )
    assert second["warnings"] == "small: 64x48 pixels; another" and second["top_scale"] == "0.25"
    (one,) = csv.DictReader(io.StringIO(written("csv", [outcome(attention=None)], ())))
    assert not any(name.startswith("attention") for name in one) and one["top_scale"] == ""


def test_without_calibration_there_is_no_probability() -> None:
    raw = outcome(calibrated=False, probability=0.8807970779778823)
    (values,) = map(json.loads, written("jsonl", [raw]).splitlines())
    assert (values["score"], values["probability"], values["calibrated"]) == (
        0.8807970779778823,
        None,
        False,
    )
    head, line = written("table", [raw], calibrated=False).splitlines()
    assert head.split()[:2] == ["verdict", "score"] and line.split()[:2] == ["generated", "0.881"]
    head, line = written("table", [outcome()]).splitlines()
    assert head.split()[:2] == ["verdict", "probability"] and line.split()[:2] == [
        "generated",
        "0.731",
    ]


def test_the_table_is_aligned_and_has_no_line_for_what_was_skipped() -> None:
    text = written(
        "table",
        [skipped(), outcome("x.png"), outcome("y.png", verdict="real", width=12345, warnings=())],
    )
    head, *lines = text.splitlines()
    assert len(lines) == 2
    assert lines[0].index("x.png") == lines[1].index("y.png") == head.index("file")
    assert lines[0].endswith("x.png  [small: 64x48 pixels; another]") and "0.25x" in lines[0]
    assert "scale" not in written("table", [outcome(attention=None)], ())


@given(NAMES)
def test_any_name_survives_and_steers_nothing(name: str) -> None:
    scored, bad = outcome(name), skipped(name)
    for values in map(json.loads, written("jsonl", [scored, bad]).splitlines()):
        assert os.fsencode(values["path"]) == os.fsencode(name)
    text = written("csv", [scored, bad])
    text.encode("utf-8")
    for row in csv.DictReader(io.StringIO(text)):
        assert (
            os.fsencode(unescaped(row["path"])) == os.fsencode(name)
            and row["path"][0] not in "=+-@"
        )
    assert len(text.splitlines()) == 3
    lines = written("table", [scored]).split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with open_output(str(path), overwrite=True) as file:
        Writer(file, "jsonl").write({"new": 1})
        assert path.read_text() == "old"
        # written when `write` returns
        assert Path(f"{path}{PARTIAL}").read_text() == '{"new": 1}\n'
    assert path.read_text() == '{"new": 1}\n' and list(tmp_path.iterdir()) == [path]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    """Neither answers, nor those behind a link, nor what a stopped run left or a running one
    writes."""
    path, link = tmp_path / "a.jsonl", tmp_path / "link"
    link.symlink_to(path)
    for kept in (path, Path(f"{path}{PARTIAL}")):
        kept.write_text("old")
        for named in (path, link):
            says = f"^--output {named}: .*exist.*; pass another, or --overwrite$"
            with pytest.raises(UserError, match=says), open_output(str(named)):
                pytest.fail("the block is not entered")
            assert kept.read_text() == "old"
        kept.unlink()
    path.touch()  # as mktemp makes it
    with open_output(str(path)) as file:
        file.write("new")
        with (
            pytest.raises(UserError, match="of a run that is not finished"),
            open_output(str(path)),
        ):
            pytest.fail("the block is not entered")
    assert path.read_text() == "new" and link.is_symlink()


@pytest.mark.parametrize("error", (KeyboardInterrupt(), Stopped(15), UserError("no"), ValueError()))
def test_what_was_written_until_a_stop_stays(
    tmp_path: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(type(error)), open_output(str(path)) as file:
        Writer(file, "jsonl").write({"new": 1})
        raise error
    assert Path(f"{path}{PARTIAL}").read_text() == '{"new": 1}\n' and not path.exists()
    with pytest.raises(UserError, match="before"), open_output(str(path), overwrite=True):
        raise UserError("before anything was written")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "a.csv", "No such file"),
        ("/dev/full/x", "Not a dir"),
    ):
        with pytest.raises(UserError, match=says), open_output(str(path)):
            pytest.fail("the block is not entered")
    full = tmp_path / f"full.csv{PARTIAL}"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(CannotWrite, match=r"full.csv: .*No space left"),
        open_output(str(tmp_path / "full.csv"), overwrite=True) as file,
    ):
        Writer(file, "jsonl").write({"much": "x" * 100_000})


@pytest.mark.parametrize("name", ("a.PNG", "a.mp4", "without ending", "link.csv"))
def test_images_and_videos_are_not_replaced(tmp_path: Path, name: str) -> None:
    path, photo = tmp_path / name, tmp_path / "photo.jpeg"
    Image.new("RGB", (8, 8)).save(path if name == "without ending" else photo, format="PNG")
    if name == "link.csv":
        path.symlink_to(photo)
    elif not path.exists():
        path.write_bytes(b"video")
    before = path.read_bytes()
    says = f"--output {path}: an image or a video"
    with pytest.raises(UserError, match=says), open_output(str(path), overwrite=True):
        pytest.fail("the block is not entered")
    assert path.read_bytes() == before and not list(tmp_path.glob(f"*{PARTIAL}"))


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    real, link, dangling = tmp_path / "far" / "a.csv", tmp_path / "a.csv", tmp_path / "b.csv"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to("far/new.csv")
    for path in (link, dangling):
        with open_output(str(path), overwrite=True) as file:
            file.write("new")
            assert real.read_text() == ("old" if path == link else "new")
        assert (
            path.is_symlink() and path.resolve().parent == real.parent and path.read_text() == "new"
        )
    assert sorted(path.name for path in tmp_path.rglob("*.csv*")) == [
        "a.csv",
        "a.csv",
        "b.csv",
        "new.csv",
    ]


@pytest.mark.parametrize("linked", (False, True))
def test_a_pipe_gets_the_answers_and_stays_a_pipe(tmp_path: Path, linked: bool) -> None:
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    # so that opening it for writing does not wait
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_output(str(path)) as file:
            Writer(file, "jsonl").write({"new": 1})
            assert os.read(reader, 100) == b'{"new": 1}\n'
        with pytest.raises(UserError), open_output(str(path)):
            raise UserError("no")
    finally:
        os.close(reader)
    assert (
        pipe.is_fifo()
        and path.is_symlink() == linked
        and len(list(tmp_path.iterdir())) == 1 + linked
    )


def test_a_reader_that_has_gone_is_no_error_of_ours() -> None:
    with pytest.raises(BrokenPipeError), open_output(None):
        raise BrokenPipeError


def test_the_summary_counts(caplog: pytest.LogCaptureFixture) -> None:
    summary = Summary()
    for one in (
        outcome(),
        outcome(),
        outcome(verdict="real"),
        outcome(verdict="unsure"),
        skipped(),
    ):
        summary.add(one)
    text = summary.text({})
    assert (
        text.startswith("4 scored: 2 generated, 1 real, 1 unsure; 1 skipped")
        and "passed over" not in text
    )
    text = summary.text(
        {"": 2, ".txt": 3, ".heic": 1200, ".a": 1, ".b": 1, ".c": 1, ".d": 1, ".e": 1}
    )
    others = "1,210 of other kinds passed over (.heic 1,200, .txt 3, .a 1, .b 1, .c 1, others 4)"
    assert text.startswith(f"4 scored: 2 generated, 1 real, 1 unsure; 1 skipped; {others}")
    assert (summary.scored, summary.skipped) == (4, 1)
    inputs = Inputs([])
    with (
        caplog.at_level("INFO", "npr"),
        pytest.raises(KeyboardInterrupt),
        log_summary(summary, inputs),
    ):
        raise KeyboardInterrupt
    assert caplog.messages[-1].startswith("stopped after 4 scored")
    with caplog.at_level("INFO", "npr"), log_summary(summary, inputs):
        pass
    assert caplog.messages[-1].startswith("4 scored")
    caplog.clear()
    with pytest.raises(BrokenPipeError), log_summary(summary, inputs):
        raise BrokenPipeError
    assert not caplog.messages
