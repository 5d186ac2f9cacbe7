"""Check a folder of images before training or testing on it.

Shows layout, counts, unreadable files, duplicates and file formats. Says what lies where and what
was expected, and prints the mv commands that fix whole folders. Reads every file once, changes
nothing.

    python -m tools.check_dataset datasets/my_training_root
    python -m tools.check_dataset datasets/Generalization_Test --json findings.json --list 3

Exit status: 0 no problem (there may be warnings), 1 problems, 2 wrong command line or no images,
130 interrupted. Problems: unreadable files, an image labelled both real and fake or in more than
one split, missing classes or splits, files that no script reads. Classes that differ in their file
format are a warning.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from data.loader import class_names, worker_count
from evaluation.names import escaped
from options.base_options import BaseOptions
from options.flags import OneLineParser, add_to_parser, tool_parser, whole
from tools.check_dataset.examine import Diagnosis, SetReport, examine
from tools.check_dataset.findings import SEVERITIES, Finding
from tools.check_dataset.formats import cells
from tools.check_dataset.layout import TRAIN, about_suite
from util import UserError, atomic_file, counted, run_script, writing

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
    """Yield lines that say what the folder is, and who reads what of it."""
    yield f"{escaped(str(diagnosis.root))}: {diagnosis.about}"
    readings = [report.reading for report in diagnosis.sets]
    sets = Counter((split, reader, images.suite) for split, reader, images in readings)
    for (split, reader, suite), number in sets.items():
        content = "one set"
        if reader != TRAIN:
            content = f"{counted(number, 'set')} of {about_suite(suite)}"
        yield f"  {split or 'all':6} read by {reader}: {content}"


def count_rows(reports: Sequence[SetReport]) -> list[list[str]]:
    """Return rows [set, real, fake], with content folders of training sets and of a single set."""
    rows = []
    for report in reports:
        rows.append([report.name, *(f"{count:,}" for count in report.counts)])
        if len(report.contents) > 1 and (report.reading.reader == TRAIN or len(reports) == 1):
            for name, counts in report.contents.items():
                rows.append([f"{report.name}/{name}", *(f"{count:,}" for count in counts)])
    return rows


def format_rows(reports: Sequence[SetReport]) -> list[list[str]]:
    """Return rows of the table of `FORMATS`, one per class of each set."""
    rows = []
    for report in reports:
        name, auc = report.name, "-" if report.leak is None else f"{report.leak:.2f}"
        for class_name, formats in report.formats.items():
            rows.append([name, class_name, *cells(formats), auc])
            name = auc = ""  # only on the first line of a set
    return rows


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    return tabulate(rows, headers, "simple", colalign=align, disable_numparse=True)


def finding_lines(finding: Finding, limit: int) -> Iterator[str]:
    """Yield a finding as lines: its message, then at most `limit` items and commands."""
    yield f"{finding.severity}: {finding.message}"
    items = [f"    {item.line()}" for item in finding.items]
    commands = [f"    $ {command}" for command in finding.commands]
    for lines in (items, commands):
        yield from lines[:limit]
        if len(lines) > limit:
            yield f"    ... and {len(lines) - limit:,} more"


def report(diagnosis: Diagnosis, limit: int) -> str:
    """Return everything as text, the findings last."""
    parts = ["\n".join(overview(diagnosis))]
    if diagnosis.sets:
        parts.append(_table(count_rows(diagnosis.sets), COUNTS, ("left", "right", "right")))
        parts.append(
            "encoding of the files: median (range); AUC of telling the classes apart by it alone,"
            " 0.5 is chance"
        )
        align = (*("left",) * 6, *("right",) * 3)
        parts.append(_table(format_rows(diagnosis.sets), FORMATS, align))
    parts += ["\n".join(finding_lines(finding, limit)) for finding in diagnosis.findings]
    if any(finding.commands for finding in diagnosis.findings):
        parts.append(
            "Run the commands behind $ from here; they overwrite nothing. Then check again."
        )
    severities = [finding.severity for finding in diagnosis.findings]
    summary = ", ".join(counted(severities.count(name), name) for name in SEVERITIES)
    parts.append(f"{counted(diagnosis.files, 'file')} examined: {summary}")
    return "\n\n".join(parts) + "\n"


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("check_dataset", __doc__)
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="training root, suite, generator, set, folder of suites",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything there, with all file names"
    )
    parser.add_argument(
        "--num_threads",
        type=whole(1),
        metavar="N",
        help="files decoded at a time (default: one per core)",
    )
    parser.add_argument(
        "--list",
        type=whole(0),
        default=10,
        metavar="N",
        help="file names to print per finding (default: %(default)s)",
    )
    fields = {field.name: field for field in dataclasses.fields(BaseOptions)}
    for name in ("real_names", "fake_names"):
        add_to_parser(parser, fields[name])
        parser.set_defaults(**{name: fields[name].default})
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the folder; return 1 with problems, else 0."""
    opt = parser().parse_args(argv)
    # before anything takes long
    if opt.json and (opt.json.is_dir() or not os.access(opt.json.absolute().parent, os.W_OK)):
        raise UserError(f"--json {opt.json}: cannot be written; pass a file in an existing folder")
    threads = opt.num_threads or worker_count(os.cpu_count() or 1)
    diagnosis = examine(opt.folder, threads, class_names(opt))
    print(report(diagnosis, opt.list))
    if opt.json:
        with writing(opt.json), atomic_file(opt.json) as file:
            file.write(json.dumps(diagnosis.to_dict(), indent=2) + "\n")
        print(f"written: {opt.json}")
    return diagnosis.status


if __name__ == "__main__":
    run_script(main)
