"""The published single-scale NPR detector, and the branches of the multi-scale one.

Layers and parameter names of the published one follow Tan et al., CVPR 2024 (arXiv 2312.10461): one
residual at scale 0.5 into the first half of a ResNet-50. Residual blocks are torchvision's (He et
al., CVPR 2016), whose parameter names are the same.
"""

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from device import is_out_of_memory
from networks.npr import RESIDUAL_GAIN, npr_residual
from util import UserError

LIGHT = "light"
Block = type[BasicBlock] | type[Bottleneck]
BackboneFactory = Callable[[int], nn.Module]


def make_stage(
    block: Block, in_channels: int, planes: int, blocks: int, stride: int = 1
) -> nn.Sequential:
    """Return a ResNet stage of residual blocks that end with planes * block.expansion channels."""
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
        )
    first = block(in_channels, planes, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(1, blocks)))


class TwoStageTrunk(nn.Module):
    """Layers of both the single-scale model and the light branch.

    These are conv1 3x3 stride 2, max pooling, layer1, layer2, mean over positions.

    Maps residuals [B, 3, H, W] (already times `RESIDUAL_GAIN`) to features [B, 128 *
    block.expansion].
    """

    def __init__(self, block: Block, layers: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = make_stage(block, 64, 64, layers[0])
        self.layer2 = make_stage(block, 64 * block.expansion, 128, layers[1], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.out_features = 128 * block.expansion
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def pooled_features(self, residual: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, out_features]."""
        # published as pool(relu(x)): the same values and gradients, but here relu sees a quarter of
        # the pixels
        x = self.relu(self.maxpool(self.bn1(self.conv1(residual))))  # [B, 64, H/4, W/4]
        return self.avgpool(self.layer2(self.layer1(x))).flatten(1)


class NPRResNet(TwoStageTrunk):
    """Single-scale detector: normalised images [B, 3, H, W] -> logits [B, num_classes].

    They are positive for fake.
    """

    scale = 0.5

    def __init__(
        self, block: Block = Bottleneck, layers: tuple[int, int] = (3, 4), num_classes: int = 1
    ) -> None:
        super().__init__(block, layers)
        self.fc1 = nn.Linear(self.out_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        residual = npr_residual(images, self.scale) * RESIDUAL_GAIN
        return self.fc1(self.pooled_features(residual))


def resnet50(num_classes: int = 1) -> NPRResNet:
    """Return the published NPR network, with 1,437,761 parameters for one class.

    It carries the name under which it was published, but it is *not* a full ResNet-50: its first
    convolution is 3x3 instead of 7x7, it stops after the second of four stages (3 and 4 bottleneck
    blocks), and its input is the NPR residual at scale 0.5, which the network computes itself.
    There are no ImageNet weights for it.
    """
    return NPRResNet(Bottleneck, (3, 4), num_classes)


class LightBranch(TwoStageTrunk):
    """Default branch: two BasicBlocks of 64 and two of 128 channels.

    Residual [B, 3, H, W] -> features [B, feature_dim].
    """

    def __init__(self, feature_dim: int = 128) -> None:
        super().__init__(BasicBlock, (2, 2))
        self.feature_proj = nn.Linear(self.out_features, feature_dim)

    def forward(self, residual: Tensor) -> Tensor:
        return self.feature_proj(self.pooled_features(residual))


def branch_factory(backbone: str | BackboneFactory) -> BackboneFactory:
    """Return a function that makes a branch: residuals [B, 3, H, W] -> features [B, feature_dim].

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
        return _named(
            backbone,
            lambda feature_dim: torchvision.models.get_model(
                backbone, weights=None, num_classes=feature_dim, **extra
            ),
        )
    return _timm_factory(backbone)


def _timm_factory(name: str) -> BackboneFactory:
    try:
        import timm
    except ImportError:
        raise UserError(
            f"--backbone {name}: torchvision has no such classifier; "
            "for timm's models run: pip install -r requirements/timm.txt"
        ) from None
    if not timm.is_model(name):
        raise UserError(
            f"--backbone {name}: neither torchvision nor timm has a model of that name; the"
            f" default is {LIGHT}"
        )
    return _named(
        name,
        lambda feature_dim: timm.create_model(name, pretrained=False, num_classes=feature_dim),
    )


def _named(name: str, build: BackboneFactory) -> BackboneFactory:
    """Return the factory with errors of the library as one line that names the backbone."""

    def build_or_refuse(feature_dim: int) -> nn.Module:
        try:
            return build(feature_dim)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"--backbone {name}: cannot be built as a classifier ({first}); pass another"
            ) from None

    return build_or_refuse
