"""Guard against NaN and infinity in losses and gradients."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import distributed
from util import UserError, log

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
