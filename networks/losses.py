"""Training loss and learning rate."""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

MIN_LR = 1e-6  # of the step schedule


def attention_entropy(attention_weights: Tensor) -> Tensor:
    """Return the Shannon entropy of weights in nats.

    Args:
        attention_weights: [..., S], sums of 1 over the last dimension.

    Returns:
        [...], from 0 (one scale) to ln S (uniform).
    """
    return torch.special.entr(attention_weights).sum(dim=-1)


def detection_loss(
    logits: Tensor,
    labels: Tensor,
    attention_weights: Tensor | None = None,
    entropy_weight: float = 0.0,
    diversity_weight: float = 0.0,
) -> Tensor:
    """Return the training loss: binary cross-entropy with optional attention terms.

        BCE(logits, labels) - entropy_weight * mean_i H(a_i)
            + diversity_weight * (mean_i H(a_i) - H(mean_i a_i))

    The entropy term has the sign that guides to attention often give. With a positive weight it
    *maximises* entropy, which makes attention uniform.

    The diversity term is the negative mutual information between image and scale (Bridle et al.,
    NIPS 1991; Krause et al., NIPS 2010). It rewards few scales per image (low entropy per image)
    and all scales over the batch (high entropy of the mean), and so prevents uniform attention.

    Args:
        logits: [B, 1].
        labels: [B], 0 real, 1 fake.
        attention_weights: [B, S], None for models without.
        entropy_weight: factor of the entropy term.
        diversity_weight: factor of the diversity term.

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


def learning_rate(initial: float, delr_freq: int, epoch: int) -> float:
    """Return the learning rate of the epoch with this index (from 0) by the step schedule.

    It is multiplied by 0.9 after each epoch whose index is a positive multiple of `delr_freq`. It
    never falls below `MIN_LR`, or below `initial` if that is smaller.
    """
    decays = max(epoch - 1, 0) // delr_freq
    return max(initial * 0.9**decays, min(MIN_LR, initial))


def cosine_learning_rate(initial: float, epochs: int, epoch: int) -> float:
    """Return the learning rate of the epoch with this index (from 0) of `epochs` by the cosine.

    It follows half a cosine from `initial` to 0. No epoch reaches 0.

    Source: Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, equation 5, without restarts.
    """
    return initial * (1 + math.cos(math.pi * epoch / epochs)) / 2
