"""SIGTERM and Ctrl-C as a wish that a training grants when its state is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """The end of a script by a signal; its exit status is 128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """A handler of a signal that raises `Stopped`, so that files are closed and workers ended on the way out."""
    raise Stopped(number)


class StopRequest:
    """Within its block the first signal is noted in `number`; a second, or one within `at_once`, raises `Stopped`.

    Only the main thread can handle signals: in another, this does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        at_once, self.number = self._at_once or self.number is not None, self.number or number
        if at_once:
            raise Stopped(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal ends where it is, and that does not begin after one.

        Python drops what is raised while it runs a destructor: then the block ends with its next error, or at its end.
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
