"""Candidate cures of idle attention: what each does to the fusion."""

import math

import torch

from networks.multiscale_npr import AttentionFusionModule, AttentionMultiScaleNPR
from networks.npr import npr_residual


def fusion_of(
    temperature: float = 1.0, branch_dropout: float = 0.0, feature_norm: bool = False
) -> AttentionFusionModule:
    torch.manual_seed(0)
    return AttentionFusionModule(8, 3, 4, False, temperature, branch_dropout, feature_norm)


def test_temperature_divides_the_preferences() -> None:
    features = [torch.randn(5, 8) for _ in range(3)]
    plain, sharp, uniform = (fusion_of(t).eval()(features)[1] for t in (1.0, 0.25, math.inf))
    raised = plain**4
    assert torch.allclose(sharp, raised / raised.sum(1, keepdim=True), atol=1e-6)
    assert torch.equal(uniform, torch.full((5, 3), 1 / 3))


def test_branch_dropout_renormalises_what_stays() -> None:
    fusion = fusion_of(branch_dropout=0.5)
    features = [torch.randn(4000, 8) for _ in range(3)]
    fusion.attention_net[2].p = 0.0
    kept = fusion.eval()(features)[1]
    weights = fusion.train()(features)[1]
    stays = weights > 0
    assert stays.any(dim=1).all() and abs(float(stays.float().mean()) - (0.5 + 0.125 / 3)) < 0.02
    expected = kept * stays
    assert torch.allclose(weights, expected / expected.sum(1, keepdim=True), atol=1e-6)


def test_feature_norm() -> None:
    fusion = fusion_of(feature_norm=True).train()
    normalised = fusion.normalised([torch.randn(50, 8) * 7 + 3 for _ in range(3)])
    assert torch.allclose(normalised.mean(0), torch.zeros(3, 8), atol=1e-5)
    assert torch.allclose(normalised.std(0, unbiased=False), torch.ones(3, 8), atol=1e-4)


def test_a_gain_per_scale_does_nothing_in_training() -> None:
    """The first BatchNorm divides by whatever the residual is multiplied by, but for its epsilon; gradients stay the same, too."""
    torch.manual_seed(0)
    branch = AttentionMultiScaleNPR().feature_branches[0].double()
    branch.bn1.eps = 1e-12
    residual = npr_residual(torch.randn(4, 3, 64, 64).double(), 0.25)
    found = []
    for gain in (2 / 3, 2.0):
        branch.zero_grad()
        features = branch(residual * gain)
        features.square().mean().backward()
        found.append((features.detach(), branch.conv1.weight.grad.clone()))
    assert torch.allclose(found[1][0], found[0][0], rtol=1e-9)
    assert torch.allclose(found[1][1], found[0][1], rtol=1e-6)
