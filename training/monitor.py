"""Per-epoch validation metrics and attention statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import distributed
from data.image_sets import ImageSet, sample_evenly
from data.loader import create_dataloader, evaluation_loader
from data.protocols import training_protocol
from evaluation.attention.groups import FIXED, VALIDATION, group_statistics
from evaluation.metrics import Metrics, best_threshold, binary_metrics
from evaluation.scoring import predict
from evaluation.usable import require_usable, unusable
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import scale_keys, scale_label
from options.train_options import TrainOptions
from training.event_log import VAL, EventLog
from training.warnings import AttentionWatch
from util import UserError, log

ATTENTION_IMAGES = 64  # in the fixed part of the val split


@dataclass(frozen=True)
class ValidationResult:
    """Metrics of one validation pass, and the best threshold on it (None with one class)."""

    metrics: Metrics
    threshold: float | None


class Monitor:
    """Validates on the val split and logs attention statistics on it and on a fixed part of it.

    The fixed part has up to `ATTENTION_IMAGES` images, half of them fake. With several processes,
    each scores its share, and all get the same metrics. Methods are collective, see `distributed`.

    Args:
        opt: TrainOptions.
        event_log: receives the metrics.
        refusal: see `require_usable`.

    Attributes:
        watch: warns of uniform or collapsed attention.
    """

    def __init__(
        self, opt: TrainOptions, event_log: EventLog, refusal: Callable[[Tensor], str | None]
    ) -> None:
        self.opt, self.event_log = opt, event_log
        self.watch = AttentionWatch(opt.attention_patience)
        self.loader = create_dataloader(opt, split=opt.val_split)
        self.place = f"--dataroot {opt.dataroot}: {opt.val_split}/"
        require_usable(self.loader, self.place, refusal)
        dataset = self.loader.dataset
        val_set = ImageSet("", "", tuple(dataset.paths), tuple(dataset.labels))
        self.fixed_loader = evaluation_loader(
            sample_evenly(val_set, ATTENTION_IMAGES, opt.seed),
            training_protocol(opt),
            min(opt.batch_size, ATTENTION_IMAGES),
            on_bad_image=opt.on_bad_image,
        )

    def validate(self, model: nn.Module, step: int, epoch: int) -> ValidationResult:
        """Score the val split and log the metrics.

        Args:
            model: the network.
            step: of training.
            epoch: number of finished epochs.

        Returns:
            The metrics of rank 0, in all processes.

        Raises:
            UserError: no image, or no image of a class, could be used.
        """
        outputs = predict(model, self.loader, self.opt.precision, progress="validation")
        dataset = self.loader.dataset
        if why := unusable(dataset.paths, dataset.labels, outputs.skipped):
            raise UserError(f"{self.place}: {why}")
        threshold = best_threshold(outputs.labels, outputs.scores)
        metrics = binary_metrics(outputs.labels, outputs.scores, threshold)
        logged = {"accuracy": metrics.acc, "ap": metrics.ap, "auc": metrics.auc}
        weights = outputs.attention
        if weights is not None and len(weights) and isinstance(model, AttentionMultiScaleNPR):
            logged |= self._attention_metrics(VALIDATION, weights, model.scales, step)
            warning = self.watch.after_epoch(weights, model.scales)
            if warning:
                log.warning("%s", warning)
        freq = self.opt.attention_log_freq
        if freq and (epoch - 1) % freq == 0:
            logged |= self._fixed_attention(model, step)
        self.event_log.add(VAL, step, epoch, logged)
        return distributed.from_first(ValidationResult(metrics, threshold))

    def _fixed_attention(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return and log the statistics of the attention on the fixed part."""
        if not isinstance(model, AttentionMultiScaleNPR):
            return {}
        weights = predict(model, self.fixed_loader, self.opt.precision).attention
        if weights is None:  # none of these images can be used
            return {}
        metrics = self._attention_metrics(FIXED, weights, model.scales, step)
        keys = scale_keys(model.scales)
        shown = ", ".join(
            f"{scale_label(key)} {metrics[f'{FIXED}/mean_{key}']:.3f}"
            f" ± {metrics[f'{FIXED}/std_{key}']:.3f}"
            for key in keys
        )
        log.info("attention on %d validation images: %s; entropy %.3f of %.3f nats",
                 len(weights), shown, metrics[f"{FIXED}/entropy"], np.log(len(keys)))  # fmt: skip
        return metrics

    def _attention_metrics(
        self, images: str, weights: NDArray, scales: Sequence[float], step: int
    ) -> dict[str, float]:
        """Return statistics of attention weights by metric name, and log their histograms.

        Args:
            images: `FIXED` or `VALIDATION`.
            weights: [N, S].
            scales: of the model, S numbers.
            step: of training.
        """
        statistics = group_statistics(weights, scale_keys(tuple(scales)), resamples=0)
        metrics = {f"{images}/entropy": statistics["entropy"]["mean"]}
        for (key, scale), values in zip(statistics["scales"].items(), weights.T, strict=True):
            metrics |= {f"{images}/mean_{key}": scale["mean"], f"{images}/std_{key}": scale["std"]}
            self.event_log.add_histogram(VAL, step, f"{images}/{key}", values)
        return metrics
