"""Adversarial training of auto-encoders: sharp copies with the grid of a generative network.

An auto-encoder that keeps errors small blurs, even where the error of the Laplacian counts. After a
few hundred steps its copies have about half the Laplacian of their photographs, and a detector
learns the blur. A discriminator of patches (Isola et al., CVPR 2017, arXiv 1611.07004) with hinge
loss and spectral normalisation (Miyato et al., ICLR 2018, arXiv 1802.05957) removes it.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from tools.make_fakes.autoencoders import AutoEncoder, random_crops

STEPS = 500
WIDTHS = (3, 32, 64, 128)  # channels of the discriminator, input first
GENERATOR_LR, DISCRIMINATOR_LR, BETAS = 2e-4, 4e-4, (0.5, 0.999)
FAITHFULNESS = 20.0  # weight of the mean absolute error of images in [0, 1]; adversarial loss: 1
CLIP = 5.0  # largest norm of the auto-encoder's gradient


def patch_discriminator() -> nn.Sequential:
    """Return a network from images [B, 3, H, W] in [-1, 1] to [B, 1, H/8, W/8], high for real.

    Each output sees a patch of 38x38 pixels.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(WIDTHS):
        layers += [
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)))


def hinge_loss(of_photographs: Tensor, of_copies: Tensor) -> Tensor:
    """Return the discriminator's loss: 0 if photographs have >= 1 and copies <= -1."""
    return F.relu(1 - of_photographs).mean() + F.relu(1 + of_copies).mean()


def train_adversarially(
    model: AutoEncoder,
    photographs: list[Tensor],
    steps: int = STEPS,
    progress: Callable[[], object] = lambda: None,
) -> AutoEncoder:
    """Train an auto-encoder further, against a discriminator that learns with it.

    Random numbers come from PyTorch's global generator.

    Args:
        model: trained in place.
        photographs: uint8 [3, H, W], sides >= 64.
        steps: training steps, at least 0.
        progress: called after each step.

    Returns:
        The model, in evaluation mode.
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
