"""Log of a run's metrics: metrics.jsonl, and the same numbers as TensorBoard events.

metrics.jsonl has one JSON object per line: split ('train' or 'val'), step, epoch, and the metrics
by name; null for an undefined metric.
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
    """Writes the metrics of a run, after removing the lines that follow its checkpoint.

    metrics.jsonl is complete up to the last `flush`. TensorBoard hides the removed steps. Its files
    are written by tensorboardX's threads, so after a kill they may lack a few steps.

    Args:
        folder: of the run.
        kept: {split: last step to keep of the earlier lines}; None to start a new log.
        write: False for a log that writes nothing.

    Raises:
        CannotWrite: full disk or read-only folder; also from all methods.
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
            # stays open until `close`
            self._file = open(folder / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115
            for split in (TRAIN, VAL):
                self._writers[split] = writer = SummaryWriter(
                    str(folder / split),
                    purge_step=0 if kept is None else kept[split] + 1,
                    # unlimited: a full queue would wait for a thread that may be dead
                    max_queue=0,
                    # a new file, even when another was started in the same second
                    filename_suffix=f".{time.time_ns()}",
                )
                # the end of Python must not wait for that thread either
                writer.file_writer.event_writer._event_queue.cancel_join_thread()

    def add(self, split: str, step: int, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write one line of metrics.

        Args:
            split: `TRAIN` or `VAL`.
            step: of training.
            epoch: from 1, the current or just finished one.
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
        """Add a histogram of values [N], N >= 1, to TensorBoard."""
        if split in self._writers:
            self._writers[split].add_histogram(name, values, step, bins=30)

    def add_text(self, split: str, step: int, name: str, text: str) -> None:
        """Add a text in Markdown to TensorBoard."""
        if split in self._writers:
            self._writers[split].add_text(name, text, step)

    def flush(self) -> None:
        """Force all lines to disk; warn if only TensorBoard's files fail."""
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
            # `flush` has warned of it
            with suppress(OSError):
                writer.close()
        self._writers = {}
        with writing(self.folder), file:
            os.fsync(file.fileno())


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _cut(path: Path, kept: Mapping[str, int]) -> None:
    """Remove the lines after each split's last step to keep, and a partial line after a kill."""
    if path.exists():
        lines = [
            line
            for line in read_metrics(path.parent)
            if line["step"] <= kept.get(line["split"], -1)
        ]
        with atomic_file(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl, up to the first incomplete one.

    Raises:
        OSError: the file cannot be read; a missing file is empty.
    """
    lines: list[dict[str, Any]] = []
    path = folder / METRICS_FILE
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            complete = {"split", "step", "epoch"} <= line.keys()
        except (ValueError, AttributeError):
            complete = False
        if not complete:
            break
        lines.append(line)
    return lines
