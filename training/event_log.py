"""Record of a run: metrics.jsonl, and the same numbers as TensorBoard events.

metrics.jsonl has one JSON object per line: split ('train' or 'val'), step, epoch, and the metrics by
name; null for an undefined metric.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from util import atomic_file, log, writing

METRICS_FILE = "metrics.jsonl"
TRAIN, VAL = "train", "val"


class EventLog:
    """Writes the record of a run, after taking back what was written after its checkpoint.

    metrics.jsonl is complete up to the last `flush`. TensorBoard hides the steps that were taken
    back; its files are written by tensorboardX's threads, so a killed process may leave a few steps
    out of them.

    Args:
        folder: of the run.
        kept: last step to keep of each split's earlier lines; None to start a new record.
        write: False for a log that writes nothing.

    Raises:
        CannotWrite: full disk or read-only folder. So do all methods.
    """

    def __init__(
        self, folder: Path, kept: Mapping[str, int] | None = None, write: bool = True
    ) -> None:
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._file = None
        if not write:
            return
        with writing(folder):
            _cut(folder / METRICS_FILE, kept or {})
            self._file = open(folder / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115  # stays open
            for split in (TRAIN, VAL):
                self._writers[split] = writer = SummaryWriter(
                    str(folder / split),
                    purge_step=0 if kept is None else kept[split] + 1,
                    max_queue=0,  # unlimited: a full queue would wait for a thread that may be dead
                    filename_suffix=f".{time.time_ns()}",  # a file of its own, also within a second
                )
                # nor must the end of Python wait for that thread
                writer.file_writer.event_writer._event_queue.cancel_join_thread()

    def add(self, split: str, step: int, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write one line of metrics.

        Args:
            split: `TRAIN` or `VAL`.
            step: of training.
            epoch: from 1, the one that is trained or has just been trained.
            metrics: values by name; None and non-finite ones are undefined.
        """
        if self._file is None:
            return
        finite = {name: _finite(value) for name, value in metrics.items()}
        line = json.dumps({"split": split, "step": step, "epoch": epoch} | finite)
        with writing(self.folder):
            self._file.write(line + "\n")
            self._file.flush()
        for name, value in ({"epoch": epoch} | finite).items():
            if value is not None:
                self._writers[split].add_scalar(name, value, step)

    def add_histogram(self, split: str, step: int, name: str, values: NDArray) -> None:
        """Show TensorBoard how values [N] are distributed, N >= 1."""
        if split in self._writers:
            self._writers[split].add_histogram(name, values, step, bins=30)

    def add_text(self, split: str, step: int, name: str, text: str) -> None:
        """Show a text in Markdown in TensorBoard."""
        if split in self._writers:
            self._writers[split].add_text(name, text, step)

    def flush(self) -> None:
        """Put everything written so far on the disk; warn where only TensorBoard's files fail."""
        if self._file is None:
            return
        with writing(self.folder):
            os.fsync(self._file.fileno())
        for split, writer in self._writers.items():
            try:
                writer.flush()
            except OSError as error:
                log.warning("TensorBoard (%s): %s", self.folder / split, error)

    def close(self) -> None:
        """Flush and close; nothing can be added afterwards."""
        if self._file is None:
            return
        file, self._file = self._file, None
        for writer in self._writers.values():
            with suppress(OSError):  # `flush` says it
                writer.close()
        self._writers = {}
        with writing(self.folder), file:
            os.fsync(file.fileno())


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _cut(path: Path, kept: Mapping[str, int]) -> None:
    """Remove the lines after a split's last step to keep, and half a line of a killed process."""
    if path.exists():
        lines = [
            line
            for line in read_metrics(path.parent)
            if line["step"] <= kept.get(line["split"], -1)
        ]
        with atomic_file(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl, up to the first that is not whole.

    Raises:
        OSError: it cannot be read; a missing file is empty.
    """
    lines: list[dict[str, Any]] = []
    path = folder / METRICS_FILE
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            whole = {"split", "step", "epoch"} <= line.keys()
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            break
        lines.append(line)
    return lines
