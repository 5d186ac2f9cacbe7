"""Auto-encoders trained on against a discriminator: sharp copies, with the grid that a generative
adversarial network leaves.

An auto-encoder that keeps errors small blurs, even where the error of the Laplacian counts: after a
few hundred steps its copies have about half the Laplacian of their photographs, and blur is what a
detector then learns. Discriminator of patches (Isola et al., CVPR 2017, arXiv 1611.07004), hinge
loss, spectral normalisation (Miyato et al., ICLR 2018, arXiv 1802.05957).
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from tools.make_fakes.autoencoders import AutoEncoder, random_crops

STEPS = 500
WIDTHS = (3, 32, 64, 128)
GENERATOR_LR, DISCRIMINATOR_LR, BETAS = 2e-4, 4e-4, (0.5, 0.999)
FAITHFULNESS = 20.0
"""Weight of the mean absolute error, of pictures in [0, 1], beside the discriminator's opinion."""
CLIP = 5.0
"""Norm of the auto-encoder's gradient, at most."""


def patch_discriminator() -> nn.Sequential:
    """Images [B, 3, H, W] in [-1, 1] -> [B, 1, H/8, W/8], high for real; each value sees 38 pixels
    a side."""
    layers: list[nn.Module] = []
    for before, after in pairwise(WIDTHS):
        layers += [
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)))


def hinge_loss(of_photographs: Tensor, of_copies: Tensor) -> Tensor:
    """Of the discriminator: zero where photographs have 1 or more and copies -1 or less."""
    return F.relu(1 - of_photographs).mean() + F.relu(1 + of_copies).mean()


def train_adversarially(
    model: AutoEncoder,
    photographs: list[Tensor],
    steps: int = STEPS,
    progress: Callable[[], object] = lambda: None,
) -> AutoEncoder:
    """Train an auto-encoder on until its copies pass for photographs; returns it. Draws from
    PyTorch's global generator.

    Args:
        photographs: uint8 [3, H, W], sides >= 64.
    """
    model.train()
    discriminator = patch_discriminator().train()
    of_model = torch.optim.Adam(model.parameters(), GENERATOR_LR, BETAS)
    of_discriminator = torch.optim.Adam(discriminator.parameters(), DISCRIMINATOR_LR, BETAS)
    for _ in range(steps):
        images = random_crops(photographs)
        copies = model(images)
        loss = hinge_loss(discriminator(images * 2 - 1), discriminator(copies.detach() * 2 - 1))
        of_discriminator.zero_grad()
        loss.backward()
        of_discriminator.step()
        loss = FAITHFULNESS * F.l1_loss(copies, images) - discriminator(copies * 2 - 1).mean()
        of_model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        of_model.step()
        progress()
    return model.eval()
