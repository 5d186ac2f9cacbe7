"""Scores of a model on images, and the figures that follow from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from data import create_dataloader, evaluation_loader
from data.datasets import ImageLoader
from data.layouts import ImageSet
from data.protocols import evaluation_protocol
from data.transforms import Protocol
from evaluation.metrics import Metrics, binary_metrics
from networks.checkpoint import LoadedModel
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import reduced_size
from networks.resnet import NPRResNet
from util import autocast_dtype, choose_device


@dataclass(frozen=True)
class Predictions:
    """What a model said, in the order of the loader's files, without those left out.

    Args:
        indices: [N] into the loader's paths. labels: [N], 0 real, 1 generated. logits: [N]. attention_weights: [N, S],
            None for models without attention. left_out: path -> reason.
    """

    indices: NDArray
    labels: NDArray
    logits: NDArray
    attention_weights: NDArray | None
    left_out: dict[str, str]

    @property
    def scores(self) -> NDArray:
        """Sigmoid of the logits: [N] in [0, 1], the score for generated."""
        return torch.from_numpy(self.logits).sigmoid().numpy()


class Validation(NamedTuple):
    """acc, ap, real acc, fake acc in [0, 1] (None where undefined); labels [N] and scores [N]."""

    acc: float | None
    ap: float | None
    real_acc: float | None
    fake_acc: float | None
    labels: NDArray
    scores: NDArray


@torch.inference_mode()
def predict(model: nn.Module, loader: ImageLoader, precision: str = "fp32", progress: str | None = None) -> Predictions:
    """Run a model in evaluation mode (its mode is put back) over a loader, on the device where the model is.

    Args:
        precision: see --precision. progress: label of a progress bar (shown on terminals only), None for none.
    """
    device = next(model.parameters()).device
    dtype = autocast_dtype(precision, device)
    was_training = model.training
    model.eval()
    indices, labels, logits, attention = [], [], [], []
    for step in tqdm(
        loader.steps(), total=len(loader), desc=progress, disable=None if progress else True, leave=False, unit="batch"
    ):
        for batch in step:
            if (why := too_small(model, batch.images)) is not None:
                for index in batch.indices.tolist():
                    loader.leave_out(loader.dataset.paths[index], why)
                continue
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                images = batch.images.to(device, non_blocking=True)
                if isinstance(model, AttentionMultiScaleNPR):
                    output, weights = model(images, return_attention=True)
                    attention.append(weights.float().cpu())
                else:
                    output = model(images)
            logits.append(output.float().flatten().cpu())
            labels.append(batch.labels)
            indices.append(batch.indices)
    model.train(was_training)
    if not logits:
        nothing = np.zeros(0, dtype=np.int64)
        return Predictions(nothing, nothing, np.zeros(0, dtype=np.float32), None, dict(loader.left_out))
    order = torch.cat(indices).argsort()
    return Predictions(
        indices=torch.cat(indices)[order].numpy(),
        labels=torch.cat(labels)[order].numpy(),
        logits=torch.cat(logits)[order].numpy(),
        attention_weights=torch.cat(attention)[order].numpy() if attention else None,
        left_out=dict(loader.left_out),
    )


def too_small(model: nn.Module, images: torch.Tensor) -> str | None:
    """Why images [B, 3, H, W] leave no pixel at the model's smallest NPR scale; None if they do."""
    height, width = images.shape[-2:]
    smallest = min(getattr(model, "scales", (NPRResNet.scale,)))
    return (
        f"{width}x{height} pixels leave none at scale {smallest:g}"
        if reduced_size(min(height, width), smallest) < 1
        else None
    )


def validate(model: nn.Module, opt: Any) -> Validation:
    """Score the images that the options name: --val_split for TrainOptions, all of --dataroot for TestOptions.

    Returns:
        `Validation`, which unpacks as acc, ap, real acc, fake acc, labels, scores.
    """
    loader = create_dataloader(opt, split=opt.val_split) if opt.isTrain else create_dataloader(opt)
    predictions = predict(model, loader, opt.precision)
    figures = binary_metrics(predictions.labels, predictions.scores)
    return Validation(
        figures.acc, figures.ap, figures.real_acc, figures.fake_acc, predictions.labels, predictions.scores
    )


@dataclass(frozen=True)
class SetResult:
    """One set's figures and scores under the protocol that was used."""

    images: ImageSet
    protocol: Protocol
    predictions: Predictions
    metrics: Metrics


def trained_protocol(loaded: LoadedModel) -> Protocol:
    """The preprocessing that a checkpoint was trained with; the published normalisation where it does not say."""
    stored = loaded.meta.get("protocol")
    return Protocol.from_dict(stored) if stored else Protocol("published")


def evaluate_sets(loaded: LoadedModel, sets: list[ImageSet], opt: Any) -> Iterator[SetResult]:
    """Figures of one checkpoint on each set in turn, under the set's protocol (see `evaluation_protocol`).

    Args:
        opt: CheckpointOptions: protocol and geometry flags, batch size, precision, device.
    """
    loaded.model.to(choose_device(opt.gpu_ids))
    for images in sets:
        protocol = evaluation_protocol(trained_protocol(loaded), images.suite, opt)
        loader = evaluation_loader(images, protocol, opt.batch_size, opt.num_threads)
        predictions = predict(loaded.model, loader, opt.precision, progress=images.generator)
        figures = binary_metrics(predictions.labels, predictions.scores, loaded.meta.get("val_threshold"))
        yield SetResult(images, protocol, predictions, figures)


def relative_path(path: str, root: Path) -> str:
    """A file's path below the data root, with forward slashes."""
    return Path(path).relative_to(root).as_posix()


def pooled_metrics(results: list[SetResult]) -> Metrics:
    """Figures over the images of all sets together."""
    labels = np.concatenate([result.predictions.labels for result in results])
    scores = np.concatenate([result.predictions.scores for result in results])
    return binary_metrics(labels, scores, results[0].metrics.threshold)
