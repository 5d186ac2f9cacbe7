"""Choose the preprocessing: training protocol of a run, evaluation protocols by name and suite."""

import typing
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from tabulate import tabulate

from data.augmentation import Augmentation
from data.benchmarks import DATA, SUITES
from data.degradations import available_jpeg_methods
from data.transforms import Protocol
from util import UserError, log

TRAIN_RESIZE = 256
TRAIN_CROP = 224

PUBLISHED = "published"  # of --protocol: the suite's own protocol, the default for other suites
NATIVE = "native"


def _protocol(name: str, values: dict[str, Any]) -> Protocol:
    return Protocol(name, **{key: value for key, value in values.items() if key != "about"})


EVALUATION_PROTOCOLS = {name: _protocol(name, values) for name, values in DATA["protocols"].items()}
"""Protocols by name, from benchmarks.toml."""

NO_AUGMENTATION: dict[str, Any] = {
    "blur_prob": 0.0,
    "blur_sig": (0.5,),
    "jpg_prob": 0.0,
    "jpg_qual": (75,),
}
DATA_AUGMENTATION: dict[str, Any] = {
    "blur_prob": 0.5,
    "blur_sig": (0.0, 3.0),
    "jpg_prob": 0.5,
    "jpg_qual": (30, 100),
}
"""Values of --data_aug: Blur+JPEG (0.5) of Wang et al., CVPR 2020, arXiv 1912.11035."""


def training_protocol(opt: Any) -> Protocol:
    """Return the protocol of these TrainOptions.

    By default it is the published one: resize 256, random crop 224, random flip.
    """
    augment = training_augmentation(opt)
    plain = replace(augment, flip=False) == Augmentation(flip=False)
    return Protocol(
        name="published-train" if plain else "published-train+augmentation",
        resize=None if opt.no_resize else opt.loadSize or TRAIN_RESIZE,
        crop=None if opt.no_crop else opt.cropSize or TRAIN_CROP,
        tile=opt.repeat_small,
        interpolation=opt.rz_interp,
        augment=augment,
    )


def training_augmentation(opt: Any) -> Augmentation:
    """Return the augmentation of these TrainOptions.

    --data_aug fills in the flags that are not set.
    """
    defaults = DATA_AUGMENTATION if opt.data_aug else NO_AUGMENTATION
    values = {name: getattr(opt, name) for name in defaults}
    chosen = {name: defaults[name] if value is None else value for name, value in values.items()}
    return Augmentation(
        flip=not opt.no_flip,
        blur_prob=chosen["blur_prob"],
        blur_sigma=chosen["blur_sig"],
        jpeg_prob=chosen["jpg_prob"],
        jpeg_quality=chosen["jpg_qual"],
        jpeg_methods=available_jpeg_methods(opt.jpg_method),
        degrade=opt.degrade,
    )


def evaluation_protocol(trained: Protocol, suite: str, opt: Any, default: str = NATIVE) -> Protocol:
    """Return a protocol with a suite's resize and crop, and the checkpoint's mean and std.

    The first of these that applies decides the geometry:

    1. --loadSize, --cropSize, --no_resize, --no_crop, --repeat_small, --rz_interp
    2. --protocol
    3. the suite's published protocol
    4. the default, for an unknown suite

    Args:
        trained: protocol of the checkpoint.
        suite: name of the suite.
        opt: options with these flags.
        default: name of a protocol, see `default_protocol`.

    Raises:
        UserError: --protocol is unknown.
    """
    name = known_protocol(opt.protocol) or PUBLISHED
    if name == PUBLISHED:
        name = SUITES[suite].protocol if suite in SUITES else default
    protocol = EVALUATION_PROTOCOLS[name]
    changes: dict[str, Any] = {}
    if opt.loadSize is not None or opt.no_resize:
        changes |= {"resize": opt.loadSize, "enlarge": 1.0}
    if opt.cropSize is not None or opt.no_crop:
        changes["crop"] = opt.cropSize
    if opt.repeat_small and changes.get("crop", protocol.crop) is None:
        warn_of_no_crop(protocol.name)
    elif opt.repeat_small and not protocol.tile:
        changes["tile"] = True
    resized = (
        changes.get("resize", protocol.resize) is not None
        or changes.get("enlarge", protocol.enlarge) != 1
    )
    if resized and opt.rz_interp[0] != protocol.interpolation[0]:
        changes["interpolation"] = opt.rz_interp
    if changes:
        protocol = replace(protocol, name=f"{protocol.name}+flags", **changes)
    return trained.with_geometry_of(protocol)


@cache
def warn_of_no_crop(protocol: str) -> None:
    """Warn, once per protocol, that --repeat_small has no effect."""
    text = "--repeat_small: without effect, protocol %s does not crop; add --cropSize"
    log.warning(text, protocol)


def known_protocol(name: str | None) -> str | None:
    """Return the value of --protocol; raise if it is unknown.

    Raises:
        UserError: the name is unknown.
    """
    if name not in (None, PUBLISHED, *EVALUATION_PROTOCOLS):
        raise UserError(
            f"--protocol {name}: unknown; pass one of"
            f" {PUBLISHED}, {', '.join(EVALUATION_PROTOCOLS)}"
        )
    return name


def describe_protocols() -> str:
    """Return the table of --list_protocols: name, version, geometry."""
    by_suite = "; ".join(f"{suite.name}: {suite.protocol}" for suite in SUITES.values())
    rows = [[PUBLISHED, "", f"by suite ({by_suite}; others: that of the calibration, or native)"]]
    rows += [
        [name, f"v{values['version']}", values["about"]]
        for name, values in DATA["protocols"].items()
    ]
    return tabulate(rows, ["protocol", "version", "geometry"], maxcolwidths=[None, None, 80])


class Stored(typing.Protocol):
    """A checkpoint that holds values by name, such as `networks.checkpoint.LoadedModel`."""

    def stored(self, key: str, read: Callable[[Any], Any]) -> Any: ...


def trained_protocol(checkpoint: Stored) -> Protocol:
    """Return the preprocessing of a checkpoint's training.

    Default: native size with ImageNet's mean and standard deviation, as published.

    Raises:
        UserError: the checkpoint's value is not a protocol.
    """
    return checkpoint.stored("protocol", Protocol.from_dict) or Protocol("published")


def default_protocol(checkpoint: Stored) -> str:
    """Return the name of the protocol that a checkpoint is calibrated for; else "native"."""

    def calibrated(values: dict[str, Any]) -> str:
        return str(values["protocol"]).rpartition(" v")[0]  # of "native v1"

    name = checkpoint.stored("calibration", calibrated)
    return name if name in EVALUATION_PROTOCOLS else NATIVE
