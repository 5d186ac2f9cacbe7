"""What is looked at during training: validation figures, and attention on a fixed batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import distributed
from data import create_dataloader, evaluation_loader
from data.image_sets import ImageSet, sample_evenly
from data.protocols import training_protocol
from evaluation.attention.statistics import group_statistics
from evaluation.metrics import Metrics, best_threshold, binary_metrics
from evaluation.scoring import predict
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import scale_keys, scale_label
from training.attention_watch import AttentionWatch
from training.event_log import EventLog
from util import log

ATTENTION_IMAGES = 64
FIXED, VALIDATION = "attention", "attention_validation"
"""Tags of the attention on the fixed images, every few epochs, and on the whole val split, after
every epoch."""


@dataclass(frozen=True)
class ValidationResult:
    """Figures of one validation pass and the threshold that it suggests (None with one class)."""

    metrics: Metrics
    threshold: float | None


class Monitor:
    """Validates on the val split, and follows the attention there and on up to 64 fixed images of
    it, half of them generated.

    Of several processes, each scores its part, and all get the same figures: its methods are
    collective (see `distributed`).

    Args:
        opt: TrainOptions. writer: where figures go.

    Attributes:
        watch: warns of attention that does nothing.
    """

    def __init__(self, opt: Any, writer: EventLog) -> None:
        self.opt, self.writer, self.watch = opt, writer, AttentionWatch(opt.attention_patience)
        self.loader = create_dataloader(opt, split=opt.val_split)
        found = self.loader.dataset
        if len(set(found.labels)) < 2:
            log.warning(
                "%s/ has one class: AP is undefined there, so no best checkpoint can be chosen",
                opt.val_split,
            )
        fixed = sample_evenly(
            ImageSet("", "", tuple(found.paths), tuple(found.labels)), ATTENTION_IMAGES, opt.seed
        )
        self.fixed_batch = evaluation_loader(
            fixed,
            training_protocol(opt),
            min(opt.batch_size, ATTENTION_IMAGES),
            on_bad_image=opt.on_bad_image,
        )

    def validate(self, model: nn.Module, step: int, epoch: int) -> ValidationResult:
        """Figures on the whole val split, written to TensorBoard at this step; the first process'
        in all of them.

        Args:
            epoch: finished epochs, written beside them, so that they can be drawn over epochs.
        """
        said = predict(model, self.loader, self.opt.precision, progress="validation")
        threshold = best_threshold(said.labels, said.scores)
        metrics = binary_metrics(said.labels, said.scores, threshold)
        for tag, value in (
            ("epoch", epoch),
            ("accuracy", metrics.acc),
            ("ap", metrics.ap),
            ("auc", metrics.auc),
        ):
            if value is not None:
                self.writer.add_scalar(tag, value, step)
        if (
            said.attention_weights is not None
            and len(said.labels)
            and isinstance(model, AttentionMultiScaleNPR)
        ):
            self._write_attention(VALIDATION, said.attention_weights, model.scales, step)
            warning = self.watch.after_epoch(said.attention_weights, model.scales)
            if warning:
                log.warning("%s", warning)
        return distributed.from_first(ValidationResult(metrics, threshold))

    def log_attention(self, model: nn.Module, step: int) -> None:
        """Mean, standard deviation, histogram and entropy of the attention on the fixed batch, to
        TensorBoard and the log."""
        if not isinstance(model, AttentionMultiScaleNPR):
            return
        weights = predict(model, self.fixed_batch, self.opt.precision).attention_weights
        assert weights is not None
        found = self._write_attention(FIXED, weights, model.scales, step)
        shown = ", ".join(
            f"{scale_label(key)} {of_scale['mean']:.3f} ± {of_scale['std']:.3f}"
            for key, of_scale in found["scales"].items()
        )
        entropy, largest = found["entropy"]["mean"], np.log(len(model.scales))
        log.info("attention on %d validation images: %s; entropy %.3f of %.3f nats",
                 found["count"], shown, entropy, largest)  # fmt: skip

    def _write_attention(
        self, of: str, weights: NDArray, scales: Sequence[float], step: int
    ) -> dict[str, Any]:
        found = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
        for (key, of_scale), values in zip(found["scales"].items(), weights.T, strict=True):
            self.writer.add_scalar(f"{of}/mean_{key}", of_scale["mean"], step)
            self.writer.add_scalar(f"{of}/std_{key}", of_scale["std"], step)
            self.writer.add_histogram(f"{of}/{key}", values, step)
        self.writer.add_scalar(f"{of}/entropy", found["entropy"]["mean"], step)
        return found
