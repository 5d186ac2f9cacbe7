"""Try a network on images of the protocol's size before a training begins."""

import torch
from torch import Tensor, nn

from data.transforms import Protocol
from networks.factory import ModelConfig, trial_problem
from networks.resnet import LIGHT
from util import UserError

SIDES = (224, 256, 299, 384, 448, 512)
"""Pixels, common inputs of classifiers; one that works is advice."""


class FirstPass:
    """Tells which images a network takes in training, by passes over zeros that change nothing.

    Args:
        model: in training mode.
        config: of the model.
        dtype: of autocast, None for fp32.
    """

    def __init__(self, model: nn.Module, config: ModelConfig, dtype: torch.dtype | None) -> None:
        self.model, self.config, self.dtype = model, config, dtype
        self._refusals: dict[torch.Size, str | None] = {}  # by height and width

    def refusal(self, pixels: Tensor) -> str | None:
        """Return why the network does not take pixels [..., 3, H, W], None if it does."""
        size = pixels.shape[-2:]
        if size not in self._refusals:
            self._refusals[size] = trial_problem(self.model, size[0], size[1], dtype=self.dtype)
        return self._refusals[size]

    def least_images(self, protocol: Protocol, batch_size: int) -> int:
        """Return how many images a batch needs: 2 for BatchNorm of a 1x1 feature map, else 1.

        Args:
            protocol: of the training; without a size, 1 is returned.
            batch_size: images per batch.

        Raises:
            UserError: the network does not take images of the protocol's size, or so few.
        """
        side = protocol.crop or protocol.resize
        if side is None:
            return 1
        name = f"--{'cropSize' if protocol.crop else 'loadSize'} {side}"
        if self.config.backbone != LIGHT:
            name = f"--backbone {self.config.backbone}"
        if why := trial_problem(self.model, side, side, dtype=self.dtype):
            raise UserError(f"{name}: {why}; {self._advice(protocol)}")
        if trial_problem(self.model, side, side, images=1, dtype=self.dtype) is None:
            return 1
        if batch_size == 1:
            raise UserError(
                f"--batch_size 1: one {side}x{side} image is too little for the BatchNorm of this"
                " network; pass --batch_size 2 or more"
            )
        return 2

    def _advice(self, protocol: Protocol) -> str:
        """Return the flags of the first of `SIDES` that the network takes."""
        for side in SIDES:
            if trial_problem(self.model, side, side, dtype=self.dtype) is None:
                larger = protocol.resize is not None and protocol.resize < side
                flags = [f"--loadSize {side}"] if larger or not protocol.crop else []
                flags += [f"--cropSize {side}"] if protocol.crop else []
                return f"pass {' '.join(flags)}"
        return "pass another --backbone"
