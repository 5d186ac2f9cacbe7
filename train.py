"""Train a single-scale or a multi-scale NPR detector.

    python train.py --name my_model --model_type multiscale_attention --npr_scales 0.25,0.5,0.75 \
        --dataroot ./datasets/ForenSynths_train_val --classes car,cat,chair,horse \
        --batch_size 32 --lr 0.0002 --niter 50

Everything a run writes lies in its folder, {checkpoints_dir}/{name}_{time stamp}/.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from options.presets import describe_presets
from options.train_options import TrainOptions
from util import log, run_script, silent_unless_first


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return 0."""
    with silent_unless_first():
        opt = TrainOptions().parse(argv, print_options=False)
        if opt.list_recipes:
            print(describe_presets())
            return 0
        print(opt.dump(), flush=True)
    # PyTorch takes seconds to import: only now, so that --help and errors come at once
    import distributed
    from training.start import run_folder, train

    with distributed.process_group(opt.gpu_ids), ExitStack() as exit_stack:
        distributed.require_images_for_all(opt.batch_size)
        folder = distributed.by_first(lambda: run_folder(opt, exit_stack))
        train(opt, folder)
        log.info("checkpoints: %s", folder)
        if opt.test_dataroot:
            test_finished(opt, folder)
    return 0


def test_finished(opt: TrainOptions, folder: Path) -> None:
    """Test the last checkpoint on --test_dataroot; the results are in the run folder."""
    import distributed
    from data.layouts import find_test_sets
    from evaluation.testing import run_tests
    from networks.checkpoint import load_model
    from networks.run_folder import checkpoint_path
    from options.test_options import TestOptions
    from reports.result_folder import write_results

    loaded = distributed.by_first(lambda: load_model(checkpoint_path(folder, "last")))
    dataroot, sets = distributed.by_first(lambda: find_test_sets(opt.test_dataroot))
    names = ("batch_size", "num_threads", "gpu_ids", "precision", "cache", "on_bad_image")
    shared = {name: getattr(opt, name) for name in names}
    test_options = TestOptions(results_dir=str(folder / "results"), **shared)
    run_tests([loaded], dataroot, sets, test_options, write_results)


if __name__ == "__main__":
    run_script(main)
