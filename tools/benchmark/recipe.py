"""Jobs of the benchmark, and the parts that both recipes share."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import transforms

from networks.factory import MULTISCALE, SINGLE_SCALE
from options.flags import comma_list, scale

SEED = 100
LEARNING_RATE = 0.0002
NORMALIZE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DEFAULT_MODELS = (SINGLE_SCALE, MULTISCALE)
TRAINING_PARTS = ("step", "input", "epoch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One contestant of one part.

    Args:
        part: name of the `Recipe` method that is timed.
        contestant: name in tables.
        folder: temporary folder with train/images/{0_real,1_fake}, also for caches.
        recipe: 'plain' or 'ours'.
        switches: ours only: 'fast' is train.py's flag, 'not compiled' scores without torch.compile.
        source: ours only: 'files', or 'cache' for a warm --cache.
        model: 'single_scale', 'multiscale_attention' or scales ('0.25,0.5').
        device: 'cpu' or 'cuda'.
        size: side of the network's input in pixels.
        batch_size: images per batch.
        images: images per round.
        threads: threads of PyTorch; None: PyTorch's choice.
        precision: ours only: value of --precision.
    """

    part: str
    contestant: str
    folder: str
    recipe: str = "plain"
    switches: tuple[str, ...] = ()
    source: str = "files"
    model: str = SINGLE_SCALE
    device: str = "cpu"
    size: int = 224
    batch_size: int = 32
    images: int = 256
    threads: int | None = None
    precision: str = "auto"

    @property
    def title(self) -> str:
        """Heading of its table; loading does not depend on the model."""
        model = "" if self.part == "input" else f", {self.model}"
        return f"{self.part}{model}, batches of {self.batch_size}"

    @property
    def trains(self) -> bool:
        """True if the model is in training mode."""
        return self.part in TRAINING_PARTS

    @property
    def resize(self) -> int:
        """Side in pixels before the random crop of training: 256 for the published crop of 224."""
        return round(self.size * 256 / 224)


def model_flags(model: str) -> dict[str, Any]:
    """Return the options of train.py that build a job's model.

    Args:
        model: a model type, or a comma-separated list of scales.

    Raises:
        argparse.ArgumentTypeError: `model` is neither.
    """
    if model in DEFAULT_MODELS:
        return {"model_type": model}
    return {"model_type": MULTISCALE, "npr_scales": comma_list(scale)(model)}


class Outcome(NamedTuple):
    """Result of a round."""

    images: int
    check: float  # last loss or mean score; finite if the work was done


class Recipe(ABC):
    """A way to train and to score a model.

    Attributes:
        precision: number format of its convolutions: fp32, tf32, bf16 or fp16.
    """

    precision: str

    def __init__(self, job: Job) -> None:
        self.job = job
        self.device = torch.device(job.device)

    @abstractmethod
    def logits(self, batch: Tensor) -> Tensor:
        """Return logits [B, 1] of a batch like `scoring_batch`, without gradients."""

    @abstractmethod
    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run forward, backward and optimizer on a batch and return its loss.

        Args:
            images: [B, 3, H, W], normalised, on the device.
            labels: [B], on the device.

        Returns:
            A detached scalar.
        """

    @abstractmethod
    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of batches as `train_step` takes them, from files, augmented."""

    @abstractmethod
    def evaluation(self) -> Outcome:
        """Score all files."""

    @cached_property
    def pixels(self) -> Tensor:
        """A batch of noise on the device: uint8 [B, 3, S, S]."""
        shape = (self.job.batch_size, 3, self.job.size, self.job.size)
        random = torch.Generator().manual_seed(SEED)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(self.device)

    @cached_property
    def training_batch(self) -> tuple[Tensor, Tensor]:
        """`pixels` normalised to float32, and labels [B]."""
        images = NORMALIZE(self.pixels.float().div(255))
        return images, (torch.arange(len(images)) % 2).to(self.device)

    @property
    def scoring_batch(self) -> Tensor:
        """The batch in memory as `logits` takes it."""
        return self.training_batch[0]

    @property
    def batches(self) -> range:
        """Numbers of the batches in a round of the parts that compute on a batch in memory."""
        return range(max(1, self.job.images // self.job.batch_size))

    def forward(self) -> Outcome:
        """Score the batch in memory again and again."""
        for _ in self.batches:
            logits = self.logits(self.scoring_batch)
        return Outcome(len(self.batches) * self.job.batch_size, float(logits.float().mean()))

    def step(self) -> Outcome:
        """Train on the batch in memory again and again."""
        for _ in self.batches:
            loss = self.train_step(*self.training_batch)
        return Outcome(len(self.batches) * self.job.batch_size, float(loss))

    def input(self) -> Outcome:
        """Load an epoch of training batches and compute nothing on them."""
        images = 0
        for batch, _ in self.training_batches():
            images += len(batch)
        return Outcome(images, float(batch.mean()))

    def epoch(self) -> Outcome:
        """Train for one epoch, from files to the last optimizer step."""
        images = 0
        for batch, labels in self.training_batches():
            loss = self.train_step(batch, labels)
            images += len(labels)
        return Outcome(images, float(loss))
