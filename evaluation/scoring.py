"""Run a model over images and collect its `Scores`."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

import distributed
from data.batches import Batch
from data.loader import ImageLoader, create_dataloader
from device import autocast_dtype, computing
from evaluation.metrics import binary_metrics
from evaluation.scores import Scores
from networks.factory import size_problem, too_small
from networks.multiscale_npr import AttentionMultiScaleNPR


class Validation(NamedTuple):
    """Validation result: metrics in [0, 1] (None where undefined), labels [N] and scores [N]."""

    acc: float | None
    ap: float | None
    real_acc: float | None
    fake_acc: float | None
    labels: NDArray
    scores: NDArray


def predict(
    model: nn.Module, loader: ImageLoader, precision: str = "fp32", progress: str | None = None
) -> Scores:
    """Score the images of a loader (the first of its variants); see `predict_variants`."""
    return predict_variants(model, loader, precision, progress)[0]


@torch.inference_mode()
def predict_variants(
    model: nn.Module,
    loader: ImageLoader,
    precision: str = "fp32",
    progress: str | None = None,
    forward: nn.Module | None = None,
) -> list[Scores]:
    """Run a model in evaluation mode over a loader, on the device where the model is.

    The model's mode is restored afterwards. Collective, see `distributed`.

    Args:
        model: the detector.
        loader: batches of images.
        precision: see --precision.
        progress: label of a progress bar (shown on terminals only), None for no bar.
        forward: faster equivalent that takes pixels (see `networks.fast.InferenceModel`); None for
            the model itself.

    Returns:
        `Scores` of each variant of the loader's images, with the loader's paths; the names of suite
        and generator are empty.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    run = forward if forward is not None else model
    scored: list[tuple[NDArray, ...]] = []
    unread: deque[tuple[tuple[torch.Tensor, ...], Any]] = deque()
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
                leave_out(loader, batch, why)
                continue
            with computing(precision, device):
                images = batch.pixels if forward is not None else loader.images(batch, device)
                try:
                    outputs = _outputs(run, images, isinstance(model, AttentionMultiScaleNPR))
                # a network of another library may raise anything where a size does not suit it
                except Exception as error:
                    why = size_problem(error, model, images, autocast_dtype(precision, device))
                    if why is None:
                        raise
                    leave_out(loader, batch, why)
                    continue
            columns = (batch.variants, batch.indices, batch.labels, *outputs)
            on_gpu = device.type == "cuda"
            copied = on_gpu and torch.cuda.current_stream(device).record_event()
            unread.append((columns, copied))
            # a GPU still computes this batch, so collect the one before
            if len(unread) > 1:
                scored.append(_finite(loader, *unread.popleft()))
        scored += [_finite(loader, *batch_outputs) for batch_outputs in unread]
    model.train(was_training)
    return _gathered(scored, loader)


def leave_out(loader: ImageLoader, batch: Batch, why: str) -> None:
    """Record all images of a batch as skipped."""
    for index, variant in zip(batch.indices.tolist(), batch.variants.tolist(), strict=True):
        loader.leave_out(loader.dataset.paths[index], why, variant)


def _outputs(run: nn.Module, images: torch.Tensor, has_attention: bool) -> tuple[torch.Tensor, ...]:
    """Return logits and, of a model with attention, attention and branch logits.

    Copies from a GPU have only started.
    """
    output, *attention = run(images, return_branches=True) if has_attention else (run(images),)
    outputs = (output.flatten(), *attention)
    return tuple(values.to("cpu", non_blocking=True) for values in outputs)


def _finite(
    loader: ImageLoader, columns: tuple[torch.Tensor, ...], copied: Any
) -> tuple[NDArray, ...]:
    """Return the columns without images whose logit is not finite; the loader records those.

    Args:
        loader: records the skipped images.
        columns: variants, indices, labels, logits, attention and branch logits of one batch.
        copied: event of a GPU after which the columns are in memory; False for none.
    """
    if copied:
        copied.synchronize()
    arrays = _arrays(*columns)
    variants, indices, _, logits, *_ = arrays
    finite = np.isfinite(logits)
    for row in np.flatnonzero(~finite):
        loader.leave_out(
            loader.dataset.paths[indices[row]], "the model's score is not finite", variants[row]
        )
    return tuple(column[finite] for column in arrays)


def _arrays(*tensors: torch.Tensor) -> tuple[NDArray, ...]:
    """Return copies, because a tensor from a worker keeps a file of shared memory open."""
    return tuple((t.float() if t.is_floating_point() else t).cpu().numpy().copy() for t in tensors)


def _gathered(scored: list[tuple[NDArray, ...]], loader: ImageLoader) -> list[Scores]:
    """Return the scores of each variant, from the batches of all processes."""
    everywhere = distributed.gather((scored, loader.left_out_of))
    scored = [columns for part, _ in everywhere for columns in part]
    for variant, skipped in enumerate(loader.left_out_of):
        skipped |= {path: why for _, parts in everywhere for path, why in parts[variant].items()}
    return [
        _collect(scored, variant, loader.dataset.paths, dict(skipped))
        for variant, skipped in enumerate(loader.left_out_of)
    ]


def _collect(
    scored: list[tuple[NDArray, ...]], variant: int, paths: Sequence[str], skipped: dict[str, str]
) -> Scores:
    """Join the batches of one variant, in file order."""
    if not scored:
        nothing = np.zeros(0, dtype=np.int64)
        return Scores("", "", (), nothing, np.zeros(0, dtype=np.float32), skipped=skipped)
    variants, indices, *rest = (np.concatenate(column) for column in zip(*scored, strict=True))
    rows = np.flatnonzero(variants == variant)
    rows = rows[indices[rows].argsort()]
    labels, logits, *attention = (column[rows] for column in rest)
    weights, branches = attention if attention else (None, None)
    in_order = tuple(paths[index] for index in indices[rows])
    return Scores("", "", in_order, labels, logits, weights, branches, skipped)


def validate(model: nn.Module, opt: Any) -> Validation:
    """Score the images that the options name.

    Args:
        model: the detector.
        opt: TrainOptions for the images of --val_split, or TestOptions for all of --dataroot.

    Returns:
        `Validation`, which unpacks as acc, ap, real acc, fake acc, labels, scores.
    """
    loader = create_dataloader(opt, split=opt.val_split) if opt.isTrain else create_dataloader(opt)
    scored = predict(model, loader, opt.precision)
    metrics = binary_metrics(scored.labels, scored.scores)
    return Validation(
        metrics.acc, metrics.ap, metrics.real_acc, metrics.fake_acc, scored.labels, scored.scores
    )
