"""Test detectors on one generator, a suite, or a folder of suites; a folder of figures, scores and tables for each.

python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth
python test.py --model_path A.pth B.pth --dataroot ./datasets/Generalization_Test/ForenSynths_test --robustness
"""

from collections.abc import Sequence
from pathlib import Path

from data.layouts import find_test_sets
from data.protocols import describe_protocols
from evaluation.artefacts import write_artefacts
from evaluation.tables import text_report
from evaluation.testing import equalization, format_leaks, run_test
from networks.checkpoint import load_model
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from util import log, run_script, seed_everything, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests; returns 0."""
    opt = TestOptions().parse(argv)
    if opt.list_protocols:
        print(describe_protocols())
        return 0
    start_logging()
    seed_everything(opt.seed)
    equalization(opt.equalize)  # before anything takes long
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    dataroot, sets = find_test_sets(opt.dataroot, opt.classes)
    leaks = format_leaks(sets, equalized=opt.equalize is not None)
    for loaded in models:
        run = run_test(loaded, dataroot, sets, opt, leaks)
        log.info("\n%s", text_report(run))
        log.info("written: %s", write_artefacts(run, Path(opt.results_dir), dataroot) / "report.html")
    return 0


if __name__ == "__main__":
    run_script(main)
