"""Answers as a table, JSON lines or CSV, written one by one; and what is said at the end of them."""

import contextlib
import csv
import json
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from evaluation.names import escaped
from inference.inputs import Inputs, is_media
from inference.stream import Outcome
from inference.video.scoring import VideoJudgement
from networks.calibration import GENERATED, REAL, UNSURE
from networks.npr import scale_keys
from util import CannotWrite, UserError, log, printable

PARTIAL = ".partial"
"""Ending of an --output file's name until all is in it."""
NAMED = 5
"""Endings of files passed over that are named."""


def record(
    outcome: Outcome, scales: Sequence[float], explained: str | None = None
) -> dict[str, Any]:
    """All that is known of a file, as plain values; None where there is nothing to say.

    Args:
        scales: [S] of the model. explained: where --explain has drawn it.

    Returns:
        path: as given. kind: "picture" or "video". verdict: "real", "generated", "unsure". score:
        sigmoid(logit). probability: of "generated", calibrated; None where the checkpoint is not
        `calibrated`. logit. top_scale: the scale with the largest attention; attention: {scale:
        weight}. width, height: pixels as stored. frames: looked at, of a video. warnings: list of
        texts. error: why there is no answer; all but path are None then. explained.
    """
    one = outcome.judgement
    values: dict[str, Any] = {"path": outcome.path}
    if one is None:
        names = (
            "kind",
            "verdict",
            "score",
            "probability",
            "calibrated",
            "logit",
            "top_scale",
            "attention",
        )
        values |= dict.fromkeys((*names, "width", "height", "frames", "warnings"))
        return values | {"error": outcome.problem, "explained": None}
    video = one if isinstance(one, VideoJudgement) else None
    damage = [video.problem] if video is not None and video.problem else []
    return values | {
        "kind": "picture" if video is None else "video",
        "verdict": one.verdict,
        "score": one.score,
        "probability": one.probability if one.calibrated else None,
        "calibrated": one.calibrated,
        "logit": one.logit,
        "top_scale": one.top_scale,
        "attention": None
        if one.attention is None
        else dict(zip(scale_keys(tuple(scales)), one.attention, strict=True)),
        "width": one.width,
        "height": one.height,
        "frames": None if video is None else len(video.frames),
        "warnings": [*damage, *one.warnings],
        "error": None,
        "explained": explained,
    }


class Writer(Protocol):
    """Writes records to a file; each is there when `write` returns.

    scales: those with attention, none for a model without. calibrated: whether the records hold
        probabilities.
    """

    def __init__(
        self, file: TextIO, scales: Sequence[float] = (), calibrated: bool = False
    ) -> None: ...
    def write(self, values: dict[str, Any]) -> None: ...


class JsonLines:
    """One JSON object a line, ASCII only, with the exact path (bytes that are not UTF-8 as Python's
    lone surrogates)."""

    def __init__(
        self, file: TextIO, scales: Sequence[float] = (), calibrated: bool = False
    ) -> None:
        self._file = file

    def write(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()


class Csv:
    """A header and a line each; attention in a column for each scale, warnings joined, the path
    `escaped`."""

    def __init__(
        self, file: TextIO, scales: Sequence[float] = (), calibrated: bool = False
    ) -> None:
        self._file, self._rows = file, csv.writer(file, lineterminator="\n")
        self._keys = scale_keys(tuple(scales))
        self._begun = False

    def write(self, values: dict[str, Any]) -> None:
        weights = values["attention"] or {}
        flat: dict[str, Any] = {}
        for name, value in values.items():
            if name == "attention":
                flat |= {f"attention_{key}": weights.get(key) for key in self._keys}
            else:
                flat[name] = value
        flat["path"] = escaped(values["path"])
        flat["warnings"] = "; ".join(values["warnings"] or ())
        flat["calibrated"] = (
            None if values["calibrated"] is None else str(values["calibrated"]).lower()
        )
        if values["explained"] is not None:
            flat["explained"] = escaped(values["explained"])
        if not self._begun:
            self._rows.writerow(flat)
            self._begun = True
        self._rows.writerow(
            repr(value) if isinstance(value, float) else value for value in flat.values()
        )
        self._file.flush()


class Table:
    """Aligned columns for people; of a file without an answer nothing, which is said on standard
    error."""

    def __init__(
        self, file: TextIO, scales: Sequence[float] = (), calibrated: bool = False
    ) -> None:
        self._file, self._attends, self._calibrated = file, bool(scales), calibrated
        self._begun = False

    def write(self, values: dict[str, Any]) -> None:
        if values["error"] is not None:
            return
        number = values["probability"] if self._calibrated else values["score"]
        cells = [values["verdict"], f"{number:.3f}", f"{values['width']}x{values['height']}"]
        heads = ["verdict", "probability" if self._calibrated else "score", "size"]
        if self._attends:
            cells.insert(2, f"{values['top_scale']:g}x")
            heads.insert(2, "top scale")
        notes = list(values["warnings"])
        if values["frames"] is not None:
            notes.insert(0, f"video, {values['frames']} frames")
        if not self._begun:
            self._file.write(self._line(heads, "file") + "\n")
            self._begun = True
        name = printable(values["path"]) + (
            f"  [{'; '.join(map(printable, notes))}]" if notes else ""
        )
        self._file.write(self._line(cells, name) + "\n")
        self._file.flush()

    def _line(self, cells: Sequence[str], name: str) -> str:
        widths = (9, 11, 9, 11) if self._attends else (9, 11, 11)
        return (
            "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
            + "  "
            + name
        )


WRITERS: dict[str, type[Writer]] = {"table": Table, "jsonl": JsonLines, "csv": Csv}
"""By --format."""


@contextlib.contextmanager
def destination(path: str | None, overwrite: bool = False) -> Iterator[TextIO]:
    """Where answers go: standard output, or a file that gets its name when all is in it.

    Until then, and for good if the block is left by an exception, it is called `path` + `PARTIAL`;
    a log line says so. Of a link it is the file behind it. What is no regular file, such as a pipe
    or a terminal, is written at once and stays what it is.

    Args:
        overwrite: replace answers that are there, or that an earlier run has left as `path` +
            `PARTIAL`.

    Raises:
        UserError: it is a folder, a picture or a video, or, without `overwrite`, holds something.
        CannotWrite: it cannot be written, also in the block.
        BrokenPipeError: nobody reads standard output, or the pipe, any more.
    """
    if path is None:
        with _writing("standard output"):
            yield sys.stdout
            sys.stdout.flush()
        return
    with _writing(path):
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            raise UserError(f"--output {path}: a folder; give the name of a file")
        if is_media(path):
            raise UserError(
                f"--output {path}: a picture or a video, not to be replaced by answers; give another file"
            )
        regular = stat.S_ISREG(mode)
        if regular and not overwrite and os.path.exists(path) and os.path.getsize(path):
            raise UserError(f"--output {path}: exists; give another, or --overwrite")
        with _whole(path, overwrite) if regular else _opened(path, "w") as file:
            yield file


def _opened(path: str, mode: str) -> Any:
    return open(path, mode, newline="", encoding="utf-8")


def _mode(path: str) -> int:
    """Kind of a file, or of that behind a link; a regular one where there is none yet."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


@contextlib.contextmanager
def _whole(path: str, overwrite: bool) -> Iterator[TextIO]:
    """A file that is called `path`, or that behind the link, + `PARTIAL` until the block has ended
    well."""
    target = os.path.realpath(path)
    partial = Path(target + PARTIAL)
    try:
        file = _opened(str(partial), "w" if overwrite else "x")
    except FileExistsError:
        raise UserError(
            f"--output {path}: {partial.name} exists, of a run that goes on or was stopped; give another, or --overwrite"
        ) from None
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            if partial.stat().st_size:
                log.warning("%s: holds what had been judged until then", partial)
            else:
                partial.unlink()
        raise
    os.replace(partial, target)


@contextlib.contextmanager
def _writing(place: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # what it still holds could not be written at the end, either
        if place == "standard output":
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotWrite(f"{place}: cannot be written ({error.strerror or error})") from error


class Summary:
    """Counts what became of files, and the seconds since it was made."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.skipped = 0
        self._start = time.perf_counter()

    def add(self, outcome: Outcome) -> None:
        if outcome.judgement is None:
            self.skipped += 1
        else:
            self.verdicts[outcome.judgement.verdict] += 1

    @property
    def scored(self) -> int:
        return self.verdicts.total()

    def text(self, passed_over: Mapping[str, int]) -> str:
        """One line, of all so far; `passed_over` as in `Inputs`."""
        seconds = time.perf_counter() - self._start
        verdicts = ", ".join(
            f"{self.verdicts[name]:,} {name}"
            for name in (GENERATED, REAL, UNSURE)
            if self.verdicts[name]
        )
        parts = [f"{self.scored:,} scored" + (f": {verdicts}" if verdicts else "")]
        parts.append(f"{self.skipped:,} skipped")
        if passed_over:
            parts.append(passed_over_text(passed_over))
        parts.append(f"{seconds:.1f} s, {self.scored / seconds:.1f} files/s")
        return "; ".join(parts)


def passed_over_text(endings: Mapping[str, int]) -> str:
    """{".heic": 3, ".txt": 1, "": 1} -> "5 of other kinds passed over (.heic 3, .txt 1, others 1)"."""
    total = sum(endings.values())
    most = [(ending, count) for ending, count in Counter(endings).most_common() if ending][:NAMED]
    rest = total - sum(count for _, count in most)
    said = ", ".join(
        f"{ending} {count:,}" for ending, count in [*most, *([("others", rest)] if rest else [])]
    )
    return f"{total:,} of other kinds passed over ({said})"


@contextlib.contextmanager
def summarised(summary: Summary, inputs: Inputs) -> Iterator[None]:
    """A block at whose end the summary is logged, also where it is stopped; not when nobody reads
    standard output any more."""
    try:
        yield
    except BrokenPipeError:
        raise
    except BaseException:
        if summary.scored or summary.skipped:
            log.info("stopped after %s", summary.text(inputs.passed_over))
        raise
    log.info("%s", summary.text(inputs.passed_over))
