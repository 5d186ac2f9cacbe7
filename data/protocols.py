"""Which preprocessing applies: the training protocol of a run, and the evaluation protocols by name
and by suite."""

import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from data.benchmarks import DATA, SUITES
from data.degradations import available_jpeg_methods
from data.transforms import Augmentation, Protocol
from util import UserError, log

TRAIN_RESIZE = 256
TRAIN_CROP = 224

PUBLISHED = "published"
"""The name that stands for each suite's own protocol, and native size for an unknown suite."""


def _protocol(name: str, values: dict[str, Any]) -> Protocol:
    return Protocol(name, **{key: value for key, value in values.items() if key != "about"})


EVALUATION_PROTOCOLS = {name: _protocol(name, values) for name, values in DATA["protocols"].items()}
"""By name, from benchmarks.toml."""

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
"""What --data_aug stands for: Blur+JPEG (0.5) of Wang et al., CVPR 2020, arXiv 1912.11035."""


def training_protocol(opt: Any) -> Protocol:
    """The protocol that TrainOptions describe. By default the published one: resize 256, random
    crop 224, random flip."""
    augment = training_augmentation(opt)
    plain = replace(augment, flip=False) == Augmentation(flip=False)
    return Protocol(
        name="published-train" if plain else "published-train+augmentation",
        resize=None if opt.no_resize else opt.loadSize or TRAIN_RESIZE,
        crop=None if opt.no_crop else opt.cropSize or TRAIN_CROP,
        interpolation=opt.rz_interp,
        augment=augment,
    )


def training_augmentation(opt: Any) -> Augmentation:
    """The random changes that TrainOptions ask for; --data_aug sets what the single flags leave
    open."""
    defaults = DATA_AUGMENTATION if opt.data_aug else NO_AUGMENTATION
    given = {name: getattr(opt, name) for name in defaults}
    chosen = {name: defaults[name] if value is None else value for name, value in given.items()}
    methods = available_jpeg_methods(opt.jpg_method)
    if methods != opt.jpg_method and chosen["jpg_prob"] > 0:
        log.warning(
            "--jpg_method %s: OpenCV is not installed, compressing with %s",
            ",".join(opt.jpg_method),
            methods[0],
        )
    return Augmentation(
        flip=not opt.no_flip,
        blur_prob=chosen["blur_prob"],
        blur_sigma=chosen["blur_sig"],
        jpeg_prob=chosen["jpg_prob"],
        jpeg_quality=chosen["jpg_qual"],
        jpeg_methods=methods,
        degrade=opt.degrade,
    )


def evaluation_protocol(trained: Protocol, suite: str, opt: Any) -> Protocol:
    """Geometry for one suite, normalisation of the trained protocol.

    Geometry comes from, in this order: the flags --loadSize, --cropSize, --no_resize, --no_crop,
    --rz_interp; --protocol; the suite's published protocol; native size for an unknown suite.

    Raises:
        UserError: --protocol is unknown.
    """
    name = known_protocol(opt.protocol) or PUBLISHED
    if name == PUBLISHED:
        name = SUITES[suite].protocol if suite in SUITES else "native"
    protocol = EVALUATION_PROTOCOLS[name]
    changes: dict[str, Any] = {}
    if opt.loadSize is not None or opt.no_resize:
        changes["resize"] = opt.loadSize
    if opt.cropSize is not None or opt.no_crop:
        changes["crop"] = opt.cropSize
    resized = changes.get("resize", protocol.resize) is not None
    if resized and opt.rz_interp[0] != protocol.interpolation[0]:
        changes["interpolation"] = opt.rz_interp
    if changes:
        protocol = replace(protocol, name=f"{protocol.name}+flags", **changes)
    return trained.with_geometry_of(protocol)


def known_protocol(name: str | None) -> str | None:
    """The name of --protocol, None if it was not given.

    Raises:
        UserError: it is unknown.
    """
    if name not in (None, PUBLISHED, *EVALUATION_PROTOCOLS):
        raise UserError(
            f"--protocol {name}: unknown; one of {PUBLISHED}, {', '.join(EVALUATION_PROTOCOLS)}"
        )
    return name


def describe_protocols() -> str:
    """The table of --list_protocols: name, version, geometry."""
    by_suite = "; ".join(f"{suite.name}: {suite.protocol}" for suite in SUITES.values())
    rows = [[PUBLISHED, "", f"by suite ({by_suite}; others: native)"]]
    rows += [
        [name, f"v{values['version']}", values["about"]]
        for name, values in DATA["protocols"].items()
    ]
    return tabulate(rows, ["protocol", "version", "geometry"], maxcolwidths=[None, None, 80])


class Stored(typing.Protocol):
    """A checkpoint that holds values by name, such as `networks.checkpoint.LoadedModel`."""

    def stored(self, key: str, read: Callable[[Any], Any]) -> Any: ...


def trained_protocol(checkpoint: Stored) -> Protocol:
    """The preprocessing that a checkpoint was trained with; the published normalisation where it
    does not say.

    Raises:
        UserError: what it says is none.
    """
    return checkpoint.stored("protocol", Protocol.from_dict) or Protocol("published")
