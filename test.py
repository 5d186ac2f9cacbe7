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
from device import seed_everything
from evaluation.testing import equalization, run_tests
from networks.checkpoint import LoadedModel, load_model
from networks.run_folder import find_checkpoints
from options.test_options import TestOptions
from reports.result_folder import write_results
from util import log, run_script, start_logging, writable_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Test every checkpoint; return 0."""
    with distributed.silent_unless_first():
        opt = TestOptions().parse(argv, print_options=False)
        if opt.list_protocols:
            print(describe_protocols())
            return 0
        print(opt.dump(), flush=True)
    start_logging()
    with distributed.process_group(opt.gpu_ids):
        seed_everything(opt.seed, deterministic=not opt.fast)
        # find wrong flags before anything takes long
        equalization(opt.equalize)
        known_protocol(opt.protocol)
        distributed.require_images_for_all(opt.batch_size)
        models, dataroot, sets = distributed.by_first(lambda: models_and_sets(opt))
        folders = run_tests(models, dataroot, sets, opt, write_results)
        if len(folders) > 1:
            log.info(
                "side by side: python -m tools.compare_results %s", shlex.join(map(str, folders))
            )
    return 0


def models_and_sets(opt: TestOptions) -> tuple[list[LoadedModel], Path, list[ImageSet]]:
    """Load the checkpoints, and find the sets to test them on and the folder that holds these."""
    writable_folder(Path(opt.results_dir))
    checkpoints = find_checkpoints(opt.model_path, opt.name, opt.epoch, opt.checkpoints_dir)
    models = [load_model(path, opt) for path in checkpoints]
    return models, *find_test_sets(opt.dataroot, opt.classes)


if __name__ == "__main__":
    run_script(main)
