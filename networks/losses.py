"""The training loss: classification, and what one may ask of the attention besides."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def attention_entropy(attention_weights: Tensor) -> Tensor:
    """Shannon entropy in nats of each row of [..., S] weights that sum to 1: [...], from 0 (one
    scale) to ln S (uniform)."""
    return torch.special.entr(attention_weights).sum(dim=-1)


def detection_loss(
    logits: Tensor,
    labels: Tensor,
    attention_weights: Tensor | None = None,
    entropy_weight: float = 0.0,
    diversity_weight: float = 0.0,
) -> Tensor:
    """BCE(logits, labels) - entropy_weight * mean_i H(a_i) + diversity_weight * (mean_i H(a_i) -
    H(mean_i a_i)).

    The entropy term is written as guides to attention often give it; with a positive weight it
    *maximises* entropy, which makes attention uniform. The diversity term is the negative mutual
    information between image and scale (Bridle et al., NIPS 1991; Krause et al., NIPS 2010): it
    wants each image decided (low entropy per image) and all scales used over the batch (high
    entropy of the mean), which is what cures uniform attention.

    Args:
        logits: [B, 1]. labels: [B], 0 real, 1 generated. attention_weights: [B, S], None for models
            without.

    Returns:
        A scalar, the mean over the batch.
    """
    loss = binary_cross_entropy_with_logits(logits.float().squeeze(1), labels)
    if attention_weights is None or not (entropy_weight or diversity_weight):
        return loss
    attention_weights = attention_weights.float()
    per_image = attention_entropy(attention_weights).mean()
    of_mean = attention_entropy(attention_weights.mean(dim=0))
    return loss - entropy_weight * per_image + diversity_weight * (per_image - of_mean)
