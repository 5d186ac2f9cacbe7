"""Branches that turn one scale's residual into a feature vector: the light one, or any classifier
by name."""

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from networks.resnet import TwoStageTrunk
from util import UserError

LIGHT = "light"
BackboneFactory = Callable[[int], nn.Module]


class LightBranch(TwoStageTrunk):
    """Default branch: two BasicBlocks of 64 and two of 128 channels; residual [B, 3, H, W] ->
    features [B, feature_dim]."""

    def __init__(self, feature_dim: int = 128) -> None:
        super().__init__(BasicBlock, (2, 2))
        self.feature_proj = nn.Linear(self.out_features, feature_dim)

    def forward(self, residual: Tensor) -> Tensor:
        return self.feature_proj(self.pooled_features(residual))


def branch_factory(backbone: str | BackboneFactory) -> BackboneFactory:
    """A function feature_dim -> module that maps residuals [B, 3, H, W] to features [B,
    feature_dim].

    Args:
        backbone: 'light'; a torchvision classifier's name ('efficientnet_b0'); where torchvision
            has none of that name, a timm model's; or a callable that is already such a function.
            Weights are drawn at random.

    Raises:
        UserError: no such model, or timm is needed and not installed.
    """
    if callable(backbone):
        return backbone
    if backbone == LIGHT:
        return LightBranch
    if backbone in torchvision.models.list_models(module=torchvision.models):
        # these two have auxiliary outputs in training, which a branch has no use for
        extra = (
            {"aux_logits": False, "init_weights": True}
            if backbone in ("googlenet", "inception_v3")
            else {}
        )
        return lambda feature_dim: torchvision.models.get_model(
            backbone, weights=None, num_classes=feature_dim, **extra
        )
    return _timm_factory(backbone)


def _timm_factory(name: str) -> BackboneFactory:
    try:
        import timm
    except ImportError:
        raise UserError(
            f"--backbone {name}: torchvision has no such classifier; "
            "for timm's models run: pip install -r requirements-timm.txt"
        ) from None
    if not timm.is_model(name):
        raise UserError(
            f"--backbone {name}: neither torchvision nor timm has a model of that name; the default is {LIGHT}"
        )
    return lambda feature_dim: timm.create_model(name, pretrained=False, num_classes=feature_dim)
