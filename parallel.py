"""Several processes that train or test together, as torchrun starts them; a process that is alone notices nothing of it.

Each process reads its place from the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for one that writes results, or builds a cache."""


def launched_world_size() -> int:
    """Processes that torchrun started, over all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(on_gpu: bool) -> Iterator[None]:
    """Join the group that torchrun started, and leave it at the end; nothing without torchrun.

    Args:
        on_gpu: processes compute on GPUs, one each, and talk by NCCL; else by gloo.
    """
    if launched_world_size() == 1:
        yield
        return
    if on_gpu:
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; 0 writes files and messages."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes, over all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rank() -> int:
    """Number of this process on its machine, from 0: also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def share_of(count: int) -> int:
    """How many of `count` things, dealt out in turn, this process gets."""
    return len(range(rank(), count, world_size()))


def gather(value: T) -> list[T]:
    """The value of every process, in the order of their ranks, in every process; it is pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """What process 0 gave, in every process."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
