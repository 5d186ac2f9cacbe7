"""What too little memory means where files are judged: on a GPU it ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from util import UserError


class OutOfGpuMemory(UserError):
    """A GPU's memory is too small; the message says which flags help."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """A block in which memory may run out.

    Raises:
        OutOfGpuMemory: it did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfGpuMemory(
            "--gpu_ids: out of GPU memory; try --precision auto, another GPU, or -1 for the CPU"
        ) from error
