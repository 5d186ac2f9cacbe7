"""Test detectors on one generator, a suite, or a folder of suites; a folder of figures, scores and tables for each.

python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth
python test.py --model_path A.pth B.pth --dataroot ./datasets/Generalization_Test/ForenSynths_test --robustness
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from data.layouts import find_test_sets
from data.protocols import describe_protocols, known_protocol
from evaluation.artefacts import writable_folder, write_artefacts
from evaluation.tables import text_report
from evaluation.testing import equalization, format_leaks, run_test
from networks.checkpoint import load_model
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from util import log, run_script, seed_everything, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests; returns 0."""
    opt = TestOptions().parse(argv, print_options=False)
    if opt.list_protocols:
        print(describe_protocols())
        return 0
    print(opt.dump(), flush=True)
    start_logging()
    seed_everything(opt.seed, deterministic=not opt.fast)
    equalization(opt.equalize)  # what can be wrong, before anything takes long
    known_protocol(opt.protocol)
    writable_folder(Path(opt.results_dir))
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    dataroot, sets = find_test_sets(opt.dataroot, opt.classes)
    leaks = format_leaks(sets, equalized=opt.equalize is not None)
    folders = []
    for loaded in models:
        run = run_test(loaded, dataroot, sets, opt, leaks)
        log.info("\n%s", text_report(run))
        folders.append(write_artefacts(run, Path(opt.results_dir), dataroot))
        log.info("written: %s", folders[-1] / "report.html")
    if len(folders) > 1:
        log.info("side by side: python -m tools.compare_results %s", shlex.join(map(str, folders)))
    return 0


if __name__ == "__main__":
    run_script(main)
