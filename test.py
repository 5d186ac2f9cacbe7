"""Test detectors on one generator, a suite, or a folder of suites.

    python test.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth
    python test.py --model_path A.pth B.pth --robustness \
        --dataroot ./datasets/Generalization_Test/ForenSynths_test

Each model gets a folder of metrics, scores, tables and plots.
"""

import shlex
from collections.abc import Sequence

from options.test_options import TestOptions
from util import log, run_script, silent_unless_first, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Test every checkpoint; return 0."""
    with silent_unless_first():
        opt = TestOptions().parse(argv, print_options=False)
        if opt.list_protocols:
            from data.protocols import describe_protocols

            print(describe_protocols())
            return 0
        print(opt.dump(), flush=True)
    # PyTorch takes seconds to import: only now, so that --help and errors come at once
    import distributed
    from data.protocols import known_protocol
    from device import seed_everything
    from evaluation.testing import equalization, models_and_sets, run_tests
    from reports.result_folder import write_results

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
            words = shlex.join(map(str, folders))
            log.info("side by side: python -m tools.compare_results %s", words)
    return 0


if __name__ == "__main__":
    run_script(main)
