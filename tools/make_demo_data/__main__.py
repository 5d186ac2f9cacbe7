"""Make a small dataset of procedural photographs and fakes, to try the detector without a download.

Real images are procedural photographs (dead leaves, lens, sensor noise). A fake is *another*
photograph, encoded at half resolution and decoded through a real up-sampling layer. The layer's
kernel is fitted by least squares. White noise replaces the fine detail that decoding removes, so
that blur does not separate the classes. All images are PNG files of one size, quantised in the same
way.

    python -m tools.make_demo_data
    python -m tools.make_demo_data --output /tmp/tiny --train 8 --val 4 --test 4 --size 64

Writes:
    OUTPUT/train/{leaves,stones}/{0_real,1_fake}/*.png   fakes by nearest_conv
    OUTPUT/val/{leaves,stones}/{0_real,1_fake}/*.png     fakes by nearest_conv
    OUTPUT/test/GENERATOR/{0_real,1_fake}/*.png          new photographs. GENERATOR: nearest_conv
                                                         (seen in training), bilinear_conv,
                                                         transposed_conv, pixel_shuffle,
                                                         nearest_conv_x4 (unseen)
    OUTPUT/demo.json                                     settings, PSNR of each up-sampler,
                                                         trivial-feature AUC of each set

The trivial-feature AUC is that of a logistic regression which sees only file size, image size,
brightness, colour and blur (mean of a 5-fold cross-validation; 0.5 is chance).
Measured with the default settings: train 0.529, nearest_conv 0.594, bilinear_conv 0.438,
transposed_conv 0.410, pixel_shuffle 0.526, nearest_conv_x4 0.503. With 120 images per test set
these values scatter by about 0.1 around chance.
"""

import json
import os
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.trivial_features import trivial_feature_auc
from options.flags import OneLineParser, tool_parser, whole
from tools.make_demo_data.dataset import GENERATORS, Settings, fill, planned_folders
from util import UserError, atomic_folder, run_script, writing

CHANCE_LIMIT = 0.6  # a trivial-feature AUC above this is marked in the output
SMALLEST_SIZE = 32  # pixels
SIZE_STEP = 4  # pixels: the generator with two stages halves the side twice
MOST_WORKERS = 8


def measure(output: Path) -> dict[str, float | None]:
    """Return the trivial-feature AUC of the training set and of every test set, by name.

    It is None where a class has fewer than two images.
    """
    sets = ("train", *(f"test/{generator}" for generator in GENERATORS))
    aucs = {name: trivial_feature_auc(output / name) for name in sets}
    return {name: None if np.isnan(auc) else round(auc, 3) for name, auc in aucs.items()}


def _existing(output: Path, settings: Settings) -> dict[str, Any] | None:
    """Return the report of a complete folder with these settings, else None."""
    try:
        report = json.loads((output / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(report, dict) or report.get("settings") != asdict(settings):
        return None
    complete = all(
        len(list((output / f.path).glob("*.png"))) == f.amount for f in planned_folders(settings)
    )
    return report if complete else None


def _set_aside(output: Path) -> None:
    """Rename a folder to the first free name of NAME.old1, NAME.old2, ...; delete nothing."""
    candidates = (output.with_name(f"{output.name}.old{number}") for number in count(1))
    output.rename(next(path for path in candidates if not path.exists()))


def make_demo_data(
    output: Path,
    *,
    seed: int = 0,
    size: int = 96,
    train: int = 150,
    val: int = 30,
    test: int = 60,
    workers: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Make the dataset in `output`; do nothing if it is already there with the same settings.

    The bytes of all files follow from seed, size and counts. They do not depend on `workers`. The
    folder appears under its name only when it is complete.

    Args:
        output: folder to make.
        seed: seed of all random numbers, at least 0.
        size: width and height in pixels, a multiple of 4, at least 32.
        train: images per class folder (0_real or 1_fake) of the training set, at least 1.
        val: images per class folder of the validation set, at least 1.
        test: images per class folder of each test set, at least 1.
        workers: processes that make photographs, at least 1; None: one per core, at most 8.
        force: if `output` holds anything else, rename it to `output`.old1 first.

    Returns:
        The content of demo.json (settings, psnr_db, trivial_feature_auc), and `made`, which is
        False if there was nothing to do.

    Raises:
        UserError: `size` is not a multiple of 4; or `output` holds something else and `force` is
            off, or cannot be written.
    """
    if size % SIZE_STEP:
        raise UserError(f"--size {size}: must be a multiple of {SIZE_STEP}")
    settings = Settings(seed, size, train, val, test)
    output = Path(output).absolute()
    if (report := _existing(output, settings)) is not None:
        return {**report, "made": False}
    occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if occupied and not force:
        raise UserError(
            f"--output {output}: holds something else than a demo dataset with these settings; "
            "pass another folder, or --force to rename this one"
        )
    with writing(output), atomic_folder(output) as folder:
        psnr = fill(folder, settings, workers or min(os.cpu_count() or 1, MOST_WORKERS))
        report = {
            "settings": asdict(settings),
            "psnr_db": psnr,
            "trivial_feature_auc": measure(folder),
        }
        (folder / "demo.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if occupied:
            _set_aside(output)
    return {**report, "made": True}


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("make_demo_data", __doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("datasets/demo"),
        help="folder to make (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="seed of all random numbers (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=whole(SMALLEST_SIZE),
        default=96,
        help="side in pixels, a multiple of 4 (default: %(default)s)",
    )
    per_folder = "images per class folder of {} (default: %(default)s)"
    parser.add_argument(
        "--train", type=whole(1), default=150, help=per_folder.format("the training set")
    )
    parser.add_argument(
        "--val", type=whole(1), default=30, help=per_folder.format("the validation set")
    )
    parser.add_argument(
        "--test", type=whole(1), default=60, help=per_folder.format("each test generator")
    )
    parser.add_argument(
        "--workers",
        type=whole(1),
        help="processes; images do not depend on it (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="rename OUTPUT to OUTPUT.old1 if it holds anything else",
    )
    return parser


def describe(report: dict[str, Any]) -> str:
    """Return the report as lines of text, with a mark on each AUC above `CHANCE_LIMIT`."""
    psnr = ", ".join(f"{name} {value:.1f}" for name, value in report["psnr_db"].items())
    lines = [f"PSNR of decoding in dB: {psnr}", "trivial-feature AUC (chance: 0.5):"]
    for name, auc in report["trivial_feature_auc"].items():
        value = "undefined, too few images" if auc is None else f"{auc:.3f}"
        if auc is not None and auc > CHANCE_LIMIT:
            value += f"  above {CHANCE_LIMIT}: size, colour or blur separate the classes"
        lines.append(f"  {name:24} {value}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Make the dataset that the command line asks for; return 0."""
    options = vars(parser().parse_args(argv))
    report = make_demo_data(options.pop("output"), **options)
    print("made" if report["made"] else "already there with these settings: nothing to do")
    print(describe(report))
    return 0


if __name__ == "__main__":
    run_script(main)
