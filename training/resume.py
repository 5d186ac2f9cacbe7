"""What a checkpoint must hold for a training to go on from it; it may be of another run, of other
flags, or made up."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from networks.checkpoint_file import (
    DamagedCheckpoint,
    previous_of,
    read_checkpoint,
    restore_previous,
)
from networks.factory import ModelConfig
from networks.run_folder import checkpoint_path
from util import UserError, log, writing

COUNTS = ("epoch", "step", "batch", "epochs_since_best")
NEEDED = ("model_state_dict", "optimizer_state_dict", "model_config", "rng_state", "scaler_state",
          "options", "loss", "best_ap", *COUNTS)  # fmt: skip


class NotResumable(UserError):
    """A checkpoint from which this training cannot go on."""

    def __init__(self, what: str) -> None:
        super().__init__(f"--continue_train: {what}")


def checkpoint_to_continue(folder: Path, epoch: str) -> dict[str, Any] | None:
    """The content of a run's checkpoint, or of the one before where that is damaged, which is put
    aside; None where there is none.

    Args:
        epoch: see --epoch.

    Raises:
        UserError: there are others only, or all that would do are damaged.
    """
    path = checkpoint_path(folder, epoch)
    others = sorted(
        found.stem.removeprefix("model_epoch_")
        for found in folder.glob("model_epoch_*.pth")
        if found != path
    )
    previous = previous_of(path)
    if not path.is_file() and not previous.is_file():
        if others:
            raise UserError(f"--epoch {epoch}: not in {folder}, which has {', '.join(others)}")
        return None
    try:
        if path.is_file():
            return read_checkpoint(path, "--continue_train")
        problem = f"--continue_train {path}: no such file"
    except DamagedCheckpoint as error:
        problem = str(error)
    hint = f"; there is also --epoch {' or '.join(others)}" if others else ""
    if not previous.is_file():
        raise UserError(problem + hint)
    try:
        values = read_checkpoint(previous, "--continue_train")
    except DamagedCheckpoint:
        raise UserError(f"{problem}, and {previous.name} is damaged, too{hint}") from None
    with writing(folder):
        kept = restore_previous(path)
    log.warning(
        "%s; going on from the one before it%s",
        problem,
        f" (the damaged file is now {kept})" if kept else "",
    )
    return values


def check_resumable(state: dict[str, Any], model: nn.Module, config: ModelConfig) -> None:
    """Raises NotResumable unless a checkpoint holds all that going on needs, for this model."""
    missing = [key for key in NEEDED if key not in state]
    if missing:
        raise NotResumable(
            f"the checkpoint has no {', '.join(missing)}; it was not written by train.py"
        )
    for key in ("model_state_dict", "optimizer_state_dict", "rng_state", "scaler_state", "options"):
        if not isinstance(state[key], dict):
            raise NotResumable(f"the checkpoint's {key} is a {type(state[key]).__name__}")
    for key in (*COUNTS, "validated_step", "skipped_steps"):
        if type(state.get(key, 0)) is not int or state.get(key, 0) < 0:
            raise NotResumable(f"the checkpoint's {key} is no number of {key.split('_')[-1]}s")
    for key, empty in (("loss", False), ("best_ap", True)):
        if not isinstance(state[key], float) and not (empty and state[key] is None):
            raise NotResumable(f"the checkpoint's {key} is a {type(state[key]).__name__}")
    watch = state.get("attention_watch", {"kind": "", "epochs": 0})
    if (
        not isinstance(watch, dict)
        or not isinstance(watch.get("kind"), str)
        or type(watch.get("epochs")) is not int
    ):
        raise NotResumable("the checkpoint's attention_watch is no kind and number of epochs")
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
        found = weights.get(name)
        if not isinstance(found, Tensor) or found.shape != value.shape:
            raise NotResumable(f"the checkpoint's {name} does not fit the model")
        if not bool(torch.isfinite(found).all()):
            raise NotResumable(f"the checkpoint's {name} is not finite")
    if len(weights) != len(model.state_dict()):
        raise NotResumable("the checkpoint has weights that the model has not")


def check_order(state: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises NotResumable where a checkpoint stopped within an epoch of other images, or of another
    order of them.

    Args:
        now: seed, batch_size, and what else decides the order of the images; earlier checkpoints do
            not hold all of it.
    """
    stored = state.get("sampler_state")
    if not isinstance(stored, dict):
        raise NotResumable("the checkpoint does not say in which order images came (sampler_state)")
    changed = [key for key in now if key in stored and stored[key] != now[key]]
    if state["batch"] and changed:
        raise NotResumable(
            f"the checkpoint stopped within epoch {state['epoch'] + 1}, with other {', '.join(changed)}; take up those, or leave"
            f" out the rest of the epoch by --epoch_count {state['epoch'] + 2}"
        )
