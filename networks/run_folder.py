"""Run folders, `{checkpoints_dir}/{name}_{YYYY_MM_DD_HH_MM_SS}/`, and the checkpoints in them."""

import fcntl
import glob
import os
import re
import socket
import time
from pathlib import Path
from typing import IO

from util import UserError, log

STAMP = r"\d{4}(_\d\d){5}"


def make_run_folder(checkpoints_dir: str | Path, name: str) -> Path:
    """A new folder for a run that starts now; when two start within a second, the later waits for
    the next."""
    while True:
        folder = Path(checkpoints_dir) / f"{name}_{time.strftime('%Y_%m_%d_%H_%M_%S')}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            time.sleep(0.2)
        except OSError as error:
            raise UserError(
                f"--checkpoints_dir {checkpoints_dir}: cannot make a run folder ({error.strerror})"
            ) from None


def newest_run_folder(checkpoints_dir: str | Path, name: str, flag: str) -> Path:
    """The newest folder that is exactly `name` and a time stamp.

    Raises:
        UserError: there is none; the message begins with `flag`.
    """
    root = Path(checkpoints_dir)
    pattern = re.compile(re.escape(name) + "_" + STAMP)
    found = (
        sorted(p.name for p in root.iterdir() if p.is_dir() and pattern.fullmatch(p.name))
        if root.is_dir()
        else []
    )
    if not found:
        raise UserError(
            f"{flag}: no run folder {root}/{name}_<time stamp>; check --name and --checkpoints_dir"
        )
    return root / found[-1]


def lock(folder: Path) -> IO[str]:
    """Keep other processes from training in a folder until the returned file is closed, or this
    process ends in any way.

    Raises:
        UserError: another process trains there. OSError: the folder cannot be written.
    """
    file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  # stays open
    try:
        fcntl.lockf(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # unlike flock's, not inherited by loader workers that live longer
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        raise UserError(
            f"{folder}: {holder} trains there; wait for it to end, or start a run with another --name"
        ) from None
    except OSError as error:
        log.warning(
            "%s: cannot be locked (%s), nothing keeps a second process from training there",
            folder,
            error.strerror,
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def checkpoint_path(folder: Path, epoch: str | int) -> Path:
    """The checkpoint of 'last' (also called 'latest'), 'best' or an epoch's number."""
    return folder / f"model_epoch_{'last' if epoch == 'latest' else epoch}.pth"


def find_checkpoints(
    model_path: tuple[str, ...] | None, name: str | None, epoch: str, checkpoints_dir: str
) -> list[Path]:
    """The checkpoints that --model_path (paths and glob patterns) or --name and --epoch stand for,
    none twice.

    Raises:
        UserError: a path or pattern without a file.
    """
    if not model_path:
        path = checkpoint_path(
            newest_run_folder(checkpoints_dir, name or "", f"--name {name}"), epoch
        )
        if not path.is_file():
            raise UserError(f"--epoch {epoch}: no {path}")
        return [path]
    found: list[Path] = []
    for pattern in model_path:
        paths = [Path(pattern)] if Path(pattern).exists() else sorted(map(Path, glob.glob(pattern)))
        if not paths:
            raise UserError(f"--model_path {pattern}: no such file")
        found += [path for path in paths if path not in found]
    return found
