"""The NPR residual as a choice of pixels by index, for graphs that run where PyTorch does not.

What other programs call "nearest" may pick other pixels than `torch.nn.functional.interpolate`.
Here its arithmetic is written out, so that an exported graph computes the same indices for every
size.
"""

import torch
from torch import Tensor, nn

from networks.npr import grid_period


def nearest_sources(positions: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The pixel of `source` pixels that each of `positions`, of `target` pixels, is a copy of.

    It is min(floor(position * (source / target)), source - 1) in single precision, as PyTorch's
    "nearest" computes it.

    Args:
        positions: [N] int64. source, target: side lengths in pixels, int64 scalars.

    Returns:
        [N] int64 in [0, source).
    """
    ratio = source.to(torch.float32) / target.to(torch.float32)
    return torch.minimum((positions.to(torch.float32) * ratio).to(torch.int64), source - 1)


OUT_OF_RANGE = 2**40
"""Added to the indices of an image that is smaller than the scale allows."""


class IndexedNPR(nn.Module):
    """`networks.npr.npr_residual` of one scale without resizing: x - x[rows][columns], to the last
    bit the same.

    Images smaller than the scale allows are not refused; in an exported graph their indices are out
    of range.

    Args:
        scale: down-sampling factor in (0, 1).
    """

    twice_scale: Tensor
    half_forgiveness: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        # in buffers, because exporters write plain numbers in single precision; and with a factor
        # of two moved, which changes no
        # bit, because they drop a multiplication by what they take for 1
        self.period = grid_period(scale)
        self.register_buffer(
            "twice_scale", torch.tensor(2 * scale, dtype=torch.float64), persistent=False
        )
        self.register_buffer(
            "half_forgiveness", torch.tensor((1 + 1e-12) / 2, dtype=torch.float64), persistent=False
        )

    def kept(self, size: int) -> Tensor:
        """For each of `size` rows, the row that down- and up-sampling puts in its place: [size]
        int64."""
        whole = (size + self.period - 1) // self.period * self.period
        up = nearest_sources(
            torch.arange(size), self._reduced(whole), torch.scalar_tensor(whole, dtype=torch.int64)
        )
        rows = nearest_sources(
            up, torch.scalar_tensor(whole, dtype=torch.int64), self._reduced(whole)
        )
        return rows + (1 - self._reduced(size).clamp(max=1)) * OUT_OF_RANGE

    def _reduced(self, size: int) -> Tensor:
        """As `networks.npr.reduced_size`, int64 scalar."""
        full = torch.scalar_tensor(size, dtype=torch.float64)
        return (full * self.twice_scale * self.half_forgiveness).to(torch.int64)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        height, width = images.shape[-2:]
        return images - images.index_select(2, self.kept(height)).index_select(3, self.kept(width))
