"""Damaged image files and checkpoints through the real readers, in processes of their own, with
limits of time and memory.

python -m tests.robustness.fuzz --images 100000 --checkpoints 2000 --minutes 10 --seed 0
python -m tests.robustness.fuzz --seed 0 --only image:1234 --output DIR        # one case again; its file is written to DIR

Every case follows from (seed, number) and the installed versions of Pillow and PyTorch (code in a
checkpoint also names the folder of its file). Ends with status 1 after failures.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.robustness.fuzz_checkpoints import CHECKPOINTS
from tests.robustness.fuzz_engine import report, run, write_case
from tests.robustness.fuzz_images import IMAGES

KINDS = {kind.name: kind for kind in (IMAGES, CHECKPOINTS)}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.robustness.fuzz", description=__doc__.splitlines()[0]
    )
    made.add_argument(
        "--images", type=int, default=100_000, help="cases of images (default: %(default)s)"
    )
    made.add_argument(
        "--checkpoints", type=int, default=2_000, help="cases of checkpoints (default: %(default)s)"
    )
    made.add_argument(
        "--minutes", type=float, default=10.0, help="stop after this time (default: %(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="of all cases (default: %(default)s)")
    made.add_argument(
        "--only", metavar="KIND:NUMBER", help="one case again, such as image:1234; its file is kept"
    )
    made.add_argument(
        "--output", type=Path, help="folder of kept files; left out: a new temporary one"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 after failures."""
    arguments = parser().parse_args(argv)
    wanted = {IMAGES: range(arguments.images), CHECKPOINTS: range(arguments.checkpoints)}
    output = arguments.output or Path(tempfile.gettempdir()) / f"fuzz-cases-{os.getpid()}"
    if arguments.only:
        name, _, number = arguments.only.partition(":")
        wanted = {KINDS[name]: [int(number)]}
        print("written:", write_case(KINDS[name], arguments.seed, int(number), output))
    start = time.monotonic()
    summaries = run(
        wanted, arguments.seed, arguments.minutes, progress=not arguments.only, output=output
    )
    print(report(summaries, arguments.seed, (time.monotonic() - start) / 60))
    failures = any(summary.failures for summary in summaries)
    if failures:
        print(f"files of the failed cases: {output}")
    return int(failures)


if __name__ == "__main__":
    sys.exit(main())
