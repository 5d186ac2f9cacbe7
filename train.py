"""Train a single-scale or a multi-scale NPR detector.

    python train.py --name my_model --model_type multiscale_attention --npr_scales 0.25,0.5,0.75 \
        --dataroot ./datasets/ForenSynths_train_val --classes car,cat,chair,horse \
        --batch_size 32 --lr 0.0002 --niter 50

Everything a run writes lies in its folder, {checkpoints_dir}/{name}_{time stamp}/.
"""

import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from data.image_sets import ImageSet
from options.presets import describe_presets
from options.train_options import TrainOptions
from util import (
    CannotWrite,
    Stopped,
    UserError,
    counted,
    hide_gpus,
    log,
    printable,
    run_script,
    silent_unless_first,
    start_logging,
    writing,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return 0."""
    with silent_unless_first():
        opt = TrainOptions().parse(argv, print_options=False)
        if opt.list_recipes:
            print(describe_presets())
            return 0
        print(opt.dump(), flush=True)
        if not opt.gpu_ids:
            hide_gpus()
    # PyTorch takes seconds to import: only now, so that --help and errors come at once
    import distributed

    with distributed.process_group(opt.gpu_ids), ExitStack() as exit_stack:
        distributed.require_images_for_all(opt.batch_size)
        folder = distributed.by_first(lambda: open_run_folder(opt, exit_stack))
        tests = train(opt, folder)
        log.info("checkpoints: %s", folder)
        if opt.test_dataroot:
            test_finished(opt, folder, *tests)
    return 0


def open_run_folder(opt: TrainOptions, exit_stack: ExitStack) -> Path:
    """Return the locked folder of a new run or of the one to resume; start its log.

    Args:
        opt: TrainOptions; appended to opt.txt.
        exit_stack: releases the lock when it closes.
    """
    from networks.run_folder import lock, make_run_folder, newest_run_folder

    name = opt.run_name()
    if opt.continue_train:
        folder = newest_run_folder(opt.checkpoints_dir, name, f"--continue_train --name {name}")
    else:
        folder = make_run_folder(opt.checkpoints_dir, name)
    with writing(folder):
        exit_stack.enter_context(lock(folder))
        start_logging(folder / "log.log")
        log.info("run folder: %s", folder)
        with open(folder / "opt.txt", "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(shlex.join(sys.argv) + "\n" + opt.dump() + "\n")
    return folder


def train(opt: TrainOptions, folder: Path) -> tuple[Path, list[ImageSet]]:
    """Train in this folder; remove a new folder if the training cannot start.

    Returns:
        The folder and the sets of --test_dataroot, which are looked for before the training.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    import distributed
    from device import memory_advice
    from training.run import Run

    try:
        tests = distributed.by_first(lambda: find_tests(opt))
        run = Run(opt, folder)
    except UserError:
        # nothing was trained in the folder
        if not opt.continue_train and distributed.rank() == 0:
            shutil.rmtree(folder)
        raise
    if run.trainer.device.type == "cuda" and (flags := opt.faster_on_gpu()):
        log.info("faster on a GPU: add %s (docs/performance.md)", flags)
    try:
        with logging_redirect_tqdm([log]), memory_advice(opt.batch_size, opt.accumulation_steps):
            run.train()
    except (KeyboardInterrupt, Stopped):
        without_flags = ""
        if opt.epoch != "last" or opt.new_optim:
            without_flags = " but without --epoch and --new_optim"
        advice = f"to resume, run the same command with --continue_train{without_flags}"
        log.info("%s; %s", run.last_good(), advice)
        raise
    finally:
        # training has reported this error already
        with suppress(CannotWrite):
            run.close()
    return tests


def find_tests(opt: TrainOptions) -> tuple[Path, list[ImageSet]]:
    """Return the folder and the sets of --test_dataroot, no sets without it.

    Raises:
        UserError: nothing to test there, or no image can be decoded.
    """
    from data.decode import UnreadableImage, read_image
    from data.layouts import find_test_sets
    from data.loader import class_names
    from data.splits import check

    if not opt.test_dataroot:
        return Path(), []
    try:
        folder, sets = find_test_sets(opt.test_dataroot, (), class_names(opt), [opt.dataroot])
    except UserError as error:
        reason = str(error).removeprefix(f"--dataroot {opt.test_dataroot}: ")
        raise UserError(f"--test_dataroot {opt.test_dataroot}: {reason}") from None
    paths, why = [path for images in sets for path in images.paths], ""
    for path in paths:
        try:
            read_image(path)
            return folder, sets
        except UnreadableImage as error:
            why = f"{printable(path)} ({error}); {check(folder, class_names(opt))}"
    raise UserError(
        f"--test_dataroot {folder}: none of {counted(len(paths), 'image')} can be read, such as {why}"
    )


def test_finished(
    opt: TrainOptions, folder: Path, dataroot: Path, sets: Sequence[ImageSet]
) -> None:
    """Test the last checkpoint on the sets of --test_dataroot; write to the run folder."""
    import distributed
    from evaluation.testing import run_tests
    from networks.checkpoint import load_model
    from networks.run_folder import checkpoint_path
    from options.test_options import TestOptions
    from reports.result_folder import write_results

    loaded = distributed.by_first(lambda: load_model(checkpoint_path(folder, "last")))
    names: tuple[str, ...] = ("real_names", "fake_names")
    names += ("batch_size", "num_threads", "gpu_ids", "precision", "cache", "on_bad_image")
    shared = {name: getattr(opt, name) for name in names}
    test_options = TestOptions(results_dir=str(folder / "results"), **shared)
    run_tests([loaded], dataroot, sets, test_options, write_results)


if __name__ == "__main__":
    run_script(main)
