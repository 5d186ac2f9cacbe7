"""The published single-scale NPR detector: one residual at scale 0.5 into the first half of a
ResNet-50.

Layers and parameter names follow Tan et al., CVPR 2024 (arXiv 2312.10461); residual blocks are
torchvision's (He et al., CVPR 2016), whose parameter names are the same.
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from networks.npr import RESIDUAL_GAIN, npr_residual

Block = type[BasicBlock] | type[Bottleneck]


def make_stage(
    block: Block, in_channels: int, planes: int, blocks: int, stride: int = 1
) -> nn.Sequential:
    """A ResNet stage: `blocks` residual blocks that end with planes * block.expansion channels."""
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
        )
    first = block(in_channels, planes, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(1, blocks)))


class TwoStageTrunk(nn.Module):
    """What single-scale model and light branch share: conv1 3x3 stride 2, max pooling, layer1,
    layer2, mean over positions.

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
    """Single-scale detector: images [B, 3, H, W] (normalised) -> logits [B, num_classes], positive
    for generated."""

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
    """The published NPR network, with 1,437,761 parameters for one class.

    It carries the name under which it was published, but it is *not* a full ResNet-50: its first
    convolution is 3x3 instead of 7x7, it stops after the second of four stages (3 and 4 bottleneck
    blocks), and its input is the NPR residual at scale 0.5, which the network computes itself.
    There are no ImageNet weights for it.
    """
    return NPRResNet(Bottleneck, (3, 4), num_classes)
