"""Models from checkpoints: of this project, of the published NPR code, and of the earlier
multi-scale code.

Keys of a checkpoint of this project:
    model_state_dict, optimizer_state_dict, epoch (finished epochs), loss (of the last training
    batch), format, digest, model_config, protocol, val_threshold, val_metrics, step, batch,
    validated_step, best_ap, epochs_since_best, skipped_steps, scaler_state, rng_state,
    sampler_state, attention_watch, versions, options; of several processes also
    rng_states_of_others, a list; calibration, by tools.calibrate.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from networks.calibration import Calibration
from networks.checkpoint_file import read_checkpoint, state_dict_of
from networks.factory import (
    MULTISCALE,
    ModelConfig,
    ScaleFlags,
    build_model,
    refuse_contradictions,
)
from networks.model_folder import read_model_folder
from networks.multiscale_npr import DEFAULT_SCALES
from util import UserError, log

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedModel:
    """A model rebuilt from a file.

    Args:
        model: in evaluation mode, on the CPU.
        config: its architecture.
        path: the file, or the folder that tools.export wrote.
        sha256: of the file's bytes; of a folder, of its config.json, which holds that of its
            weights.
        meta: everything in the checkpoint beside the weights and the optimizer; of earlier code
            only epoch and loss.
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
    def trained_on(self) -> str:
        """--dataroot of the training, '' where the file does not say."""
        return str((self.meta.get("options") or {}).get("dataroot", ""))

    @property
    def name(self) -> str:
        """See `model_name`."""
        return model_name(self.path)

    def stored(self, key: str, read: Callable[[Any], T]) -> T | None:
        """Return what `read` makes of a value in the checkpoint; None where it is missing.

        Raises:
            UserError: `read` refuses it.
        """
        values = self.meta.get(key)
        if not values:
            return None
        try:
            return read(values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"--model_path {self.path}: its {key} is not valid ({str(error)[:300]})"
            ) from None


def model_name(path: Path) -> str:
    """Return a model's name in results: the run folder's, with the epoch unless it is 'last'.

    A file outside a run folder is named after itself, and so is a folder that tools.export wrote.
    """
    if path.is_dir():
        return path.resolve().name
    kind = path.stem.removeprefix("model_epoch_")
    if kind == path.stem:
        return path.stem
    folder = path.resolve().parent.name
    return folder if kind == "last" else f"{folder}_{kind}"


def load_model(path: str | Path, flags: ScaleFlags | None = None) -> LoadedModel:
    """Rebuild a model from its checkpoint alone.

    Args:
        path: a checkpoint of this project, of the published NPR code, or of the earlier multi-scale
            code; or a folder that tools.export wrote.
        flags: architecture flags of the command line, which must agree with the checkpoint (None =
            not given); the scales of a checkpoint that does not hold them are taken from there.

    Raises:
        UserError: see `read_checkpoint`, `read_model_folder`, `infer_config`,
            `refuse_contradictions`; or names or shapes differ, weights are not finite, or training
            made no step.
    """
    path = Path(path)
    values, sha256 = _read(path)
    weights = state_dict_of(values, path)
    own = "model_config" in values  # else keys may mean something else
    config = _stored_config(values, weights, path) if own else infer_config(weights, flags, path)
    if flags is not None:
        refuse_contradictions(config, flags, path)
    # a file of a few bytes could ask for a network of terabytes: first without memory
    with torch.device("meta"):
        _require_fit(_build(config, path), weights, path)
    model = _build(config, path)
    model.load_state_dict(weights)
    _require_finite(weights, path)
    meta = {
        key: value
        for key, value in values.items()
        if isinstance(key, str)
        and not key.endswith("state_dict")
        and (own or (key in ("epoch", "loss") and type(value) in (int, float)))
    }
    _check_meta(meta, path)
    if own and meta.get("step") == 0:
        raise UserError(
            f"--model_path {path}: was not trained, its weights are random (no optimizer step);"
            " train it further, or pass another checkpoint"
        )
    return LoadedModel(model.eval(), config, path, sha256, meta)


def _read(path: Path, flag: str = "--model_path") -> tuple[dict[str, Any], str]:
    """Return the content of a checkpoint or model folder, and its SHA-256."""
    if path.is_dir():
        return read_model_folder(path, flag)
    return read_checkpoint(path, flag), hashlib.sha256(path.read_bytes()).hexdigest()


def read_weights(path: Path, flag: str) -> tuple[dict[str, Tensor], list[float]]:
    """Return the weights of a checkpoint of any form, and its scales, empty if it names none.

    Args:
        path: as for `load_model`.
        flag: named in errors.

    Raises:
        UserError: it cannot be read, or holds no weights or such that are not finite.
    """
    values = _read(path, flag)[0]
    weights = state_dict_of(values, path, flag)
    _require_finite(weights, path, flag)
    config = values.get("model_config")
    scales = config.get("scales") if isinstance(config, dict) else None
    return weights, scales if isinstance(scales, list) else []


def _stored_config(values: dict[str, Any], weights: dict[str, Tensor], path: Path) -> ModelConfig:
    """Return the architecture that a checkpoint holds."""
    try:
        config = ModelConfig.from_dict(values["model_config"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"--model_path {path}: its model_config describes no model ({str(error)[:300]})"
        ) from None
    branches = _branch_count(weights)
    if config.model_type == MULTISCALE and len(config.scales) != branches:
        raise UserError(
            f"--model_path {path}: its model_config has {len(config.scales)} scales, its weights"
            f" {branches}"
        )
    return config


def infer_config(weights: dict[str, Tensor], flags: ScaleFlags | None, path: Path) -> ModelConfig:
    """Infer the architecture behind weights of the published or the earlier multi-scale code.

    The scales are not in the weights: they come from --npr_scales; left out, three branches mean
    the default scales.

    Raises:
        UserError: neither of the two networks, or the scales are needed and not given.
    """
    branches = _branch_count(weights)
    if not branches:
        with torch.device("meta"):
            wanted = build_model(ModelConfig()).state_dict().keys()
        if 2 * len(wanted & weights.keys()) > len(wanted):
            return ModelConfig()
        names = ", ".join([name for name in weights if name not in wanted][:3])[:300]
        raise UserError(f"--model_path {path}: weights of another network ({names}, ...)")
    heads = ("classifier.weight", "classifier.bias", "attention_fusion.attention_net.0.weight")
    if missing := [name for name in heads if name not in weights]:
        raise UserError(
            f"--model_path {path}: does not fit the model: missing {', '.join(missing)}"
        )
    scales = flags.npr_scales if flags is not None else None
    if scales is None:
        if branches != len(DEFAULT_SCALES):
            raise UserError(
                f"--npr_scales: missing; {path} has {branches} branches and does not say their"
                " scales; pass as many"
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


def _branch_count(weights: dict[str, Tensor]) -> int:
    """Return how many branches the multi-scale model of these weights has."""
    return len({name.split(".")[1] for name in weights if name.startswith("feature_branches.")})


def _build(config: ModelConfig, path: Path) -> nn.Module:
    try:
        return build_model(config)
    except (RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"--model_path {path}: its model cannot be built ({first})") from None


def _check_meta(meta: dict[str, Any], path: Path) -> None:
    """Refuse values beside the weights that are of another type than train.py writes."""
    number = (int, float, type(None))
    plain = (dict, type(None))
    kinds: dict[str, tuple[type, ...]] = {"epoch": (int, type(None)), "val_threshold": number}
    kinds |= {"loss": number, "protocol": plain, "options": plain, "calibration": plain}
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"--model_path {path}: its {key} is a {type(meta[key]).__name__}")
    copied = [meta.get(key) for key in ("epoch", "val_threshold", "options")]  # into metrics.json
    try:
        json.dumps(copied, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"--model_path {path}: its options or threshold are not plain values"
            f" ({str(error)[:300]})"
        ) from None


def _require_fit(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Refuse weights whose names or shapes differ from the model's, and list them."""
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


def _require_finite(weights: dict[str, Tensor], path: Path, flag: str = "--model_path") -> None:
    """Refuse NaN and infinite weights: their scores would mean nothing."""
    wrong = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{flag} {path}: holds NaN or infinite weights: {', '.join(wrong[:3])[:300]}{more}"
        )


def stored_calibration(loaded: LoadedModel) -> Calibration | None:
    """Return the calibration in a checkpoint; None where it is missing.

    Raises:
        UserError: it is not valid.
    """
    return loaded.stored("calibration", Calibration.from_dict)
