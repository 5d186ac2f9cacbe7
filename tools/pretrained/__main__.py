"""Train, calibrate and measure the shipped detector.

    python -m tools.pretrained --pool DIR
    python -m tools.pretrained --pool DIR --seeds 0 --output my_detector    # one training

DIR holds train/ and val/ (a training root), dev/ (sets to choose by) and provenance.csv (path,
label, generator, source_picture). Trains the preset `shipped` once per seed, takes the run with the
highest mean AUC over dev, rounds its weights to float16, fits threshold and unsure band to half of
the source pictures of val and dev, and measures the rest. Writes a folder that load_detector reads:
weights, config.json, a model card, LICENSE, and measured.json with all numbers of the card.

A training that was interrupted resumes. The same images give the same bytes on one machine.

Exit status: 0 written, 2 wrong command line or images, 130 interrupted.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from data.image_sets import REAL
from evaluation.calibration import fit_calibration
from inference.detector import Detector, load_detector
from networks.calibration import Calibration
from networks.checkpoint import load_model
from networks.checkpoint_file import read_checkpoint
from networks.model_folder import CONFIG_FILE, WEIGHTS_FILE, write_model_folder
from networks.run_folder import PRETRAINED, checkpoint_path, newest_run_folder
from options.flags import OneLineParser, comma_list, tool_parser, whole
from options.train_options import TrainOptions
from tools.export.model_card import public_config
from tools.pretrained import measuring
from tools.pretrained.card import model_card
from tools.pretrained.pool import TRAINED, WHOLE_PHOTOGRAPHS, PoolImage, first_half, read_pool
from training.resume import changed_options
from util import UserError, atomic_folder, log, run_script, start_logging, writing

RECIPE = "shipped"
PROTOCOL = "enlarged"  # of scoring
SIDE = 256  # pixels of the pool's crops
TARGET_ERROR = 0.1  # share of wrong verdicts outside the unsure band
CARD_FILE, LICENSE_FILE, NUMBERS_FILE = "README.md", "LICENSE", "measured.json"
OURS = {WEIGHTS_FILE, CONFIG_FILE, CARD_FILE, LICENSE_FILE, NUMBERS_FILE}


def parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = tool_parser("pretrained", __doc__)
    parser.add_argument("--pool", type=Path, required=True, metavar="DIR", help="folder of images")
    parser.add_argument(
        "--seeds",
        type=comma_list(whole(0)),
        default=(0, 1, 2),
        metavar="LIST",
        help="seeds to train (default: 0,1,2)",
    )
    parser.add_argument(
        "--checkpoints_dir",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="folder of the trainings' run folders (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=PRETRAINED,
        metavar="DIR",
        help="folder to write (default: pretrained/)",
    )
    return parser


def trained(pool: Path, seed: int, checkpoints_dir: Path) -> Path:
    """Train with one seed, or resume; return the checkpoint of the last epoch."""
    name = f"{RECIPE}_s{seed}"
    words = ["--recipe", RECIPE, "--dataroot", str(pool), "--name", name, "--seed", str(seed)]
    words += ["--classes", ",".join(TRAINED)]
    words += ["--checkpoints_dir", str(checkpoints_dir), "--gpu_ids", "-1", "--num_threads", "0"]
    try:
        run = newest_run_folder(checkpoints_dir, name, "--seeds")
    except UserError:
        pass
    else:
        words.append("--continue_train")
        check_same_training(run, TrainOptions().parse(words, print_options=False))
    script = Path(__file__).resolve().parents[2] / "train.py"
    if subprocess.run([sys.executable, str(script), *words], check=False).returncode != 0:
        raise UserError(f"--seeds {seed}: training failed, see the log in {checkpoints_dir}")
    return checkpoint_path(newest_run_folder(checkpoints_dir, name, "--seeds"), "last")


def check_same_training(run: Path, opt: TrainOptions) -> None:
    """Check that a run that is resumed, or taken if finished, is the wanted one.

    Raises:
        UserError: it had other flags or another folder of images.
    """
    path = checkpoint_path(run, "last")
    if not path.is_file():
        return
    before = read_checkpoint(path)["options"]
    changed = changed_options(before, opt)
    for name in ("dataroot", "niter"):
        if before.get(name) != getattr(opt, name):
            changed.append(f"--{name} was {before.get(name)}, is {getattr(opt, name)}")
    if changed:
        raise UserError(
            f"{run}: is another training ({'; '.join(changed)}); pass another --checkpoints_dir"
        )


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as float16, and BatchNorm's statistics as they are."""
    statistics = ("running_mean", "running_var")
    return {
        name: value.half() if value.is_floating_point() and not name.endswith(statistics) else value
        for name, value in weights.items()
    }


def write_weights(folder: Path, checkpoint: Path, calibration: Calibration | None = None) -> None:
    """Write rounded weights and config.json into a folder that is there."""
    loaded = load_model(checkpoint)
    config = public_config(loaded, PRETRAINED.name)
    del config["checkpoint_sha256"]  # the checkpoint names folders, so equal trainings differ in it
    if calibration is not None:
        config |= {
            "calibration": calibration.to_dict(),
            "val_threshold": calibration.score_threshold,
        }
    write_model_folder(folder, rounded(loaded.model.state_dict()), config)


def mean_dev_auc(images: Sequence[PoolImage], logits: np.ndarray) -> float:
    """Return the mean AUC over the sets of dev with both classes."""
    labels = np.array([image.label for image in images])
    sets = np.array([image.set for image in images])
    aucs = [
        roc_auc_score(labels[sets == name], logits[sets == name])
        for name in np.unique(sets)
        if name.startswith("dev/") and len(np.unique(labels[sets == name])) == 2
    ]
    return float(np.mean(aucs))


def calibrated(
    detector: Detector, images: Sequence[PoolImage], logits: np.ndarray, half: np.ndarray
) -> Calibration:
    """Return the calibration that is fitted to the images of `half`, without whole photographs.

    At most 5 % of each real source lie above the threshold. Verdicts on larger images are "unsure"
    unless at most 5 % of the whole photographs lie above it.
    """
    whole_photographs = np.array([image.set == WHOLE_PHOTOGRAPHS for image in images])
    fitted = half & ~whole_photographs
    sources = np.unique([image.source for image in images], return_inverse=True)[1]
    labels = np.array([image.label for image in images])
    calibration = fit_calibration(
        labels[fitted],
        logits[fitted],
        TARGET_ERROR,
        groups=sources[fitted],
        max_false_alarms=measuring.FALSE_POSITIVES,
        data="val and dev (half of the source pictures)",
        protocol=detector.protocol.label,
    )
    above = calibration.probabilities(logits[whole_photographs]) > calibration.threshold
    larger = len(above) > 0 and float(above.mean()) <= measuring.FALSE_POSITIVES
    return replace(calibration, side=SIDE, larger=larger)


def measured(
    root: Path,
    images: Sequence[PoolImage],
    clean: np.ndarray,
    detector: Detector,
    calibration: Calibration,
    half: np.ndarray,
) -> dict[str, Any]:
    """Return all numbers of the model card.

    Args:
        root: of the pool.
        images: all of val and dev.
        clean: [N] logits of the images as they are.
        detector: the shipped weights.
        calibration: fitted to `half`.
        half: [N] True for the images of the fit.
    """
    threshold = float(np.log(calibration.score_threshold / (1 - calibration.score_threshold)))
    logits = {measuring.CONDITIONS[0]: clean}
    for condition in measuring.CONDITIONS[1:]:
        logits[condition] = np.full(len(images), np.nan)
        crops = np.array([image.set != WHOLE_PHOTOGRAPHS for image in images])
        part = [image for image in images if image.set != WHOLE_PHOTOGRAPHS]
        logits[condition][crops] = measuring.scores(detector, root, part, condition)
    held_out = np.flatnonzero(~half).tolist()
    verdicts = [calibration.verdict(float(p)) for p in calibration.probabilities(clean)]
    whole_rows = [row for row, image in enumerate(images) if image.set == WHOLE_PHOTOGRAPHS]
    crops_held_out = [row for row in held_out if images[row].set != WHOLE_PHOTOGRAPHS]
    shares: dict[str, dict[str, float]] = {}
    for label, name in ((REAL, "real"), (1 - REAL, "generated")):
        of_class = [verdicts[row] for row in crops_held_out if images[row].label == label]
        shares[name] = {
            verdict: of_class.count(verdict) / max(1, len(of_class))
            for verdict in ("generated", "unsure", "real")
        }
    of_whole = None
    if whole_rows:
        part = [images[row] for row in whole_rows]
        of_whole = measuring.share(part, clean[whole_rows] > threshold)
        of_whole["fitted"] = int(half[whole_rows].sum())  # their crops served to fit the threshold
    return {
        "mean_dev_auc": mean_dev_auc(images, clean),
        "threshold_logit": threshold,
        "sets": measuring.of_sets(images, logits, threshold),
        "decoders": measuring.of_decoders(images, clean),
        "sources": measuring.of_sources(
            [images[row] for row in held_out], clean[held_out], threshold
        ),
        "whole_photographs": of_whole,
        "verdicts": shares,
    }


def build(opt: argparse.Namespace, folder: Path) -> None:
    """Train, choose, calibrate, measure; write all files into `folder`."""
    images = read_pool(opt.pool)
    half = np.array(first_half(images))
    dev = [i for i in images if i.set.startswith("dev/") and not i.set.endswith("_real_only")]
    checkpoints, runs = {}, {}
    for seed in opt.seeds:
        name = str(seed)
        checkpoints[name] = trained(opt.pool, seed, opt.checkpoints_dir)
        with TemporaryDirectory() as temporary:
            write_weights(Path(temporary), checkpoints[name])
            detector = load_detector(temporary, "cpu", PROTOCOL)
            logits = measuring.scores(detector, opt.pool, dev, measuring.CONDITIONS[0])
        runs[name] = mean_dev_auc(dev, logits)
        log.info("seed %d: mean AUC over dev %.4f", seed, runs[name])
    checkpoint = checkpoints[max(runs, key=runs.__getitem__)]
    write_weights(folder, checkpoint)
    detector = load_detector(folder, "cpu", PROTOCOL)
    logits = measuring.scores(detector, opt.pool, images, measuring.CONDITIONS[0])
    calibration = calibrated(detector, images, logits, half)
    numbers = measured(opt.pool, images, logits, detector, calibration, half)
    numbers["mean_dev_auc_by_seed"] = runs
    write_weights(folder, checkpoint, calibration)
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    (folder / NUMBERS_FILE).write_text(text, encoding="utf-8")
    card = model_card(load_model(folder), numbers, opt.pool, RECIPE)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    shutil.copy(Path(__file__).parent / LICENSE_FILE, folder / LICENSE_FILE)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; return 0."""
    opt = parser().parse_args(argv)
    start_logging()
    torch.set_num_threads(1)  # the number of threads changes the last digits
    if opt.output.exists() and (others := {p.name for p in opt.output.iterdir()} - OURS):
        raise UserError(f"--output {opt.output}: holds {min(others)}; pass another folder")
    with writing(opt.output), atomic_folder(opt.output) as folder:
        build(opt, folder)
    log.info("written: %s", opt.output)
    return 0


if __name__ == "__main__":
    run_script(main)
