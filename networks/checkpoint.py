"""Models from checkpoints: of this project, of the published NPR code, and of the earlier
multi-scale code.

Keys of a checkpoint written here:
    model_state_dict, optimizer_state_dict, epoch (finished epochs), loss (of the last training
    batch), format, digest, model_config, protocol, val_threshold, val_metrics, step, batch,
    validated_step, best_ap, epochs_since_best, skipped_steps, rng_state, sampler_state, versions,
    options; of several processes also rng_states_of_others, a list; calibration, by
    tools.calibrate.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from networks.calibration import Calibration
from networks.checkpoint_file import read_checkpoint
from networks.factory import MULTISCALE, SINGLE_SCALE, ModelConfig, ModelFlags, build_model
from networks.model_folder import read_model_folder
from networks.multiscale_npr import DEFAULT_SCALES
from util import UserError, log

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedModel:
    """A model rebuilt from a file.

    Args:
        model: in evaluation mode, on the CPU. config: its architecture. path: the file; sha256: of
            its bytes; or the folder, and that of its config.json, which holds that of its weights.
        meta: everything in the checkpoint beside the weights and the optimizer; empty for the forms
            of earlier code.
    """

    model: nn.Module
    config: ModelConfig
    path: Path
    sha256: str
    meta: dict[str, Any]

    @property
    def epoch(self) -> int | None:
        """Finished epochs, None where the file does not say."""
        return self.meta.get("epoch")

    @property
    def name(self) -> str:
        """See `model_name`."""
        return model_name(self.path)

    def stored(self, key: str, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of a value in the checkpoint; None where there is none.

        Raises:
            UserError: `read` makes nothing of it.
        """
        values = self.meta.get(key)
        if not values:
            return None
        try:
            return read(values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"--model_path {self.path}: its {key} is none ({str(error)[:300]})"
            ) from None


def model_name(path: Path) -> str:
    """The run folder's name, with the epoch unless it is 'last'; a file outside a run folder is
    named after itself, and so is a folder that tools.export wrote."""
    if path.is_dir():
        return path.resolve().name
    kind = path.stem.removeprefix("model_epoch_")
    if kind == path.stem:
        return path.stem
    folder = path.resolve().parent.name
    return folder if kind == "last" else f"{folder}_{kind}"


def state_dict_of(values: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights in any form the published and the earlier multi-scale code wrote, without
    wrappers' name prefixes."""
    for key in ("model_state_dict", "model", "state_dict"):
        if isinstance(values.get(key), dict):
            values = values[key]
            break
    weights = {
        _plain_name(name): value
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not weights:
        raise UserError(f"--model_path {path}: holds no weights")
    return weights


def _plain_name(name: str) -> str:
    for prefix in ("module.", "_orig_mod."):
        while name.startswith(prefix):
            name = name.removeprefix(prefix)
    return name


def infer_config(weights: dict[str, Tensor], flags: ModelFlags | None, path: Path) -> ModelConfig:
    """The architecture behind weights that were saved without it.

    The scales are not in the weights: they come from --npr_scales; left out, three branches mean
    the default scales.

    Raises:
        UserError: neither of the two networks, or the scales are needed and not given.
    """
    if "fc1.weight" in weights:
        return ModelConfig()
    branches = branch_count(weights)
    if not branches or "classifier.weight" not in weights:
        found = ", ".join(list(weights)[:3])[:300]
        raise UserError(f"--model_path {path}: weights of another network ({found}, ...)")
    scales = flags.npr_scales if flags is not None else None
    if scales is None:
        if branches != len(DEFAULT_SCALES):
            raise UserError(
                f"--npr_scales: missing; {path} has {branches} branches and does not say their scales; give as many"
            )
        log.warning(
            "%s does not say its scales: taking 0.25,0.5,0.75 (--npr_scales says otherwise)", path
        )
        scales = DEFAULT_SCALES
    if len(scales) != branches:
        given = ",".join(f"{scale:g}" for scale in scales)
        raise UserError(
            f"--npr_scales {given}: {len(scales)} scales, but {path} has {branches} branches"
        )
    try:
        feature_dim = weights["classifier.weight"].shape[1]
        hidden = weights["attention_fusion.attention_net.0.weight"].shape[0]
        return ModelConfig(MULTISCALE, tuple(scales), feature_dim, feature_dim // hidden)
    except (KeyError, IndexError, ZeroDivisionError):
        raise UserError(f"--model_path {path}: weights of another multi-scale network") from None


def check_flags(config: ModelConfig, flags: ModelFlags, path: Path) -> None:
    """Refuse flags that contradict the checkpoint's architecture (UserError that names flag, value
    and what is in the file)."""
    if (
        config.model_type == SINGLE_SCALE
        and flags.model_type != MULTISCALE
        and flags.npr_scales is not None
    ):
        log.warning("--npr_scales: ignored, %s is a single_scale model", path)
    compared = (
        ("model_type",)
        if config.model_type == SINGLE_SCALE
        else tuple(f.name for f in fields(config))
    )
    for name in compared:
        flag = "npr_scales" if name == "scales" else name
        given, stored = getattr(flags, flag), getattr(config, name)
        if given is not None and given != stored:
            shown = [",".join(map(str, v)) if isinstance(v, tuple) else v for v in (given, stored)]
            raise UserError(
                f"--{flag} {shown[0]}: contradicts {path}, which has {shown[1]}; leave the flag out"
            )


def load_model(path: str | Path, flags: ModelFlags | None = None) -> LoadedModel:
    """Rebuild a model from its checkpoint alone.

    Args:
        path: a checkpoint of this project, of the published NPR code, or of the earlier multi-scale
            code; or a folder that tools.export wrote.
        flags: architecture flags of the command line, which must agree with the checkpoint (None =
            not given); the scales of a checkpoint that does not hold them are taken from there.

    Raises:
        UserError: see `read_checkpoint`, `read_model_folder`, `infer_config`, `check_flags`; or
            names or shapes differ (they are listed), or weights are not finite.
    """
    path = Path(path)
    values, sha256 = _read(path)
    weights = state_dict_of(values, path)
    config = _stored_config(values, weights, path) or infer_config(weights, flags, path)
    if flags is not None:
        check_flags(config, flags, path)
    # a file of a few bytes could ask for a network of terabytes: first without memory
    with torch.device("meta"):
        require_fit(_built(config, path), weights, path)
    model = _built(config, path)
    model.load_state_dict(weights)
    require_finite(weights, path)
    meta = {
        key: value
        for key, value in values.items()
        if isinstance(key, str) and not key.endswith("state_dict")
    }
    if "model_config" not in values:  # other programs' keys may mean something else
        meta = {key: value for key, value in meta.items() if key in ("epoch", "loss")}
    _check_meta(meta, path)
    return LoadedModel(model.eval(), config, path, sha256, meta)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a checkpoint or of a model folder, and its SHA-256."""
    if path.is_dir():
        return read_model_folder(path)
    return read_checkpoint(path), hashlib.sha256(path.read_bytes()).hexdigest()


def _stored_config(
    values: dict[str, Any], weights: dict[str, Tensor], path: Path
) -> ModelConfig | None:
    """The architecture that a checkpoint holds; None where it holds none."""
    if "model_config" not in values:
        return None
    try:
        config = ModelConfig.from_dict(values["model_config"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"--model_path {path}: its model_config describes no model ({str(error)[:300]})"
        ) from None
    branches = branch_count(weights)
    if config.model_type == MULTISCALE and len(config.scales) != branches:
        raise UserError(
            f"--model_path {path}: its model_config has {len(config.scales)} scales, its weights {branches}"
        )
    return config


def branch_count(weights: dict[str, Tensor]) -> int:
    """Branches of the multi-scale model that these weights are of."""
    return len({name.split(".")[1] for name in weights if name.startswith("feature_branches.")})


def _built(config: ModelConfig, path: Path) -> nn.Module:
    try:
        return build_model(config)
    except (RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"--model_path {path}: its model cannot be built ({first})") from None


def _check_meta(meta: dict[str, Any], path: Path) -> None:
    """Raises UserError where what is read from the checkpoint besides the weights is of another
    type than train.py writes."""
    number = (int, float, type(None))
    kinds = {"epoch": (int, type(None)), "val_threshold": number, "loss": number, "protocol": (dict, type(None)),
             "options": (dict, type(None)), "calibration": (dict, type(None))}  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"--model_path {path}: its {key} is a {type(meta[key]).__name__}")
    try:  # these are copied into the figures of a test
        json.dumps(
            [meta.get(key) for key in ("epoch", "val_threshold", "options")], allow_nan=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"--model_path {path}: its options or threshold are no plain values ({str(error)[:300]})"
        ) from None


def require_fit(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Raises UserError that says which names and shapes of weights differ from the model's."""
    wanted = model.state_dict()
    differences = [f"missing {name}" for name in wanted if name not in weights]
    differences += [f"unexpected {name}" for name in weights if name not in wanted]
    differences += [
        f"{name} is {list(weights[name].shape)} instead of {list(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise UserError(
            f"--model_path {path}: does not fit the model: {'; '.join(differences[:5])[:500]}{more}"
        )


def require_finite(weights: dict[str, Tensor], path: Path) -> None:
    """Raises UserError where weights are NaN or infinite: their scores would mean nothing."""
    wrong = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"--model_path {path}: holds NaN or infinite weights: {', '.join(wrong[:3])[:300]}{more}"
        )


def stored_calibration(loaded: LoadedModel) -> Calibration | None:
    """The calibration in a checkpoint; None where there is none.

    Raises:
        UserError: what is there is none.
    """
    return loaded.stored("calibration", Calibration.from_dict)
