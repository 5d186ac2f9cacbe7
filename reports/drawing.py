"""Draw plots so that one that fails costs nothing else: libraries may be missing or mismatched."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from util import UserError, log

P = ParamSpec("P")
T = TypeVar("T")


class Drawer:
    """A caller of plot functions; one that fails is skipped, with one warning per reason.

    Plot functions import matplotlib themselves, so that a failed import is such a reason, too.

    Args:
        raises: errors that are raised all the same, as `UserError` is.
    """

    def __init__(self, *raises: type[Exception]) -> None:
        self._raises: tuple[type[Exception], ...] = (UserError, *raises)
        self._reasons: set[str] = set()

    def __call__(self, plot: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a plot function; return its result, None if it failed."""
        try:
            return plot(*args, **kwargs)
        except Exception as error:
            if isinstance(error, self._raises):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if reason not in self._reasons:
                log.warning("plots skipped (%s)", reason)
            self._reasons.add(reason)
            return None
