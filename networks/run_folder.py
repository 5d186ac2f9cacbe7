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
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"  # the shipped detector


def make_run_folder(checkpoints_dir: str | Path, name: str) -> Path:
    """Make a folder for a run that starts now; the second within a second waits for the next."""
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
    """Return the newest folder that is exactly `name` and a time stamp.

    Raises:
        UserError: without one; the message begins with `flag`.
    """
    root = Path(checkpoints_dir)
    pattern = re.compile(re.escape(name) + "_" + STAMP)
    folders = root.iterdir() if root.is_dir() else ()
    names = sorted(p.name for p in folders if p.is_dir() and pattern.fullmatch(p.name))
    if not names:
        raise UserError(
            f"{flag}: no run folder {root}/{name}_<time stamp>; check --name and --checkpoints_dir"
        )
    return root / names[-1]


def lock(folder: Path) -> IO[str]:
    """Keep other processes from training in a folder while the returned file is open.

    Raises:
        UserError: another process trains there. OSError: the folder cannot be written.
    """
    file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  # stays open
    try:
        # unlike flock's, not inherited by loader workers that live longer
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        raise UserError(
            f"{folder}: {holder} trains there; wait for it to end, or start a run with another"
            " --name"
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
    """Return the path of the checkpoint 'last' (also called 'latest'), 'best' or of an epoch."""
    return folder / f"model_epoch_{'last' if epoch == 'latest' else epoch}.pth"


def shipped_detector() -> Path:
    """Return the folder of the shipped detector, and log that it is used.

    Raises:
        UserError: this copy of the project comes without it.
    """
    if not PRETRAINED.is_dir():
        raise UserError(
            f"--model_path: missing, and there is no shipped detector in {PRETRAINED}; pass a"
            " checkpoint, such as checkpoints/RUN/model_epoch_last.pth"
        )
    log.info(
        "no checkpoint named: using the shipped detector (%s says what it knows and where it fails)",
        os.path.relpath(PRETRAINED / "README.md"),
    )
    return PRETRAINED


def find_checkpoints(
    model_path: tuple[str, ...] | None, name: str | None, epoch: str, checkpoints_dir: str
) -> list[Path]:
    """Return the checkpoints that --model_path, or --name and --epoch, stand for, none twice.

    Args:
        model_path: paths and glob patterns.
        name: of a run.
        epoch: see `checkpoint_path`.
        checkpoints_dir: folder of run folders.

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
