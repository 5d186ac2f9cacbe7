"""Fit what a checkpoint's scores mean, on validation images: a temperature, a threshold, and when
to be unsure.

    python -m tools.calibrate --model_path checkpoints/RUN/model_epoch_last.pth --dataroot datasets/MY_TRAINING_ROOT/val
    python -m tools.calibrate --model_path M.pth --dataroot VAL --target_error 0.01 --confidence 0.95 --output M_sure.pth
    python -m tools.calibrate --model_path M.pth --dataroot VAL --prior 0.02    # one picture in fifty will be generated
    python -m tools.calibrate --model_path M.pth --dataroot HELDOUT --max_false_alarms 0.05    # HELDOUT: see tools.make_heldout

Writes a copy of the checkpoint, NAME_calibrated.pth beside it, and beside the copy
NAME_calibrated.json (all numbers) and NAME_calibrated_reliability.png. Give pictures that the model
was neither trained on nor will be tested on, of the kind that it will be asked about: a calibration
holds for pictures like these only (docs/calibration.md).

Exit status: 0 written, 2 the command line, the checkpoint or the pictures are wrong, 130
interrupted.
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
from data.protocols import trained_protocol
from device import choose_device, memory_advice, seed_everything
from evaluation.calibration import FOLDS, SEED, NotCalibratable
from evaluation.names import escaped, relative_name
from evaluation.scores import Scores
from inference.calibration_scores import detector_predictions
from inference.detector import Detector, load_detector
from networks.calibration import Calibration
from networks.checkpoint import LoadedModel
from networks.checkpoint_file import read_checkpoint, save_checkpoint, state_dict_of
from options.base_options import CheckpointOptions, OneLineParser
from options.flags import add_to_parser, number
from reports.calibration_report import Assessment, assess, doubts, report
from util import UserError, log, run_script, start_logging, writing

SHARED = (
    "classes",
    "npr_scales",
    "batch_size",
    "num_threads",
    "gpu_ids",
    "precision",
    "on_bad_image",
)
"""Flags that mean here what they mean everywhere."""
SETS_NAMED = 6


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, examples = (__doc__ or "").split("\n\n    ", 1)
    made = OneLineParser(
        prog="python -m tools.calibrate",
        description=description,
        epilog=f"examples:\n    {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--model_path", type=Path, required=True, metavar="PATH", help="the checkpoint"
    )
    made.add_argument("--dataroot", type=Path, required=True, metavar="DIR",
                      help="validation images of both classes: a set, a suite, or a training root (its val/)")  # fmt: skip
    made.add_argument("--target_error", type=number(above=0, maximum=0.5), default=0.05, metavar="SHARE",
                      help='wrong share to keep to, among pictures called "generated" and among those called "real"'
                      " (default: %(default)s)")  # fmt: skip
    made.add_argument("--confidence", type=number(above=0, maximum=0.9999), default=0.0, metavar="C",
                      help="keep its upper bound to the target, at this confidence; left out: the share itself")  # fmt: skip
    made.add_argument("--max_false_alarms", type=number(minimum=0, maximum=1), default=1.0, metavar="SHARE",
                      help="share of the real images of any set under --dataroot that may lie above the threshold"
                      " (default: no limit)")  # fmt: skip
    made.add_argument("--prior", type=number(minimum=1e-6, maximum=1 - 1e-6), default=0.5, metavar="SHARE",
                      help="share of generated pictures among those that it will see (default: %(default)s)")  # fmt: skip
    made.add_argument("--protocol", default="native", metavar="NAME",
                      help="preprocessing, that of later use (default: %(default)s, as predict)")  # fmt: skip
    made.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the copy (default: NAME_calibrated.pth beside it)",
    )
    made.add_argument(
        "--overwrite", action="store_true", help="replace an earlier copy and its files"
    )
    made.add_argument(
        "--pdf", action="store_true", help="write the reliability diagram as PDF, too"
    )
    fields = {field.name: field for field in dataclasses.fields(CheckpointOptions)}
    for name in SHARED:
        add_to_parser(made, fields[name])
        made.set_defaults(**{name: fields[name].default})
    return made


def targets(opt: argparse.Namespace) -> dict[str, Path]:
    """What is to be written, by kind: checkpoint, json, png, and pdf where it is asked for.

    Raises:
        UserError: it would overwrite the checkpoint, or, without --overwrite, anything; or its
            folder cannot be written.
    """
    original: Path = opt.model_path
    if original.is_dir():
        raise UserError(
            f"--model_path {original}: is a folder; calibrate the checkpoint, and then export the copy"
        )
    if not original.is_file():
        raise UserError(f"--model_path {original}: no such file")
    output: Path = opt.output or original.with_name(f"{original.stem}_calibrated.pth")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a file")
    beside = output.with_suffix("") if output.suffix == ".pth" else output
    found = {"checkpoint": output, "json": beside.with_name(f"{beside.name}.json")}
    for kind in ("png", "pdf") if opt.pdf else ("png",):
        found[kind] = beside.with_name(f"{beside.name}_reliability.{kind}")
    if output.exists() and output.samefile(original):
        raise UserError(f"--output {output}: is the checkpoint itself; give another")
    for path in found.values():
        if path.is_dir():
            raise UserError(f"--output {output}: {path} is a folder; give another")
        if path.exists() and not opt.overwrite:
            raise UserError(f"--output {path}: exists; give another, or --overwrite")
    if not os.access(output.parent, os.W_OK):
        raise UserError(
            f"--output {output}: cannot be written there; give a file in a folder that is there"
        )
    return found


def validation_sets(opt: argparse.Namespace) -> tuple[Path, list[ImageSet]]:
    """The folder and the sets of validation images.

    Raises:
        UserError: there are none, or too few of a class for any figure.
    """
    root: Path = opt.dataroot
    if not root.is_dir():
        raise UserError(f"--dataroot {root}: no such folder; give one with validation images")
    if is_training_root(root) and (root / "val").is_dir():
        root = root / "val"
    root, sets = find_test_sets(str(root), opt.classes)
    require_both([label for images in sets for label in images.labels], root)
    return root, sets


def require_both(labels: Sequence[int], root: Path) -> None:
    """Raises UserError where a class has too few images to be fitted on."""
    for label, name in ((REAL, "real"), (FAKE, "generated")):
        if (count := list(labels).count(label)) < FOLDS:
            raise UserError(
                f"--dataroot {root}: {count} {name} images; a calibration needs {FOLDS} of each class, and better hundreds"
            )


def doubtful_data(root: Path, loaded: LoadedModel) -> Iterator[str]:
    """Signs that the images are others than validation images."""
    place = Path(os.path.abspath(root))
    # DIR/train or DIR/train/SET; further up it is no word about the pictures, as in /mnt/test
    last = place.parts[-2:]
    training = loaded.meta.get("options") or {}
    trained_on = Path(os.path.abspath(str(training.get("dataroot") or "."))) / str(
        training.get("train_split", "train")
    )
    if "train" in last or place.is_relative_to(trained_on):
        yield f"--dataroot {root}: looks like training images, on which a model is surer than on others; give validation images"
    elif "test" in last:
        yield f"--dataroot {root}: looks like test images; figures of them no longer count as a test of the calibrated copy"


def described(root: Path, sets: Sequence[ImageSet]) -> str:
    """What the images were, without where this machine keeps them: the last two folders' names, and
    the sets'."""
    names = [images.generator for images in sets]
    shown = ", ".join(names[:SETS_NAMED]) + (
        f" and {len(names) - SETS_NAMED} more" if len(names) > SETS_NAMED else ""
    )
    folder = "/".join(Path(os.path.abspath(root)).parts[-2:]).lstrip("/")
    return escaped(folder if len(sets) == 1 else f"{folder} ({shown})")


def calibrated_values(loaded: LoadedModel, calibration: Calibration) -> dict[str, Any]:
    """The checkpoint's content with the calibration, whose threshold becomes the one that test.py
    reports at.

    Of weights in an earlier form, what makes them a checkpoint of today's.
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


def write(
    assessment: Assessment,
    said: Scores,
    detector: Detector,
    root: Path,
    paths: dict[str, Path],
) -> None:
    """Write the copy and what shows how good it is.

    Raises:
        UserError: that fails.
    """
    loaded = detector.loaded
    document = {
        "checkpoint": {"name": escaped(loaded.name), "sha256": loaded.sha256},
        **assessment.to_dict(),
        "left_out": {relative_name(path, root): why for path, why in sorted(said.skipped.items())},
    }
    with writing(paths["checkpoint"]):
        save_checkpoint(paths["checkpoint"], calibrated_values(loaded, assessment.calibration))
        paths["json"].write_text(
            json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        try:
            from reports.plots.calibration import plot_reliability
        except ImportError as error:
            log.warning("no picture: %s", error)
            del paths["png"]
            paths.pop("pdf", None)
            return
        panels = {
            "before": assessment.before,
            f"after ({FOLDS}-fold cross-fitting)": assessment.after,
        }
        formats = tuple(kind for kind in ("png", "pdf") if kind in paths)
        title = f"{escaped(loaded.name)} on {assessment.calibration.data}"
        plot_reliability(
            panels, assessment.mix, paths["png"], assessment.calibration, title, formats
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate; returns 0."""
    opt = parser().parse_args(argv)
    start_logging()
    seed_everything(SEED)
    paths = targets(opt)
    flags = CheckpointOptions(npr_scales=opt.npr_scales)
    detector = load_detector(
        opt.model_path, choose_device(opt.gpu_ids), opt.protocol, opt.precision, flags
    )
    root, sets = validation_sets(opt)
    for line in doubtful_data(root, detector.loaded):
        log.warning("warning: %s", line)
    with memory_advice(opt.batch_size):
        said = detector_predictions(
            detector, sets, opt.batch_size, opt.num_threads, opt.on_bad_image, opt.precision
        )
    require_both(said.labels.tolist(), root)
    # a file counts in its last
    set_of = {path: number for number, images in enumerate(sets) for path in images.paths}
    groups = np.array([set_of[path] for path in said.paths])
    try:
        found = assess(said.labels.astype(np.int64), said.logits, opt.target_error, opt.prior, opt.confidence,
                       described(root, sets), detector.protocol.label, groups, opt.max_false_alarms)  # fmt: skip
    except NotCalibratable as error:
        raise UserError(
            f"--dataroot {root}: {error}; are the folders swapped, or is it another kind of picture?"
        ) from None
    log.info("%s", report(found))
    if said.skipped:
        log.warning(
            "left out: %d images that gave no score, named above and in %s",
            len(said.skipped),
            paths["json"],
        )
    for line in doubts(found):
        log.warning("warning: %s", line)
    write(found, said, detector, root, paths)
    log.info("written: %s", ", ".join(map(str, paths.values())))
    return 0


if __name__ == "__main__":
    run_script(main)
