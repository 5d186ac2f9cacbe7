"""NPR at several scales, one branch per scale, fused by attention over the scales.

The residual is that of Tan et al., CVPR 2024 (arXiv 2312.10461). The softmax attention over
branches follows the additive attention of Bahdanau et al., ICLR 2015, with scales in place of time
steps.
"""

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from networks.npr import RESIDUAL_GAIN, NPRExtractor, residual_maps, scale_keys
from networks.resnet import LIGHT, BackboneFactory, branch_factory

DEFAULT_SCALES = (0.25, 0.5, 0.75)


class AttentionFusionModule(nn.Module):
    """Attention-weighted sum of S feature vectors per image.

    The weights are a = softmax(MLP(concat f)), the result is sum_s a_s f_s.

    Args:
        feature_dim: D, length of each branch's feature vector.
        num_scales: S.
        reduction: the hidden layer has D // reduction units; a smaller reduction means more
            capacity.
        residual: add the mean of the branches, so that the result is mean_s f_s + sum_s a_s f_s.
            Every branch then keeps a gradient when its attention is near zero. (A residual of
            (1 - sum_s a_s) f would be zero, because the weights sum to 1.)
    """

    def __init__(
        self,
        feature_dim: int = 128,
        num_scales: int = 3,
        reduction: int = 4,
        residual: bool = False,
    ) -> None:
        super().__init__()
        hidden = feature_dim // reduction
        if hidden < 1:
            raise ValueError(
                f"reduction {reduction} leaves no hidden unit of feature_dim {feature_dim}"
            )
        self.residual = residual
        self.attention_net = nn.Sequential(
            nn.Linear(num_scales * feature_dim, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Linear(hidden, num_scales),
            nn.Softmax(dim=1),
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the fused features [B, D] and the attention weights [B, S], whose rows sum to 1.

        Args:
            features: S tensors [B, D].
        """
        stacked = torch.stack(list(features), dim=1).float()  # [B, S, D]
        # in bf16 the weights would not sum to 1
        with torch.autocast(stacked.device.type, enabled=False):
            attention_weights = self.attention_net(stacked.flatten(1))
        fused = (attention_weights.unsqueeze(2) * stacked).sum(dim=1)
        if self.residual:
            fused = fused + stacked.mean(dim=1)
        return fused, attention_weights


class AttentionMultiScaleNPR(nn.Module):
    """Detector over several NPR scales.

    Normalised images [B, 3, H, W] give logits [B, num_classes].

    Args:
        num_classes: length of the output; 1 = one logit, positive for generated.
        scales: S numbers in (0, 1); they may repeat (three times 0.5 is the equal-capacity control
            of three scales).
        feature_dim: D, features per branch.
        reduction: see `AttentionFusionModule`.
        residual: see `AttentionFusionModule`.
        backbone: 'light', the name of a torchvision or timm classifier, or a callable. The callable
            takes feature_dim and returns a module with feature_dim outputs; it is called once per
            scale.
    """

    def __init__(
        self,
        num_classes: int = 1,
        scales: Sequence[float] = DEFAULT_SCALES,
        feature_dim: int = 128,
        reduction: int = 4,
        residual: bool = False,
        backbone: str | BackboneFactory = LIGHT,
    ) -> None:
        super().__init__()
        if not scales:
            raise ValueError("a multi-scale model needs at least one scale")
        self.scales = tuple(float(scale) for scale in scales)
        self.npr_extractors = nn.ModuleList(NPRExtractor(scale) for scale in self.scales)
        build_branch = branch_factory(backbone)
        self.feature_branches = nn.ModuleList(build_branch(feature_dim) for _ in self.scales)
        self.attention_fusion = AttentionFusionModule(
            feature_dim, len(self.scales), reduction, residual
        )
        self.classifier = nn.Linear(feature_dim, num_classes)

    @overload
    def forward(self, images: Tensor, return_attention: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, return_attention: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(
        self, images: Tensor, return_attention: bool = False, *, return_branches: Literal[True]
    ) -> tuple[Tensor, Tensor, Tensor]: ...
    def forward(
        self, images: Tensor, return_attention: bool = False, return_branches: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """Return logits [B, num_classes].

        The branch logits are z_s = w . f_s in full precision, with the classifier's weights w. Both
        steps after the branches are linear in their features. So the logit is b + sum_s a_s z_s to
        the classifier's rounding, and with the residual fusion, mean_s z_s is added.

        Args:
            images: [B, 3, H, W], normalised.
            return_attention: also return attention_weights [B, S].
            return_branches: also return attention_weights [B, S] and branch_logits [B, S].

        Raises:
            ValueError: return_branches in a model with more than one class.
        """
        if return_branches and self.classifier.out_features != 1:
            raise ValueError(
                "branch logits need a model with one class;"
                f" this model has {self.classifier.out_features}"
            )
        pairs = zip(self.npr_extractors, self.feature_branches, strict=True)
        # S x [B, D]
        features = [branch(extract(images) * RESIDUAL_GAIN) for extract, branch in pairs]
        fused, attention_weights = self.attention_fusion(features)
        logits = self.classifier(fused)
        if return_branches:
            with torch.autocast(images.device.type, enabled=False):
                # [B, S, 1]
                per_scale = linear(
                    torch.stack(features, dim=1).float(), self.classifier.weight.float()
                )
            return logits, attention_weights, per_scale.squeeze(2)
        return (logits, attention_weights) if return_attention else logits

    def gradient_norms(self) -> dict[str, Tensor]:
        """Return the Euclidean norm of the gradients of each branch and of the attention."""
        keys = [f"branch_{key}" for key in scale_keys(self.scales)]
        parts = dict(zip(keys, self.feature_branches, strict=True))
        parts["attention"] = self.attention_fusion
        return {
            name: nn.utils.get_total_norm([p.grad for p in part.parameters() if p.grad is not None])
            for name, part in parts.items()
        }

    @torch.no_grad()
    def get_scale_contributions(self, images: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """Return residuals, attention and logits in evaluation mode; the mode is then restored.

        Args:
            images: [B, 3, H, W], normalised.

        Returns:
            npr_maps: {'npr_0.5': [B, 3, H, W], ...}, residuals without gain; a repeated scale is
                'npr_0.5_2'.
            attention_weights: [B, S].
            prediction: logits [B, num_classes].
        """
        was_training = self.training
        self.eval()
        logits, attention_weights = self(images, return_attention=True)
        self.train(was_training)
        return {
            "npr_maps": residual_maps(images, self.scales),
            "attention_weights": attention_weights,
            "prediction": logits,
        }


def attention_multiscale_npr18(
    num_classes: int = 1,
    scales: Sequence[float] = DEFAULT_SCALES,
    feature_dim: int = 128,
    reduction: int = 4,
    residual: bool = False,
) -> AttentionMultiScaleNPR:
    """Return the multi-scale detector with light branches: the first two stages of a ResNet-18.

    By default it has 2,088,260 parameters. For the arguments, see `AttentionMultiScaleNPR`.
    """
    return AttentionMultiScaleNPR(num_classes, scales, feature_dim, reduction, residual)
