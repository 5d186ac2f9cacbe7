"""What a contestant is told to do, and what the parts of the benchmark do with a recipe, written
once for all recipes."""

import dataclasses
import json
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One contestant of one part.

    Args:
        contestant: what tables call it. work: the `Recipe` method that is timed (or 'limits').
        recipe: 'plain', 'ours' or 'exported'. switches: what is changed of it (see there).
        source: where pictures come from: 'files', 'cache' (decoded once), 'memory' (they already
            lie on the device).
        model: 'single_scale', 'multiscale_attention' or scales ('0.25,0.5').
        data: a data root with train/. cache: folder for decoded pictures. size: side of the
            network's input in pixels.
        images: per round. threads: of PyTorch; None for its own choice. precision: see --precision,
            of ours only.
        environment: variables of its process.
    """

    part: str
    contestant: str
    work: str
    model: str = SINGLE_SCALE
    recipe: str = "plain"
    switches: tuple[str, ...] = ()
    source: str = "files"
    device: str = "cpu"
    size: int = 224
    batch_size: int = 32
    images: int = 256
    threads: int | None = None
    data: str = ""
    cache: str = ""
    precision: str = "auto"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def batches(self) -> int:
        """Batches per round where pictures lie in memory."""
        return max(1, self.images // self.batch_size)

    @property
    def resize(self) -> int:
        """Side in pixels before the random crop of training: 256 for the published crop of 224."""
        return round(self.size * 256 / 224)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        return cls(**(values | {"switches": tuple(values["switches"])}))


def model_flags(model: str) -> dict[str, Any]:
    """The options of train.py that describe a model: its type's name, or a comma-separated list of
    scales.

    Raises:
        argparse.ArgumentTypeError: neither.
    """
    if model in DEFAULT_MODELS:
        return {"model_type": model}
    return {"model_type": MULTISCALE, "npr_scales": comma_list(scale)(model)}


class Outcome(NamedTuple):
    """What a round did: images, and the last loss or the mean logit or score, which tells whether
    work was done at all."""

    images: int
    check: float


class Recipe(ABC):
    """A way to train and to score a model. `precision` names the number format of its convolutions:
    fp32, tf32, bf16, fp16."""

    precision: str

    def __init__(self, job: Job) -> None:
        self.job = job
        self.device = torch.device("cuda", 0) if job.device == "cuda" else torch.device("cpu")

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] on the device as in `to_score` -> logits [B, 1], in evaluation mode
        and without gradients."""

    @abstractmethod
    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Forward, backward, optimizer on normalised images [B, 3, H, W], labels [B]; the loss, a
        detached scalar."""

    @abstractmethod
    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (images, labels), augmented and normalised, the images on the device."""

    @abstractmethod
    def evaluation(self) -> Outcome:
        """From all files to their scores."""

    @abstractmethod
    def begin(self, training: bool) -> None:
        """Set the model's mode; called before anything is computed."""

    @cached_property
    def pixels(self) -> Tensor:
        """A batch of noise on the device: uint8 [B, 3, S, S]."""
        shape = (self.job.batch_size, 3, self.job.size, self.job.size)
        random = torch.Generator().manual_seed(SEED)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(self.device)

    @cached_property
    def in_memory(self) -> tuple[Tensor, Tensor]:
        """`pixels` normalised to float32, and labels [B]."""
        images = NORMALIZE(self.pixels.float().div(255))
        return images, (torch.arange(len(images)) % 2).to(self.device)

    @property
    def to_score(self) -> Tensor:
        """The batch as `logits` takes it: normalised images, unless the recipe's network takes
        pixels."""
        return self.in_memory[0]

    def forward(self, batches: int | None = None) -> Outcome:
        """Logits of the batch in memory, again and again."""
        self.begin(training=False)
        count = batches or self.job.batches
        for _ in range(count):
            logits = self.logits(self.to_score)
        return Outcome(count * self.job.batch_size, float(logits.float().mean()))

    def step(self, batches: int | None = None) -> Outcome:
        """Training steps on the batch in memory."""
        self.begin(training=True)
        count = batches or self.job.batches
        for _ in range(count):
            loss = self.train_step(*self.in_memory)
        return Outcome(count * self.job.batch_size, float(loss))

    def input(self) -> Outcome:
        """An epoch of training batches that nothing is computed on."""
        images = 0
        for batch, _ in self.training_batches():
            images += len(batch)
        return Outcome(images, float(batch.mean()))

    def epoch(self) -> Outcome:
        """A training epoch, from files to the last optimizer step."""
        self.begin(training=True)
        images = 0
        for batch, labels in self.training_batches():
            loss = self.train_step(batch, labels)
            images += len(labels)
        return Outcome(images, float(loss))
