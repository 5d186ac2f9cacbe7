"""The record of a run: lines that are taken back, and what TensorBoard shows of them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.record_writer import RecordWriter

from tests.scripts.test_scripts import events_in, scalars
from training.event_log import TRAIN, VAL, EventLog, read_metrics
from util import CannotWrite


def write(folder: Path, steps: range, kept: int | None = None) -> None:
    log = EventLog(folder, None if kept is None else {TRAIN: kept, VAL: kept - 1})
    for step in steps:
        log.add(TRAIN, step, 1, {"loss": step / 10})
        log.add(VAL, step, 1, {"ap": step / 5})
    log.close()


def steps(folder: Path) -> dict[str, list[int]]:
    """Steps in metrics.jsonl, by split."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        split: [line["step"] for line in lines if line["split"] == split] for split in (TRAIN, VAL)
    }


def shown(folder: Path) -> list[int]:
    """Steps that TensorBoard shows: a restart hides what came before from its step on."""
    visible: list[int] = []
    for event in events_in(folder):
        if event.session_log.status == SessionLog.START:
            visible = [step for step in visible if step < event.step]
        if event.summary.value and event.summary.value[0].tag != "epoch":
            visible.append(event.step)
    return visible


def test_lines_and_events_hold_the_same(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.add(TRAIN, 2, 1, {"loss": np.float32(0.5)})
    log.add(VAL, 4, 1, {"ap": None, "auc": float("nan"), "accuracy": 0.25})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"split": "train", "step": 2, "epoch": 1, "loss": 0.5}\n'
        '{"split": "val", "step": 4, "epoch": 1, "ap": null, "auc": null, "accuracy": 0.25}\n'
    )
    assert scalars(tmp_path / "train") == {"epoch": [(2, 1)], "loss": [(2, 0.5)]}
    assert scalars(tmp_path / "val") == {"epoch": [(4, 1)], "accuracy": [(4, 0.25)]}


def test_a_histogram_counts_all_values(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.add_histogram(VAL, 5, "attention", np.array([0.1, 0.1, 0.9]))
    log.close()
    (histogram,) = [
        event.summary.value[0].histo for event in events_in(tmp_path / "val") if event.summary.value
    ]
    assert sum(histogram.bucket) == 3
    assert (histogram.min, histogram.max, histogram.sum) == (0.1, 0.9, pytest.approx(1.1))


def test_steps_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    """Of each split after its own step: an epoch may be trained and not yet validated."""
    write(tmp_path, range(10))
    write(tmp_path, range(6, 9), kept=5)
    expected = [0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 6, 7, 8]
    assert tuple(steps(tmp_path).values()) == expected
    assert (shown(tmp_path / "train"), shown(tmp_path / "val")) == expected
    write(tmp_path, range(2))
    assert steps(tmp_path)[TRAIN] == shown(tmp_path / "train") == [0, 1]


@pytest.mark.parametrize("lost", (1, 5, 30))
def test_half_a_line_is_removed(tmp_path: Path, lost: int) -> None:
    write(tmp_path, range(4))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1][:-lost])
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 0, 1, 1, 2, 2, 3]
    write(tmp_path, range(0), kept=100)
    assert steps(tmp_path) == {TRAIN: [0, 1, 2, 3], VAL: [0, 1, 2]}


@pytest.mark.parametrize("text", ("3", "[]", '{"step": 1}', "\xff"))
def test_other_content_is_not_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text + "\n", encoding="latin-1")
    assert read_metrics(tmp_path) == []
    assert read_metrics(tmp_path / "missing") == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file: cannot be written"):
        EventLog(tmp_path / "file")


def test_a_full_disk_is_noticed_at_the_line(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / "metrics.jsonl")
    log = EventLog(tmp_path, write=False)
    log._file = open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(CannotWrite, match="No space left"):
        log.add(TRAIN, 1, 1, {"loss": 1.0})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_event_files_that_cannot_be_written_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path)
    writers = list(log._writers.values())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write", "flush"):
        monkeypatch.setattr(RecordWriter, name, full)
    log.add(TRAIN, 1, 1, {"loss": 1.0})
    writers[0].file_writer.event_writer._worker.join(timeout=30)
    for step in range(2, 30):
        log.add(TRAIN, step, 1, {"loss": 1.0})
    log.flush()
    log.close()
    assert f"TensorBoard ({tmp_path}/train): [Errno 28] No space left" in caplog.text
    assert steps(tmp_path)[TRAIN] == list(range(1, 30))


def test_a_log_that_writes_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "none", write=False)
    log.add(TRAIN, 1, 1, {"loss": 1.0})
    log.add_histogram(TRAIN, 1, "a", np.ones(3))
    log.add_text(TRAIN, 1, "a", "b")
    log.flush()
    log.close()
    assert not (tmp_path / "none").exists()
