"""Call readers of untrusted files in a process of their own, within limits of time and memory."""

import contextlib
import dataclasses
import faulthandler
import multiprocessing
import os
import re
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from unittest import mock

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class File:
    """A file to be read; its content is too long for the report of a failure."""

    name: str
    data: bytes = dataclasses.field(repr=False)


class IsolatedReader:
    """Reads one file at a time with `read` in a child process, which lives until a file kills it.

    Args:
        read: path -> outcome; a function at the top level of a module.
        valid: a file that is read first, which imports modules and fills caches.
        seconds: time limit per file; the child ends when it is over.
        mib: memory that the child may take, at any time, beyond what it has after the first file.
    """

    def __init__(
        self, read: Callable[[Path], str], valid: File, seconds: float = 20, mib: int = 1024
    ) -> None:
        self.read, self.valid, self.seconds, self.mib = read, valid, seconds, mib
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        limits = (self.read, self.valid, self.seconds, self.mib)
        self.pool = ProcessPoolExecutor(1, context, initializer=start_child, initargs=limits)

    def __call__(self, file: File) -> str:
        """Return the outcome.

        Raises:
            AssertionError: `read` raised anything; or the file ended the child, took too long or
                too much memory, changed, or left other files behind or open.
        """
        try:
            return self.pool.submit(read_within_limits, file).result()
        except Exception as error:
            self.close()
            self.start()
            path = Path(tempfile.mkdtemp(prefix="fuzz-"), file.name)
            path.write_bytes(file.data)
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, BrokenProcessPool):
                reason = f"the process died, or took longer than {self.seconds} s"
            raise AssertionError(f"{reason} (the file is kept: {path})") from error

    def close(self) -> None:
        self.pool.shutdown()


def start_child(read: Callable[[Path], str], valid: File, seconds: float, mib: int) -> None:
    """Set the limits of this child process."""
    global READ, SECONDS, MAX_PEAK, OPEN_FILES
    READ, SECONDS, MAX_PEAK, OPEN_FILES = read, seconds, float("inf"), float("inf")
    faulthandler.enable()
    read_within_limits(valid)
    OPEN_FILES = open_files()
    MAX_PEAK = process_mib("VmHWM") + mib
    # a reader that asks for far more must not fill the machine
    address_space = int(process_mib("VmSize") + 3 * mib) * MIB
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_within_limits(file: File) -> str:
    """Read a file in a folder of its own, which also takes temporary files."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = Path(folder, file.name)
        path.write_bytes(file.data)
        # ends this process with the stack of what takes so long
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            with mock.patch.object(tempfile, "tempdir", folder):
                outcome = READ(path)
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert os.listdir(folder) == [file.name], f"left behind: {os.listdir(folder)}"
        assert path.read_bytes() == file.data, "the file was changed"
    assert open_files() <= OPEN_FILES, "files were left open"
    peak = process_mib("VmHWM")
    assert peak <= MAX_PEAK, f"a peak of {peak:.0f} MiB, limit {MAX_PEAK:.0f}"
    return outcome


def process_mib(field: str) -> float:
    """Return a field of /proc/self/status in MiB."""
    (kib,) = re.findall(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(kib) / 1024


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
