"""Graceful shutdown: on SIGINT or SIGTERM finish the step, save a checkpoint, exit."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from util import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 2.0  # torchrun repeats a signal to its processes within milliseconds


class StopRequest:
    """Records the first signal within its block; a second one ends the process at once.

    A signal within `GRACE_SECONDS` of the first counts as the same. Ignored signals stay ignored.
    Outside the main thread, where no signal can be handled, this does nothing.

    Args:
        announce: print on standard error that a signal has arrived.

    Attributes:
        number: of the first signal; None before it.
    """

    def __init__(self, announce: bool = True) -> None:
        self.number: int | None = None
        self._announce, self._noted_at = announce, 0.0
        self._at_once = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._note)
                for number in SIGNALS
                if signal.getsignal(number) is not signal.SIG_IGN
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.number is not None and time.monotonic() > self._noted_at + GRACE_SECONDS
        if self.number is None:
            self.number, self._noted_at = number, time.monotonic()
            if self._announce and not self._at_once:
                name = signal.Signals(number).name
                text = (
                    f"\n{name}: saving after this step; "
                    f"send it again after {GRACE_SECONDS:g} s to end at once\n"
                )
                os.write(2, text.encode())
        if self._at_once or again:
            raise Stopped(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end this block immediately; an earlier signal prevents its start.

        Raises:
            Stopped: by a signal. Python drops exceptions raised while it runs a destructor; then
                the block ends with its next error, or at its end.
        """
        self._at_once = True
        try:
            self._raise_noted()
            yield
        except Exception:
            self._raise_noted()
            raise
        finally:
            self._at_once = False
        self._raise_noted()

    def _raise_noted(self) -> None:
        if self.number is not None:
            raise Stopped(self.number)
