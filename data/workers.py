"""Processes that load images: which signals they heed, and what is said when one dies."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from util import UserError, printable

DEATHS: dict[int, str] = {
    signal.SIGKILL: "was killed (usually because memory ran out)",
    signal.SIGBUS: "ended with a bus error (usually because shared memory, /dev/shm, is full)",
    signal.SIGSEGV: "crashed (usually in the decoder of a damaged file)",
}
"""What the signals that end a worker mean."""
WORKER_ADVICE = (
    "a lower --num_threads (0: no such processes) or --batch_size, or a larger /dev/shm, may help"
)


def heed_only_the_parent(worker: int) -> None:
    """Let a worker ignore Ctrl-C, and SIGTERM unless its parent sends it: what a signal to all
    processes does, the parent decides.

    A worker ends when its parent closes the loader, ends the worker, or is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for crash in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
        # instead of PyTorch's, which prints; the parent says it
        signal.signal(crash, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()
    else:  # macOS cannot say who sends a signal: there SIGTERM ends a worker, whoever sends it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class WatchedLoader:
    """What a DataLoader gives; a worker that died ends it with a UserError of one line instead of
    PyTorch's traceback.

    Args:
        loader: with `heed_only_the_parent` in its workers. paths: of its files.
        under_way: int64 [workers, 1 + files of a batch], written by the workers: pid, and numbers of files to be loaded yet, else
            -1. None without workers.
    """

    def __init__(
        self, loader: DataLoader[Any], paths: Sequence[str], under_way: Tensor | None
    ) -> None:
        self.loader, self.paths, self.under_way = loader, paths, under_way
        self.workers: list[BaseProcess] = []

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._started()
        except Exception as error:
            # connections close before a process ends
            ending = wait([worker.sentinel for worker in self.workers], timeout=1)
            for worker in self.workers:
                if worker.sentinel in ending:
                    worker.join(timeout=1)
            dead = [worker for worker in self.workers if worker.exitcode is not None]
            if not dead:
                raise
            raise UserError(self._about(dead[0])) from error

    def _started(self) -> Iterator[Any]:
        """The loader's iterator, without the handler that PyTorch leaves behind, which would raise
        wherever this process is.

        Signals wait until the workers have been started, which inherit that: one that comes then
        would end a worker.
        """
        handler, before = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            iterator = iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            # a dead worker is missed when its batch does not come
            signal.signal(signal.SIGCHLD, handler)
        self.workers += set(multiprocessing.active_children()) - before
        return iterator

    def _about(self, worker: BaseProcess) -> str:
        """Why a worker may have died, what it was loading, and what may help."""
        rows = [] if self.under_way is None else self.under_way.tolist()
        files = [self.paths[i] for pid, *row in rows if pid == worker.pid for i in row if i >= 0]
        named = ", ".join(printable(path) for path in files[:3])
        loading = (
            f"{len(files)} files of its batch yet to load, first {named}"
            if files
            else "no file being loaded"
        )
        how = DEATHS.get(-(worker.exitcode or 0), f"ended with status {worker.exitcode}")
        return f"--num_threads: a process that loads images {how}, with {loading}; {WORKER_ADVICE}"
