"""Build and initialise models from their configuration; try which images they take."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.modules.batchnorm import _BatchNorm

from device import is_out_of_memory
from networks.multiscale_npr import DEFAULT_SCALES, AttentionMultiScaleNPR
from networks.npr import reduced_size
from networks.resnet import LIGHT, NPRResNet, resnet50
from util import UserError, log

SINGLE_SCALE = "single_scale"
MULTISCALE = "multiscale_attention"
SIZE_PROBLEMS = ("pixels leave none at scale", "pixels are not taken by the network")
"""Reasons, after the size, why an image is skipped: the NPR scale, and the branches."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a model, stored in checkpoints; single-scale models use `model_type` only."""

    model_type: str = SINGLE_SCALE
    scales: tuple[float, ...] = (NPRResNet.scale,)
    feature_dim: int = 128
    attention_reduction: int = 4
    attention_residual: bool = False
    backbone: str = LIGHT

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"scales": list(self.scales)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Return the configuration that `to_dict` gave these values.

        Raises:
            TypeError, ValueError, KeyError: the values are not those of a model.
        """
        config = cls(**(values | {"scales": tuple(values["scales"])}))
        for field in fields(cls):
            value, kind = getattr(config, field.name), type(field.default)
            if type(value) is not kind:
                raise TypeError(f"{field.name} is a {type(value).__name__}")
        if not all(isinstance(scale, float) and 0 < scale < 1 for scale in config.scales):
            raise ValueError(f"scales are not numbers in (0, 1): {config.scales}")
        if config.feature_dim < 1 or config.attention_reduction < 1:
            raise ValueError("feature_dim and attention_reduction must be 1 or more")
        if len(config.backbone) > 100:
            raise ValueError(f"the backbone's name has {len(config.backbone):,} characters")
        return config


class ScaleFlags(Protocol):
    """Command-line options with the scales; further fields of `ModelFlags` may be missing."""

    @property
    def npr_scales(self) -> tuple[float, ...] | None: ...


class ModelFlags(ScaleFlags, Protocol):
    """Command-line options that choose an architecture; None = not on the command line."""

    @property
    def model_type(self) -> str | None: ...
    @property
    def feature_dim(self) -> int | None: ...
    @property
    def attention_reduction(self) -> int | None: ...
    @property
    def attention_residual(self) -> bool | None: ...
    @property
    def backbone(self) -> str | None: ...


def model_config(opt: ModelFlags) -> ModelConfig:
    """Return the architecture of these options, with the published default for each None."""
    if opt.model_type != MULTISCALE:
        return ModelConfig()
    return ModelConfig(
        model_type=MULTISCALE,
        scales=opt.npr_scales or DEFAULT_SCALES,
        feature_dim=opt.feature_dim or 128,
        attention_reduction=opt.attention_reduction or 4,
        attention_residual=bool(opt.attention_residual),
        backbone=opt.backbone or LIGHT,
    )


def refuse_contradictions(config: ModelConfig, flags: ScaleFlags, path: Path) -> None:
    """Refuse flags that contradict a checkpoint's architecture.

    Raises:
        UserError: with the flag, its value and the value in the file.
    """
    if (
        config.model_type == SINGLE_SCALE
        and getattr(flags, "model_type", None) != MULTISCALE
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
        value, stored = getattr(flags, flag, None), getattr(config, name)
        if value is not None and value != stored:
            shown = [",".join(map(str, v)) if isinstance(v, tuple) else v for v in (value, stored)]
            raise UserError(
                f"--{flag} {shown[0]}: contradicts {path}, which has {shown[1]}; leave the flag out"
            )


def build_model(config: ModelConfig) -> nn.Module:
    """Return a newly initialised model of this architecture, with one output."""
    if config.model_type == SINGLE_SCALE:
        return resnet50(num_classes=1)
    if config.model_type != MULTISCALE:
        raise ValueError(f"unknown model type {config.model_type!r}")
    return AttentionMultiScaleNPR(
        num_classes=1,
        scales=config.scales,
        feature_dim=config.feature_dim,
        reduction=config.attention_reduction,
        residual=config.attention_residual,
        backbone=config.backbone,
    )


def initialize_weights(model: nn.Module, init_type: str, gain: float) -> None:
    """Initialise all convolution, linear and BatchNorm layers, as pix2pix does.

    Biases become 0. BatchNorm scales are drawn from a normal distribution around 1 with standard
    deviation `gain`.

    Args:
        model: changed in place.
        init_type: normal (standard deviation = gain), xavier, kaiming (ignores the gain) or
            orthogonal.
        gain: scaling factor, > 0.
    """
    draw = {
        "normal": lambda weight: init.normal_(weight, 0.0, gain),
        "xavier": lambda weight: init.xavier_normal_(weight, gain=gain),
        "kaiming": lambda weight: init.kaiming_normal_(weight, a=0, mode="fan_in"),
        "orthogonal": lambda weight: init.orthogonal_(weight, gain=gain),
    }[init_type]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.normal_(module.weight, 1.0, gain)
            init.zeros_(module.bias)


def create_model(opt: ModelFlags, config: ModelConfig | None = None) -> nn.Module:
    """Return a newly initialised model for these options.

    Args:
        opt: with --init_type and --init_gain, see `initialize_weights`.
        config: architecture; None = `model_config(opt)`.
    """
    model = build_model(config or model_config(opt))
    init_type, init_gain = getattr(opt, "init_type", None), getattr(opt, "init_gain", None)
    if init_type is not None or init_gain is not None:
        initialize_weights(model, init_type or "normal", init_gain or 0.02)
    return model


def too_small(model: nn.Module, images: Tensor) -> str | None:
    """Return the reason why images are too small for the model, None if they are not.

    Args:
        model: its smallest NPR scale must leave at least one pixel.
        images: [..., 3, H, W].
    """
    height, width = images.shape[-2:]
    smallest = min(getattr(model, "scales", (NPRResNet.scale,)))
    if reduced_size(min(height, width), smallest) >= 1:
        return None
    return f"{width}x{height} {SIZE_PROBLEMS[0]} {smallest:g}"


@torch.no_grad()
def trial_problem(
    model: nn.Module,
    height: int,
    width: int,
    images: int = 2,
    dtype: torch.dtype | None = None,
) -> str | None:
    """Return the reason why a model does not take images of a size, None if it does.

    Black images pass through it, in the mode that it is in. BatchNorm's statistics and random
    numbers stay as they are.

    Args:
        model: the detector, alone (not one of several processes).
        height: of the images in pixels.
        width: of the images in pixels.
        images: of the batch.
        dtype: of autocast, None for fp32.

    Raises:
        RuntimeError: out of memory.
    """
    parameter = next(model.parameters())
    device = parameter.device
    black = torch.zeros(images, 3, height, width, device=device, dtype=parameter.dtype)
    if (why := too_small(model, black)) is not None:
        return why
    before = [statistic.clone() for statistic in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.autocast(device.type, dtype=dtype, enabled=dtype is not None),
        ):
            logits = model(black)
        if logits.shape == (images, 1):
            return None
        problem = f"logits of shape {list(logits.shape)}"
    # a network of another library may raise anything
    except Exception as error:
        if is_out_of_memory(error):
            raise
        problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
    finally:
        for statistic, value in zip(model.buffers(), before, strict=True):
            statistic.copy_(value)
    return f"{width}x{height} {SIZE_PROBLEMS[1]} ({problem})"


def size_problem(
    error: Exception, model: nn.Module, images: Tensor, dtype: torch.dtype | None
) -> str | None:
    """Return why a model failed on images of this size, None if the error has another cause.

    Args:
        error: what the model raised.
        model: see `trial_problem`.
        images: [B, 3, H, W].
        dtype: see `trial_problem`.
    """
    height, width = images.shape[-2:]
    return None if is_out_of_memory(error) else trial_problem(model, height, width, dtype=dtype)


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm use its running statistics, and leave them alone, in a block of training."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
