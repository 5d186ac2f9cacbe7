"""Compute every number of a test run from its predictions.csv and compare with its metrics.json.

    python -m tools.recompute results/my_model_2026_01_31_12_00_00_Generalization_Test
    python -m tools.recompute FOLDER --output again   # writes metrics, tables, plots, report there

The numbers of attention.json are compared, too. For models with attention, logits are also computed
again from attention and branch logits, to the rounding of the run's precision.

Only settings are taken from metrics.json: the threshold (it was chosen on other data) and the
bootstrap's resamples and seed. Without metrics.json there is no threshold (see --threshold) and
nothing to compare with.

Exit status: 0 all numbers agree, 1 some differ or cannot be computed, 2 the folder or the command
line is wrong, 3 there was nothing to compare with.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.attention.controls import fused_logits
from evaluation.attention.findings import FINDINGS_FILE, findings_of_run
from evaluation.result_files import (
    METRIC_PARTS,
    METRICS_FILE,
    ROBUSTNESS_FILE,
    TestRun,
    bootstrap_settings,
    read_document,
    read_run,
)
from options.flags import OneLineParser, number, resamples, tool_parser
from reports.result_folder import write_data, write_report
from reports.result_tables import text_report
from util import UserError, run_script


def differences(written: Any, computed: Any, place: str = "") -> Iterator[str]:
    """Yield the differences of two nested documents, as 'place: written, computed'.

    Numbers may differ in their last digits.
    """
    if isinstance(written, dict) and isinstance(computed, dict):
        for key in [*written, *(key for key in computed if key not in written)]:
            yield from differences(written.get(key), computed.get(key), f"{place} {key}".strip())
    elif isinstance(written, list) and isinstance(computed, list) and len(written) == len(computed):
        for position, pair in enumerate(zip(written, computed, strict=True)):
            yield from differences(*pair, f"{place} [{position}]")
    elif isinstance(written, float) and isinstance(computed, float):
        if not math.isclose(written, computed, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{place}: written {written!r}, computed {computed!r}"
    elif written != computed:
        yield f"{place}: written {json.dumps(written)}, computed {json.dumps(computed)}"


# largest error of a logit, relative to 1 + the sum of its parts' sizes
ROUNDING = 1e-4  # in fp32
HALF_ROUNDING = 0.02  # in other precisions
MAX_DIFFERENCES = 20  # printed of all


def unexplained(run: TestRun) -> Iterator[str]:
    """Yield images whose logit is not the fusion of their branch logits.

    A line is 'path: logit written, computed'. Models without attention have none.
    """
    if not run.attention:
        return
    if not (fusion := run.head.get("fusion")):
        yield f"{METRICS_FILE} has no fusion, so they cannot be checked"
        return
    tolerance = ROUNDING if run.head.get("precision") == "fp32" else HALF_ROUNDING
    for scored in run.sets:
        weights, branches = scored.attention, scored.branch_logits
        if weights is None or branches is None:
            continue
        bias, residual = float(fusion["bias"]), bool(fusion["residual"])
        computed = fused_logits(weights, branches, bias, residual)
        size = 1 + fused_logits(weights, np.abs(branches), abs(bias), residual)
        sums = np.abs(weights.sum(axis=1) - 1) < 1e-4
        for row in np.flatnonzero(~(sums & (np.abs(computed - scored.logits) <= tolerance * size))):
            yield (
                f"{scored.paths[row]}: logit written {scored.logits[row]:.6g},"
                f" from its branches {computed[row]:.6g}"
            )


def count_numbers(value: Any) -> int:
    """Return the count of numbers in a nested document."""
    if isinstance(value, dict | list):
        return sum(map(count_numbers, value.values() if isinstance(value, dict) else value))
    return int(isinstance(value, int | float))


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("recompute", __doc__)
    parser.add_argument("folder", type=Path, help="folder that test.py wrote")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write metrics, tables, plots and report there",
    )
    parser.add_argument(
        "--threshold", type=number(minimum=0, maximum=1), help="instead of the one in metrics.json"
    )
    parser.add_argument(
        "--bootstrap",
        type=resamples,
        metavar="N",
        help="resamples, instead of those in metrics.json",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Recompute; return the exit status, see the module."""
    opt = parser().parse_args(argv)
    if not opt.folder.is_dir():
        raise UserError(f"{opt.folder}: no such folder; pass one that test.py wrote")
    if opt.output and opt.output.resolve() == opt.folder.resolve():
        raise UserError(f"--output {opt.output}: is the folder itself; pass another")
    run = read_run(opt.folder)
    changed: dict[str, Any] = {} if opt.threshold is None else {"threshold": opt.threshold}
    if opt.bootstrap is not None:
        changed["bootstrap"] = bootstrap_settings(opt.bootstrap, run.head["bootstrap"]["seed"])
    run = dataclasses.replace(run, head=run.head | changed)
    print(text_report(run))
    if opt.output:
        try:
            opt.output.mkdir(parents=True, exist_ok=True)
            attention, name = findings_of_run(run), opt.folder.resolve().name
            write_data(run, opt.output, name, attention)
            write_report(run, opt.output, name, attention)
        except OSError as error:
            raise UserError(
                f"--output {opt.output}: cannot write there ({error.strerror})"
            ) from None
        print(f"written: {opt.output / 'report.html'}")
    if not (opt.folder / METRICS_FILE).exists():
        print(f"not compared: {opt.folder} has no {METRICS_FILE}")
        return 3
    if changed:
        print(f"not compared: other settings than those of {opt.folder / METRICS_FILE}")
        return 3
    return compare(read_document(opt.folder), run, opt.folder)


def compare(document: dict[str, Any], run: TestRun, folder: Path) -> int:
    """Print how the written numbers differ from the computed ones; return 1 if any does, else 0."""
    written = {name: document[name] for name in METRIC_PARTS if name in document}
    computed = run.metrics()
    lost = "robustness" in written and not run.robustness
    if lost:
        print(
            f"{ROBUSTNESS_FILE} is missing: {count_numbers(written.pop('robustness'))} numbers"
            " cannot be computed"
        )
    lines = list(differences(written, computed))
    print(
        f"{count_numbers(computed)} numbers computed,"
        f" {len(lines)} differ from {folder / METRICS_FILE}"
    )
    if (attention := folder / FINDINGS_FILE).exists():
        findings = findings_of_run(run)
        again = findings.to_dict() if findings else {}
        differing = list(differences(json.loads(attention.read_text(encoding="utf-8")), again))
        print(f"{count_numbers(again)} numbers computed, {len(differing)} differ from {attention}")
        lines += [f"attention {line}" for line in differing]
    wrong = list(unexplained(run))
    if wrong:
        lines = [
            f"{len(wrong)} logits do not follow from attention and branch logits",
            *wrong,
            *lines,
        ]
    for line in lines[:MAX_DIFFERENCES]:
        print(f"  {line}")
    return int(bool(lines) or lost)


if __name__ == "__main__":
    run_script(main)
