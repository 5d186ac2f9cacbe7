"""Test detectors on one generator, a suite, or a folder of suites; a folder of figures, scores and
tables for each.

python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth python test.py
--model_path A.pth B.pth --dataroot ./datasets/Generalization_Test/ForenSynths_test --robustness
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import distributed
from data.image_sets import ImageSet
from data.layouts import find_test_sets
from data.protocols import describe_protocols, known_protocol
from device import memory_advice, seed_everything
from evaluation.testing import equalization, format_leaks, run_test
from networks.checkpoint import LoadedModel, load_model
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from reports.result_folder import write_results
from reports.tables import text_report
from util import log, run_script, start_logging, writable_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests; returns 0."""
    with distributed.silent_unless_first():
        opt = TestOptions().parse(argv, print_options=False)
        if opt.list_protocols:
            print(describe_protocols())
            return 0
        print(opt.dump(), flush=True)
    start_logging()
    with distributed.process_group(opt.gpu_ids):
        folders = run_tests(opt)
        if len(folders) > 1:
            log.info(
                "side by side: python -m tools.compare_results %s", shlex.join(map(str, folders))
            )
    return 0


def run_tests(opt: TestOptions) -> list[Path]:
    """Test every checkpoint; of several processes, each scores its part, and the first does the
    rest.

    Returns:
        The folder of each checkpoint's results; none in processes other than the first.
    """
    seed_everything(opt.seed, deterministic=not opt.fast)
    equalization(opt.equalize)  # what can be wrong, before anything takes long
    known_protocol(opt.protocol)
    distributed.require_images_for_all(opt.batch_size)
    models, dataroot, sets = distributed.by_first(lambda: models_and_sets(opt))
    first = distributed.rank() == 0
    leaks = format_leaks(sets, equalized=opt.equalize is not None) if first else None
    folders = []
    for loaded in models:
        with memory_advice(opt.batch_size):
            run = run_test(loaded, dataroot, sets, opt, leaks)
        if first:
            log.info("\n%s", text_report(run))
            folders.append(write_results(run, Path(opt.results_dir), dataroot, opt.formats))
            log.info("written: %s", folders[-1] / "report.html")
    return folders


def models_and_sets(opt: TestOptions) -> tuple[list[LoadedModel], Path, list[ImageSet]]:
    """The checkpoints, and the sets to test them on with the folder that holds them."""
    writable_folder(Path(opt.results_dir))
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    return models, *find_test_sets(opt.dataroot, opt.classes)


if __name__ == "__main__":
    run_script(main)
