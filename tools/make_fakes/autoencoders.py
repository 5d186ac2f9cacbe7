"""Small convolutional auto-encoders of photographs, whose decoders up-sample as generators do.

They reduce each side by 4 in two steps, to `LATENT` channels: enough for 30 dB and more.
`tools.make_fakes.adversarial` removes the blur that is left.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.make_fakes.upsamplers import laplacian

FACTOR = 4  # image side over latent side
LATENT, WIDTH = 24, 32  # channels
STEPS, BATCH, CROP, LR = 1200, 16, 64, 2e-3
CLIP = 0.5  # largest norm of the gradient; without a limit, one training of eleven ended in noise
SHARPNESS = 2.0  # weight of the error of the Laplacian; that of the image has 1


class Residual(nn.Module):
    """Residual block: x + f(x), f with two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def transposed(channels: int, out: int) -> nn.Module:
    """Return a transposed convolution, 3x3, stride 2, as in CycleGAN (Zhu et al., ICCV 2017)."""
    return nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1)


def nearest(channels: int, out: int) -> nn.Module:
    """Return nearest-neighbour up-sampling and a 3x3 convolution.

    Latent diffusion's decoder has the same (Rombach et al., CVPR 2022).
    """
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, out, 3, padding=1))


def shuffled(channels: int, out: int) -> nn.Module:
    """Return a sub-pixel convolution (Shi et al., CVPR 2016)."""
    return nn.Sequential(nn.Conv2d(channels, 4 * out, 3, padding=1), nn.PixelShuffle(2))


UP_SAMPLERS: dict[str, Callable[[int, int], nn.Module]] = {
    "rebuilt_transposed": transposed,
    "rebuilt_nearest": nearest,
    "rebuilt_shuffled": shuffled,
}


class AutoEncoder(nn.Module):
    """Auto-encoder of images [B, 3, H, W] in [0, 1] with sides divisible by 4; output unclamped."""

    def __init__(self, up_sampler: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        wide = 2 * WIDTH
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 4, stride=2, padding=1),
            Residual(WIDTH),
            nn.Conv2d(WIDTH, wide, 4, stride=2, padding=1),
            Residual(wide),
            nn.Conv2d(wide, LATENT, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT, wide, 3, padding=1),
            Residual(wide),
            up_sampler(wide, WIDTH),
            Residual(WIDTH),
            up_sampler(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images - 0.5)) + 0.5


def train_autoencoder(
    name: str,
    photographs: list[Tensor],
    seed: int,
    steps: int = STEPS,
    progress: Callable[[], object] = lambda: None,
) -> AutoEncoder:
    """Train an auto-encoder on random crops of photographs.

    Args:
        name: up-sampler of the decoder, a key of `UP_SAMPLERS`.
        photographs: uint8 [3, H, W], sides >= 64.
        seed: seed of PyTorch's global generator.
        steps: training steps, at least 1.
        progress: called after each step.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    model = AutoEncoder(UP_SAMPLERS[name]).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(steps):
        images = random_crops(photographs)
        rebuilt = model(images)
        loss = F.l1_loss(rebuilt, images) + SHARPNESS * F.l1_loss(
            laplacian(rebuilt), laplacian(images)
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        progress()
    return model.eval()


def random_crops(photographs: list[Tensor]) -> Tensor:
    """Return a batch for training: [16, 3, 64, 64] in [0, 1]."""
    indices = torch.randint(len(photographs), (BATCH,))
    return torch.stack([random_crop(photographs[int(i)]) for i in indices]).float() / 255


def random_crop(pixels: Tensor) -> Tensor:
    """Return a random part [3, 64, 64] of an image [3, H, W]."""
    top, left = (int(torch.randint(side - CROP + 1, ())) for side in pixels.shape[1:])
    return pixels[:, top : top + CROP, left : left + CROP]


@torch.no_grad()
def rebuilt(model: AutoEncoder, pixels: Tensor) -> Tensor:
    """Return the model's copy, uint8 [3, H, W], of an image like it, sides divisible by 4."""
    return (model(pixels[None].float() / 255)[0].clamp(0, 1) * 255).round().to(torch.uint8)
