"""Fit temperature, threshold and unsure band of a checkpoint on validation images.

    python -m tools.calibrate --model_path checkpoints/RUN/model_epoch_last.pth --dataroot ROOT/val
    python -m tools.calibrate --model_path M.pth --dataroot VAL --target_error 0.01 --output OUT.pth
    python -m tools.calibrate --model_path M.pth --dataroot HELDOUT --max_false_alarms 0.05

Writes a copy of the checkpoint, NAME_calibrated.pth beside it. Beside the copy it writes
NAME_calibrated.json (all numbers) and NAME_calibrated_reliability.png. Pass images that the model
was neither trained on nor will be tested on, of the kind that it will see: a calibration holds for
such images only (docs/calibration.md). tools.make_heldout makes a HELDOUT of several sets.

Exit status: 0 written, 2 wrong command line, checkpoint or images, 130 interrupted.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.image_sets import FAKE, REAL, ImageSet
from data.layouts import find_test_sets, is_training_root
from data.loader import class_names
from data.protocols import trained_protocol
from device import choose_device, memory_advice, seed_everything
from evaluation.calibration import (
    MIN_IMAGES_PER_CLASS,
    Measured,
    NotCalibratable,
    fit_calibration,
    measure,
)
from evaluation.names import escaped, relative_name
from evaluation.usable import NO_FLAGS, unusable
from inference.calibration_scores import detector_predictions
from inference.detector import load_detector
from networks.calibration import Calibration
from networks.checkpoint import LoadedModel
from networks.checkpoint_file import read_checkpoint, save_checkpoint, state_dict_of
from options.base_options import is_folder_or_file
from options.checkpoint_options import CheckpointOptions
from options.flags import OneLineParser, add_to_parser, number, tool_parser
from reports.calibration_report import report, warnings
from reports.drawing import Drawer
from util import UserError, atomic_file, log, run_script, start_logging, writing

SHARED_FLAGS = (
    *("classes", "real_names", "fake_names", "npr_scales", "batch_size", "num_threads"),
    *("gpu_ids", "precision", "on_bad_image"),
)
MAX_SETS_NAMED = 6  # in the name of the data


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("calibrate", __doc__)
    add = parser.add_argument
    add("--model_path", type=Path, required=True, metavar="PATH", help="the checkpoint")
    add("--dataroot", type=Path, required=True, metavar="DIR",
        help="validation images of both classes: a set, a suite, a training root (its val/),"
        " or a CSV file with the columns path,label[,generator][,split]")  # fmt: skip
    add("--target_error", type=number(above=0, maximum=0.5), default=0.05, metavar="SHARE",
        help='share of wrong verdicts to allow among "generated" and among "real" ones'
        " (default: %(default)s)")  # fmt: skip
    add("--max_false_alarms", type=number(minimum=0, maximum=1), default=1.0, metavar="SHARE",
        help="share of the real images of any set under --dataroot that may lie above the threshold"
        " (default: no limit)")  # fmt: skip
    add("--protocol", metavar="NAME",
        help="preprocessing, that of later use (default: that of an earlier calibration, else"
        " native)")  # fmt: skip
    add("--output", type=Path, metavar="PATH",
        help="the copy (default: NAME_calibrated.pth beside the checkpoint)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an earlier copy and its files")
    add("--pdf", action="store_true", help="also write the reliability diagram as PDF")
    fields = {field.name: field for field in dataclasses.fields(CheckpointOptions)}
    for name in SHARED_FLAGS:
        add_to_parser(parser, fields[name])
        parser.set_defaults(**{name: fields[name].default})
    return parser


def output_paths(opt: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write by kind: checkpoint, json, png, and pdf with --pdf.

    Raises:
        UserError: a file exists without --overwrite, is the checkpoint, or cannot be written.
    """
    original: Path = opt.model_path
    if original.is_dir():
        raise UserError(
            f"--model_path {original}: is a folder; calibrate the checkpoint, then export the copy"
        )
    if not original.is_file():
        raise UserError(f"--model_path {original}: no such file")
    output: Path = opt.output or original.with_name(f"{original.stem}_calibrated.pth")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; pass a file")
    stem = output.with_suffix("") if output.suffix == ".pth" else output
    paths = {"checkpoint": output, "json": stem.with_name(f"{stem.name}.json")}
    for kind in ("png", "pdf") if opt.pdf else ("png",):
        paths[kind] = stem.with_name(f"{stem.name}_reliability.{kind}")
    if output.exists() and output.samefile(original):
        raise UserError(f"--output {output}: is the checkpoint itself; pass another file")
    for path in paths.values():
        if path.exists() and not opt.overwrite:
            raise UserError(f"--output {path}: exists; pass another file, or --overwrite")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {output}: cannot be written; pass a file in an existing folder")
    return paths


def validation_sets(opt: argparse.Namespace, trained_on: str) -> tuple[Path, list[ImageSet]]:
    """Return the folder and the sets of validation images.

    Raises:
        UserError: the folder or its images are missing, or a class has too few images.
    """
    root: Path = opt.dataroot
    if not is_folder_or_file(str(root)):
        raise UserError(f"--dataroot {root}: no such folder; pass one with validation images")
    if is_training_root(root) and (root / "val").is_dir():
        root = root / "val"
    root, sets = find_test_sets(str(root), opt.classes, class_names(opt), [trained_on])
    require_both_classes([label for images in sets for label in images.labels], root)
    return root, sets


def require_both_classes(labels: Sequence[int], root: Path) -> None:
    """Raise UserError where a class has too few images for a fit."""
    for label, name in ((REAL, "real"), (FAKE, "generated")):
        if (count := list(labels).count(label)) < MIN_IMAGES_PER_CLASS:
            raise UserError(
                f"--dataroot {root}: {count} {name} images; a calibration needs"
                f" {MIN_IMAGES_PER_CLASS} of each class, better hundreds"
            )


def data_warnings(root: Path, loaded: LoadedModel) -> Iterator[str]:
    """Yield signs that the images are not validation images."""
    folder = Path(os.path.abspath(root))
    # only DIR/train and DIR/train/SET: names further up, as in /mnt/test, do not describe images
    last = folder.parts[-2:]
    options = loaded.meta.get("options") or {}
    trained_on = Path(str(options.get("dataroot") or "."), str(options.get("train_split", "train")))
    if "train" in last or folder.is_relative_to(os.path.abspath(trained_on)):
        yield (
            f"--dataroot {root}: looks like training images, whose scores are too confident; pass"
            " validation images"
        )
    elif "test" in last:
        yield (
            f"--dataroot {root}: looks like test images; metrics on them no longer test the"
            " calibrated copy"
        )


def data_name(root: Path, sets: Sequence[ImageSet]) -> str:
    """Return a name of the images without local paths: the last two folders and the sets."""
    folder = "/".join(Path(os.path.abspath(root)).parts[-2:]).lstrip("/")
    if len(sets) == 1:
        return escaped(folder)
    names = ", ".join(images.generator for images in sets[:MAX_SETS_NAMED])
    more = f" and {len(sets) - MAX_SETS_NAMED} more" if len(sets) > MAX_SETS_NAMED else ""
    return escaped(f"{folder} ({names}{more})")


def calibrated_values(loaded: LoadedModel, calibration: Calibration) -> dict[str, Any]:
    """Return the content of the checkpoint with the calibration.

    Its threshold replaces the validation threshold, at which test.py reports. Bare weights of
    published or earlier code become a checkpoint that loads without flags.
    """
    values = read_checkpoint(loaded.path)
    if "model_config" not in values:  # other programs' keys may mean something else
        known = {
            "model_config": loaded.config.to_dict(),
            "protocol": trained_protocol(loaded).to_dict(),
        }
        values = {"model_state_dict": state_dict_of(values, loaded.path)} | loaded.meta | known
    return values | {
        "calibration": calibration.to_dict(),
        "val_threshold": calibration.score_threshold,
    }


def write_copy(
    measured: Measured, skipped: dict[str, str], loaded: LoadedModel, paths: dict[str, Path]
) -> None:
    """Write the copy of the checkpoint and the JSON file.

    Args:
        measured: the calibration and its metrics.
        skipped: reason by name of each file without a score.
        loaded: the original.
        paths: see `output_paths`.

    Raises:
        UserError: a file cannot be written.
    """
    checkpoint = {"name": escaped(loaded.name), "sha256": loaded.sha256}
    document = {"checkpoint": checkpoint, **measured.to_dict(), "left_out": skipped}
    with writing(paths["checkpoint"]):
        save_checkpoint(paths["checkpoint"], calibrated_values(loaded, measured.calibration))
    with writing(paths["json"]), atomic_file(paths["json"]) as file:
        file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate; return 0."""
    opt = parser().parse_args(argv)
    start_logging()
    seed_everything(0)
    paths = output_paths(opt)
    flags = CheckpointOptions(npr_scales=opt.npr_scales)
    device = choose_device(opt.gpu_ids)
    detector = load_detector(opt.model_path, device, opt.protocol, opt.precision, flags)
    root, sets = validation_sets(opt, detector.loaded.trained_on)
    for line in data_warnings(root, detector.loaded):
        log.warning("warning: %s", line)

    with memory_advice(opt.batch_size):
        outputs = detector_predictions(
            detector, sets, opt.batch_size, opt.num_threads, opt.on_bad_image, opt.precision
        )
    labels = outputs.labels.astype(np.int64)
    files = [path for images in sets for path in images.paths]
    of_files = [label for images in sets for label in images.labels]
    if why := unusable(files, of_files, outputs.skipped, remedy=NO_FLAGS):
        raise UserError(f"--dataroot {root}: {why}")
    require_both_classes(labels.tolist(), root)
    # a file of several sets counts in its last
    set_of = {path: index for index, images in enumerate(sets) for path in images.paths}
    groups = np.array([set_of[path] for path in outputs.paths])
    try:
        calibration = fit_calibration(
            labels, outputs.logits, opt.target_error, groups=groups,
            max_false_alarms=opt.max_false_alarms, data=data_name(root, sets),
            protocol=detector.protocol.label,
        )  # fmt: skip
    except NotCalibratable as error:
        raise UserError(
            f"--dataroot {root}: {error}; check that the folders are not swapped, and that it is"
            " the kind of image that the model was trained for"
        ) from None
    measured = measure(calibration, labels, outputs.logits)

    log.info("%s", report(measured))
    skipped = {relative_name(path, root): why for path, why in sorted(outputs.skipped.items())}
    if skipped:
        log.warning("skipped: %d images, named above and in %s", len(skipped), paths["json"])
    for line in warnings(calibration):
        log.warning("warning: %s", line)
    write_copy(measured, skipped, detector.loaded, paths)
    log.info("written: %s, %s", paths["checkpoint"], paths["json"])
    title = f"{escaped(detector.loaded.name)} on {calibration.data}"
    Drawer()(plot, measured, title, paths)
    return 0


def plot(measured: Measured, title: str, paths: dict[str, Path]) -> None:
    """Draw the reliability diagram."""
    from reports.plots.calibration import plot_reliability

    formats = tuple(kind for kind in ("png", "pdf") if kind in paths)
    plot_reliability(measured, paths["png"], title, formats)
    log.info("written: %s", ", ".join(str(paths[kind]) for kind in formats))


if __name__ == "__main__":
    run_script(main)
