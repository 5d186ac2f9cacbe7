"""Ask a trained detector whether pictures and videos are real or generated.

python predict.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth photo.jpg ./photos
find . -name "*.webp" -print0 | python predict.py --model_path M.pth --null --format jsonl -

docs/predict.md says what the answers mean.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from device import choose_device, seed_everything
from inference.detector import Detector, load_detector
from inference.explain import make_folder, write_explanation
from inference.inputs import Inputs
from inference.memory import memory_errors
from inference.outputs import WRITERS, Summary, destination, passed_over_text, record, summarised
from inference.stream import judged
from inference.video.scoring import judge_video
from networks.factory import MULTISCALE
from networks.run_folder import find_checkpoints
from options.base_options import CheckpointOptions
from options.predict_options import PredictOptions
from util import UserError, log, printable, run_script, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the files; returns 0, or 1 if some were skipped.

    Raises:
        UserError: none could be scored, or something else is for the user to mend.
    """
    opt = PredictOptions().parse(argv, print_options=False)
    start_logging(stream=sys.stderr)
    seed_everything(0)
    if opt.explain is not None:
        make_folder(Path(opt.explain), opt.overwrite)
    detector = chosen_detector(opt)
    if detector.calibration is None:
        log.info(
            "the score is no probability: this checkpoint is not calibrated (python -m tools.calibrate does that)"
        )
    else:
        log.info("probability: %s (chosen on validation images for %.0f %% wrong verdicts)",
                 detector.calibration.rule, 100 * detector.calibration.target_error)  # fmt: skip
    inputs = Inputs(opt.paths, partial(os.read, 0, 1 << 16), b"\0" if opt.null else b"\n")
    summary = Summary()
    with summarised(summary, inputs), destination(opt.output, opt.overwrite) as file:
        write_answers(opt, detector, inputs, file, summary)
    if not summary.scored:
        raise UserError(
            f"PATH: nothing could be scored, {summary.skipped:,} skipped; the reason stands beside each"
        )
    return 1 if summary.skipped else 0


def chosen_detector(opt: PredictOptions) -> Detector:
    """The detector that --model_path or --name stands for."""
    found = find_checkpoints(
        (opt.model_path,) if opt.model_path else None, opt.name, opt.epoch, opt.checkpoints_dir
    )
    if len(found) > 1:
        raise UserError(
            f"--model_path {opt.model_path}: stands for {len(found)} checkpoints; give one"
        )
    flags = CheckpointOptions(npr_scales=opt.npr_scales)
    with memory_errors():
        return load_detector(
            found[0], choose_device(opt.gpu_ids), opt.protocol, opt.precision, flags
        )


def write_answers(
    opt: PredictOptions, detector: Detector, inputs: Inputs, file: TextIO, summary: Summary
) -> None:
    """Judge, explain, write and count one file after the other; name those that are skipped on
    standard error."""
    attends = detector.config.model_type == MULTISCALE
    writer = WRITERS[opt.format](
        file, detector.scales if attends else (), detector.calibration is not None
    )
    outcomes = judged(
        detector,
        inputs,
        opt.num_threads,
        partial(judge_video, detector, fps=opt.fps, max_frames=opt.max_frames),
    )
    lines_show = opt.output is None and sys.stdout.isatty()
    with closing(outcomes), tqdm(unit=" files", disable=True if lines_show else None) as bar:
        for place, outcome in enumerate(outcomes):
            summary.add(outcome)
            if outcome.judgement is None:
                tqdm.write(printable(f"skipped {outcome.path}: {outcome.problem}"), file=sys.stderr)
            explained = (
                None
                if opt.explain is None
                else write_explanation(detector, outcome, Path(opt.explain), place)
            )
            writer.write(record(outcome, detector.scales, explained))
            bar.update()
    if not summary.scored and not summary.skipped:
        others = f"; {passed_over_text(inputs.passed_over)}" if inputs.passed_over else ""
        raise UserError(f"PATH {' '.join(opt.paths)}: no picture or video there{others}")


if __name__ == "__main__":
    run_script(main)
