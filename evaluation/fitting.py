"""Choose the protocol of a suite for a checkpoint, and one whose images its network takes."""

from typing import Any

from data.protocols import default_protocol, evaluation_protocol, trained_protocol
from data.transforms import Protocol
from networks.checkpoint import LoadedModel
from networks.factory import trial_problem
from networks.resnet import LIGHT
from util import log


def suite_protocol(loaded: LoadedModel, suite: str, opt: Any) -> Protocol:
    """Return `evaluation_protocol` for a checkpoint, with its `default_protocol`."""
    trained, default = trained_protocol(loaded), default_protocol(loaded)
    return evaluation_protocol(trained, suite, opt, default)


def fitting_protocol(loaded: LoadedModel, protocol: Protocol) -> Protocol:
    """Return the protocol, or that of the training where the network takes that size only.

    A warning says so. The published network and light branches take every size; others are tried.

    Args:
        loaded: the checkpoint.
        protocol: to score with; at native size, the network must take a size of no special form.
    """
    own = trained_protocol(loaded).for_evaluation()
    own_side, side = own.crop or own.resize, protocol.crop or protocol.resize
    if loaded.config.backbone == LIGHT or own_side is None or side == own_side:
        return protocol
    side = side or own_side + 1
    if (why := trial_problem(loaded.model.eval(), side, side)) is None:
        return protocol
    log.warning(
        "%s takes images of one size (%s): scored with the protocol of its training, %s, resize %s,"
        " crop %s, instead of %s",
        *(loaded.path, why, own.label, own.resize, own.crop, protocol.label),
    )
    return own
