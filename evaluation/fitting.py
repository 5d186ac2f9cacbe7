"""Choose a protocol whose images a network takes."""

from data.protocols import trained_protocol
from data.transforms import Protocol
from networks.checkpoint import LoadedModel
from networks.factory import trial_problem
from networks.resnet import LIGHT
from util import log


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
