"""Worker processes that load images: the signals they ignore, and how they end."""

import atexit
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from util import UserError

# causes of the signals that end a worker
DEATHS: dict[int, str] = {
    signal.SIGKILL: "was killed (usually because memory ran out)",
    signal.SIGBUS: "ended with a bus error (usually because shared memory, /dev/shm, is full)",
    signal.SIGSEGV: "crashed (usually in the decoder of a damaged file)",
}
WORKER_ADVICE = (
    "a lower --num_threads (0: no such processes) or --batch_size, or a larger /dev/shm, may help"
)


def init_worker(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker: the parent decides what such a signal does.

    A worker ends when its parent closes the loader or is gone, which PyTorch looks for.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # the parent reports a crash; PyTorch's handlers would print one more line
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)


@atexit.register
def _kill_workers() -> None:
    """Kill the workers before Python ends: it would wait for them to heed a SIGTERM."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class WatchedLoader:
    """Iterates over a DataLoader; a worker that died is a UserError of one line.

    Args:
        loader: with `init_worker` in its workers.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.workers: list[BaseProcess] = []

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._start()
        except Exception as error:
            # a worker's connections close before it ends
            ending = wait([worker.sentinel for worker in self.workers], timeout=1)
            for worker in self.workers:
                worker.join(timeout=1 if worker.sentinel in ending else 0)
            statuses = [worker.exitcode for worker in self.workers if worker.exitcode is not None]
            if not statuses:
                raise
            how = DEATHS.get(-statuses[0], f"ended with status {statuses[0]}")
            raise UserError(
                f"--num_threads: a process that loads images {how}; {WORKER_ADVICE}"
            ) from error

    def _start(self) -> Iterator[Any]:
        """Return the loader's iterator, its workers started.

        PyTorch's handler of SIGCHLD is removed again: it would raise wherever this process is. A
        dead worker is noticed when its batch does not come.
        """
        handler, before = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
        # workers inherit the blocked signals, which could end them before `init_worker`
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            iterator = iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        self.workers += set(multiprocessing.active_children()) - before
        return iterator
