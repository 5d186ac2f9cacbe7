"""TensorBoard event files in which every step stands once, whatever happened to the processes that
wrote them."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from numpy.typing import NDArray
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter, masked_crc32c
from tensorboardX.summary import histogram, scalar, text

from util import writing

FIRST = -1
"""As `keep_to`: nothing of what an earlier process wrote is kept."""


class EventLog:
    """A folder of event files that this process adds one to, in place: what was written before
    `flush` is on the disk after it.

    TensorBoard's own writers, and tensorboardX's, write from a thread that may lag behind and dies
    of a full disk unnoticed.

    Args:
        folder: made when needed. keep_to: last step to keep of what earlier processes wrote here;
            None keeps all.
        write: False for a log that writes nothing.

    Raises:
        CannotWrite: a full disk, a read-only folder; this is so for all methods.
    """

    def __init__(self, folder: Path, keep_to: int | None = None, write: bool = True) -> None:
        self.folder = folder
        self._writer: RecordWriter | None = None
        if not write:
            return
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if keep_to is not None:
                cut_events(folder, keep_to)
            now = time.time_ns()
            name = f"events.out.tfevents.{now // 10**9}.{now % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
            self._writer = RecordWriter(str(folder / name))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            with writing(self.folder):
                self._writer.write(event.SerializeToString())

    def _add(self, summary: Summary, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(scalar(tag, value), step)

    def add_histogram(self, tag: str, values: NDArray, step: int) -> None:
        """How values [N] are spread, N >= 1."""
        self._add(histogram(tag, values, bins=30), step)

    def add_text(self, tag: str, value: str, step: int) -> None:
        """Text in Markdown."""
        self._add(text(tag, value), step)

    def flush(self) -> None:
        """Let everything reach the disk."""
        if self._writer is not None:
            with writing(self.folder):
                self._writer.flush()

    def close(self) -> None:
        """Flush and close; nothing can be added afterwards."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with writing(self.folder):
                writer.flush()
                writer.close()


def cut_events(folder: Path, last_step: int) -> None:
    """Take events behind `last_step`, and what a dying process left of a record, out of all event
    files of a folder."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        kept = b"".join(record for record, event in records(content) if event.step <= last_step)
        if kept != content:
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(kept)
            os.replace(temporary, path)


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars in a folder of event files, {tag: (step, value) in the order of the files}; empty
    without such files."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for _, event in records(path.read_bytes()):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def records(content: bytes) -> Iterator[tuple[bytes, Event]]:
    """The records of an event file, as bytes and as events, up to the first damaged one.

    A record is its length (8 bytes), the length's checksum (4), the event, and its checksum (4),
    little-endian.
    """
    position = 0
    while len(header := content[position : position + 12]) == 12:
        (length,) = struct.unpack("<Q", header[:8])
        end = position + 12 + length + 4
        data = content[position + 12 : end - 4]
        checks = header[8:] + content[end - 4 : end]
        if end > len(content) or checks != struct.pack(
            "<II", masked_crc32c(header[:8]), masked_crc32c(data)
        ):
            return
        yield content[position:end], Event.FromString(data)
        position = end
