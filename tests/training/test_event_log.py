"""Event files: TensorBoard's own form, every step once, and nothing of a dying process in them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from tests.scripts.test_scripts import scalars
from training.event_log import FIRST, EventLog, cut_events, records
from util import CannotWrite


def write(folder: Path, steps: range, keep_to: int | None = None) -> None:
    log = EventLog(folder, keep_to)
    for step in steps:
        log.add_scalar("loss", step / 10, step)
    log.close()


def test_files_are_those_of_another_writer(tmp_path: Path) -> None:
    """The same events as tensorboardX's own writer writes, but for the time."""
    write(tmp_path / "ours", range(3))
    theirs = SummaryWriter(str(tmp_path / "theirs"))
    for step in range(3):
        theirs.add_scalar("loss", step / 10, step)
    theirs.close()
    found = []
    for name in ("ours", "theirs"):
        (path,) = (tmp_path / name).glob("events.out.tfevents.*")
        events = [event for _, event in records(path.read_bytes())]
        for event in events:
            event.wall_time = 0
        found.append([event.SerializeToString() for event in events])
    assert found[0] == found[1] and len(found[0]) == 4


def test_a_histogram_counts_all_values(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.add_histogram("attention", np.array([0.1, 0.1, 0.9]), 5)
    log.add_histogram("attention", np.full(4, 0.5), 6)
    log.close()
    (path,) = tmp_path.glob("events*")
    histograms = [
        event.summary.value[0].histo
        for _, event in records(path.read_bytes())
        if event.summary.value
    ]
    assert [sum(h.bucket) for h in histograms] == [3, 4]
    assert (histograms[0].min, histograms[0].max, histograms[0].sum) == (
        0.1,
        0.9,
        pytest.approx(1.1),
    )


def test_steps_behind_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    write(tmp_path, range(6, 12), keep_to=5)
    write(tmp_path, range(9, 13), keep_to=8)
    assert scalars(tmp_path)["loss"] == [(step, pytest.approx(step / 10)) for step in range(13)]
    write(tmp_path, range(2), keep_to=FIRST)
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [0, 1]


@pytest.mark.parametrize("lost", (1, 5, 17, 30))
def test_half_a_record_is_taken_out(tmp_path: Path, lost: int) -> None:
    write(tmp_path, range(4))
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-lost])
    cut_events(tmp_path, 100)
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [0, 1, 2]


def test_a_damaged_record_ends_the_file(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    (path,) = tmp_path.glob("events*")
    content = bytearray(path.read_bytes())
    whole = [record for record, _ in records(bytes(content))]
    content[sum(map(len, whole[:3])) + 20] ^= 1
    path.write_bytes(content)
    # the first says the version
    assert [event.step for _, event in records(bytes(content))] == [0, 0, 1]


def test_a_length_without_end_is_no_record() -> None:
    assert not list(records(struct.pack("<QI", 2**63, 0)))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file: cannot be written"):
        EventLog(tmp_path / "file")


def test_a_log_that_writes_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "none", write=False)
    log.add_scalar("a", 1.0, 1)
    log.flush()
    log.close()
    assert not (tmp_path / "none").exists()
