"""Training loss and learning rate, and a guard against NaN and infinity in losses and gradients."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import distributed
from util import UserError, log

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


READ_EVERY = 50  # optimizer steps between two looks at a GPU's answer


class NonFiniteError(UserError):
    """Training met NaN or infinity and may not skip it.

    Attributes:
        steps: numbers of the batches that may have caused it.
        what: what was not finite.
    """

    def __init__(self, steps: Sequence[int], what: str) -> None:
        shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        super().__init__(f"step {shown}: {what}")
        self.steps, self.what = list(steps), what


class _Step(NamedTuple):
    """Record of one optimizer step on the device, not yet read from it."""

    batches: list[int]
    losses: list[Tensor]
    bad: Tensor  # bool [batches + 1]: which losses are not finite in any process; gradients last


class FiniteGuard:
    """Decides whether an optimizer step may be taken; all processes decide alike.

    A GPU only notes what it finds, because to ask for it would stop everything until it is known.
    `settle` asks, every `READ_EVERY` steps and before a checkpoint: the weights may be spoilt by
    then, but no checkpoint is. On a CPU, and where steps may be skipped, each step is checked
    before it is taken.

    Args:
        allowed: optimizer steps that may be skipped before `NonFiniteError` (--skip_nonfinite).
        check_gradients: False under gradient scaling, which meets infinite gradients on purpose and
            skips them itself.
        at_once: check each step before it is taken.
    """

    def __init__(self, allowed: int, check_gradients: bool, at_once: bool) -> None:
        self.allowed, self.check_gradients = allowed, check_gradients
        self.at_once = at_once or allowed > 0
        self.skipped = 0
        self._unread: list[_Step] = []

    @property
    def settled(self) -> bool:
        """True if every step so far was looked at."""
        return not self._unread

    def passes(self, batches: list[int], losses: list[Tensor], gradients: Sequence[Tensor]) -> bool:
        """Return whether the optimizer may step with these gradients. Collective.

        Args:
            batches: numbers of the batches behind the gradients.
            losses: one scalar per batch.
            gradients: of the model's parameters.

        Raises:
            NonFiniteError: not finite here or in an earlier step, and no more steps may be skipped.
        """
        norm = losses[0].new_zeros(())
        if self.check_gradients:
            norm = nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(torch.stack([*losses, norm]))
        self._unread.append(_Step(batches, losses, distributed.summed(bad.float()) > 0))
        if self.at_once or len(self._unread) == READ_EVERY:
            return self.settle()
        return True

    def settle(self) -> bool:
        """Look whether all steps since the last look were finite; see `passes`.

        Returns:
            False if one was not, and is to be skipped.
        """
        unread, self._unread = self._unread, []
        bad_steps = torch.stack([step.bad.any() for step in unread]).tolist() if unread else []
        if True not in bad_steps:
            return True
        error = _error_of(unread[bad_steps.index(True)])
        if self.skipped >= self.allowed:
            raise error
        self.skipped += 1
        log.warning(
            "%s: this optimizer step is left out (%d of %d that may be)",
            error,
            self.skipped,
            self.allowed,
        )
        return False


def _error_of(step: _Step) -> NonFiniteError:
    *bad_losses, bad_gradients = step.bad.tolist()
    values = [float(loss) for loss in step.losses]
    here = [value for value in values if not math.isfinite(value)]
    what = "a loss is not finite" if True in bad_losses else "the gradients are not finite"
    batches = [number for number, bad in zip(step.batches, bad_losses, strict=True) if bad]
    return NonFiniteError(batches or step.batches, f"the loss is {here[0]:g}" if here else what)


def require_finite(state: dict[str, Tensor], step: int) -> None:
    """Raise NonFiniteError if a model's state is spoilt, which must not be saved."""
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NonFiniteError([step], f"{bad[0]} is not finite")
