"""One training run: epochs, validation, checkpoints and logs in a folder of its own."""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

import parallel
from data import create_dataloader
from data.batches import Batch, empty_batch
from data.protocols import training_protocol
from data.transforms import Protocol
from evaluation.monitor import Monitor
from networks.checkpoint import read_checkpoint, save_checkpoint
from networks.run_folder import checkpoint_path
from networks.trainer import Trainer
from options.train_options import TrainOptions
from util import UserError, log, seed_everything


class Run:
    """One training run: its folder, its trainer, and the checkpoints it writes.

    Of several processes, each has one and calls the same methods, which are collective (see `parallel`); the first writes.
    """

    def __init__(self, opt: TrainOptions, folder: Path) -> None:
        self.opt, self.folder = opt, folder
        self.protocol = training_protocol(opt)
        self.empty_part = empty_part(self.protocol)
        seed_everything(opt.seed, deterministic=not opt.fast)
        self.trainer = Trainer(opt)
        self.validated: dict[str, Any] = {"val_threshold": None, "val_metrics": None}
        if opt.continue_train:
            self._resume()
        writing: dict[str, Any] = {"write_to_disk": parallel.rank() == 0}
        writing |= {"purge_step": self.trainer.step + 1} if self.trainer.step else {}
        self.train_writer = SummaryWriter(str(folder / "train"), **writing)
        self.val_writer = SummaryWriter(str(folder / "val"), **writing)
        self.train_writer.add_text("options", f"```\n{opt.dump()}\n```", self.trainer.step)
        self.loader = create_dataloader(opt)
        self.monitor = Monitor(opt, self.val_writer)
        self.saved_at = self.trainer.step

    def _resume(self) -> None:
        path = checkpoint_path(self.folder, self.opt.epoch)
        values = parallel.by_first(lambda: self._read(path))
        if values is None:
            log.info("--continue_train: no checkpoint in %s yet, starting over there", self.folder)
            return
        self.trainer.load_state_dict(values)
        self.validated = {key: values.get(key) for key in self.validated}
        log.info("continuing %s after epoch %d, step %d", path, self.trainer.epoch, self.trainer.step)

    def _read(self, path: Path) -> dict[str, Any] | None:
        """The checkpoint to go on from; None where the folder has none at all."""
        there = sorted(p.stem.removeprefix("model_epoch_") for p in self.folder.glob("model_epoch_*.pth"))
        if there and not path.is_file():
            raise UserError(f"--epoch {self.opt.epoch}: not in {self.folder}, which has {', '.join(there)}")
        return read_checkpoint(path) if there else None

    def save(self, epoch: str | int) -> None:
        """Write model_epoch_{epoch}.pth."""
        values = self.trainer.state_dict() | self.validated | {"protocol": self.protocol.to_dict()}
        if parallel.rank() == 0:
            save_checkpoint(checkpoint_path(self.folder, epoch), values)

    def train(self) -> None:
        """All epochs that are left; validation, checkpoints and attention after each."""
        first = max(self.opt.epoch_count - 1, self.trainer.epoch)
        if first > self.trainer.epoch:
            self.trainer.batch = 0
        if first >= self.opt.niter:
            log.info("nothing to train: %d epochs are finished, --niter is %d", first, self.opt.niter)
        for epoch in range(first, self.opt.niter):
            self._train_epoch(epoch)
            self.save("last")  # before anything else can fail; it also leaves all processes with one model
            found = self.monitor.validate(self.trainer.model, self.trainer.step)
            self.validated = {"val_threshold": found.threshold, "val_metrics": found.metrics.to_dict()}
            if self.opt.attention_log_freq and epoch % self.opt.attention_log_freq == 0:
                self.monitor.log_attention(self.trainer.model, self.trainer.step)
            m = found.metrics
            log.info("epoch %d/%d: loss %.4f, lr %.3g, validation acc %s, AP %s", epoch + 1, self.opt.niter,
                     self.trainer.mean_loss(), self.trainer.lr, _percent(m.acc), _percent(m.ap))  # fmt: skip
            if self.trainer.record_validation(m.ap):
                self.save("best")
            if (epoch + 1) % self.opt.save_epoch_freq == 0:
                self.save(epoch + 1)
            self.save("last")
            if self.opt.earlystop_epoch and self.trainer.epochs_since_best >= self.opt.earlystop_epoch:
                log.info("stopping: %d epochs without a better validation AP", self.trainer.epochs_since_best)
                break
        self._report_left_out()

    def _report_left_out(self) -> None:
        left_out: dict[str, str] = {}
        for found in parallel.gather(self.loader.left_out | self.monitor.loader.left_out):
            left_out |= found
        for path, why in left_out.items():
            log.warning("was left out: %s (%s)", path, why)
        log.info("left out %d files", len(left_out))

    def _train_epoch(self, epoch: int) -> None:
        trainer, loader, opt = self.trainer, self.loader, self.opt
        trainer.start_epoch(epoch)
        loader.sampler.set_epoch(epoch, start=trainer.batch * opt.batch_size)
        name = f"epoch {epoch + 1}/{opt.niter}"
        steps, no_bar = loader.steps(trainer.device), parallel.no_bar()
        bar = tqdm(steps, total=len(loader), desc=name, leave=False, unit="batch", disable=no_bar)
        for step in bar:
            for batch in step or self.empty_part:
                trainer.set_input((loader.images(batch, trainer.device), batch.labels))
                if trainer.optimize_parameters() and trainer.step % opt.loss_freq == 0:
                    self._log_loss()
            trainer.batch += 1
            if trainer.step // opt.save_latest_freq > self.saved_at // opt.save_latest_freq and trainer.at_window_end:
                self.save("last")
                self.saved_at = trainer.step
        trainer.finish_window()
        trainer.epoch, trainer.batch = epoch + 1, 0
        self.train_writer.add_scalar("loss", trainer.mean_loss(), trainer.step)
        self.train_writer.add_scalar("lr", trainer.lr, trainer.step)

    def _log_loss(self) -> None:
        loss, step, lr = self.trainer.mean_loss(), self.trainer.step, self.trainer.lr
        self.train_writer.add_scalar("loss", loss, step)
        log.info("step %d: training loss %.4f, lr %.3g", step, loss, lr)


def empty_part(protocol: Protocol) -> list[Batch]:
    """What stands for a part of a batch without images among several processes; a process that is alone leaves it out.

    Raises:
        UserError: images keep their own sizes, so that some processes would take more steps than others.
    """
    if parallel.world_size() == 1:
        return []
    side = protocol.crop or protocol.resize
    if side is None:
        raise UserError("--no_crop, --no_resize: several processes need images of one size; leave one of them out")
    return [empty_batch(side)]


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %"
