"""Helpers for torch.distributed; no-ops in a single process.

Each process reads its place from the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE). A *collective* function needs every process to call it, in the same order: whoever
calls it alone waits for the others.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from device import choose_device
from util import UserError, launched_world_size, let_rank_0_speak, log

T = TypeVar("T")

TIMEOUT = timedelta(hours=6)  # of a process that writes results, or builds a cache


@contextmanager
def process_group(gpu_ids: tuple[int, ...]) -> Iterator[None]:
    """Join the group that torchrun started, and leave it at the end.

    Nothing happens without torchrun, or within such a block. Ranks above 0 log errors only. An
    error leaves the group as it is, because waiting for the others could take for ever: torchrun
    ends them.

    Args:
        gpu_ids: see --gpu_ids; unless it is empty, processes compute on GPUs, one each, and talk by
            NCCL; else by gloo.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    if launched_world_size() == 1 or distributed.is_initialized():
        yield
        return
    on_gpu = bool(gpu_ids) and torch.cuda.is_available()
    with let_rank_0_speak():
        if on_gpu:
            torch.cuda.set_device(_own_gpu())
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
        if rank() > 0:
            log.addFilter(lambda record: record.levelno >= logging.ERROR)
            warnings.simplefilter("ignore")
        yield
    distributed.destroy_process_group()


def _own_gpu() -> int:
    """Return the number of this process' GPU on its machine."""
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"torchrun --nproc_per_node {local_world_size()}: only {torch.cuda.device_count()} CUDA device(s) are visible;"
            " start as many processes, or add --gpu_ids -1 for the CPU"
        )
    return local_rank()


def rank() -> int:
    """Return this process' number, from 0; rank 0 writes files and messages."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, over all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def no_bar() -> bool | None:
    """Return tqdm's `disable`: progress bars are rank 0's, and there on terminals only."""
    return None if rank() == 0 else True


def local_rank() -> int:
    """Return this process' number on its machine, from 0: also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def device(gpu_ids: tuple[int, ...]) -> torch.device:
    """Return where this process computes; of several on GPUs, each takes that of its number.

    Args:
        gpu_ids: see `choose_device`.
    """
    if world_size() == 1 or not gpu_ids or not torch.cuda.is_available():
        return choose_device(gpu_ids)
    if gpu_ids != (0,):
        given = ",".join(map(str, gpu_ids))
        log.warning(
            "--gpu_ids %s: each process takes the GPU of its number; CUDA_VISIBLE_DEVICES chooses cards",
            given,
        )
    return torch.device("cuda", _own_gpu())


def require_images_for_all(batch_size: int) -> None:
    """Raise UserError when a batch has fewer images than there are processes."""
    if batch_size < world_size():
        raise UserError(
            f"--batch_size {batch_size}: fewer images than the {world_size()} processes that share a batch;"
            f" give {world_size()} or more"
        )


def share_of(count: int) -> int:
    """Return how many of `count` things, dealt out in turn, this process gets."""
    return len(range(rank(), count, world_size()))


def gather(value: T) -> list[T]:
    """Return the (pickled) value of every process, in the order of ranks. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """Return rank 0's value, in every process. Collective."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def by_first(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0, the only one that calls it. Collective."""
    made: Any = make() if rank() == 0 else None
    return from_first(made)


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Run a block on the first process of every machine before the others. Collective."""
    if local_rank() > 0:
        gather(None)
    yield
    if local_rank() == 0:
        gather(None)


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes. Collective."""
    if world_size() == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def total(count: int) -> int:
    """Return the sum of a number over the processes, without waiting for a GPU. Collective."""
    return count if world_size() == 1 else int(summed(torch.tensor(count)))


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their mean over the processes, the same bits everywhere. Collective.

    Args:
        tensors: of one type, on one device.
    """
    if world_size() == 1 or not tensors:
        return
    means = summed(torch.cat([tensor.flatten() for tensor in tensors])) / world_size()
    parts = means.split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, parts, strict=True):
        tensor.copy_(mean.view_as(tensor))
