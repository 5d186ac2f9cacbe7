"""One training run: epochs, validation, checkpoints and logs in a folder of its own.

A run that ends at any moment, however it ends, goes on from its last checkpoint as if nothing had
happened: the same weights and the same logs, bit for bit on one machine's CPU. So everything that
decides what comes next is in the checkpoint, whatever is logged before it is on the disk before it
is, and what was logged after it is taken back.
"""

import hashlib
import os
import signal
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import distributed
from data import create_dataloader
from data.batches import Batch, empty_batch
from data.datasets import ImageDataset
from data.protocols import training_protocol
from data.transforms import Protocol
from device import seed_everything
from evaluation.metrics import Metrics
from networks.checkpoint_file import save_checkpoint
from networks.finite import NonFiniteError
from networks.run_folder import checkpoint_path
from networks.trainer import Trainer
from options.flags import shown_value
from options.train_options import NOT_THE_RECIPE, TrainOptions
from training.event_log import FIRST, EventLog
from training.label_check import label_warning
from training.monitor import Monitor
from training.resume import check_order, check_resumable, checkpoint_to_continue
from training.signals import StopRequest
from util import CannotWrite, Stopped, UserError, log, percent, printable, writing


class Run:
    """One training run: its folder, its trainer, and the checkpoints it writes.

    Of several processes, each has one and calls the same methods, which are collective (see
    `distributed`); the first writes.
    """

    def __init__(self, opt: TrainOptions, folder: Path) -> None:
        self.opt, self.folder = opt, folder
        self.protocol = training_protocol(opt)
        self.empty_part = empty_part(self.protocol)
        seed_everything(opt.seed, deterministic=not opt.fast)
        self.trainer = Trainer(opt)
        self.validated: dict[str, Any] = {"val_threshold": None, "val_metrics": None}
        values = (
            distributed.by_first(lambda: checkpoint_to_continue(folder, opt.epoch))
            if opt.continue_train
            else None
        )
        if values is not None:
            check_resumable(values, self.trainer.model, self.trainer.config)
            self.trainer.load_state_dict(values)
            self.validated = {key: values.get(key) for key in self.validated}
            self._warn_of_other_options(values["options"])
        self.loader = create_dataloader(opt)
        self.order = order_of_images(opt, self.loader.dataset)
        if values is not None and opt.epoch_count - 1 <= self.trainer.epoch:
            check_order(values, self.order)
        self.saved_at = self.trainer.step
        self._open_logs(values)
        self.monitor = Monitor(opt, self.val_log)
        if values is not None and "attention_watch" in values:  # earlier checkpoints have none
            self.monitor.watch.restore(values["attention_watch"])
        self._seen: list[tuple[Tensor, Tensor]] = []  # logits and labels of the epoch
        # files of the last steps
        self._recent: deque[tuple[int, list[str]]] = deque(maxlen=2 * opt.accumulation_steps + 1)
        self._warned = ""

    def _warn_of_other_options(self, before: dict[str, Any]) -> None:
        """Say which flags, or those of a recipe, the run did not have before: it goes on in another
        way."""
        changed = [
            f"--{name} was {shown_value(before[name])}, is {shown_value(value)}"
            for name, value in self.opt.to_dict().items()
            if name not in (*NOT_THE_RECIPE, "niter") and name in before and before[name] != value
        ]
        if changed:
            log.warning("--continue_train with other flags: %s", "; ".join(changed))

    def _open_logs(self, values: dict[str, Any] | None) -> None:
        """Go on with the logs as they were at the checkpoint, or begin them.

        A checkpoint other than the last becomes the last first: the logs of what came after it are
        about to go.
        """
        opt, first = self.opt, distributed.rank() == 0
        if values is None:
            kept = kept_of_validation = FIRST
            if opt.continue_train:
                log.info(
                    "--continue_train: no checkpoint in %s yet, starting over there", self.folder
                )
        else:
            path, last = (
                checkpoint_path(self.folder, opt.epoch),
                checkpoint_path(self.folder, "last"),
            )
            log.info(
                "continuing %s after epoch %d, step %d", path, self.trainer.epoch, self.trainer.step
            )
            kept, kept_of_validation = self.trainer.step, self.trainer.validated_step
            if first and path != last:
                with writing(self.folder):
                    save_checkpoint(last, values, keep_previous=True)
        self.train_log = EventLog(self.folder / "train", kept, first)
        self.val_log = EventLog(self.folder / "val", kept_of_validation, first)
        if values is None:
            self.train_log.add_text("options", f"```\n{opt.dump()}\n```", self.trainer.step)

    def save(self, epoch: str | int) -> None:
        """Write model_epoch_{epoch}.pth, after all that was logged before it."""
        values = self.trainer.state_dict() | self.validated
        values |= {"protocol": self.protocol.to_dict(), "sampler_state": self.order}
        values |= {"attention_watch": self.monitor.watch.state()}
        if distributed.rank() == 0:
            self.train_log.flush()
            self.val_log.flush()
            with writing(self.folder):
                save_checkpoint(
                    checkpoint_path(self.folder, epoch), values, keep_previous=epoch == "last"
                )
        if epoch == "last":
            self.saved_at = self.trainer.step

    def train(self) -> None:
        """All epochs that are left; validation, checkpoints and attention after each.

        Raises:
            Stopped: by SIGTERM or Ctrl-C, at a moment from which it goes on exactly; a checkpoint
                says how far it came.
            UserError: the folder cannot be written, or the loss or gradients are not finite.
        """
        trainer = self.trainer
        with StopRequest(announce=distributed.rank() == 0) as stop:
            try:
                if trainer.batch == 0 and trainer.step > trainer.validated_step:
                    self._finish_epoch(stop)  # the run ended between an epoch and its validation
                if self.opt.epoch_count - 1 > trainer.epoch:
                    trainer.epoch, trainer.batch = self.opt.epoch_count - 1, 0
                if why := self._done():
                    log.info("nothing to train: %s", why)
                while not self._done():
                    self._train_epoch(trainer.epoch, stop)
                    # before anything else can fail; it also leaves all processes with one model
                    self.save("last")
                    self._finish_epoch(stop)
                self._require_no_stop(stop)
            except NonFiniteError as error:
                raise self._diverged(error) from error
            except CannotWrite as error:
                raise UserError(f"{error}; training stops. {self.last_good()}") from error
        self._report_left_out()

    def close(self) -> None:
        """Close the logs."""
        self.train_log.close()
        self.val_log.close()

    def last_good(self) -> str:
        """What there is to go on from, in words."""
        path = checkpoint_path(self.folder, "last")
        if not path.is_file():
            return "Nothing had been saved yet"
        return f"The last good checkpoint is {path}, of step {self.saved_at}"

    def _done(self) -> str:
        """Why no epoch is left to train; empty if one is."""
        trainer, opt = self.trainer, self.opt
        if trainer.epoch >= opt.niter:
            return f"{trainer.epoch} epochs are finished, --niter is {opt.niter}"
        if opt.earlystop_epoch and trainer.epochs_since_best >= opt.earlystop_epoch:
            return f"{trainer.epochs_since_best} epochs without a better validation AP"
        return ""

    def _finish_epoch(self, stop: StopRequest) -> None:
        """What follows the saving of a trained epoch: validation, log, and the checkpoints that
        depend on it."""
        trainer, opt = self.trainer, self.opt
        with stop.at_once():
            found = self.monitor.validate(trainer.model, trainer.step, trainer.epoch)
            if opt.attention_log_freq and (trainer.epoch - 1) % opt.attention_log_freq == 0:
                self.monitor.log_attention(trainer.model, trainer.step)
        m = found.metrics
        self.validated = {"val_threshold": found.threshold, "val_metrics": m.to_dict()}
        trainer.validated_step = trainer.step
        log.info("epoch %d/%d: loss %.4f, lr %.3g, validation acc %s, AP %s", trainer.epoch, opt.niter,
                 trainer.mean_loss(), trainer.lr, percent(m.acc), percent(m.ap))  # fmt: skip
        self._check_labels(m)
        if trainer.record_validation(m.ap):
            self.save("best")
        if trainer.epoch % opt.save_epoch_freq == 0:
            self.save(trainer.epoch)
        self.save("last")
        if trainer.epoch < opt.niter and (why := self._done()):
            log.info("stopping: %s", why)

    def _train_epoch(self, epoch: int, stop: StopRequest) -> None:
        trainer, loader, opt = self.trainer, self.loader, self.opt
        trainer.start_epoch(epoch)
        loader.sampler.set_epoch(epoch, start=trainer.batch * opt.batch_size)
        name = f"epoch {epoch + 1}/{opt.niter}"
        steps, no_bar = loader.steps(trainer.device), distributed.no_bar()
        batches = trainer.batch + len(loader)
        bar = tqdm(steps, total=len(loader), desc=name, leave=False, unit="batch", disable=no_bar)
        for step in bar:
            trainer.watch_gradients = trainer.batch == batches - 1
            for batch in step or self.empty_part:
                self._train_batch(batch)
            trainer.batch += 1
            # after the last, the epoch's end is logged and saved
            if trainer.at_window_end and trainer.batch < batches:
                self._save_or_stop(stop)
        trainer.finish_window()
        trainer.epoch, trainer.batch = epoch + 1, 0
        if trainer.step % opt.loss_freq:  # else it stands there already
            self.train_log.add_scalar("loss", trainer.mean_loss(), trainer.step)
        self.train_log.add_scalar("lr", trainer.lr, trainer.step)
        for part, norm in trainer.gradient_norms.items():
            self.train_log.add_scalar(f"gradient/{part}", norm, trainer.step)
        trainer.gradient_norms = {}

    def _train_batch(self, batch: Batch) -> None:
        trainer = self.trainer
        self._recent.append(
            (
                trainer.step + 1,
                [self.loader.dataset.paths[index] for index in batch.indices.tolist()],
            )
        )
        trainer.set_input((self.loader.images(batch, trainer.device), batch.labels))
        if trainer.optimize_parameters():
            # a worker's tensor keeps a file open
            self._seen.append((trainer.logits, batch.labels.clone()))
            if trainer.step % self.opt.loss_freq == 0:
                loss = trainer.mean_loss()
                self.train_log.add_scalar("loss", loss, trainer.step)
                log.info("step %d: training loss %.4f, lr %.3g", trainer.step, loss, trainer.lr)

    def _save_or_stop(self, stop: StopRequest) -> None:
        """Save where --save_latest_freq says so, or where a signal in any of the processes ends the
        training."""
        trainer, freq = self.trainer, self.opt.save_latest_freq
        stopping = distributed.total(stop.number or 0) > 0
        if stopping or trainer.step // freq > self.saved_at // freq:
            self.save("last")
        if stopping:  # not a signal that came since: it waits for the next save
            self._require_no_stop(stop)

    def _require_no_stop(self, stop: StopRequest) -> None:
        """Raises Stopped, in all processes, where a signal came to any of them. What there is has
        been saved."""
        if distributed.total(stop.number or 0):
            number = max(distributed.gather(stop.number or 0))
            log.info("%s: saved step %d", signal.Signals(number).name, self.saved_at)
            raise Stopped(number)

    def _diverged(self, error: NonFiniteError) -> UserError:
        """The error with the files of its batches, and what to do."""
        files = [
            printable(path) for step, paths in self._recent if step in error.steps for path in paths
        ]
        log.error(
            "%s; files of the batch:\n  %s", error, "\n  ".join(files) or "(of another process)"
        )
        first = (
            f"{files[0]} and {len(files) - 1} more files (listed above)"
            if files
            else "no file of this process"
        )
        return UserError(
            f"{error}, in a batch of {first}; training stops. {self.last_good()}; try a lower --lr, --precision fp32, or"
            " --skip_nonfinite N to leave out such steps"
        )

    def _check_labels(self, validation: Metrics) -> None:
        """Warn, once of each kind, where real and fake seem to be confused."""
        columns = [
            torch.cat(column).flatten().float().cpu() for column in zip(*self._seen, strict=True)
        ]
        self._seen = []
        parts = [part for part in distributed.gather(columns) if part]
        if not parts:
            return
        logits, labels = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        finite = np.isfinite(logits)  # steps that were left out
        warning = label_warning(labels[finite], logits[finite], validation)
        if warning and warning[:10] != self._warned:
            log.warning("%s", warning)
            self._warned = warning[:10]

    def _report_left_out(self) -> None:
        left_out: dict[str, str] = {}
        for found in distributed.gather(self.loader.left_out | self.monitor.loader.left_out):
            left_out |= found
        for path, why in left_out.items():
            log.warning("was left out: %s (%s)", printable(path), why)
        log.info("left out %d files", len(left_out))


def order_of_images(opt: TrainOptions, dataset: ImageDataset) -> dict[str, Any]:
    """What decides which image comes when in an epoch: a checkpoint within one must go on with the
    same."""
    found = hashlib.sha256()
    for path, label in zip(dataset.paths, dataset.labels, strict=True):
        found.update(os.fsencode(os.path.relpath(path, opt.dataroot)) + b"\0%d" % label)
    flags = {
        name: getattr(opt, name) for name in ("seed", "batch_size", "serial_batches", "class_bal")
    }
    return flags | {"images": found.hexdigest()}


def empty_part(protocol: Protocol) -> list[Batch]:
    """What stands for a part of a batch without images among several processes; a process that is
    alone leaves it out.

    Raises:
        UserError: images keep their own sizes, so that some processes would take more steps than
            others.
    """
    if distributed.world_size() == 1:
        return []
    side = protocol.crop or protocol.resize
    if side is None:
        raise UserError(
            "--no_crop, --no_resize: several processes need images of one size; leave one of them out"
        )
    return [empty_batch(side)]
