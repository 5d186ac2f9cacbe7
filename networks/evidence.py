"""How much each scale adds to a logit, and where in the image its evidence is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from networks.cam import Network, class_activation_maps, has_exact_maps
from networks.multiscale_npr import AttentionMultiScaleNPR


@dataclass(frozen=True)
class Evidence:
    """Of B images, in units of the logit, positive towards generated.

    Args:
        adds: [B, S], what each scale adds: logit = bias of the classifier + sum over the scales.
        maps: [B, S, h, w], see `networks.cam.class_activation_maps`.
        exact: whether the means of the maps are `adds`. Otherwise they are Grad-CAM, which shows
            where but not how much, and may even have the other sign.
    """

    adds: Tensor
    maps: Tensor
    exact: bool


@torch.no_grad()
def evidence(model: Network, images: Tensor) -> Evidence:
    """What a model with one logit, in evaluation mode, finds in images [B, 3, H, W], normalised as
    it takes them.

    A scale adds its branch's logit times its attention (plus 1/S with a residual fusion), see
    `AttentionMultiScaleNPR.forward`.
    """
    maps = class_activation_maps(model, images)
    if has_exact_maps(model):
        return Evidence(maps.mean(dim=(2, 3)), maps, True)
    assert isinstance(model, AttentionMultiScaleNPR)
    _, attention, branch_logits = model(images, return_branches=True)
    share = attention + 1 / len(model.scales) if model.attention_fusion.residual else attention
    return Evidence(share * branch_logits, maps, False)
