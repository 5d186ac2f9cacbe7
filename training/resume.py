"""Choose and check the checkpoint that a training resumes from."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.datasets import ImageDataset
from networks.checkpoint_file import (
    DamagedCheckpoint,
    previous_of,
    read_checkpoint,
    restore_previous,
)
from networks.factory import ModelConfig
from networks.run_folder import checkpoint_path
from options.flags import shown_value
from options.presets import NOT_THE_RECIPE
from options.train_options import TrainOptions
from util import UserError, log, writing

NUMBER, MAYBE = (float, int), (float, int, type(None))
# the parts that a checkpoint must have, and their types
KEYS: dict[str, type | tuple[type, ...]] = {
    "model_state_dict": dict, "optimizer_state_dict": dict, "model_config": dict, "rng_state": dict,
    "scaler_state": dict, "options": dict, "sampler_state": dict, "attention_watch": dict,
    "loss": NUMBER, "best_ap": MAYBE, "epoch": int, "step": int, "batch": int,
    "epochs_since_best": int, "validated_step": int, "skipped_steps": int,
}  # fmt: skip


class NotResumable(UserError):
    """A checkpoint from which this training cannot resume."""

    def __init__(self, what: str) -> None:
        super().__init__(f"--continue_train: {what}")


def checkpoint_to_continue(folder: Path, epoch: str) -> dict[str, Any] | None:
    """Read the checkpoint to resume from, or the previous one if that is damaged.

    The damaged file is renamed.

    Args:
        folder: of the run.
        epoch: see --epoch.

    Returns:
        Its content; None in a folder without checkpoints.

    Raises:
        UserError: the folder has only checkpoints of other epochs, or the usable ones are damaged.
    """
    path = checkpoint_path(folder, epoch)
    previous = previous_of(path)
    others = sorted(
        other.stem.removeprefix("model_epoch_")
        for other in folder.glob("model_epoch_*.pth")
        if other != path
    )
    if not path.is_file() and not previous.is_file():
        if others:
            raise UserError(f"--epoch {epoch}: not in {folder}; choose one of {', '.join(others)}")
        return None
    try:
        return read_checkpoint(path, "--continue_train")
    # missing or damaged
    except UserError as error:
        problem = str(error)
    hint = f"; try --epoch {' or '.join(others)}" if others else ""
    if not previous.is_file():
        raise UserError(problem + hint)
    try:
        values = read_checkpoint(previous, "--continue_train")
    except DamagedCheckpoint:
        raise UserError(f"{problem}, and {previous.name} is also damaged{hint}") from None
    with writing(folder):
        kept = restore_previous(path)
    log.warning(
        "%s; resuming from the previous checkpoint%s",
        problem,
        f" (the damaged file is now {kept})" if kept else "",
    )
    return values


def check_resumable(state: dict[str, Any], model: nn.Module, config: ModelConfig) -> None:
    """Check that a checkpoint has all parts that this model's training needs to resume.

    Args:
        state: content of the checkpoint.
        model: of this training.
        config: of this training.

    Raises:
        NotResumable: a part is missing, invalid, or of another model.
    """
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise NotResumable(
            f"the checkpoint has no {', '.join(missing)}, so it was not written by this train.py;"
            " start a new training without --continue_train"
        )
    for key, kind in KEYS.items():
        value = state[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise NotResumable(f"the checkpoint's {key} is a {type(value).__name__}")
        if kind is int and state[key] < 0:
            raise NotResumable(f"the checkpoint's {key} is negative")
    watch = state["attention_watch"]
    if not isinstance(watch.get("kind"), str) or type(watch.get("epochs")) is not int:
        raise NotResumable("the checkpoint's attention_watch is not a kind and a number of epochs")
    _check_model(state, model, config)


def _check_model(state: dict[str, Any], model: nn.Module, config: ModelConfig) -> None:
    try:
        stored = ModelConfig.from_dict(state["model_config"])
    except (TypeError, ValueError, KeyError) as error:
        raise NotResumable(f"the checkpoint's model_config describes no model ({error})") from None
    if stored != config:
        raise NotResumable(f"the checkpoint is a {stored}, but the flags ask for a {config}")
    weights = state["model_state_dict"]
    for name, value in model.state_dict().items():
        weight = weights.get(name)
        if not isinstance(weight, Tensor) or weight.shape != value.shape:
            raise NotResumable(f"the checkpoint's {name} does not fit the model")
        if not bool(torch.isfinite(weight).all()):
            raise NotResumable(f"the checkpoint's {name} is not finite")
    if len(weights) != len(model.state_dict()):
        raise NotResumable("the checkpoint has weights that the model does not have")


def warn_of_changed_options(before: dict[str, Any], opt: TrainOptions) -> None:
    """Warn of flags that had other values before, also when a preset sets them.

    Raises:
        UserError: --init_from names other weights than the run was started from.
    """
    if opt.init_from and opt.init_from != before.get("init_from"):
        raise UserError(
            f"--init_from {opt.init_from}: contradicts --continue_train, which resumes the run's own"
            " weights; pass one of them"
        )
    if changed := changed_options(before, opt):
        log.warning("--continue_train with other flags: %s", "; ".join(changed))


def changed_options(before: dict[str, Any], opt: TrainOptions) -> list[str]:
    """Return the flags of a recipe that had other values before, each in words."""
    return [
        f"--{name} was {shown_value(before[name])}, is {shown_value(value)}"
        for name, value in opt.to_dict().items()
        if name not in (*NOT_THE_RECIPE, "niter", "init_from")
        and name in before
        and before[name] != value
    ]


def order_of_images(opt: TrainOptions, dataset: ImageDataset) -> dict[str, Any]:
    """Return the flags and the digest of the files that determine the order of images."""
    digest = hashlib.sha256()
    for path, label in zip(dataset.paths, dataset.labels, strict=True):
        digest.update(os.fsencode(os.path.relpath(path, opt.dataroot)) + b"\0%d" % label)
    flags = {
        name: getattr(opt, name) for name in ("seed", "batch_size", "serial_batches", "class_bal")
    }
    return flags | {"images": digest.hexdigest()}


def check_order(state: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that the order of images is unchanged if a checkpoint is from within an epoch; else
    warn of other images.

    Args:
        state: content of the checkpoint.
        now: `order_of_images` of this training.

    Raises:
        NotResumable: the order has changed.
    """
    stored = state["sampler_state"]
    changed = [key for key in now if stored.get(key) != now[key]]
    if state["batch"] and changed:
        raise NotResumable(
            f"the checkpoint stopped within epoch {state['epoch'] + 1}, with other "
            f"{', '.join(changed)}; use those again, or skip the rest of the epoch with "
            f"--epoch_count {state['epoch'] + 2}"
        )
    if "images" in changed:
        log.warning(
            "--continue_train: --dataroot has other images or labels than before, so validation may"
            " see images that were trained on; where that matters, start without --continue_train"
        )
