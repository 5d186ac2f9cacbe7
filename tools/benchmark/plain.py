"""The plain recipe: a common PyTorch loop without this project's data pipeline and trainer.

It has fp32 weights, PyTorch's defaults for memory layout, threads and memory allocator, and
torchvision's ImageFolder and transforms in a DataLoader with one worker per core, at most 8. On a
GPU, convolutions may use TF32, and memory is pinned. It trains the project's own network, so both
recipes do the same work.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from data.loader import worker_count
from networks.factory import create_model
from options.train_options import TrainOptions
from tools.benchmark.recipe import LEARNING_RATE, NORMALIZE, SEED, Job, Outcome, Recipe, model_flags

WORKERS = 8  # largest number of workers, like --num_threads of train.py


class Plain(Recipe):
    """The common PyTorch loop, see the top of this module."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        torch.manual_seed(SEED)
        self.model = create_model(TrainOptions(**model_flags(job.model))).to(self.device)
        self.model.train(job.trains)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.loss = nn.BCEWithLogitsLoss()
        tf32 = job.device == "cuda" and torch.backends.cudnn.allow_tf32
        self.precision = "tf32" if tf32 else "fp32"

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        return self.model(batch)

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(images).flatten(), labels.float())
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @cached_property
    def loader(self) -> DataLoader[tuple[Tensor, int]]:
        """Batches of (images, labels): augmented and shuffled for training, else in order."""
        size, resize = self.job.size, self.job.resize
        steps: list[Any] = [transforms.Resize((size, size))]
        if self.job.trains:
            flip = transforms.RandomHorizontalFlip()
            steps = [transforms.Resize((resize, resize)), transforms.RandomCrop(size), flip]
        transform = transforms.Compose([*steps, transforms.ToTensor(), NORMALIZE])
        return DataLoader(
            ImageFolder(Path(self.job.folder) / "train" / "images", transform),
            self.job.batch_size,
            shuffle=self.job.trains,
            num_workers=worker_count(WORKERS),
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
        )

    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device)

    def evaluation(self) -> Outcome:
        scores: list[float] = []
        for images, _ in self.loader:
            logits = self.logits(images.to(self.device, non_blocking=True))
            scores.extend(logits.sigmoid().flatten().tolist())
        return Outcome(len(scores), sum(scores) / len(scores))
