"""Our recipe: train.py and `test.py --fast` with --precision auto, by the same functions."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from data.loader import ImageLoader, create_dataloader, evaluation_loader
from data.splits import load_set
from data.transforms import Protocol
from device import autocast_dtype, computing, seed_everything
from evaluation.scoring import predict_variants
from networks.factory import create_model
from networks.fast import InferenceModel, place_model
from networks.trainer import Trainer
from options.train_options import TrainOptions
from tools.benchmark.recipe import LEARNING_RATE, SEED, Job, Outcome, Recipe, model_flags
from util import keep_freed_memory

PROTOCOL = Protocol("benchmark")
FORMATS = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Ours(Recipe):
    """Our recipe, with the job's switches."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        keep_freed_memory()
        self.opt = TrainOptions(
            dataroot=job.folder,
            batch_size=job.batch_size,
            gpu_ids=() if job.device == "cpu" else (0,),
            precision=job.precision,
            seed=SEED,
            lr=LEARNING_RATE,
            loadSize=job.resize,
            cropSize=job.size,
            cache=str(Path(job.folder) / "cache") if job.source == "cache" else None,
            fast="fast" in job.switches,
            **model_flags(job.model),
        )
        self.dtype = autocast_dtype(self.opt.precision, self.device)
        tf32 = job.device == "cuda" and self.dtype is None and self.opt.precision != "fp32"
        self.precision = "tf32" if tf32 else FORMATS[self.dtype]

    @cached_property
    def trainer(self) -> Trainer:
        """The trainer of train.py, in its first epoch."""
        seed_everything(self.opt.seed, deterministic=not self.opt.fast)
        trainer = Trainer(self.opt)
        trainer.start_epoch(0)
        return trainer

    @cached_property
    def model(self) -> nn.Module:
        """The network for scoring, as test.py places it."""
        seed_everything(self.opt.seed, deterministic=False)  # as with test.py --fast
        return place_model(create_model(self.opt), self.device, self.dtype).eval()

    @cached_property
    def fast_model(self) -> InferenceModel:
        """The model as `test.py --fast` runs it, on pixels."""
        compiled = "not compiled" not in self.job.switches
        return InferenceModel(self.model, self.job.batch_size, compiled, PROTOCOL.normalise).eval()

    @property
    def scoring_batch(self) -> Tensor:
        return self.pixels

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        with computing(self.opt.precision, self.device):
            return self.fast_model(batch)

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        self.trainer.set_input((images, labels))
        self.trainer.optimize_parameters()
        return self.trainer.loss

    @cached_property
    def loader(self) -> ImageLoader:
        """The loader of train.py for training, else that of test.py."""
        if self.job.trains:
            return create_dataloader(self.opt)
        images = load_set(Path(self.job.folder) / "train")
        protocol = replace(PROTOCOL, resize=self.job.size)
        return evaluation_loader(
            images, protocol, self.opt.batch_size, self.opt.num_threads, cache=self.opt.cache
        )

    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in self.loader.steps(self.device):
            for batch in step:
                yield self.loader.images(batch, self.device), batch.labels

    def evaluation(self) -> Outcome:
        predictions = predict_variants(
            self.model, self.loader, self.opt.precision, forward=self.fast_model
        )[0]
        return Outcome(len(predictions.scores), float(predictions.scores.mean()))
