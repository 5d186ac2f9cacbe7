"""Evidence of a model in an image: per scale, class-activation maps in units of the logit.

Exact maps follow Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
A network that is not linear after its last feature map gets Grad-CAM (Selvaraju et al., ICCV 2017).

Grad-CAM is implemented here, because its library, grad-cam, needs OpenCV, clips every map at 0 and
stretches it to 0..1. Signs and scales could then not be compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.resnet import LightBranch, NPRResNet

Network = AttentionMultiScaleNPR | NPRResNet


def has_exact_maps(model: Network) -> bool:
    """Return True if the model's maps add up to its logits: single-scale, or light branches."""
    return isinstance(model, NPRResNet) or all(
        isinstance(branch, LightBranch) for branch in model.feature_branches
    )


def classifier(model: Network) -> nn.Linear:
    """Return the last layer, with the weights w and the bias b of `class_activation_maps`."""
    return model.fc1 if isinstance(model, NPRResNet) else model.classifier


def class_activation_maps(model: Network, images: Tensor, output: int = 0) -> Tensor:
    """Return the contribution of every position and scale to a logit, in evaluation mode.

    It is positive for fake.

    With F_s [C, h, w] the last feature map of scale s, W, c its projection, w, b the classifier and
    a_s the attention of the image (plus 1/S with a residual fusion; 1, and no projection, in the
    single-scale model),

        map_s(x, y) = a_s * (w . (W F_s(x, y) + c)),        logit = b + sum_s mean_xy map_s(x, y).

    The attention is treated as a constant: the maps do not contain the effect of its changes. A
    model without `has_exact_maps` gets `grad_cam`. Gradients and modes (training, evaluation) of
    the model stay as they are.

    Args:
        model: the detector.
        images: [B, 3, H, W], normalised.
        output: index of the logit, for a model with several.

    Returns:
        [B, S, h, w], about H/8 and W/8 for light branches and the single-scale model.
    """
    if not has_exact_maps(model):
        return grad_cam(model, images, output)
    branches = _branches(model)
    with torch.no_grad(), _evaluation(model, images), ExitStack() as stack:
        kept = [
            stack.enter_context(_outputs([branch.get_submodule("layer2")])) for branch in branches
        ]
        share = _share(model, images)
        maps = []
        for branch, (features,) in zip(branches, kept, strict=True):
            vectors = features.movedim(1, -1)  # [B, h, w, C]
            if isinstance(branch, LightBranch):
                vectors = branch.feature_proj(vectors)
            maps.append(vectors @ classifier(model).weight[output])
        return torch.stack(maps, dim=1) * share[:, :, None, None]


def grad_cam(
    model: Network, images: Tensor, output: int = 0, layers: Sequence[nn.Module] | None = None
) -> Tensor:
    """Return the Grad-CAM of each scale's part of a logit, a_s * (w . f_s), in evaluation mode.

    The attention a_s is treated as a constant. With A [K, h, w] the output of `layers[s]`,

        map_s = sum_k (sum_xy d part_s / d A_k(x, y)) A_k.

    This is Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2) times h * w, and not clipped,
    so that maps have units of the logit. The positive part is the Grad-CAM of "generated". The
    negative part is that of "real", whose logit is the negative one.

    If only the mean over positions and linear layers follow, it is the exact map without its
    constant. Otherwise the maps do not add up to the logit.

    Args:
        model: the detector.
        images: [B, 3, H, W], normalised.
        output: index of the logit, for a model with several.
        layers: one module within each branch, with output [B, K, h, w]; None = the last convolution
            to run in each branch with more than one position.

    Returns:
        [B, S, h, w], the size of the layers' output.

    Raises:
        ValueError: a branch has no such convolution.
    """
    branches = _branches(model)
    candidates = [[layer] for layer in layers or []] or [
        [module for module in branch.modules() if isinstance(module, nn.Conv2d)]
        for branch in branches
    ]
    with torch.enable_grad(), _evaluation(model, images), ExitStack() as stack:
        kept = [stack.enter_context(_outputs(modules)) for modules in candidates]
        # f_s, or the single-scale logits
        vectors = [stack.enter_context(_outputs([branch])) for branch in branches]
        # gradients start at the images, so that a model with frozen weights has them, too
        share = _share(model, images.detach().requires_grad_()).detach()
        maps = []
        for scale, (outputs, (vector,)) in enumerate(zip(kept, vectors, strict=True)):
            single = isinstance(model, NPRResNet)
            part = vector[:, output] if single else vector @ classifier(model).weight[output]
            wide = [
                features
                for features in outputs
                if features.ndim == 4 and features[0, 0].numel() > 1
            ]
            if not wide:
                raise ValueError(
                    "Grad-CAM needs a convolution with more than one position,"
                    " and a branch has none; use larger images"
                )
            (slope,) = torch.autograd.grad((share[:, scale] * part).sum(), wide[-1])
            maps.append((slope.sum(dim=(2, 3), keepdim=True) * wide[-1]).sum(dim=1).detach())
        return torch.stack(maps, dim=1)


def _branches(model: Network) -> list[nn.Module]:
    return [model] if isinstance(model, NPRResNet) else list(model.feature_branches)


def _share(model: Network, images: Tensor) -> Tensor:
    """Run the model; return the factors [B, S] of the scales' features in their sum."""
    if isinstance(model, NPRResNet):
        return torch.ones_like(model(images)[:, :1])
    _, attention = model(images, return_attention=True)
    return attention + 1 / len(model.scales) if model.attention_fusion.residual else attention


@contextmanager
def _evaluation(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Run a block in evaluation mode and full precision, then restore every module's mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.autocast(images.device.type, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the modules' outputs, in the order in which they run."""
    kept: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: kept.append(out))
        for module in modules
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Evidence:
    """Evidence in B images, in units of the logit, positive for fake.

    Args:
        adds: [B, S], part of each scale: logit = bias of the classifier + sum over the scales.
        maps: [B, S, h, w], see `class_activation_maps`.
        exact: True if the means of the maps are `adds`. Otherwise the maps are Grad-CAM, which
            shows the place but not the amount of evidence, and may even have the other sign.
    """

    adds: Tensor
    maps: Tensor
    exact: bool


@torch.no_grad()
def evidence(model: Network, images: Tensor) -> Evidence:
    """Return the evidence in images, for a model with one logit.

    A scale adds its branch's logit times its attention (plus 1/S with a residual fusion), see
    `AttentionMultiScaleNPR.forward`.

    Args:
        model: in evaluation mode.
        images: [B, 3, H, W], normalised.
    """
    maps = class_activation_maps(model, images)
    if has_exact_maps(model):
        return Evidence(maps.mean(dim=(2, 3)), maps, True)
    assert isinstance(model, AttentionMultiScaleNPR)
    _, attention, branch_logits = model(images, return_branches=True)
    share = attention + 1 / len(model.scales) if model.attention_fusion.residual else attention
    return Evidence(share * branch_logits, maps, False)
