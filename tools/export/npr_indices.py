"""The NPR residual by pixel indices, for graphs that run without PyTorch.

The "nearest" interpolation of other programs may choose other pixels than
`torch.nn.functional.interpolate`. Here PyTorch's arithmetic is written out, so that an exported
graph computes the same indices for every size.
"""

import torch
from torch import Tensor, nn

from networks.npr import grid_period


def nearest_sources(positions: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return the source pixel of each target pixel in nearest-neighbour interpolation.

    It is min(floor(position * (source / target)), source - 1) in single precision, as in PyTorch.

    Args:
        positions: [N] int64 in [0, target).
        source: side in pixels before interpolation, int64 scalar.
        target: side in pixels after it, int64 scalar.

    Returns:
        [N] int64 in [0, source).
    """
    ratio = source.to(torch.float32) / target.to(torch.float32)
    return torch.minimum((positions.to(torch.float32) * ratio).to(torch.int64), source - 1)


OUT_OF_RANGE = 2**40  # added to the indices of an image that is too small for the scale


class IndexedNPR(nn.Module):
    """`networks.npr.npr_residual` of one scale, computed as x - x[rows][columns].

    Both are equal to the last bit. Images that are too small for the scale are not refused here; in
    an exported graph their indices are out of range.

    Args:
        scale: down-sampling factor in (0, 1).
    """

    twice_scale: Tensor
    half_forgiveness: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        # Exporters write plain numbers in single precision, so these are buffers. Exporters also
        # drop a multiplication by a number close to 1, so a factor of 2 moves from one to the
        # other, which does not change a bit.
        self.period = grid_period(scale)
        self.register_buffer(
            "twice_scale", torch.tensor(2 * scale, dtype=torch.float64), persistent=False
        )
        self.register_buffer(
            "half_forgiveness", torch.tensor((1 + 1e-12) / 2, dtype=torch.float64), persistent=False
        )

    def kept(self, size: int) -> Tensor:
        """Return the row that replaces each row in down- and up-sampling: [size] int64."""
        padded = (size + self.period - 1) // self.period * self.period
        up = nearest_sources(
            torch.arange(size),
            self._reduced(padded),
            torch.scalar_tensor(padded, dtype=torch.int64),
        )
        rows = nearest_sources(
            up, torch.scalar_tensor(padded, dtype=torch.int64), self._reduced(padded)
        )
        return rows + (1 - self._reduced(size).clamp(max=1)) * OUT_OF_RANGE

    def _reduced(self, size: int) -> Tensor:
        """Return `networks.npr.reduced_size` as an int64 scalar."""
        full = torch.scalar_tensor(size, dtype=torch.float64)
        return (full * self.twice_scale * self.half_forgiveness).to(torch.int64)

    def forward(self, images: Tensor) -> Tensor:
        """Return the residual [B, C, H, W] of images [B, C, H, W]."""
        height, width = images.shape[-2:]
        return images - images.index_select(2, self.kept(height)).index_select(3, self.kept(width))
