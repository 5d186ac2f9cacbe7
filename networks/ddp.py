"""Training in several processes: the same model in all, different random numbers in each."""

import inspect
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

import distributed
from device import rng_state, set_rng_state
from networks.factory import ModelConfig
from networks.resnet import LIGHT
from util import UserError, log


def with_sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with BatchNorm over the batch of all processes (--sync_bn).

    The names of its weights stay the same.

    Raises:
        UserError: on a CPU, where PyTorch has none.
    """
    if device.type == "cpu":
        raise UserError(
            "--sync_bn: needs GPUs, PyTorch has no synchronised BatchNorm on CPUs; leave it out"
        )
    if distributed.world_size() == 1:
        log.warning("--sync_bn: without effect, there is one process")
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def wrap(model: nn.Module, config: ModelConfig, device: torch.device) -> DistributedDataParallel:
    """Return the model wrapped so that gradients are averaged over the processes.

    BatchNorm statistics stay apart until `average_statistics`. Branches with a name may have
    weights that are not always used; the search for them costs time, and the others need none.
    """
    # PyTorch 2.13 gave the option another name
    known = inspect.signature(DistributedDataParallel).parameters
    sync_buffers = (
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    )
    options: dict[str, Any] = {
        "device_ids": [device] if device.type == "cuda" else None,
        "find_unused_parameters": config.backbone != LIGHT,
        sync_buffers: False,
    }
    return DistributedDataParallel(model, **options)


def zero_loss(network: DistributedDataParallel, images: Tensor, sync_bn: bool = False) -> Tensor:
    """Return a zero with a graph over all weights: the loss of a process without an image.

    One black image passes, because not every network takes none, in evaluation mode, so that no
    statistics change. Synchronised BatchNorm is collective: there a batch of no image passes, and
    not under autocast, where its zeros would have another number format than the others'
    statistics.

    Args:
        network: the wrapped model.
        images: [B, 3, H, W], for size and device only, or, with `sync_bn`, [0, 3, H, W].
        sync_bn: whether BatchNorm is synchronised.
    """
    if sync_bn:
        return network(images).sum() * 0
    was_training = network.module.training
    network.module.eval()
    logits = network(images.new_zeros(1, *images.shape[1:]))
    network.module.train(was_training)
    return logits.float().sum() * 0


def settle(network: DistributedDataParallel, images: Tensor) -> None:
    """Run a first pass, by which the processes choose the order in which they sum gradients.

    If the first step were that pass, the first step after a resume would sum in another order than
    an uninterrupted run.
    """
    zero_loss(network, images).backward()
    network.zero_grad()


def average_statistics(model: nn.Module) -> None:
    """Replace BatchNorm's running statistics by their mean over the processes. Collective.

    They are moving averages, thus linear in what each process saw: averaging them more often
    changes only their rounding.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    distributed.average(
        [
            part
            for norm in norms
            for part in (norm.running_mean, norm.running_var)
            if part is not None
        ]
    )


def seed_others(seed: int, step: int) -> None:
    """Seed ranks above 0 by (seed, step, rank); dropout draws these random numbers."""
    if distributed.rank() > 0:
        own = int(
            np.random.SeedSequence((seed, step, distributed.rank())).generate_state(1, np.uint64)[0]
        )
        random.seed(own)
        torch.manual_seed(own)  # every CUDA device too


def rng_states() -> dict[str, Any]:
    """Return the random states of all processes, as keys of a checkpoint. Collective."""
    first, *others = distributed.gather(rng_state())
    return {"rng_state": first} | ({"rng_states_of_others": others} if others else {})


def set_rng_states(state: dict[str, Any], seed: int) -> None:
    """Restore what `rng_states` returned; with another number of processes, seed the others afresh.

    Args:
        state: a checkpoint, which also says at which step it was written.
        seed: see `seed_others`.
    """
    others = state.get("rng_states_of_others", [])
    rank, world_size = distributed.rank(), distributed.world_size()
    if len(others) + 1 != world_size:
        log.info(
            "%d process(es) resume the training of %d: rank 0 keeps its random numbers,"
            " others get fresh ones",
            world_size,
            len(others) + 1,
        )
    seed_others(seed, state["step"])  # also where the state below holds those of other GPUs
    if rank == 0:
        set_rng_state(state["rng_state"])
    elif len(others) + 1 == world_size:
        set_rng_state(others[rank - 1])
