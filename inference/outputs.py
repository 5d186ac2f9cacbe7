"""Write predictions one by one as a table, JSON lines or CSV, and the summary at the end."""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from evaluation.names import escaped
from inference.inputs import Inputs, is_media
from inference.stream import Outcome
from inference.video.scoring import VideoPrediction
from networks.calibration import GENERATED, REAL, UNSURE
from networks.npr import scale_keys
from util import CannotWrite, UserError, log, printable

PARTIAL = ".partial"  # ending of an --output file until it is complete
SKIPPED = "skipped"  # key of the skipped files, beside the verdicts
NAMED_ENDINGS = 5  # endings of files passed over that the summary names
COPIED = ("verdict", "score", "probability", "calibrated", "logit", "top_scale")
FIELDS = (
    *("path", "kind", *COPIED, "attention", "tiles_above", "width", "height", "frames"),
    *("warnings", "error", "explained"),
)


def record(
    outcome: Outcome, scales: Sequence[float], explained: str | None = None
) -> dict[str, Any]:
    """Return the fields of a file as plain values, None for a field without a value.

    docs/predict.md lists the fields.

    Args:
        outcome: result for the file.
        scales: [S] of the model.
        explained: path of the panel or report; None without one.
    """
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    values["path"], prediction = outcome.path, outcome.prediction
    if prediction is None:
        return values | {"error": outcome.problem}
    values |= {name: getattr(prediction, name) for name in (*COPIED, "width", "height")}
    values |= {"kind": "picture", "explained": explained, "warnings": [*prediction.warnings]}
    if not prediction.calibrated:
        values["probability"] = None
    if prediction.attention is not None:
        keys = scale_keys(tuple(scales))
        values["attention"] = dict(zip(keys, prediction.attention, strict=True))
    if not isinstance(prediction, VideoPrediction):
        values["tiles_above"] = prediction.tiles_above
    else:
        values |= {"kind": "video", "frames": len(prediction.frames)}
        values["warnings"][:0] = filter(None, [prediction.problem])
    return values


class Writer:
    """A writer of records to a file, each written at once.

    Args:
        file: open for writing.
        style: "table", "jsonl" or "csv", as --format.
        scales: [S] of a model with attention, empty for others.
        calibrated: True if the records hold probabilities.
    """

    def __init__(
        self, file: TextIO, style: str, scales: Sequence[float] = (), calibrated: bool = False
    ) -> None:
        self._file, self._style, self._rows = file, style, csv.writer(file, lineterminator="\n")
        self._keys = scale_keys(tuple(scales))
        self._number = "probability" if calibrated else "score"
        self._header = True

    def write(self, values: dict[str, Any]) -> None:
        """Write a record. The table has no line for a skipped file."""
        if self._style == "jsonl":
            self._file.write(json.dumps(values, allow_nan=False) + "\n")
        elif self._style == "csv":
            self._write_row(self._csv_row(values), self._rows.writerow)
        elif values["error"] is None:
            self._write_row(self._table_row(values), self._write_aligned)
        self._file.flush()

    def _write_row(self, row: dict[str, Any], write: Callable[[Iterable[Any]], Any]) -> None:
        if self._header:
            write(row)
        write(row.values())
        self._header = False

    def _write_aligned(self, cells: Iterable[str]) -> None:
        *narrow, name = cells
        self._file.write("".join(f"{cell:<13}" for cell in narrow) + name + "\n")

    def _csv_row(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the row with a column per scale for attention, and `escaped` names."""
        row: dict[str, Any] = {}
        for name, value in values.items():
            if name == "attention":
                row |= {f"attention_{key}": (value or {}).get(key) for key in self._keys}
            elif name in ("path", "explained"):
                row[name] = escaped(value or "")
            elif isinstance(value, bool):
                row[name] = str(value).lower()
            else:
                row[name] = "; ".join(value) if isinstance(value, list) else value
        return row

    def _table_row(self, values: dict[str, Any]) -> dict[str, str]:
        row = {"verdict": values["verdict"], self._number: f"{values[self._number]:.3f}"}
        if self._keys:
            row["top scale"] = f"{values['top_scale']:g}x"
        notes = values["warnings"]
        if values["frames"] is not None:
            notes = [f"video, {values['frames']} frames", *notes]
        name = values["path"] + (f"  [{'; '.join(notes)}]" if notes else "")
        return row | {"size": f"{values['width']}x{values['height']}", "file": printable(name)}


@contextmanager
def open_output(path: str | None, overwrite: bool = False) -> Iterator[TextIO]:
    """Open the file of --output, or standard output for None.

    A regular file is called `path` + `PARTIAL` until the block ends without an error. After an
    error it keeps that name and the records until then. For a link, the file behind it is written.
    A pipe or a terminal is written directly.

    Args:
        path: of the file.
        overwrite: replace predictions of an earlier run.

    Raises:
        UserError: the file is an image or a video or, without `overwrite`, is not empty.
        CannotWrite: the file cannot be written, also in the block.
        BrokenPipeError: the reader of standard output, or of the pipe, has closed it.
    """
    try:
        if path is None:
            yield sys.stdout
            sys.stdout.flush()
        elif os.path.exists(path) and not os.path.isfile(path):
            with open(path, "w", newline="", encoding="utf-8") as file:
                yield file
        else:
            with _partial_file(path, overwrite) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        # the rest of the buffer cannot be written when Python ends, either
        if path is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = "standard output" if path is None else f"--output {path}"
        raise CannotWrite(f"{place}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _partial_file(path: str, overwrite: bool) -> Iterator[TextIO]:
    if is_media(path):
        raise UserError(
            f"--output {path}: an image or a video, which is not replaced; pass another file"
        )
    target = os.path.realpath(path)
    partial = Path(target + PARTIAL)
    if not overwrite and os.path.exists(path) and os.path.getsize(path):
        raise UserError(f"--output {path}: exists; pass another, or --overwrite")
    if not overwrite and partial.exists():
        raise UserError(
            f"--output {path}: {partial.name} exists, of a run that is not finished or was stopped;"
            " pass another, or --overwrite"
        )
    try:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            yield file
    except BaseException:
        with suppress(OSError):
            if partial.stat().st_size:
                log.warning("%s: holds the predictions so far", partial)
            else:
                partial.unlink()
        raise
    os.replace(partial, target)


def summary(counts: Counter[str], passed_over: Counter[str]) -> str:
    """Return the numbers of verdicts and skipped files as one line.

    Args:
        counts: files by verdict, and `SKIPPED`.
        passed_over: as in `Inputs`.
    """
    verdicts = ", ".join(
        f"{counts[name]:,} {name}" for name in (GENERATED, REAL, UNSURE) if counts[name]
    )
    scored = f"{counts.total() - counts[SKIPPED]:,} scored"
    parts = [f"{scored}: {verdicts}" if verdicts else scored, f"{counts[SKIPPED]:,} skipped"]
    return "; ".join(parts + ([passed_over_text(passed_over)] if passed_over else []))


def passed_over_text(endings: Counter[str]) -> str:
    """Return a count such as "5 of other kinds passed over (.heic 3, .txt 1, others 1)"."""
    most = [(name, count) for name, count in endings.most_common() if name][:NAMED_ENDINGS]
    others = endings.total() - sum(count for _, count in most)
    names = [f"{name} {count:,}" for name, count in [*most, ("others", others)] if count]
    return f"{endings.total():,} of other kinds passed over ({', '.join(names)})"


@contextmanager
def log_summary(counts: Counter[str], inputs: Inputs) -> Iterator[None]:
    """Log the summary when the block ends or is stopped, unless the output stream is closed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except BaseException:
        if counts:
            log.info("stopped after %s", summary(counts, inputs.passed_over))
        raise
    log.info("%s", summary(counts, inputs.passed_over))
