"""Start a training from the weights of a checkpoint (--init_from)."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

import distributed
from networks.checkpoint import read_weights
from util import UserError, log

NAMED = 5  # tensors that the log names


def load_initial_weights(model: nn.Module, scales: Sequence[float], path: Path) -> None:
    """Copy the tensors of a checkpoint that fit into a model; log the names of the others.

    Collective, see `distributed`.

    Args:
        model: the new model.
        scales: its scales; a warning says where branches start from those of other scales.
        path: the checkpoint.

    Raises:
        UserError: it cannot be read, or no tensor fits.
    """
    weights, stored = distributed.by_first(lambda: read_weights(path, "--init_from"))
    wanted = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in wanted and wanted[name].shape == value.shape
    }
    if not fitting:
        raise UserError(
            f"--init_from {path}: none of its {len(weights)} tensors fits this model; check"
            " --model_type, --npr_scales, --feature_dim and --backbone"
        )
    model.load_state_dict(fitting, strict=False)
    texts = [f"{len(fitting)} of {len(wanted)} tensors loaded"]
    if new := [name for name in wanted if name not in fitting]:
        texts.append(f"newly initialised: {_named(new)}")
    if unused := [name for name in weights if name not in fitting]:
        texts.append(f"do not fit: {_named(unused)}")
    log.info("--init_from %s: %s", path, "; ".join(texts))
    if pairs := [
        f"{new:g} from {old}" for new, old in zip(scales, stored, strict=False) if new != old
    ]:
        log.warning("--init_from %s: branches by position: %s", path, ", ".join(pairs))


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED])[:300] + more
