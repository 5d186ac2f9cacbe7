"""Training of one model: `set_input`, `optimize_parameters`, and a state that resumes exactly."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer

import distributed
from device import autocast_dtype, tf32, versions
from networks import ddp
from networks.factory import create_model, model_config, running_statistics, trial_problem
from networks.fast import CompiledOrPlain, place_model
from networks.losses import (
    FiniteGuard,
    NonFiniteError,
    cosine_learning_rate,
    detection_loss,
    learning_rate,
    require_finite,
)
from networks.multiscale_npr import AttentionMultiScaleNPR
from util import UserError

MIN_LOSS_SCALE = 2.0**-14  # GradScaler starts at 2**16 and halves after infinite gradients


class Trainer:
    """A model, its optimizer and its loss on one device.

    Of several processes, each has its own trainer with the same weights, and gets its part of each
    batch. An optimizer step is that of one process with whole batches, to rounding: the mean
    gradient over all images of the accumulation window, however they are spread (BatchNorm
    normalises by the part unless --sync_bn is set, and the diversity term takes its mean over the
    part).

    Attributes:
        model: the network, never wrapped or compiled, so that its names are the published ones.
        optimizer: over all its parameters.
        config: architecture of the model.
        device: where it computes.
        watch_gradients: whether the next optimizer step notes `gradient_norms`.
        gradient_norms: Euclidean norm by part of a multi-scale model.
        step: batches seen.
        epoch: finished epochs.
        batch: batches seen of the next epoch.
        validated_step: `step` at the last validation.
        loss: of this process' part of the last batch, a detached scalar.
        logits: [B, 1] of that part, detached.
        labels: [B] of that part.
    """

    def __init__(self, opt: Any) -> None:
        """Args: opt: TrainOptions."""
        self.opt = opt
        self.device = distributed.device(opt.gpu_ids)
        self.config = model_config(opt)
        self.dtype = autocast_dtype(opt.precision, self.device)
        self.model = place_model(create_model(opt, self.config), self.device, self.dtype)
        if opt.sync_bn:
            self.model = ddp.with_sync_batch_norm(self.model, self.device)
        self.optimizer = self._create_optimizer()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.guard = FiniteGuard(
            opt.skip_nonfinite,
            check_gradients=not self.scaler.is_enabled(),
            at_once=self.device.type == "cpu",
        )
        self.step = self.epoch = self.batch = self.validated_step = 0
        self.best_ap: float | None = None
        self.epochs_since_best = 0
        self.loss, self.logits = torch.zeros(()), torch.zeros(0, 1)
        self.watch_gradients = False
        self.gradient_norms: dict[str, float] = {}
        # of the accumulation window: images in all processes, loss of each batch, and the model's
        # statistics before it, in case it is skipped
        self._window_images = 0
        self._losses: list[Tensor] = []
        self._statistics: list[Tensor] = []
        self._share = 1 / distributed.world_size()  # of the last batch's images in this part
        self._settled = False
        self._fails_alone: dict[torch.Size, bool] = {}  # by height and width
        self._distributed: DistributedDataParallel | None = None
        if distributed.world_size() > 1:
            self._distributed = ddp.wrap(self.model, self.config, self.device)
            ddp.seed_others(opt.seed, self.step)
        self._forward = self._compiled(self._distributed or self.model)

    def _create_optimizer(self) -> Optimizer:
        parameters, opt = self.model.parameters(), self.opt
        if opt.optim == "adam":
            return Adam(parameters, lr=opt.lr, betas=(opt.beta1, 0.999), fused=True)
        return SGD(parameters, lr=opt.lr, fused=True)

    def _compiled(self, network: nn.Module) -> nn.Module:
        opt, on_gpu = self.opt, self.device.type == "cuda"
        if not opt.compile and not (opt.fast and on_gpu):  # on a CPU compiled training is slower
            return network
        # replayed passes write gradients to the same place every time: they must not be gathered
        # there
        alone = opt.accumulation_steps == 1 and self._distributed is None
        return CompiledOrPlain(network, cuda_graphs=opt.fast and on_gpu and alone)

    @property
    def lr(self) -> float:
        """The current learning rate."""
        return self.optimizer.param_groups[0]["lr"]

    def start_epoch(self, epoch: int) -> None:
        """Set training mode and the learning rate of the epoch with this index (from 0)."""
        self.model.train()
        opt = self.opt
        if opt.lr_schedule == "cosine":
            rate = cosine_learning_rate(opt.lr, opt.niter, epoch)
        else:
            rate = learning_rate(opt.lr, opt.delr_freq, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def set_input(self, data: tuple[Tensor, Tensor] | list[Tensor]) -> None:
        """Take a batch: images [B, 3, H, W] normalised, labels [B] (0 real, 1 fake); further items
        are ignored."""
        images, labels = data[0], data[1]
        self.images = images.to(self.device, non_blocking=True)
        self.labels = labels.to(self.device, non_blocking=True).float()

    def get_loss(self) -> Tensor:
        """Run the forward pass on the last `set_input`; return the loss, a scalar."""
        attention_weights = None
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            if isinstance(self.model, AttentionMultiScaleNPR):
                logits, attention_weights = self._forward(self.images, return_attention=True)
            else:
                logits = self._forward(self.images)
        self.logits = logits.detach().clone()  # a replayed pass writes the next to the same place
        return detection_loss(
            logits,
            self.labels,
            attention_weights,
            self.opt.attention_entropy_weight,
            self.opt.attention_diversity_weight,
        )

    def _loss_of_part(self) -> Tensor:
        """Return `get_loss`, or for a part without images a zero with a graph.

        The gradients of the zero go into the others' mean.
        """
        if self._too_few():
            with running_statistics(self.model):
                return self.get_loss()
        if len(self.labels) or self._distributed is None:
            return self.get_loss()
        self.logits = self.logits[:0]
        return ddp.zero_loss(self._distributed, self.images, self.opt.sync_bn)

    def _too_few(self) -> bool:
        """Return True for one image, where BatchNorm of a 1x1 feature map needs two.

        It is what is left of a batch whose other images are of other sizes or were skipped.
        """
        if len(self.labels) != 1 or not self.model.training or self.opt.sync_bn:
            return False
        height, width = size = self.images.shape[2:]
        if size not in self._fails_alone:
            problem = trial_problem(self.model, height, width, images=1, dtype=self.dtype)
            self._fails_alone[size] = problem is not None
        return self._fails_alone[size]

    def optimize_parameters(self) -> bool:
        """Run one batch forward and backward; after --accumulation_steps of them step. Collective.

        Returns:
            False, with nothing done, if no process has an image of the batch.

        Raises:
            NonFiniteError: see `finish_window`.
        """
        images = len(self.labels)
        everywhere = distributed.total(images)
        if everywhere == 0:
            return False
        if self._distributed is not None and not self._settled:
            ddp.settle(self._distributed, self.images)
            self._settled = True
        if self.window_empty and self.guard.allowed:
            self._statistics = [statistic.clone() for statistic in self.model.buffers()]
        self.step += 1
        self._window_images += everywhere
        last = len(self._losses) + 1 == self.opt.accumulation_steps
        with self._averaging(last), tf32(self.opt.precision != "fp32"):
            loss = self._loss_of_part()
            # the processes' gradients are averaged
            weight = distributed.world_size() * images / self._window_size
            self.scaler.scale(loss * weight if weight != 1 else loss).backward()
        self.loss, self._share = loss.detach(), images / everywhere
        self._losses.append(self.loss)
        if last:
            self.finish_window()
        return True

    def _averaging(self, wanted: bool) -> AbstractContextManager[None]:
        """Return a context in which backward passes average gradients over the processes or not."""
        if wanted or self._distributed is None:
            return nullcontext()
        return self._distributed.no_sync()

    def mean_loss(self) -> float:
        """Return the last batch's loss, the mean over the images of all processes. Collective."""
        return float(distributed.summed(self.loss * self._share))

    @property
    def _window_size(self) -> int:
        """Images of a full accumulation window."""
        return self.opt.batch_size * self.opt.accumulation_steps

    @property
    def window_empty(self) -> bool:
        """True when no gradient is waiting for an optimizer step."""
        return not self._losses

    def finish_window(self) -> None:
        """Step with the mean gradient since the last step, also of a partial window. Collective.

        Raises:
            NonFiniteError: a loss or a gradient is NaN or infinite, see `FiniteGuard`.
        """
        if self.window_empty:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if len(self._losses) < self.opt.accumulation_steps:  # the pass that averages has not come
            distributed.average(gradients)
        if self._window_images != self._window_size:
            for gradient in gradients:
                gradient.mul_(self._window_size / self._window_images)
        if self.watch_gradients and isinstance(self.model, AttentionMultiScaleNPR):
            scale = self.scaler.get_scale()
            norms = self.model.gradient_norms()
            self.gradient_norms = {part: float(norm) / scale for part, norm in norms.items()}
        batches = list(range(self.step - len(self._losses) + 1, self.step + 1))
        if self.guard.passes(batches, self._losses, gradients):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.guard.settled:
                self._require_loss_scale(batches)
        else:
            for statistic, before in zip(self.model.buffers(), self._statistics, strict=True):
                statistic.copy_(before)
        self.optimizer.zero_grad()
        self._window_images, self._losses = 0, []

    def _require_loss_scale(self, batches: list[int]) -> None:
        """Raise NonFiniteError if fp16 has made the loss as small as it may. A GPU has to answer."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < MIN_LOSS_SCALE:
            raise NonFiniteError(
                batches, "the gradients stay infinite, however small the loss is made for fp16"
            )

    def record_validation(self, ap: float | None) -> bool:
        """Note an epoch's validation AP in [0, 1] (None = undefined); True when it is the best."""
        if ap is not None and (self.best_ap is None or ap > self.best_ap):
            self.best_ap, self.epochs_since_best = ap, 0
            return True
        self.epochs_since_best += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return all that training needs to resume, the same in all processes. Collective.

        Tensors and plain Python values only.

        Raises:
            NonFiniteError: training has gone wrong, and the state is not worth keeping.
        """
        self.guard.settle()
        self._require_loss_scale([self.step])
        ddp.average_statistics(self.model)
        require_finite(self.model.state_dict(), self.step)
        return {
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": copy.deepcopy(self.optimizer.state_dict()),
            "scaler_state": self.scaler.state_dict(),
            "epoch": self.epoch,
            "loss": self.mean_loss(),
            "step": self.step,
            "batch": self.batch,
            "validated_step": self.validated_step,
            "skipped_steps": self.guard.skipped,
            "best_ap": self.best_ap,
            "epochs_since_best": self.epochs_since_best,
            "model_config": self.config.to_dict(),
            **ddp.rng_states(),
            "options": self.opt.to_dict(),
            "versions": versions(),
        }

    def _lay_out_moments(self) -> None:
        """Give loaded moments their parameters' memory layout, without which fused Adam mixes them.

        Raises:
            KeyError, AttributeError, ValueError: a moment is missing or does not fit its parameter.
        """
        for parameter, moments in self.optimizer.state.items():
            count = parameter.new_zeros(())
            for name, like in (("step", count), ("exp_avg", parameter), ("exp_avg_sq", parameter)):
                if moments[name].shape != like.shape:
                    raise ValueError(
                        f"{name} has shape {[*moments[name].shape]}, not {[*like.shape]}"
                    )
                moments[name] = torch.empty_like(like).copy_(moments[name])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict` (with --new_optim: without the optimizer's state).

        Args:
            state: see `training.resume.check_resumable`.

        Raises:
            UserError: the checkpoint is of another optimizer, or its state is damaged.
        """
        optim = state["options"].get("optim")
        if optim != self.opt.optim and not self.opt.new_optim:
            raise UserError(
                f"--optim {self.opt.optim}: the checkpoint's is {optim}; add --new_optim to start"
                " a fresh one"
            )
        self.model.load_state_dict(state["model_state_dict"])
        try:
            if not self.opt.new_optim:
                self.optimizer.load_state_dict(state["optimizer_state_dict"])
                self._lay_out_moments()
                self.scaler.load_state_dict(state["scaler_state"])
            ddp.set_rng_states(state, self.opt.seed)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise UserError(
                "--continue_train: the state of the optimizer or of the random numbers is"
                f" damaged ({first})"
            ) from None
        for key in ("epoch", "step", "batch", "validated_step", "best_ap", "epochs_since_best"):
            setattr(self, key, state[key])
        self.guard.skipped = state["skipped_steps"]
        self.loss = torch.tensor(state["loss"], device=self.device)
        self._share = 1 / distributed.world_size()
