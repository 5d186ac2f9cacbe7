"""Does attention matter? The same scores with other attention, without another pass through the network.

The classifier is linear and the fusion a weighted sum, so an image's logit is b + sum_s a_s z_s (+ mean_s z_s with the residual
fusion), where z_s is what branch s says alone. Other weights give the logits that the network would give with them.
"""

import numpy as np
from numpy.typing import NDArray


def fused_logits(weights: NDArray, branch_logits: NDArray, bias: float, residual: bool) -> NDArray:
    """b + sum_s a_s z_s, and + mean_s z_s with the residual fusion: [..., S] weights and branch logits [N, S] -> [..., N]."""
    fused = bias + (np.asarray(weights, dtype=float) * branch_logits).sum(axis=-1)
    return fused + np.mean(branch_logits, axis=-1) if residual else fused
