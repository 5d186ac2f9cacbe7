"""The learning rate as a function of the epoch."""

import math

MIN_LR = 1e-6


def learning_rate(initial: float, delr_freq: int, epoch: int) -> float:
    """Learning rate of the epoch with this index (from 0): x0.9 after each epoch whose index is a
    positive multiple of delr_freq.

    It never falls below 1e-6 (nor below `initial`, where that is smaller).
    """
    decays = max(epoch - 1, 0) // delr_freq
    return max(initial * 0.9**decays, min(MIN_LR, initial))


def cosine_learning_rate(initial: float, epochs: int, epoch: int) -> float:
    """Learning rate of the epoch with this index (from 0) of `epochs`: half a cosine from `initial`
    to 0, which no epoch reaches.

    Source: Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, equation 5, without restarts.
    """
    return initial * (1 + math.cos(math.pi * epoch / epochs)) / 2
