"""Scores of a model on images."""

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn
from tqdm import tqdm

import distributed
from data import create_dataloader
from data.loader import ImageLoader
from device import autocast_dtype
from evaluation.metrics import binary_metrics
from networks.factory import too_small
from networks.multiscale_npr import AttentionMultiScaleNPR


@dataclass(frozen=True)
class Predictions:
    """What a model said, in the order of the loader's files, without those left out.

    Args:
        indices: [N] into the loader's paths. labels: [N], 0 real, 1 generated. logits: [N].
            attention_weights: [N, S], None for models without attention. left_out: path -> reason.
            branch_logits: [N, S], each branch's logit without bias (see
            `AttentionMultiScaleNPR.forward`), None for models without attention.
    """

    indices: NDArray
    labels: NDArray
    logits: NDArray
    attention_weights: NDArray | None
    left_out: dict[str, str]
    branch_logits: NDArray | None = None

    @property
    def scores(self) -> NDArray:
        """Sigmoid of the logits: [N] in [0, 1], the score for generated."""
        return expit(self.logits.astype(np.float64))


class Validation(NamedTuple):
    """acc, ap, real acc, fake acc in [0, 1] (None where undefined); labels [N] and scores [N]."""

    acc: float | None
    ap: float | None
    real_acc: float | None
    fake_acc: float | None
    labels: NDArray
    scores: NDArray


def predict(
    model: nn.Module, loader: ImageLoader, precision: str = "fp32", progress: str | None = None
) -> Predictions:
    """What a model says about the pictures of a loader (the first of its variants); see
    `predict_variants`."""
    return predict_variants(model, loader, precision, progress)[0]


@torch.inference_mode()
def predict_variants(
    model: nn.Module,
    loader: ImageLoader,
    precision: str = "fp32",
    progress: str | None = None,
    forward: nn.Module | None = None,
) -> list[Predictions]:
    """Run a model in evaluation mode (its mode is put back) over a loader, on the device where the
    model is.

    Args:
        precision: see --precision. progress: label of a progress bar (shown on terminals only),
            None for none.
        forward: computes from pixels what the model does, faster (see
            `networks.fast.InferenceModel`); None for the model itself.

    Returns:
        One `Predictions` per variant of the loader's pictures.
    """
    device = next(model.parameters()).device
    dtype = autocast_dtype(precision, device)
    was_training = model.training
    model.eval()
    run = forward if forward is not None else model
    said: list[tuple[NDArray, ...]] = []
    computing: deque[tuple[tuple[torch.Tensor, ...], Any]] = deque()
    total = distributed.share_of(len(loader.dataset) * len(loader.left_out_of))
    with tqdm(
        total=total,
        desc=progress,
        disable=distributed.no_bar() if progress else True,
        leave=False,
        unit="image",
    ) as bar:
        for batch in loader.full_batches(device):
            bar.update(len(batch.labels))
            if (why := too_small(model, batch.pixels)) is not None:
                for index, variant in zip(
                    batch.indices.tolist(), batch.variants.tolist(), strict=True
                ):
                    loader.leave_out(loader.dataset.paths[index], why, variant)
                continue
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                images = batch.pixels if forward is not None else loader.images(batch, device)
                if isinstance(model, AttentionMultiScaleNPR):
                    output, *attention = run(images, return_branches=True)
                else:
                    output, attention = run(images), []
            found = (
                batch.variants,
                batch.indices,
                batch.labels,
                *_on_the_way(output.flatten(), *attention),
            )
            computing.append(
                (found, device.type == "cuda" and torch.cuda.current_stream(device).record_event())
            )
            if len(computing) > 1:  # a GPU still computes these: take what it has done before
                said.append(_finite(loader, *computing.popleft()))
        said += [_finite(loader, *one) for one in computing]
    model.train(was_training)
    everywhere = distributed.gather((said, loader.left_out_of))
    said = [columns for part, _ in everywhere for columns in part]
    for variant, left_out in enumerate(loader.left_out_of):
        left_out |= {path: why for _, parts in everywhere for path, why in parts[variant].items()}
    return [
        _collect(said, variant, dict(left_out))
        for variant, left_out in enumerate(loader.left_out_of)
    ]


def _on_the_way(*outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Outputs whose copy from a GPU to pinned memory has been asked for; elsewhere as they are."""
    return tuple(output.to("cpu", non_blocking=True) for output in outputs)


def _finite(
    loader: ImageLoader, columns: tuple[torch.Tensor, ...], copied: Any
) -> tuple[NDArray, ...]:
    """Variants, indices, labels, logits, attention and branch logits of one batch, without images
    whose logit is not finite.

    Args:
        copied: event of a GPU after which the columns lie in memory; False for none.
    """
    if copied:
        copied.synchronize()
    found = _arrays(*columns)
    finite = np.isfinite(found[3])
    for row in np.flatnonzero(~finite):
        loader.leave_out(
            loader.dataset.paths[found[1][row]], "the model's score is not finite", found[0][row]
        )
    return tuple(column[finite] for column in found)


def _arrays(*tensors: torch.Tensor) -> tuple[NDArray, ...]:
    """Copies: a tensor from a worker keeps a file of shared memory open for as long as it lives."""
    return tuple((t.float() if t.is_floating_point() else t).cpu().numpy().copy() for t in tensors)


def _collect(
    said: list[tuple[NDArray, ...]], variant: int, left_out: dict[str, str]
) -> Predictions:
    """What was said about one variant, in the order of the files."""
    if not said:
        nothing = np.zeros(0, dtype=np.int64)
        return Predictions(nothing, nothing, np.zeros(0, dtype=np.float32), None, left_out)
    variants, indices, *rest = (np.concatenate(column) for column in zip(*said, strict=True))
    chosen = np.flatnonzero(variants == variant)
    chosen = chosen[indices[chosen].argsort()]
    labels, logits, *attention = (column[chosen] for column in rest)
    weights, branches = attention if attention else (None, None)
    return Predictions(indices[chosen], labels, logits, weights, left_out, branches)


def validate(model: nn.Module, opt: Any) -> Validation:
    """Score the images that the options name: --val_split for TrainOptions, all of --dataroot for
    TestOptions.

    Returns:
        `Validation`, which unpacks as acc, ap, real acc, fake acc, labels, scores.
    """
    loader = create_dataloader(opt, split=opt.val_split) if opt.isTrain else create_dataloader(opt)
    predictions = predict(model, loader, opt.precision)
    figures = binary_metrics(predictions.labels, predictions.scores)
    return Validation(
        figures.acc,
        figures.ap,
        figures.real_acc,
        figures.fake_acc,
        predictions.labels,
        predictions.scores,
    )
