"""Helpers for torch.distributed; no-ops in a single process.

Each process reads its rank from the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE). A *collective* function must be called by every process, in the same order: a
process that calls it alone waits for the others.
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

TIMEOUT = timedelta(hours=6)  # others wait while rank 0 writes results or builds a cache
NCCL_TIMEOUT = timedelta(minutes=30)  # GPUs sum gradients; after this, one of them hangs

_objects: Any = None  # group in which objects are sent, None for the default one


@contextmanager
def process_group(gpu_ids: tuple[int, ...]) -> Iterator[None]:
    """Join the process group of torchrun, and leave it at the end of the block.

    Without torchrun, or within such a block, this does nothing. Ranks above 0 log errors only.
    After an error the group is not left, because that could wait for the others forever; torchrun
    ends them.

    Args:
        gpu_ids: see --gpu_ids. If it is empty, processes use the CPU and gloo; else one GPU each
            and NCCL.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    global _objects
    if launched_world_size() == 1 or distributed.is_initialized():
        yield
        return
    on_gpu = bool(gpu_ids) and torch.cuda.is_available()
    with let_rank_0_speak():
        if on_gpu:
            torch.cuda.set_device(_own_gpu())
            distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=NCCL_TIMEOUT)
            _objects = distributed.new_group(backend="gloo", timeout=TIMEOUT)
        else:
            distributed.init_process_group("gloo", timeout=TIMEOUT)
        if rank() > 0:
            log.addFilter(lambda record: record.levelno >= logging.ERROR)
            warnings.simplefilter("ignore")
        yield
    distributed.destroy_process_group()
    _objects = None


def _own_gpu() -> int:
    """Return the number of this process's GPU on its machine.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"torchrun --nproc_per_node {local_world_size()}: "
            f"only {torch.cuda.device_count()} CUDA device(s) are visible;"
            " start as many processes, or add --gpu_ids -1 for the CPU"
        )
    return local_rank()


def rank() -> int:
    """Return the rank of this process, from 0; rank 0 writes files and messages."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def no_bar() -> bool | None:
    """Return the value of tqdm's `disable`: only rank 0 has bars, and only on a terminal."""
    return None if rank() == 0 else True


def local_rank() -> int:
    """Return the rank of this process on its machine, from 0; also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def device(gpu_ids: tuple[int, ...]) -> torch.device:
    """Return the device of this process; with several processes, the GPU of its local rank.

    Args:
        gpu_ids: see `choose_device`.
    """
    if world_size() == 1 or not gpu_ids or not torch.cuda.is_available():
        return choose_device(gpu_ids)
    if gpu_ids != (0,):
        log.warning(
            "--gpu_ids %s: ignored, each process uses the GPU of its local rank; "
            "choose GPUs with CUDA_VISIBLE_DEVICES",
            ",".join(map(str, gpu_ids)),
        )
    return torch.device("cuda", _own_gpu())


def require_images_for_all(batch_size: int) -> None:
    """Raise UserError if a batch has fewer images than there are processes."""
    if batch_size < world_size():
        raise UserError(
            f"--batch_size {batch_size}: fewer images than the {world_size()} processes that share "
            f"a batch; pass {world_size()} or more"
        )


def share_of(count: int) -> int:
    """Return the number of items that this process gets when `count` are dealt out in turn."""
    return len(range(rank(), count, world_size()))


def gather(value: T) -> list[T]:
    """Return the (picklable) value of every process, in the order of ranks. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value, _objects)
    return values


def from_first(value: T) -> T:
    """Return the value of rank 0 in every process. Collective."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0, group=_objects)
    return values[0]


def by_first(make: Callable[[], T]) -> T:
    """Return the result of `make`, which only rank 0 calls, in every process. Collective."""
    result: Any = make() if rank() == 0 else None
    return from_first(result)


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Run a block on local rank 0 of every machine before the other processes. Collective."""
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
