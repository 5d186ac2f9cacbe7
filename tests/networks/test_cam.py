"""Class-activation maps: they add up to the logits, lie where the evidence is, and leave the model
as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks.cam import Network, class_activation_maps, evidence, grad_cam, has_exact_maps
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.resnet import BackboneFactory, LightBranch, NPRResNet, resnet50


def away_from_the_start(model: Network) -> Network:
    """In evaluation mode, with statistics and biases that are not the initial zeros and ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def multiscale(
    *scales: float, residual: bool = False, backbone: str | BackboneFactory = "light"
) -> Network:
    torch.manual_seed(0)
    return away_from_the_start(
        AttentionMultiScaleNPR(scales=scales, feature_dim=16, residual=residual, backbone=backbone)
    )


def single_scale(classes: int = 1) -> Network:
    torch.manual_seed(0)
    return away_from_the_start(resnet50(classes))


def images(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (57, 130)], ids=str)
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: multiscale(0.25, 0.5, 0.75), id="three scales"),
        pytest.param(lambda: multiscale(0.25, 0.5, 0.75, residual=True), id="residual fusion"),
        pytest.param(lambda: multiscale(0.5, 0.5, 0.5), id="repeated scale"),
        pytest.param(lambda: multiscale(0.3, residual=True), id="one scale"),
        pytest.param(single_scale, id="single-scale model"),
        pytest.param(lambda: single_scale(3), id="three classes"),
    ],
)
def test_maps_add_up_to_the_logits(model: Callable[[], Network], size: tuple[int, int]) -> None:
    detector, batch = model(), images(*size)
    bias = (detector.fc1 if isinstance(detector, NPRResNet) else detector.classifier).bias
    logits = detector(batch)
    scales = 1 if isinstance(detector, NPRResNet) else len(detector.scales)
    assert has_exact_maps(detector)
    for output in range(logits.shape[1]):
        maps = class_activation_maps(detector, batch, output)
        assert (
            maps.shape == (2, scales, *(-(-side // 8) for side in size)) and not maps.requires_grad
        )
        added = maps.mean(dim=(2, 3)).sum(dim=1) + bias[output]
        torch.testing.assert_close(added, logits[:, output], atol=1e-4, rtol=0)


@pytest.mark.parametrize("backbone", ["light", "resnet18", None])
@pytest.mark.parametrize("residual", [False, True])
def test_what_the_scales_add_makes_up_the_logits(backbone: str | None, residual: bool) -> None:
    """Also where maps do not: those of a resnet18 may even have the other sign."""
    model = (
        multiscale(0.25, 0.5, 0.75, residual=residual, backbone=backbone)
        if backbone
        else single_scale()
    )
    bias = (model.fc1 if isinstance(model, NPRResNet) else model.classifier).bias
    computed, batch = evidence(model, images()), model(images())[:, 0]
    torch.testing.assert_close(computed.adds.sum(dim=1) + bias[0], batch, atol=1e-4, rtol=0)
    torch.testing.assert_close(computed.maps, class_activation_maps(model, images()))
    wrong = (computed.adds - computed.maps.mean(dim=(2, 3))).abs().max()
    assert (
        computed.exact == (backbone != "resnet18") == bool(wrong < 1e-6)
        and not computed.adds.requires_grad
    )


@pytest.mark.parametrize("residual", [False, True])
def test_a_map_is_high_where_the_evidence_is(residual: bool) -> None:
    """Measure the contribution of a position by removing its features; the attention of one scale
    is always 1."""
    model = multiscale(0.5, residual=residual)
    branch = model.feature_branches[0]
    # what raises the logit
    direction = branch.feature_proj.weight.detach().T @ model.classifier.weight[0].detach()
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    shown = [direction[None, :, None, None] * left]
    branch.layer2.register_forward_hook(lambda module, args, out: shown[0].expand_as(out))
    (patched,) = class_activation_maps(model, images())[0]
    with_evidence = model(images())
    shown[0] = torch.zeros_like(shown[0])
    (empty,) = class_activation_maps(model, images())[0]
    without = model(images())
    assert patched[:, :4].min() > patched[:, 4:].max() + 1e-3
    torch.testing.assert_close(patched[:, 4:], empty[:, 4:])
    fell = (with_evidence - without)[0, 0]
    torch.testing.assert_close((patched - empty).mean(), fell)
    assert fell > 1e-3


@pytest.mark.parametrize("residual", [False, True])
def test_grad_cam_of_a_light_branch_is_the_exact_map_without_its_constant(residual: bool) -> None:
    model, batch = multiscale(0.25, 0.5, residual=residual), images(40, 56)
    exact = class_activation_maps(model, batch)
    computed = grad_cam(model, batch, layers=[branch.layer2 for branch in model.feature_branches])
    constant = exact - computed
    torch.testing.assert_close(
        constant, constant[..., :1, :1].expand_as(constant), atol=1e-5, rtol=0
    )
    biases = [
        model.classifier.weight[0] @ branch.feature_proj.bias for branch in model.feature_branches
    ]
    attention = model(batch, return_attention=True)[1] + (0.5 if residual else 0)
    torch.testing.assert_close(
        constant[:, :, 0, 0], torch.stack(biases) * attention, atol=1e-5, rtol=1e-4
    )


def test_grad_cam_of_the_single_scale_model_is_its_exact_map() -> None:
    model, batch = single_scale(2), images()
    computed = grad_cam(model, batch, output=1, layers=[model.layer2])
    torch.testing.assert_close(
        computed, class_activation_maps(model, batch, output=1), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet18", 2),
        ("mobilenet_v3_small", 2),
        ("squeezenet1_1", 3),
    ],  # of the last convolution, at 64 px
)
def test_other_backbones_get_the_grad_cam_of_their_last_convolution(
    backbone: str, size: int
) -> None:
    model = multiscale(0.25, 0.5, backbone=backbone).requires_grad_(False)
    assert not has_exact_maps(model)
    with torch.no_grad():
        maps = class_activation_maps(model, images())
    assert maps.shape == (2, 2, size, size) and maps.isfinite().all() and maps.std() > 0


def test_grad_cam_of_a_deep_network_is_that_of_its_formula() -> None:
    """Slopes as differences of the logit: the feature maps inside a block are shifted by a
    constant, channel by channel."""
    model, batch = single_scale().double(), images(24, 24).double()
    layer, step = model.layer1[1].conv1, 1e-6
    computed = grad_cam(model, batch, layers=[layer])
    changed: dict[str, float] = {}
    kept: list[Tensor] = []

    def shift(module: nn.Module, args: object, out: Tensor) -> Tensor:
        kept.append(out)
        return (
            out
            + torch.nn.functional.one_hot(torch.tensor(channel), out.shape[1])[:, None, None]
            * changed["by"]
        )

    expected = torch.zeros_like(computed[:, 0])
    with torch.no_grad():
        layer.register_forward_hook(shift)
        for channel in range(layer.out_channels):
            logits = []
            for changed["by"] in (-step, step):
                logits.append(model(batch)[:, 0])
            expected += ((logits[1] - logits[0]) / (2 * step))[:, None, None] * kept[-1][:, channel]
    torch.testing.assert_close(computed[:, 0], expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("maps", [class_activation_maps, grad_cam])
def test_the_model_stays_as_it_was(maps: Callable[[Network, Tensor], Tensor]) -> None:
    model, batch = multiscale(0.25, 0.5).train(), images()
    model.feature_branches[0].bn1.eval()  # as with a frozen BatchNorm
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.autocast("cpu", torch.bfloat16):  # asked for or not, maps are in full precision
        computed = maps(model, batch)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (
        all(parameter.grad is None for parameter in model.parameters()) and not batch.requires_grad
    )
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(computed, maps(model.eval(), batch))


def test_modes_and_hooks_are_put_back_after_an_error() -> None:
    model = multiscale(0.5).train()
    with pytest.raises(ValueError, match="leaves no pixel"):
        class_activation_maps(model, torch.zeros(1, 3, 1, 1))
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_branches_without_a_convolution_are_refused() -> None:
    model = multiscale(
        0.5, backbone=lambda features: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, features))
    )
    with pytest.raises(ValueError, match="needs a convolution"):
        class_activation_maps(model, images())


def test_one_branch_of_another_kind_is_enough_for_grad_cam() -> None:
    model = multiscale(0.5, 0.5)
    model.feature_branches[1] = nn.Sequential(LightBranch(16), nn.Tanh())
    assert not has_exact_maps(model)
    assert class_activation_maps(model, images()).shape == (2, 2, 8, 8)
