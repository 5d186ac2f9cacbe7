"""Examine a folder of images before training or testing on it: layout, counts, bad files,
duplicates, file formats.

Reads every file once and changes nothing; where something lies in the wrong place, the bash command
that mends it is printed.

    python -m tools.check_dataset datasets/my_training_root
    python -m tools.check_dataset datasets/Generalization_Test --json findings.json --list 3

Exit status: 0 nothing wrong (there may be warnings), 1 problems found, 2 the command line is wrong
or there are no pictures, 130 interrupted. Problems: unreadable files, a picture labelled both real
and fake or in more than one split, missing classes or splits, files that no script reads. Classes
that differ in their file format are a warning.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from data import worker_count
from evaluation.names import escaped
from options.base_options import OneLineParser
from options.flags import whole
from tools.check_dataset.examine import Diagnosis, SetReport, examine
from tools.check_dataset.findings import SEVERITIES, Finding
from tools.check_dataset.layout import TRAIN, Reading, about_suite
from util import UserError, counted, run_script

CONTENTS = 25
"""So many content folders of a set are listed on the terminal; the JSON has all."""
COUNTS = ("set", "real", "fake")
FORMATS = (
    "set",
    "class",
    "format",
    "JPEG\nquality",
    "chroma",
    "size",
    "different\nsizes",
    "bytes per\npixel",
    "AUC",
)


def overview(diagnosis: Diagnosis) -> Iterator[str]:
    """Lines that say what the folder is, and who reads what of it."""
    yield f"{escaped(str(diagnosis.root))}: {diagnosis.layout.about}"
    for reading in diagnosis.layout.readings:
        yield from _readers(
            reading, [report for report in diagnosis.sets if report.reading is reading]
        )


def _readers(reading: Reading, reports: Sequence[SetReport]) -> Iterator[str]:
    place = f"{reading.split}/" if reading.split else "all"
    if reading.reader == TRAIN:
        yield f"  {place:6} read by train.py, as one set of {counted(len(reports[0].contents), 'content folder')}"
        return
    reader = (
        f"read by {reading.reader}"
        if reading.reader
        else "not read by test.py, which takes test/, else val/"
    )
    for number, suite in enumerate(dict.fromkeys(found.suite for found in reading.sets)):
        sets = counted(sum(found.suite == suite for found in reading.sets), "set")
        yield f"  {place if not number else '':6} {reader}: {sets} of {about_suite(suite)}"


def count_rows(reports: Sequence[SetReport]) -> list[list[str]]:
    """Rows [set or content folder, real, fake]; the contents of a training set are listed, and of a
    set that is alone."""
    rows = []
    for report in reports:
        rows.append([report.name, *(f"{count:,}" for count in report.counts)])
        if len(report.contents) > 1 and (report.reading.reader == TRAIN or len(reports) == 1):
            contents = list(report.contents.items())
            rows += [
                [f"{report.name}/{name}", f"{real:,}", f"{fake:,}"]
                for name, (real, fake) in contents[:CONTENTS]
            ]
            rows += (
                [[f"and {len(contents) - CONTENTS:,} more", "", ""]]
                if len(contents) > CONTENTS
                else []
            )
    return rows


def format_rows(reports: Sequence[SetReport]) -> list[list[str]]:
    """Rows of the table of `FORMATS`, one per class of each set."""
    rows = []
    for report in reports:
        auc = "-" if report.leak is None else f"{report.leak:.2f}"
        for number, (name, formats) in enumerate(report.formats.items()):
            rows.append(
                ["" if number else report.name, name, *formats.cells(), "" if number else auc]
            )
    return rows


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    return tabulate(rows, headers, "simple", colalign=align, disable_numparse=True)


def described(finding: Finding, limit: int) -> Iterator[str]:
    """A finding as lines: what it is, then at most `limit` of its files and of its commands."""
    yield f"{finding.severity}: {finding.message}"
    lines = [f"    {item.line()}" for item in finding.items]
    commands = [f"    $ {command}" for command in finding.commands]
    for shown in (lines, commands):
        yield from shown[:limit]
        if len(shown) > limit:
            yield f"    ... and {len(shown) - limit:,} more"


def report(diagnosis: Diagnosis, limit: int) -> str:
    """Everything as text, the findings last."""
    parts = ["\n".join(overview(diagnosis))]
    if diagnosis.sets:
        parts.append(_table(count_rows(diagnosis.sets), COUNTS, ("left", "right", "right")))
        text = "how the files are encoded: median (range); AUC of telling the classes apart by that alone, 0.5 is chance"
        align = (*("left",) * 6, *("right",) * 3)
        parts.append(f"{text}\n\n{_table(format_rows(diagnosis.sets), FORMATS, align)}")
    parts += ["\n".join(described(finding, limit)) for finding in diagnosis.findings]
    if any(finding.commands for finding in diagnosis.findings):
        parts.append(
            "Behind $ are bash commands that mend it, for this folder; they overwrite nothing. Then check again."
        )
    numbers = [
        (severity, sum(f.severity == severity for f in diagnosis.findings))
        for severity in SEVERITIES
    ]
    summary = ", ".join(counted(number, severity) for severity, number in numbers)
    parts.append(f"{counted(diagnosis.files, 'file')} examined: {summary}")
    return "\n\n".join(parts) + "\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, examples = (__doc__ or "").split("\n\n    ", 1)
    made = OneLineParser(
        prog="python -m tools.check_dataset",
        description=description,
        epilog=f"examples:\n    {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="training root, suite, generator, set, folder of suites",
    )
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything there, with all file names"
    )
    made.add_argument(
        "--num_threads",
        type=whole(1),
        metavar="N",
        help="files decoded at a time (default: one per core)",
    )
    made.add_argument(
        "--list",
        type=whole(0),
        default=10,
        metavar="N",
        help="file names to print per finding (default: %(default)s)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Examine; returns 1 if there are problems, else 0."""
    opt = parser().parse_args(argv)
    # before anything takes long
    if opt.json and (opt.json.is_dir() or not os.access(opt.json.absolute().parent, os.W_OK)):
        raise UserError(f"--json {opt.json}: cannot be written there")
    diagnosis = examine(opt.folder, opt.num_threads or worker_count(os.cpu_count() or 1))
    print(report(diagnosis, opt.list))
    if opt.json:
        try:
            opt.json.write_text(json.dumps(diagnosis.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {opt.json}: cannot write it ({error.strerror})") from None
        print(f"written: {opt.json}")
    return diagnosis.status


if __name__ == "__main__":
    run_script(main)
