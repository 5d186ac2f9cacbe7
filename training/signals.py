"""SIGTERM and Ctrl-C as a wish that a training grants when its state is whole."""

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
REPEATS = 2.0


class StopRequest:
    """Within its block the first signal is noted in `number`; a later one, or one within `at_once`,
    raises `Stopped`.

    One within `REPEATS` seconds of the first is taken for the same: torchrun passes on what its
    processes got already. Signals that are ignored stay so. Only the main thread can handle
    signals: in another, this does nothing.

    Args:
        announce: say on standard error that a signal has been noted.
    """

    def __init__(self, announce: bool = True) -> None:
        self.number: int | None = None
        self._announce, self._noted_at = announce, 0.0
        self._at_once = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [
                number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
            ]
            self._handlers = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.number is not None and time.monotonic() > self._noted_at + REPEATS
        if self.number is None:
            self.number, self._noted_at = number, time.monotonic()
            if self._announce and not self._at_once:
                text = f"\n{signal.Signals(number).name}: saving after this step; again, after {REPEATS:g} s, to end at once\n"
                os.write(2, text.encode())
        if self._at_once or again:
            raise Stopped(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal ends where it is, and that does not begin after one.

        Python drops what is raised while it runs a destructor: then the block ends with its next
        error, or at its end.
        """
        self._at_once = True
        try:
            self._require_none()
            yield
        except Exception:
            self._require_none()
            raise
        finally:
            self._at_once = False
        self._require_none()

    def _require_none(self) -> None:
        if self.number is not None:
            raise Stopped(self.number)
