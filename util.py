"""Errors, logging, text and files that every part of the project shares."""

import codecs
import ctypes
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO

log = logging.getLogger("npr")
BYTE_ORDER_MARKS = (  # of UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
HEAD_START = 10.0  # seconds; rank 0 may meet the same error first, and then ends all


class UserError(Exception):
    """User error: printed as one line, exit status 2."""


class CannotWrite(UserError):
    """File or folder that cannot be written: full disk, read-only or deleted folder."""


class Stopped(SystemExit):
    """End of a script by a signal; exit status 128 + its number (Ctrl-C 130, SIGTERM 143)."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `Stopped`, so that files are closed and workers ended."""
    raise Stopped(number)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn a block's OSErrors into `CannotWrite` that names `place`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"{place}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_file(path: Path, mode: str = "w", **how: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when the block ends well, and is on the disk then.

    A crash, an error or a loss of power at any moment leaves what was there before.

    Args:
        path: where the file goes; its folder exists.
        mode: "w" for UTF-8 text, "wb" for bytes.
        how: further arguments of `open`.

    Raises:
        OSError: the file cannot be written.
    """
    if "b" not in mode:
        how = {"encoding": "utf-8"} | how
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `path` when the block ends well.

    What is at `path` is replaced. An error leaves it as it was, and the new folder is removed.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary, old = (path.with_name(f".{path.name}.{word}") for word in ("tmp", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let a rename in a folder reach the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def writable_folder(folder: Path, flag: str = "--results_dir") -> None:
    """Make the folder of a flag and try to write in it, before hours are spent on its content.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write there ({error.strerror})") from None


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for what comes next; return False without glibc.

    A network on the CPU frees and asks for the same hundreds of MiB at every step, and a page that
    was handed back has to be cleared by the kernel before it is written again. Memory does not fall
    in between, and its peak is up to a quarter higher.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # names and values of malloc.h, see mallopt(3)
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, -1))


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's main function and exit: 2 after a UserError, 130 after Ctrl-C, 143 after
    SIGTERM."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, stop_at_once)
    for stream in (sys.stdout, sys.stderr):  # a file name that is not UTF-8 must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        # what is raised while Python ends would be printed and dropped
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)  # names in it may come from anywhere
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        print(f"ended by {signal.Signals(stopped.number).name}", file=sys.stderr)
        raise


def printable(text: str) -> str:
    """Return text on one line, with codes for control characters and lone bytes of file names."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def text_encoding(start: bytes) -> str:
    """Return the encoding of a text by its first bytes, at least four: UTF-8 unless they tell.

    They tell by a byte order mark, which the encoding then removes, or by the zeros of UTF-16.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    pairs, first, second = len(start) // 2, start[::2].count(0), start[1::2].count(0)
    # paths between NUL bytes have fewer zeros; some letters have a zero at the other place
    if pairs > 1 and max(first, second) > max(pairs / 3, 4 * min(first, second)):
        return "utf-16-le" if second > first else "utf-16-be"
    return "utf-8"


def read_text(path: Path) -> str:
    """Return the text of a file that a user may have saved, see `text_encoding`.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is not text.
    """
    content = path.read_bytes()
    return content.decode(text_encoding(content))


def counted(count: int, noun: str) -> str:
    """Format a number of things: '1 image', '2,000 images'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float | None) -> str:
    """Format a share: '97.5 %', 'undefined' for None."""
    return "undefined" if share is None else f"{100 * share:.1f} %"


class HarmlessFormatter(logging.Formatter):
    """A formatter whose lines are `printable`."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).expandtabs().split("\n")))


class LogFile(logging.FileHandler):
    """Log file that gives up, with one warning, when it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning(
            "%s: cannot be written (%s), continuing without it",
            self.baseFilename,
            sys.exc_info()[1],
        )


def start_logging(log_file: Path | None = None, stream: TextIO | None = None) -> None:
    """Send the project's messages to a stream and a file.

    Args:
        log_file: appended to, with the time of each message.
        stream: left out, standard output.
    """
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(stream or sys.stdout)
    console.setFormatter(HarmlessFormatter("%(message)s"))
    log.addHandler(console)
    if log_file is not None:
        to_file = LogFile(log_file, encoding="utf-8")
        to_file.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(to_file)


def launched_world_size() -> int:
    """Return how many processes torchrun started, over all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Return this process' number as torchrun gave it, also before `process_group`."""
    return int(os.environ.get("RANK", "0")) if launched_world_size() > 1 else 0


@contextmanager
def silent_unless_first() -> Iterator[None]:
    """Print nothing above rank 0; a process that ends here on its own prints it then."""
    if launched_rank() == 0:
        yield
        return
    held = io.StringIO()
    with let_rank_0_speak():
        try:
            with redirect_stdout(held), redirect_stderr(held):
                yield
        except SystemExit as end:
            if end.code:
                time.sleep(HEAD_START)
                print(held.getvalue(), end="", file=sys.stderr)
            raise


@contextmanager
def let_rank_0_speak() -> Iterator[None]:
    """Above rank 0, end silently when interrupted, and wait before an error goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if launched_rank() > 0:
            sys.exit(130)
        raise
    except Exception:
        if launched_rank() > 0:
            time.sleep(HEAD_START)
        raise


def require_one(script: str) -> None:
    """Raise UserError when torchrun started several processes."""
    if launched_world_size() > 1:
        raise UserError(f"{script}: works as one process; start it with python instead of torchrun")
