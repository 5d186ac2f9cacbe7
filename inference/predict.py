"""Predict files with the options of predict.py."""

import sys
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from device import choose_device, memory_errors, seed_everything
from inference.detector import Detector, load_detector
from inference.explain import make_folder, write_explanation
from inference.inputs import Inputs
from inference.outputs import (
    SKIPPED,
    Writer,
    log_summary,
    open_output,
    passed_over_text,
    record,
)
from inference.stream import predict_files
from inference.video.scoring import predict_video
from networks.run_folder import find_checkpoints
from options.predict_options import PredictOptions
from reports.drawing import Drawer
from util import UserError, log, printable


def predict(opt: PredictOptions) -> int:
    """Predict the files; return 0, or 1 if some were skipped.

    Raises:
        UserError: no file could be scored, or an option or a file is wrong.
    """
    seed_everything(0)
    if opt.explain is not None:
        make_folder(Path(opt.explain), opt.overwrite)
    detector = find_detector(opt)
    log_calibration(detector)
    inputs = Inputs(opt.paths, b"\0" if opt.null else b"\n")
    counts = Counter[str]()
    with log_summary(counts, inputs), open_output(opt.output, opt.overwrite) as file:
        write_predictions(opt, detector, inputs, file, counts)
    if counts.total() == counts[SKIPPED]:
        raise UserError(
            f"PATH: nothing could be scored, {counts[SKIPPED]:,} skipped; each is named above with"
            " the reason"
        )
    return 1 if counts[SKIPPED] else 0


def find_detector(opt: PredictOptions) -> Detector:
    """Return the detector of --model_path or --name; without either, the shipped one."""
    paths: list[Path | None] = [None]
    if opt.model_path or opt.name:
        patterns = (opt.model_path,) if opt.model_path else None
        paths = [*find_checkpoints(patterns, opt.name, opt.epoch, opt.checkpoints_dir)]
    if len(paths) > 1:
        raise UserError(
            f"--model_path {opt.model_path}: matches {len(paths)} checkpoints; pass one"
        )
    with memory_errors():
        return load_detector(paths[0], choose_device(opt.gpu_ids), opt.protocol, opt.precision, opt)


def log_calibration(detector: Detector) -> None:
    """Log the rule from probability to verdict, or that the checkpoint is not calibrated."""
    calibration = detector.calibration
    if calibration is None:
        log.info(
            "checkpoint is not calibrated, so scores are not probabilities (run python -m"
            " tools.calibrate)"
        )
    else:
        log.info(
            "probability: %s (chosen on validation images for %.0f %% wrong verdicts)",
            calibration.rule,
            100 * calibration.target_error,
        )


def write_predictions(
    opt: PredictOptions, detector: Detector, inputs: Inputs, file: TextIO, counts: Counter[str]
) -> None:
    """Predict, explain, write and count one file after the other.

    Skipped files are named on standard error.

    Args:
        opt: options of predict.py.
        detector: the detector.
        inputs: the files.
        file: for the records.
        counts: of files by verdict, and `SKIPPED`; updated after every file.

    Raises:
        UserError: the files have neither an image nor a video.
    """
    scales = detector.scales if detector.attends else ()
    writer = Writer(file, opt.format, scales, detector.calibration is not None)
    video = partial(predict_video, detector, fps=opt.fps, max_frames=opt.max_frames)
    draw = Drawer(OSError, MemoryError)
    on_screen = opt.output is None and sys.stdout.isatty()
    with (
        closing(predict_files(detector, inputs, opt.num_threads, video)) as outcomes,
        tqdm(unit=" files", disable=True if on_screen else None) as bar,
    ):
        for index, outcome in enumerate(outcomes):
            prediction = outcome.prediction
            counts[SKIPPED if prediction is None else prediction.verdict] += 1
            if prediction is None:
                tqdm.write(printable(f"skipped {outcome.path}: {outcome.problem}"), file=sys.stderr)
            explained = None
            if opt.explain is not None:
                explained = write_explanation(detector, outcome, Path(opt.explain), index, draw)
            writer.write(record(outcome, detector.scales, explained))
            bar.update()
    if not counts:
        others = f"; {passed_over_text(inputs.passed_over)}" if inputs.passed_over else ""
        raise UserError(f"PATH {' '.join(opt.paths)}: no image or video there{others}")
