"""Our recipe: what train.py and `test.py --fast` do with --precision auto, by calling what they
call.

Switches: 'fast' and 'compile' are train.py's flags; 'not compiled' leaves compilation out of
    scoring.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from data import create_dataloader, evaluation_loader
from data.batches import Batch
from data.datasets import ImageLoader
from data.layouts import load_set
from data.transforms import Protocol
from device import autocast_dtype, seed_everything
from evaluation.scoring import predict_variants
from networks.factory import create_model
from networks.fast import InferenceModel, place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.trainer import Trainer
from options.train_options import TrainOptions
from tools.benchmark.recipe import LEARNING_RATE, SEED, Job, Outcome, Recipe, model_flags
from util import keep_freed_memory

PROTOCOL = Protocol("benchmark")
FORMATS = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class InMemory(ImageLoader):
    """A loader that reads nothing: as many batches as `loader` has, of the same pixels that already
    lie on the device."""

    def __init__(self, loader: ImageLoader, pixels: Tensor) -> None:
        super().__init__(loader.dataset, loader.sampler, loader.batch_size)
        self._pixels = pixels

    def steps(self, device: torch.device | str = "cpu") -> Iterator[list[Batch]]:
        for start in range(0, len(self.dataset), self.batch_size):
            indices = torch.arange(start, min(start + self.batch_size, len(self.dataset)))
            labels = torch.tensor([self.dataset.labels[index] for index in indices.tolist()])
            yield [Batch(self._pixels[: len(indices)], labels, indices, torch.zeros_like(indices))]


class Ours(Recipe):
    """Our recipe, with the job's switches."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        keep_freed_memory()
        self.epochs = 0
        self.opt = TrainOptions(
            dataroot=job.data,
            batch_size=job.batch_size,
            gpu_ids=() if job.device == "cpu" else (0,),
            precision=job.precision,
            seed=SEED,
            lr=LEARNING_RATE,
            loadSize=job.resize,
            cropSize=job.size,
            cache=job.cache if job.source == "cache" else None,
            fast="fast" in job.switches,
            compile="compile" in job.switches,
            **model_flags(job.model),
        )
        self.dtype = autocast_dtype(self.opt.precision, self.device)
        tf32 = job.device == "cuda" and self.dtype is None and torch.backends.cudnn.allow_tf32
        self.precision = "tf32" if tf32 else FORMATS[self.dtype]

    @cached_property
    def trainer(self) -> Trainer:
        seed_everything(self.opt.seed, deterministic=not self.opt.fast)
        return Trainer(self.opt)

    @cached_property
    def model(self) -> nn.Module:
        """The network for scoring."""
        seed_everything(self.opt.seed, deterministic=False)  # as with test.py --fast
        return place_model(create_model(self.opt), self.device, self.dtype).eval()

    @cached_property
    def fast_model(self) -> InferenceModel:
        compiled = "not compiled" not in self.job.switches
        return InferenceModel(self.model, self.job.batch_size, compiled, PROTOCOL.normalise)

    def begin(self, training: bool) -> None:
        if training:
            self.trainer.start_epoch(self.epochs)
        else:
            self.fast_model.eval()

    @property
    def to_score(self) -> Tensor:
        return self.pixels

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        flags = {"return_attention": True} if isinstance(self.model, AttentionMultiScaleNPR) else {}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            said = self.fast_model(pixels, **flags)
        return said[0] if flags else said

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        self.trainer.set_input((images, labels))
        self.trainer.optimize_parameters()
        return self.trainer.loss

    @cached_property
    def training_loader(self) -> ImageLoader:
        return self._or_in_memory(create_dataloader(self.opt))

    @cached_property
    def evaluation_loader(self) -> ImageLoader:
        images = load_set(Path(self.job.data) / "train")
        protocol = replace(PROTOCOL, resize=self.job.size)
        made = evaluation_loader(
            images, protocol, self.opt.batch_size, self.opt.num_threads, cache=self.opt.cache
        )
        return self._or_in_memory(made)

    def _or_in_memory(self, loader: ImageLoader) -> ImageLoader:
        return InMemory(loader, self.pixels) if self.job.source == "memory" else loader

    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        loader = self.training_loader
        loader.sampler.set_epoch(self.epochs)
        for step in loader.steps(self.device):
            for batch in step:
                yield loader.images(batch, self.device), batch.labels
        self.epochs += 1

    def epoch(self) -> Outcome:
        outcome = super().epoch()
        self.trainer.finish_window()
        return outcome

    def evaluation(self) -> Outcome:
        self.begin(training=False)
        said = predict_variants(
            self.model, self.evaluation_loader, self.opt.precision, forward=self.fast_model
        )[0]
        return Outcome(len(said.scores), float(said.scores.mean()))
