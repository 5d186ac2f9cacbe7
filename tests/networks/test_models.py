"""Both networks against plain re-statements of their formulas, and what the contract fixes about
them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock

from networks import ModelConfig, build_model
from networks.factory import initialize_weights, trial_problem
from networks.multiscale_npr import (
    AttentionFusionModule,
    AttentionMultiScaleNPR,
    attention_multiscale_npr18,
)
from networks.resnet import TwoStageTrunk, resnet50
from options.train_options import TrainOptions
from util import UserError

Weights = dict[str, Tensor]


def randomised(model: nn.Module) -> nn.Module:
    """Evaluation mode, with BatchNorm statistics that are not 0 and 1."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    parts = (
        w[f"{name}.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    mean, variance, gain, offset = parts
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + offset


def block(
    w: Weights, name: str, x: Tensor, kernels: tuple[int, ...], stride: int, strided: int
) -> Tensor:
    """A residual block with convolutions conv1, conv2, ...; number `strided` has the stride."""
    out = x
    for number, kernel in enumerate(kernels, start=1):
        step = stride if number == strided else 1
        out = norm(
            w,
            f"{name}.bn{number}",
            F.conv2d(out, w[f"{name}.conv{number}.weight"], stride=step, padding=kernel // 2),
        )
        if number < len(kernels):
            out = out.clamp(min=0)
    if f"{name}.downsample.0.weight" in w:
        x = norm(
            w, f"{name}.downsample.1", F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride)
        )
    return (out + x).clamp(min=0)


def trunk(
    w: Weights,
    prefix: str,
    residual: Tensor,
    kernels: tuple[int, ...],
    strided: int,
    layers: tuple[int, int],
) -> Tensor:
    x = norm(
        w, f"{prefix}bn1", F.conv2d(residual, w[f"{prefix}conv1.weight"], stride=2, padding=1)
    ).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, count in enumerate(layers, start=1):
        for index in range(count):
            stride = 2 if layer == 2 and index == 0 else 1
            x = block(w, f"{prefix}layer{layer}.{index}", x, kernels, stride, strided)
    return x.mean(dim=(2, 3))


def nearest_residual(x: Tensor, scale: float) -> Tensor:
    size = x.shape[-1]
    reduced = int(size * scale)
    down = (torch.arange(reduced) * size) // reduced
    up = (torch.arange(size) * reduced) // size
    index = down[up]
    return (x - x[:, :, index][:, :, :, index]) * 2 / 3


@torch.no_grad()
def test_single_scale_equals_its_restatement() -> None:
    model = randomised(resnet50(num_classes=1))
    x = torch.randn(3, 3, 48, 48)
    w = model.state_dict()
    pooled = trunk(w, "", nearest_residual(x, 0.5), (1, 3, 1), 2, (3, 4))
    expected = pooled @ w["fc1.weight"].T + w["fc1.bias"]
    assert torch.allclose(model(x), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("residual", (False, True))
def test_multiscale_equals_its_restatement(residual: bool) -> None:
    scales = (0.25, 0.5, 0.75)
    model = randomised(
        attention_multiscale_npr18(scales=scales, feature_dim=32, reduction=2, residual=residual)
    )
    x = torch.randn(3, 3, 48, 48)
    w = model.state_dict()
    features = []
    for i, scale in enumerate(scales):
        name = f"feature_branches.{i}."
        pooled = trunk(w, name, nearest_residual(x, scale), (3, 3), 1, (2, 2))
        features.append(pooled @ w[f"{name}feature_proj.weight"].T + w[f"{name}feature_proj.bias"])
    net = "attention_fusion.attention_net"
    hidden = (torch.cat(features, 1) @ w[f"{net}.0.weight"].T + w[f"{net}.0.bias"]).clamp(min=0)
    raw = (hidden @ w[f"{net}.3.weight"].T + w[f"{net}.3.bias"]).exp()
    attention = raw / raw.sum(1, keepdim=True)
    fused = sum(attention[:, i : i + 1] * feature for i, feature in enumerate(features))
    if residual:
        fused = fused + sum(features) / 3
    logits, weights = model(x, return_attention=True)
    assert torch.allclose(weights, attention, atol=1e-5)
    assert torch.allclose(
        logits, fused @ w["classifier.weight"].T + w["classifier.bias"], atol=1e-5
    )
    assert torch.equal(model(x), logits)
    again, same, branches = model(x, return_branches=True)
    assert torch.equal(again, logits) and torch.equal(same, weights)
    expected = torch.cat([feature @ w["classifier.weight"].T for feature in features], dim=1)
    assert torch.allclose(branches, expected, atol=1e-5)
    sums = (weights * branches).sum(1) + (branches.mean(1) if residual else 0)
    assert torch.allclose(sums + w["classifier.bias"], logits[:, 0], atol=1e-5)


def test_a_gain_per_scale_would_change_nothing_in_training() -> None:
    """The first BatchNorm divides by whatever the residual is multiplied by, but for its epsilon;
    gradients stay the same, too."""
    torch.manual_seed(0)
    branch = AttentionMultiScaleNPR().feature_branches[0].double()
    branch.bn1.eps = 1e-12
    residual = nearest_residual(torch.randn(4, 3, 64, 64).double(), 0.25)
    found = []
    for gain in (2 / 3, 2.0):
        branch.zero_grad()
        features = branch(residual * gain)
        features.square().mean().backward()
        found.append((features.detach(), branch.conv1.weight.grad.clone()))
    assert torch.allclose(found[1][0], found[0][0], rtol=1e-9)
    assert torch.allclose(found[1][1], found[0][1], rtol=1e-6)


def test_branch_logits_are_those_of_one_class_and_in_full_precision() -> None:
    with pytest.raises(ValueError, match="one class; this model has 2"):
        AttentionMultiScaleNPR(num_classes=2)(torch.zeros(1, 3, 16, 16), return_branches=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _, branches = randomised(AttentionMultiScaleNPR())(
            torch.randn(2, 3, 32, 32), return_branches=True
        )
    assert logits.dtype == torch.bfloat16 and branches.dtype == torch.float32


def test_parameter_counts_and_operations() -> None:
    for model, parameters, operations in (
        (resnet50(), 1_437_761, 3.43e9),
        (attention_multiscale_npr18(), 2_088_260, 5.37e9),
    ):
        assert sum(p.numel() for p in model.parameters()) == parameters
        with FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, 3, 224, 224))
        assert counter.get_total_flops() == pytest.approx(operations, rel=2e-3)


def test_relu_after_the_first_pooling_changes_no_bit_of_values_or_gradients() -> None:
    """The published order is ReLU, then pooling."""
    trunk = TwoStageTrunk(BasicBlock, (1, 1)).train()
    images = torch.randn(3, 3, 37, 41, generator=torch.Generator().manual_seed(0))

    def gradients(features: Tensor) -> list[Tensor]:
        trunk.zero_grad()
        features.square().sum().backward()
        return [features.detach(), *(p.grad for p in trunk.parameters() if p.grad is not None)]

    pooled = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
    published = gradients(trunk.avgpool(trunk.layer2(trunk.layer1(pooled))).flatten(1))
    ours = gradients(trunk.pooled_features(images))
    assert all(torch.equal(one, other) for one, other in zip(ours, published, strict=True))


def test_state_dict_names() -> None:
    tops = {name.split(".")[0] for name in resnet50().state_dict()}
    assert tops == {"conv1", "bn1", "layer1", "layer2", "fc1"}
    names = set(attention_multiscale_npr18().state_dict())
    assert {name.split(".")[2] for name in names if name.startswith("feature_branches.")} == {
        "conv1", "bn1", "layer1", "layer2", "feature_proj"
    }  # fmt: skip
    others = {name for name in names if not name.startswith("feature_branches.")}
    assert others == {
        f"{name}.{kind}"
        for name in (
            "attention_fusion.attention_net.0",
            "attention_fusion.attention_net.3",
            "classifier",
        )
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    "scales", ((0.5,), (0.5, 0.5, 0.5), (0.2, 0.4, 0.6, 0.8), (0.6, 0.7, 0.8, 0.9), (0.1, 0.2, 0.3))
)
@pytest.mark.parametrize("size", ((33, 47), (64, 64)))
def test_any_scales_at_any_size(scales: tuple[float, ...], size: tuple[int, int]) -> None:
    model = attention_multiscale_npr18(scales=scales, feature_dim=16).eval()
    logits, attention = model(torch.randn(2, 3, *size), return_attention=True)
    assert logits.shape == (2, 1)
    assert attention.shape == (2, len(scales))
    assert torch.allclose(attention.sum(1), torch.ones(2))
    assert (attention >= 0).all()


def test_attention_sums_to_one_under_autocast() -> None:
    model = attention_multiscale_npr18(feature_dim=16).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, attention = model(torch.randn(4, 3, 32, 32), return_attention=True)
    assert torch.allclose(attention.sum(1), torch.ones(4), atol=1e-6)


def test_residual_fusion_is_not_zero_where_the_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    plain, with_residual = AttentionFusionModule(8, 3), AttentionFusionModule(8, 3, residual=True)
    with_residual.load_state_dict(plain.state_dict())
    features = [torch.randn(4, 8) for _ in range(3)]
    difference = with_residual.eval()(features)[0] - plain.eval()(features)[0]
    assert torch.allclose(difference, torch.stack(features).mean(0), atol=1e-6)


def test_smaller_reduction_is_more_capacity() -> None:
    widths = [
        AttentionFusionModule(128, 3, reduction).attention_net[0].out_features
        for reduction in (1, 4, 8)
    ]
    assert widths == [128, 32, 16]
    with pytest.raises(ValueError, match="reduction"):
        AttentionFusionModule(8, 3, reduction=9)


def test_scale_contributions() -> None:
    model = attention_multiscale_npr18(scales=[0.25, 0.5, 0.5]).train()
    x = torch.randn(2, 3, 40, 40)
    seen = model.get_scale_contributions(x)
    assert list(seen["npr_maps"]) == ["npr_0.25", "npr_0.5", "npr_0.5_2"]
    assert all(residual.shape == x.shape for residual in seen["npr_maps"].values())
    assert torch.equal(
        seen["npr_maps"]["npr_0.5"],
        x - x[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3),
    )
    assert seen["attention_weights"].shape == (2, 3)
    assert model.training
    assert torch.equal(seen["prediction"], model.eval()(x))


class Mean(nn.Module):
    """A branch of one linear layer on the mean colour."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, feature_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=(2, 3)))


def test_backbone_may_be_a_callable() -> None:
    model = AttentionMultiScaleNPR(scales=(0.3, 0.6), feature_dim=16, backbone=Mean)
    assert model(torch.randn(2, 3, 20, 20)).shape == (2, 1)
    assert [type(branch) for branch in model.feature_branches] == [Mean, Mean]


@pytest.mark.parametrize("backbone", ("squeezenet1_1", "mobilenet_v3_small"))
def test_backbone_by_torchvision_name(backbone: str) -> None:
    config = ModelConfig("multiscale_attention", (0.5, 0.75), 32, backbone=backbone)
    assert build_model(config).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1)


def test_auxiliary_outputs_are_left_out_in_training() -> None:
    config = ModelConfig("multiscale_attention", (0.5,), 16, backbone="googlenet")
    assert build_model(config).train()(torch.randn(2, 3, 64, 64)).shape == (2, 1)


def test_backbone_by_timm_name() -> None:
    pytest.importorskip("timm")
    config = ModelConfig("multiscale_attention", (0.5,), 32, backbone="resnet10t")
    assert build_model(config).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1)


@pytest.mark.parametrize(
    ("backbone", "side", "images", "problem"),
    [
        ("vit_b_32", 64, 2, "64x64 pixels are not taken by the network (Wrong image height!"),
        ("vit_b_32", 224, 2, None),
        ("resnet18", 32, 1, "32x32 pixels are not taken by the network (Expected more than 1"),
        ("resnet18", 32, 2, None),
        ("light", 3, 2, "3x3 pixels leave none at scale 0.25"),
        ("light", 224, 1, None),
    ],
)
def test_a_trial_pass_tells_what_a_network_takes_and_changes_nothing(
    backbone: str, side: int, images: int, problem: str | None
) -> None:
    model = build_model(ModelConfig("multiscale_attention", (0.25,), 16, backbone=backbone))
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    why = trial_problem(model.train(), side, side, images)
    assert why == problem or (why and problem and why.startswith(problem))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_backbone_that_cannot_be_built_is_named() -> None:
    with pytest.raises(UserError, match="--backbone squeezenet1_1: cannot be built"):
        AttentionMultiScaleNPR(backbone="squeezenet1_1", feature_dim=-1)


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(UserError, match="--backbone resnet5000"):
        AttentionMultiScaleNPR(backbone="resnet5000")


def test_create_model_follows_the_options() -> None:
    from networks import create_model

    opt = TrainOptions(
        model_type="multiscale_attention",
        npr_scales=(0.25, 0.5),
        feature_dim=64,
        attention_residual=True,
    )
    model = create_model(opt)
    assert model.scales == (0.25, 0.5)
    assert model.classifier.in_features == 64
    assert model.attention_fusion.residual
    assert type(create_model(TrainOptions())) is type(resnet50())


@pytest.mark.parametrize("init_type", ("normal", "xavier", "kaiming", "orthogonal"))
def test_initialisation(init_type: str) -> None:
    torch.manual_seed(0)
    model = resnet50()
    initialize_weights(model, init_type, 0.02)
    weight = model.layer2[1].conv2.weight.detach()  # 128 x 128 x 3 x 3
    fan_in = fan_out = 128 * 9
    expected = {
        "normal": 0.02,
        "xavier": 0.02 * (2 / (fan_in + fan_out)) ** 0.5,
        "kaiming": (2 / fan_in) ** 0.5,
    }
    if init_type == "orthogonal":
        rows = weight.flatten(1)
        assert torch.allclose(rows @ rows.T, 0.02**2 * torch.eye(128), atol=1e-6)
    else:
        assert weight.std().item() == pytest.approx(expected[init_type], rel=0.03)
    assert not model.fc1.bias.any()
