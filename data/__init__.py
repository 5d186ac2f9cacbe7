"""Images on disk to batches of tensors."""

from importlib import import_module
from typing import Any

__all__ = ["cores", "create_dataloader", "evaluation_loader", "shared_set", "worker_count"]


def __getattr__(name: str) -> Any:
    """Import the loaders when they are asked for: a single image is decoded without them."""
    if name in __all__:
        return getattr(import_module("data.loader"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
