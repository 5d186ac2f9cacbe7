"""Start or resume a training run: its folder, its lock and its log."""

import shlex
import shutil
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

import distributed
from device import memory_advice
from networks.run_folder import lock, make_run_folder, newest_run_folder
from options.train_options import TrainOptions
from training.run import Run
from util import CannotWrite, Stopped, UserError, log, start_logging, writing


def run_folder(opt: TrainOptions, exit_stack: ExitStack) -> Path:
    """Return the locked folder of a new run or of the one to resume; start its log.

    Args:
        opt: TrainOptions; appended to opt.txt.
        exit_stack: releases the lock when it closes.
    """
    if opt.continue_train:
        folder = newest_run_folder(
            opt.checkpoints_dir, opt.run_name(), f"--continue_train --name {opt.run_name()}"
        )
    else:
        folder = make_run_folder(opt.checkpoints_dir, opt.run_name())
    with writing(folder):
        exit_stack.enter_context(lock(folder))
        start_logging(folder / "log.log")
        log.info("run folder: %s", folder)
        with open(folder / "opt.txt", "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(shlex.join(sys.argv) + "\n" + opt.dump() + "\n")
    return folder


def train(opt: TrainOptions, folder: Path) -> None:
    """Train in this folder; remove a new folder if the training cannot start."""
    try:
        run = Run(opt, folder)
    except UserError:
        # nothing was trained in the folder
        if not opt.continue_train and distributed.rank() == 0:
            shutil.rmtree(folder)
        raise
    try:
        with logging_redirect_tqdm([log]), memory_advice(opt.batch_size, opt.accumulation_steps):
            run.train()
    except (KeyboardInterrupt, Stopped):
        without_flags = (
            " but without --epoch and --new_optim" if opt.epoch != "last" or opt.new_optim else ""
        )
        log.info(
            "%s; to resume, run the same command with --continue_train%s",
            run.last_good(),
            without_flags,
        )
        raise
    finally:
        # training has reported this error already
        with suppress(CannotWrite):
            run.close()
