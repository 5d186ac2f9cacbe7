"""Predictions as files: exact names, no control characters, complete files or FILE.partial."""

import csv
import dataclasses
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
from inference.outputs import PARTIAL, Writer, open_output, record
from inference.prediction import NamedImage, Prediction
from inference.stream import Outcome
from util import CannotWrite, Stopped, UserError

SCALES = (0.25, 0.5)
NAMES = st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode)
SCORE, PROBABILITY = 0.8807970779778823, 0.7310585786300049
PREDICTION = Prediction(
    *("a.png", 2.0, SCORE, PROBABILITY, "generated", True, (0.75, 0.25), 0.25, 64, 48, None),
    warnings=("small: 64x48 pixels", "another"),
)
SKIPPED_FILE = Outcome("bad.png", None, "empty file")


def outcome(path: str = "a.png", **changes: Any) -> Outcome:
    image = NamedImage(path, Image.new("RGB", (64, 48)))
    return Outcome(path, dataclasses.replace(PREDICTION, name=path, **changes), "", image)


def written(style: str, *outcomes: Outcome, attention: bool = True, calibrated: bool = True) -> str:
    file = io.StringIO()
    writer = Writer(file, style, SCALES if attention else (), calibrated)
    for result in outcomes:
        writer.write(record(result, SCALES))
    return file.getvalue()


def test_json_lines_and_csv_hold_everything() -> None:
    scored, bad = map(json.loads, written("jsonl", outcome(), SKIPPED_FILE).splitlines())
    assert scored == {
        "path": "a.png", "kind": "picture", "verdict": "generated", "score": SCORE,
        "probability": PROBABILITY, "calibrated": True, "logit": 2.0, "top_scale": 0.25,
        "attention": {"0.25": 0.75, "0.5": 0.25}, "tiles_above": None,
        "width": 64, "height": 48, "frames": None,
        "warnings": ["small: 64x48 pixels", "another"], "error": None, "explained": None,
    }  # fmt: skip
    assert bad == dict.fromkeys(scored) | {"path": "bad.png", "error": "empty file"}
    attention = {"attention_0.25": "0.75", "attention_0.5": "0.25"}
    expected = {key: "" if value is None else str(value) for key, value in scored.items()}
    expected |= {"calibrated": "true", "warnings": "small: 64x48 pixels; another"} | attention
    del expected["attention"]
    rows = list(csv.DictReader(io.StringIO(written("csv", SKIPPED_FILE, outcome()))))
    assert rows == [
        dict.fromkeys(expected, "") | {"path": "bad.png", "error": "empty file"},
        expected,
    ]


def test_models_without_attention_or_calibration_leave_columns_out() -> None:
    plain = outcome(attention=None, top_scale=None)
    (row,) = csv.DictReader(io.StringIO(written("csv", plain, attention=False)))
    assert not any(name.startswith("attention") for name in row) and row["top_scale"] == ""
    assert "scale" not in written("table", plain, attention=False)
    raw = outcome(calibrated=False, probability=SCORE)
    values = json.loads(written("jsonl", raw))
    assert (values["score"], values["probability"], values["calibrated"]) == (SCORE, None, False)
    for text, cells in (
        (written("table", raw, calibrated=False), ["score", "0.881"]),
        (written("table", outcome()), ["probability", "0.731"]),
    ):
        header, line = map(str.split, text.splitlines())
        assert [header[:2], line[:2]] == [["verdict", cells[0]], ["generated", cells[1]]]


def test_the_table_is_aligned_and_has_no_line_for_a_skipped_file() -> None:
    real = outcome("y.png", verdict="real", width=12345, warnings=())
    header, *lines = written("table", SKIPPED_FILE, outcome("x.png"), real).splitlines()
    assert len(lines) == 2
    assert lines[0].index("x.png") == lines[1].index("y.png") == header.index("file")
    assert lines[0].endswith("x.png  [small: 64x48 pixels; another]") and "0.25x" in lines[0]


@given(NAMES)
def test_any_name_survives_and_steers_nothing(name: str) -> None:
    outcomes = outcome(name), SKIPPED_FILE._replace(path=name)
    for values in map(json.loads, written("jsonl", *outcomes).splitlines()):
        assert os.fsencode(values["path"]) == os.fsencode(name)
    text = written("csv", *outcomes)
    assert text.encode("utf-8").count(b"\n") == len(text.splitlines()) == 3
    for row in csv.DictReader(io.StringIO(text)):
        assert os.fsencode(unescaped(row["path"])) == os.fsencode(name)
        assert row["path"][0] not in "=+-@"
    lines = written("table", *outcomes).split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with open_output(str(path), overwrite=True) as file:
        Writer(file, "jsonl").write({"new": 1})
        assert path.read_text() == "old"
        # written when `write` returns
        assert Path(f"{path}{PARTIAL}").read_text() == '{"new": 1}\n'
    assert path.read_text() == '{"new": 1}\n' and list(tmp_path.iterdir()) == [path]


def refused(path: Path | str, message: str, overwrite: bool = False) -> None:
    with (
        pytest.raises(UserError, match=f"^--output {path}: {message}"),
        open_output(str(path), overwrite),
    ):
        pytest.fail("the block is not entered")


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    """Neither predictions, nor those behind a link, nor those of a stopped or running run."""
    path, link = tmp_path / "a.jsonl", tmp_path / "link"
    link.symlink_to(path)
    for kept in (path, Path(f"{path}{PARTIAL}")):
        kept.write_text("old")
        for output in (path, link):
            refused(output, ".*exist.*; pass another, or --overwrite$")
            assert kept.read_text() == "old"
        kept.unlink()
    path.touch()  # as mktemp makes it
    with open_output(str(path)) as file:
        file.write("new")
        refused(path, ".*of a run that is not finished")
    assert path.read_text() == "new" and link.is_symlink()


@pytest.mark.parametrize("error", (KeyboardInterrupt(), Stopped(15), UserError("no")))
def test_what_was_written_until_a_stop_stays(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(type(error)), open_output(str(path)) as file:
        Writer(file, "jsonl").write({"new": 1})
        raise error
    assert Path(f"{path}{PARTIAL}").read_text() == '{"new": 1}\n' and not path.exists()
    with pytest.raises(type(error)), open_output(str(path), overwrite=True):
        raise error
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    refused(tmp_path, ".*Is a directory")
    refused(tmp_path / "no" / "a.csv", ".*No such file")
    (tmp_path / f"full.csv{PARTIAL}").symlink_to("/dev/full")
    with (
        pytest.raises(CannotWrite, match=r"full.csv: .*No space left"),
        open_output(str(tmp_path / "full.csv"), overwrite=True) as file,
    ):
        Writer(file, "jsonl").write({"much": "x" * 100_000})


@pytest.mark.parametrize("name", ("a.PNG", "a.mp4", "without ending", "link.csv"))
def test_images_and_videos_are_not_replaced(tmp_path: Path, name: str) -> None:
    path, photo = tmp_path / name, tmp_path / "photo.jpeg"
    Image.new("RGB", (8, 8)).save(photo, format="PNG")
    if name == "link.csv":
        path.symlink_to(photo)
    else:
        path.write_bytes(photo.read_bytes() if name == "without ending" else b"video")
    before = path.read_bytes()
    refused(path, "an image or a video", overwrite=True)
    assert path.read_bytes() == before and not list(tmp_path.glob(f"*{PARTIAL}"))


def test_a_pipe_behind_a_link_gets_the_predictions_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    # so that opening it for writing does not wait
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        with open_output(str(link)) as file:
            Writer(file, "jsonl").write({"new": 1})
            assert reader.read(100) == b'{"new": 1}\n'
        with pytest.raises(UserError), open_output(str(pipe)):
            raise UserError("no")
    assert pipe.is_fifo() and {*tmp_path.iterdir()} == {pipe, link}
