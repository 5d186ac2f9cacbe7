"""Test detectors on one generator, a suite, or a folder of suites, and write tables and scores.

python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth
python test.py --model_path A.pth B.pth --dataroot ./datasets/Generalization_Test/ForenSynths_test
"""

from collections.abc import Sequence
from pathlib import Path

from data.layouts import find_test_sets
from data.protocols import describe_protocols
from evaluation.evaluate import evaluate_sets
from evaluation.reports import text_report, write_results
from networks.checkpoint import load_model
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from util import UserError, log, run_script, seed_everything, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests; returns 0."""
    opt = TestOptions().parse(argv)
    if opt.list_protocols:
        print(describe_protocols())
        return 0
    start_logging()
    seed_everything(opt.seed)
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    dataroot, sets = find_test_sets(opt.dataroot, opt.classes)
    for loaded in models:
        results = list(evaluate_sets(loaded, sets, opt))
        if not any(len(result.predictions.labels) for result in results):
            raise UserError(f"--dataroot {dataroot}: none of its images could be read")
        log.info("\n%s", text_report(loaded, dataroot, results))
        log.info(
            "written: %s and .csv, .json beside it",
            write_results(Path(opt.results_dir), loaded, dataroot, results, opt),
        )
    return 0


if __name__ == "__main__":
    run_script(main)
