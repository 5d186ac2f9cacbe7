"""predict.py from the command line: answers, explanations, exit statuses, stops, and odd input."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from inference import load_detector
from networks import ModelConfig
from networks.calibration import Calibration
from tests.conftest import REPOSITORY, save_model
from tests.helpers.video_files import encode
from util import UserError

MULTI = ModelConfig("multiscale_attention", (0.25, 0.5), 16, 4)
CALIBRATION = Calibration(2.0, 0.5, 0.0, 1.0, 0.05, 0.1, 0.02, 30, 30, "val", "native v1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("predict") / "model.pth", MULTI, seed=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good images, one of them JPEG, one damaged, and a text."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    (root / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg", "c.png"):
        Image.fromarray(rng.integers(0, 256, (140, 130, 3), dtype=np.uint8)).save(
            root / name, quality=50
        )
    (root / "bad.png").write_bytes(b"not a picture")
    (root / "notes.txt").write_text("notes")
    return root


def run(checkpoint: Path, *words: str | Path) -> int:
    return predict.main(
        ["--model_path", str(checkpoint), "--gpu_ids", "-1", "--num_threads", "2", *map(str, words)]
    )


def test_json_lines_of_a_folder(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(checkpoint, folder, "--format", "jsonl") == 1
    captured = capsys.readouterr()
    rows = {Path(row["path"]).name: row for row in map(json.loads, captured.out.splitlines())}
    assert list(rows) == ["a.png", "bad.png", "c.png", "b.jpg"]
    detector = load_detector(checkpoint, "cpu")
    for name in ("a.png", "c.png", "b.jpg"):
        assert rows[name]["score"] == pytest.approx(detector.score(rows[name]["path"])[0], abs=1e-5)
        assert (rows[name]["width"], rows[name]["height"]) == (130, 140)
    assert (
        rows["b.jpg"]["warnings"] == ["heavily compressed: JPEG quality about 50"]
        and rows["a.png"]["warnings"] == []
    )
    assert "PNG" in rows["bad.png"]["error"] and rows["bad.png"]["score"] is None
    err = captured.err.splitlines()
    assert "not calibrated" in err[0] and "python -m tools.calibrate" in err[0]
    assert sum(line.startswith(f"skipped {folder}/bad.png: ") for line in err) == 1
    assert (
        err[-1].startswith("3 scored: ")
        and "1 skipped; 1 of other kinds passed over (.txt 1)" in err[-1]
    )


def test_the_table_of_a_calibrated_checkpoint(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    calibrated = save_model(tmp_path / "c.pth", MULTI, seed=2, calibration=CALIBRATION.to_dict())
    assert run(calibrated, folder / "a.png", f"{folder}/**/*.jpg") == 0
    captured = capsys.readouterr()
    head, *lines = captured.out.splitlines()
    assert head.split()[:2] == ["verdict", "probability"]
    assert [line.split()[0] for line in lines] == ["unsure", "unsure"]
    assert "calibrate" not in captured.err and "2 scored: 2 unsure; 0 skipped" in captured.err


@pytest.mark.parametrize(
    "config", (ModelConfig("single_scale"), ModelConfig("multiscale_attention", (0.5,)))
)
def test_a_csv_file_with_explanations_of_one_scale(
    config: ModelConfig, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    single = save_model(tmp_path / "s.pth", config, seed=2)
    (folder / "a.png").rename(folder / ("é\n$x$" + "a" * 230 + ".png"))
    to = ["--output", tmp_path / "out.csv", "--format", "csv", "--explain", tmp_path / "panels"]
    assert run(single, folder, *to, "--protocol", "resize256") == 1
    assert capsys.readouterr().out == ""
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 4 and [row["explained"] == "" for row in rows] == [
        bool(row["error"]) for row in rows
    ]
    assert {Path(row["explained"]) for row in rows if row["explained"]} == set(
        (tmp_path / "panels").iterdir()
    )
    for path in (tmp_path / "panels").iterdir():
        with Image.open(path) as panel:
            assert min(panel.size) > 350
    assert not any("attention" in name or row["top_scale"] for row in rows for name in row)
    assert run(single, folder, "--protocol", "resize256") == 1
    assert "top scale" not in capsys.readouterr().out
    assert all(
        "resized from 130x140 to 256x256" in row["warnings"] for row in rows if not row["error"]
    )


@pytest.mark.parametrize("missing", ("matplotlib", "reports.plots.images"))
def test_explanations_that_cannot_be_drawn_are_one_warning(
    missing: str, checkpoint: Path, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    for module in ("style", "images"):
        monkeypatch.delitem(sys.modules, f"reports.plots.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(checkpoint, folder, "--format", "jsonl", "--explain", tmp_path / "panels") == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert len([row for row in rows if row["verdict"]]) == 3
    assert not any(row["explained"] for row in rows)
    assert captured.err.count("plots skipped (") == 1 and "Traceback" not in captured.err


def test_another_runs_results_are_not_overwritten_unasked(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    out, panels, picture = tmp_path / "out.csv", tmp_path / "panels", folder / "a.png"
    to = [picture, "--format", "csv", "--output", out, "--explain", panels]
    assert run(checkpoint, *to) == 0
    (panels / "000000_a.png").write_bytes(b"old")
    (panels / "notes.txt").touch()
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"^--explain .*panels: .*000000_a.png.* --overw"):
        run(checkpoint, *to)
    with pytest.raises(UserError, match=r"^--output .*out.csv: .*--overwrite$"):
        run(checkpoint, *to[:-2])
    assert out.read_bytes() == before and (panels / "000000_a.png").read_bytes() == b"old"
    assert run(checkpoint, *to, "--overwrite", folder / "c.png") == 0
    assert len(out.read_text().splitlines()) == 3
    assert {path.name for path in panels.iterdir()} == {"000000_a.png", "000001_c.png", "notes.txt"}
    assert (panels / "000000_a.png").read_bytes() != b"old"


def test_videos_among_images(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("av")
    encode(folder / "b.mkv", count=20, rate=10)  # two seconds, of which every half is looked at
    (folder / "d.mp4").write_bytes(b"no video")
    assert (
        run(checkpoint, folder, "--format", "jsonl", "--fps", "2", "--explain", tmp_path / "panels")
        == 1
    )
    rows = {
        Path(row["path"]).name: row for row in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert list(rows) == ["a.png", "b.mkv", "bad.png", "c.png", "d.mp4", "b.jpg"]
    video = rows["b.mkv"]
    report = json.loads((Path(video["explained"]) / "summary.json").read_text())
    assert (video["kind"], video["frames"], report["frames"]) == ("video", 4, 4)
    assert video["score"] == report["score"] and sum(video["attention"].values()) == pytest.approx(
        1, abs=1e-5
    )
    assert rows["d.mp4"]["error"] and rows["d.mp4"]["score"] is None
    assert rows["a.png"]["explained"].endswith("000000_a.png")


@pytest.mark.parametrize(
    ("words", "says"),
    (
        (["--model_path", "no.pth", "a.png"], "--model_path no.pth: no such file"),
        (
            ["--model_path", "{tmp}/*.pth", "a.png"],
            r"--model_path .*\*.pth: matches 2 checkpoints; pass one",
        ),
        (
            ["--model_path", "{tmp}/1.pth", "a.png", "--protocol", "x"],
            "--protocol x: unknown; pass one of native",
        ),
        (
            ["--model_path", "{tmp}/1.pth", "{tmp}/empty"],
            "PATH .*empty: no image or video there; 1 of other .*txt 1",
        ),
        (
            ["--model_path", "{tmp}/1.pth", "a.png", "--explain", "{tmp}/1.pth"],
            "--explain .*: cannot write there",
        ),
        (
            ["--model_path", "{tmp}/1.pth", "a.png", "--output", "{tmp}"],
            "--output .*: cannot be written",
        ),
        (["--name", "x", "--checkpoints_dir", "{tmp}", "a.png"], "--name x: no run folder"),
    ),
)
def test_what_ends_with_one_line(
    checkpoint: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    for name in ("1.pth", "2.pth"):
        (tmp_path / name).symlink_to(checkpoint)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.txt").touch()
    with pytest.raises(UserError, match=says):
        predict.main(["--gpu_ids", "-1", *(word.format(tmp=tmp_path) for word in words)])


@pytest.mark.parametrize("error", (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")))
def test_want_of_memory_for_the_model_ends_with_one_line(
    checkpoint: Path, folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("inference.predict.load_detector", full)
    with pytest.raises(UserError, match="memory"):
        run(checkpoint, folder)


@pytest.mark.parametrize("word", ("bad.png", "gone.png", "*.webp", "only_bad"))
def test_nothing_scored_is_status_2_whatever_the_reason(
    checkpoint: Path, folder: Path, word: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As where there is no file at all; but here the answers name each, and are whole."""
    (folder / "only_bad").mkdir()
    (folder / "only_bad" / "bad.png").write_bytes(b"")
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="^PATH: .*1 skipped"):
        run(checkpoint, folder / word, "--format", "jsonl", "--output", out)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["error"] and f"skipped {row['path']}: {row['error']}" in capsys.readouterr().err
    assert list(tmp_path.glob("out*")) == [out]


def test_the_newest_run_of_a_name(
    checkpoint: Path, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    run_folder = tmp_path / "runs" / "mine_2026_01_02_03_04_05"
    run_folder.mkdir(parents=True)
    (run_folder / "model_epoch_best.pth").symlink_to(checkpoint)
    words = [
        "--name",
        "mine",
        "--epoch",
        "best",
        "--checkpoints_dir",
        str(tmp_path / "runs"),
        "--gpu_ids",
        "-1",
    ]
    assert predict.main([*words, str(folder / "a.png")]) == 0
    assert "a.png" in capsys.readouterr().out


def script(*words: str | Path, **how: object) -> subprocess.Popen:
    command = [sys.executable, "predict.py", "--gpu_ids", "-1", *map(str, words)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how
    )  # type: ignore[call-overload]


def test_a_list_on_standard_input_with_any_bytes(
    checkpoint: Path,
    folder: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = os.fsencode(folder) + b"/\xff\n\x1b[2J.png"
    os.rename(folder / "a.png", odd)
    paths = b"\0".join([odd, os.fsencode(folder / "bad.png"), odd + b".gone", b""])
    reader, writer = os.pipe()
    os.write(writer, paths)
    os.close(writer)
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(file or reader, size))
    assert run(checkpoint, "--null", "-", "--format", "jsonl") == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert os.fsencode(rows[0]["path"]) == odd and rows[0]["score"] > 0
    assert rows[2]["error"] == "No such file or directory"
    assert "\x1b" not in captured.err and captured.err.isascii()


@pytest.mark.parametrize(
    ("number", "status"),
    ((signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)),
)
def test_a_stop_leaves_the_predictions_until_then(
    checkpoint: Path, folder: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """The list never ends: the first answer is there at once, the signal ends the run."""
    out = tmp_path / "out.jsonl"
    running = script(
        "--model_path", checkpoint, "-", "--format", "jsonl", "--output", out, stdin=subprocess.PIPE
    )
    assert running.stdin is not None
    running.stdin.write(os.fsencode(folder / "a.png") + b"\n")
    running.stdin.flush()
    partial, deadline = Path(f"{out}.partial"), time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    try:
        assert running.wait(120) == status
    finally:
        running.kill()
    assert running.stderr is not None
    err = running.stderr.read().decode()
    assert "stopped" in err and "1 scored" in err and "out.jsonl.partial: " in err
    assert json.loads(partial.read_text())["path"] == str(folder / "a.png") and not out.exists()
    assert "Traceback" not in err and "Fatal" not in err


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(checkpoint: Path, folder: Path) -> None:
    running = script("--model_path", checkpoint, *[folder / "a.png"] * 300, "--format", "csv")
    assert running.stdout is not None and running.stderr is not None
    assert running.stdout.readline().startswith(b"path,")
    running.stdout.close()
    assert running.wait(120) == 0
    assert not [
        line for line in running.stderr.read().decode().splitlines() if "calibrated" not in line
    ]


@pytest.mark.slow
def test_a_full_disk_behind_standard_output(checkpoint: Path, folder: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [
            sys.executable,
            "predict.py",
            "--gpu_ids",
            "-1",
            "--model_path",
            str(checkpoint),
            str(folder / "a.png"),
        ]
        ran = subprocess.run(
            command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert ran.returncode == 2
    assert (
        ran.stderr.splitlines()[-1]
        == "error: standard output: cannot be written (No space left on device)"
    )
