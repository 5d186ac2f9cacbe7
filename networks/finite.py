"""NaN and infinity in losses and gradients: seen before they reach the weights, or, on a GPU, one
optimizer step later."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import distributed
from util import UserError, log


class NonFiniteError(UserError):
    """Training met NaN or infinity and may not leave it out.

    Attributes:
        steps: numbers of the batches that may have caused it. what: what was not finite.
    """

    def __init__(self, steps: Sequence[int], what: str) -> None:
        shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        super().__init__(f"step {shown}: {what}")
        self.steps, self.what = list(steps), what


class _Seen(NamedTuple):
    """What is to be known of one optimizer step: how many processes had a non-finite loss, per
    batch, and gradient, last."""

    steps: list[int]
    losses: list[Tensor]
    counts: Tensor  # [batches + 1]
    copied: Any  # event of a GPU after which the counts lie in memory; None elsewhere


class FiniteGuard:
    """Decides whether an optimizer step may be taken. All processes decide alike.

    On a GPU, asking would stop everything until it has computed the answer. So there, unless steps
    may be left out, a step is judged when the next one asks or at `settle`: the weights may then be
    spoilt, but no checkpoint is.

    Args:
        allowed: optimizer steps that may be left out before `NonFiniteError` (--skip_nonfinite).
        check_gradients: False under gradient scaling, which meets infinite gradients on purpose and
            leaves them out itself.
        at_once: judge a step before it is taken.
    """

    def __init__(self, allowed: int, check_gradients: bool, at_once: bool) -> None:
        self.allowed, self.check_gradients, self.at_once = (
            allowed,
            check_gradients,
            at_once or allowed > 0,
        )
        self.skipped = 0
        self._waiting: _Seen | None = None

    def passes(
        self, steps: list[int], losses: list[Tensor], parameters: Iterable[nn.Parameter]
    ) -> bool:
        """True if the optimizer may step with these parameters' gradients; False to leave the step
        out. Collective.

        Args:
            steps: numbers of the batches behind the gradients. losses: one scalar per batch.

        Raises:
            NonFiniteError: they, or those before, are not finite, and no more steps may be left
                out.
        """
        seen = self._look(steps, losses, parameters)
        self.settle()
        if self.at_once:
            return self._judge(seen)
        self._waiting = seen
        return True

    def settle(self) -> None:
        """Judge the step that waits for it."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._judge(waiting)

    def _look(
        self, steps: list[int], losses: list[Tensor], parameters: Iterable[nn.Parameter]
    ) -> _Seen:
        gradients = (
            [p.grad for p in parameters if p.grad is not None] if self.check_gradients else []
        )
        norm = nn.utils.get_total_norm(gradients) if gradients else losses[0].new_zeros(())
        bad = [~torch.isfinite(value) for value in (*losses, norm)]
        counts = distributed.summed(torch.stack(bad).float())
        if counts.device.type != "cuda":
            return _Seen(steps, losses, counts, None)
        return _Seen(
            steps,
            losses,
            counts.to("cpu", non_blocking=True),
            torch.cuda.current_stream(counts.device).record_event(),
        )

    def _judge(self, seen: _Seen) -> bool:
        if seen.copied is not None:
            seen.copied.synchronize()
        *of_losses, of_gradients = seen.counts.tolist()
        if not any(of_losses) and not of_gradients:
            return True
        bad = [
            number for number, count in zip(seen.steps, of_losses, strict=True) if count
        ] or seen.steps
        values = [float(loss) for loss in seen.losses]
        shown = next(
            (f"the loss is {value:g}" for value in values if not math.isfinite(value)), None
        )
        what = shown or (
            "a loss is not finite" if any(of_losses) else "the gradients are not finite"
        )
        error = NonFiniteError(bad, what)
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


def require_finite(state: dict[str, Tensor], step: int) -> None:
    """Raises NonFiniteError if a model's state is spoilt, which must not be saved."""
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NonFiniteError([step], f"{bad[0]} is not finite")
