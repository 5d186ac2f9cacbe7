"""Images on disk to batches of tensors."""

from data.loader import cores, create_dataloader, evaluation_loader, shared_set, worker_count

__all__ = ["cores", "create_dataloader", "evaluation_loader", "shared_set", "worker_count"]
