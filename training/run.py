"""One training run: epochs, validation, checkpoints and logs in one folder.

An interrupted run resumes from its last checkpoint with the same weights and metrics as without the
interruption, bit for bit on one machine's CPU. For this, the checkpoint has the complete state of
the training. The log is flushed to disk before each checkpoint. On resuming, lines that were logged
after the checkpoint are removed.
"""

import signal
from collections import deque
from pathlib import Path
from typing import Any

from tqdm import tqdm

import distributed
from data.batches import Batch, empty_part
from data.loader import create_dataloader
from data.protocols import training_protocol
from device import seed_everything
from evaluation.scoring import leave_out
from evaluation.usable import MOST, require_usable, unusable
from networks.checkpoint_file import previous_of, save_checkpoint
from networks.losses import READ_EVERY, NonFiniteError
from networks.run_folder import checkpoint_path
from networks.trainer import Trainer
from options.train_options import TrainOptions
from training.event_log import TRAIN, VAL, EventLog
from training.first_pass import FirstPass
from training.initial_weights import load_initial_weights
from training.monitor import Monitor
from training.resume import (
    check_order,
    check_resumable,
    checkpoint_to_continue,
    order_of_images,
    warn_of_changed_options,
)
from training.signals import StopRequest
from training.warnings import LabelCheck
from util import CannotWrite, Stopped, UserError, log, percent, printable, writing


class Run:
    """One training run: its folder, its trainer, and the checkpoints it writes.

    With several processes, each has its own `Run` and calls the same methods. They are collective,
    see `distributed`. Only rank 0 writes.
    """

    def __init__(self, opt: TrainOptions, folder: Path) -> None:
        self.opt, self.folder = opt, folder
        self.protocol = training_protocol(opt)
        self.empty_part = empty_part(self.protocol)
        seed_everything(opt.seed, not opt.fast, self.protocol.one_size)
        self.trainer = Trainer(opt)
        first_pass = FirstPass(self.trainer.model, self.trainer.config, self.trainer.dtype)
        least = first_pass.least_images(self.protocol, opt.batch_size)
        self._refusal = first_pass.refusal
        self.validated: dict[str, Any] = {"val_threshold": None, "val_metrics": None}
        values = None
        if opt.continue_train:
            values = distributed.by_first(lambda: checkpoint_to_continue(folder, opt.epoch))
        if values is not None:
            check_resumable(values, self.trainer.model, self.trainer.config)
            self.trainer.load_state_dict(values)
            self.validated = {key: values.get(key) for key in self.validated}
            warn_of_changed_options(values["options"], opt)
        elif opt.init_from:
            load_initial_weights(
                self.trainer.model, self.trainer.config.scales, Path(opt.init_from)
            )
        self.loader = create_dataloader(opt, least=least)
        self.place = f"--dataroot {opt.dataroot}: {opt.train_split}/"
        require_usable(self.loader, self.place, self._refusal)
        self.order = order_of_images(opt, self.loader.dataset)
        if values is not None and opt.epoch_count - 1 <= self.trainer.epoch:
            check_order(values, self.order)
        self.saved_at = self.trainer.step
        self._open_log(values)
        self.monitor = Monitor(opt, self.event_log, self._refusal)
        if values is not None:
            self.monitor.watch.restore(values["attention_watch"])
        self.label_check = LabelCheck()
        self._warned = False  # of a class of which most images are skipped
        # step and files of the batches that a late NaN error may refer to
        self._recent: deque[tuple[int, list[str]]] = deque(
            maxlen=(READ_EVERY + 1) * opt.accumulation_steps
        )

    def _open_log(self, values: dict[str, Any] | None) -> None:
        """Resume the log at the checkpoint's step, or start a new one.

        A checkpoint other than 'last' is first saved as 'last', because the metrics of all later
        steps are removed.
        """
        opt, trainer, first = self.opt, self.trainer, distributed.rank() == 0
        if values is None:
            if opt.continue_train:
                log.info(
                    "--continue_train: no checkpoint in %s yet, so training starts from scratch",
                    self.folder,
                )
            self.event_log = EventLog(self.folder, write=first)
            self.event_log.add_text(TRAIN, trainer.step, "options", f"```\n{opt.dump()}\n```")
            return
        path, last = (checkpoint_path(self.folder, epoch) for epoch in (opt.epoch, "last"))
        log.info("resuming %s after epoch %d, step %d", path, trainer.epoch, trainer.step)
        if first and path != last:
            with writing(self.folder):
                save_checkpoint(last, values, keep_previous=True)
        kept = {TRAIN: trainer.step, VAL: trainer.validated_step}
        self.event_log = EventLog(self.folder, kept, first)

    def save(self, epoch: str | int) -> None:
        """Flush the log, then write model_epoch_{epoch}.pth."""
        values = self.trainer.state_dict() | self.validated
        values |= {"protocol": self.protocol.to_dict(), "sampler_state": self.order}
        values |= {"attention_watch": self.monitor.watch.state()}
        if distributed.rank() == 0:
            self.event_log.flush()
            path = checkpoint_path(self.folder, epoch)
            with writing(self.folder):
                save_checkpoint(path, values, keep_previous=epoch == "last")
        if epoch == "last":
            self.saved_at = self.trainer.step

    def train(self) -> None:
        """Train the remaining epochs; validate and save after each.

        Raises:
            Stopped: by SIGTERM or Ctrl-C, after saving.
            UserError: the folder cannot be written, the loss or gradients are not finite, or no
                image of a class could be used.
        """
        trainer = self.trainer
        with StopRequest(announce=distributed.rank() == 0) as stop:
            try:
                # the run ended between an epoch and its validation
                if trainer.batch == 0 and trainer.step > trainer.validated_step:
                    self._finish_epoch(stop)
                if self.opt.epoch_count - 1 > trainer.epoch:
                    trainer.epoch, trainer.batch = self.opt.epoch_count - 1, 0
                if why := self._done():
                    log.info("nothing to train: %s", why)
                while not self._done():
                    self._train_epoch(trainer.epoch, stop)
                    # before anything else can fail; this also synchronises the processes' models
                    self.save("last")
                    self._finish_epoch(stop)
                self._end_if_asked(stop)
            except NonFiniteError as error:
                raise self._diverged(error) from error
            except CannotWrite as error:
                raise UserError(f"{error}; training stops. {self.last_good()}") from error
        self._report_skipped()

    def close(self) -> None:
        """Close the log."""
        self.event_log.close()

    def last_good(self) -> str:
        """Return a sentence that names the newest complete checkpoint."""
        path = checkpoint_path(self.folder, "last")
        # missing if the run ended while replacing it
        if not path.is_file():
            path = previous_of(path)
        if not path.is_file():
            return "Nothing had been saved yet"
        return f"The last good checkpoint is {path}, of step {self.saved_at}"

    def _done(self) -> str:
        """Return the reason why training is finished; empty if epochs remain."""
        trainer, opt = self.trainer, self.opt
        if trainer.epoch >= opt.niter:
            return f"{trainer.epoch} epochs are finished, --niter is {opt.niter}"
        if opt.earlystop_epoch and trainer.epochs_since_best >= opt.earlystop_epoch:
            return f"{trainer.epochs_since_best} epochs without a better validation AP"
        return ""

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
            # after the last batch, the end of the epoch saves
            if trainer.window_empty and trainer.batch < batches:
                self._save_or_stop(stop)
        trainer.finish_window()
        self._require_usable()
        trainer.epoch, trainer.batch = epoch + 1, 0
        metrics = {"lr": trainer.lr}
        # else the line of the step has the loss
        if trainer.step % opt.loss_freq:
            metrics["loss"] = trainer.mean_loss()
        metrics |= {f"gradient/{part}": norm for part, norm in trainer.gradient_norms.items()}
        self.event_log.add(TRAIN, trainer.step, trainer.epoch, metrics)
        trainer.gradient_norms = {}

    def _skipped(self) -> dict[str, str]:
        """Return {path: reason} of the training images that were skipped anywhere. Collective."""
        skipped: dict[str, str] = {}
        for part in distributed.gather(self.loader.left_out):
            skipped |= part
        return skipped

    def _require_usable(self) -> None:
        """Check that images of both classes were left; warn when most of one were not. Collective.

        Raises:
            UserError: no image of a class was.
        """
        dataset, skipped = self.loader.dataset, self._skipped()
        if why := unusable(dataset.paths, dataset.labels, skipped):
            raise UserError(f"{self.place}: {why}")
        if not self._warned and (why := unusable(dataset.paths, dataset.labels, skipped, MOST)):
            log.warning("%s: only %s", self.place, why)
            self._warned = True

    def _train_batch(self, batch: Batch) -> None:
        trainer = self.trainer
        if (why := self._refusal(batch.pixels)) is not None:
            leave_out(self.loader, batch, why)
            return
        paths = [self.loader.dataset.paths[index] for index in batch.indices.tolist()]
        self._recent.append((trainer.step + 1, paths))
        trainer.set_input((self.loader.images(batch, trainer.device), batch.labels))
        if not trainer.optimize_parameters():
            return
        self.label_check.add(trainer.logits, batch.labels)
        if trainer.step % self.opt.loss_freq == 0:
            loss = trainer.mean_loss()
            self.event_log.add(TRAIN, trainer.step, trainer.epoch + 1, {"loss": loss})
            log.info("step %d: training loss %.4f, lr %.3g", trainer.step, loss, trainer.lr)

    def _finish_epoch(self, stop: StopRequest) -> None:
        """Validate after an epoch, log the metrics, and save the checkpoints."""
        trainer, opt = self.trainer, self.opt
        with stop.at_once():
            result = self.monitor.validate(trainer.model, trainer.step, trainer.epoch)
        m = result.metrics
        self.validated = {"val_threshold": result.threshold, "val_metrics": m.to_dict()}
        trainer.validated_step = trainer.step
        log.info("epoch %d/%d: loss %.4f, lr %.3g, validation acc %s, AP %s",
                 trainer.epoch, opt.niter, trainer.mean_loss(), trainer.lr,
                 percent(m.acc), percent(m.ap))  # fmt: skip
        self.label_check.after_epoch(m)
        if trainer.record_validation(m.ap):
            self.save("best")
        if trainer.epoch % opt.save_epoch_freq == 0:
            self.save(trainer.epoch)
        self.save("last")
        if trainer.epoch < opt.niter and (why := self._done()):
            log.info("stopping: %s", why)

    def _save_or_stop(self, stop: StopRequest) -> None:
        """Save every --save_latest_freq steps; save and stop after a signal to any process."""
        trainer, freq = self.trainer, self.opt.save_latest_freq
        stopping = distributed.total(stop.number or 0) > 0
        if stopping or trainer.step // freq > self.saved_at // freq:
            self.save("last")
        # a signal that came since then waits for the next save
        if stopping:
            self._end_if_asked(stop)

    def _end_if_asked(self, stop: StopRequest) -> None:
        """Raise Stopped in all processes if any got a signal; call this after saving."""
        number = max(distributed.gather(stop.number or 0))
        if number:
            log.info("%s: saved step %d", signal.Signals(number).name, self.saved_at)
            raise Stopped(number)

    def _diverged(self, error: NonFiniteError) -> UserError:
        """Return the error with the files of its batches and advice."""
        paths = [
            printable(path) for step, paths in self._recent if step in error.steps for path in paths
        ]
        listed = "\n  ".join(paths) or "(of another process)"
        log.error("%s; files of the batch:\n  %s", error, listed)
        named = "no file of this process"
        if paths:
            named = f"{paths[0]} and {len(paths) - 1} more files (listed above)"
        return UserError(
            f"{error}, in a batch of {named}; training stops. {self.last_good()}; "
            "try a lower --lr, --precision fp32, or --skip_nonfinite N to skip such steps"
        )

    def _report_skipped(self) -> None:
        skipped = self._skipped() | self.monitor.loader.left_out
        for path, why in skipped.items():
            log.warning("was skipped: %s (%s)", printable(path), why)
        log.info("skipped %d files", len(skipped))
