"""What too little memory means where files are judged: on a GPU the end of the run, elsewhere the
problem of a file."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from util import UserError


class OutOfGpuMemory(UserError):
    """A GPU's memory is too small; the message says which flags help."""


class NotEnoughMemory(UserError, ValueError):
    """A file, or a model, needs more of the machine's memory than there is."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """A block in which memory may run out.

    Raises:
        OutOfGpuMemory, NotEnoughMemory: it did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfGpuMemory(
            "--gpu_ids: out of GPU memory; try --precision auto, another GPU, or -1 for the CPU"
        ) from error
    except MemoryError:
        raise NotEnoughMemory("not enough memory") from None
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # PyTorch has no type of its own for this
            raise
        raise NotEnoughMemory("not enough memory") from None
