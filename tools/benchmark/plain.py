"""The plain recipe: the published network and training as one writes them down in PyTorch, in fp32,
without any tuning.

Written without this project's data pipeline and trainer. Switches change one thing each, for the
ablation:

    cudnn                cuDNN on (the published code switches it off)
    kept memory          `util.keep_freed_memory`
    channels last        model and images in that memory layout
    bf16                 autocast to bfloat16
    ReLU after pooling   the stem as networks.resnet has it
    one pass             scoring only: all branches of a multi-scale model at once, by torch.vmap over stacked weights
"""

import copy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from data import worker_count
from networks.factory import build_model, model_config
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import RESIDUAL_GAIN
from networks.resnet import TwoStageTrunk
from options.train_options import TrainOptions
from tools.benchmark.recipe import LEARNING_RATE, NORMALIZE, SEED, Job, Outcome, Recipe, model_flags
from util import keep_freed_memory

WORKERS = 8
LOSS_EVERY = 400
"""Training steps between two looks at the loss, which wait for a GPU."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """All files below a folder; those whose folder's name begins with 1 are generated."""

    def __init__(self, folder: Path, transform: Any) -> None:
        self.files = sorted(path for path in folder.rglob("*") if path.is_file())
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.files[index]
        return self.transform(Image.open(path).convert("RGB")), int(
            path.parent.name.startswith("1")
        )


def published_features(trunk: TwoStageTrunk, residual: Tensor) -> Tensor:
    """`TwoStageTrunk.pooled_features` in the published order: ReLU, then max pooling."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(residual))))
    return trunk.avgpool(trunk.layer2(trunk.layer1(x))).flatten(1)


def published_order(model: nn.Module) -> None:
    """Let every stem of a model apply ReLU before its max pooling."""
    for module in model.modules():
        if isinstance(module, TwoStageTrunk):
            module.pooled_features = MethodType(published_features, module)  # type: ignore[method-assign]


class OnePass(nn.Module):
    """A multi-scale model whose branches run as one: their weights stacked, torch.vmap over the
    scales; for scoring."""

    def __init__(self, model: AttentionMultiScaleNPR) -> None:
        super().__init__()
        self.model = [model]  # in a list, so that the weights are not registered twice
        self.weights, self.buffers_ = stack_module_state(list(model.feature_branches))
        self.branch = [copy.deepcopy(model.feature_branches[0]).to("meta")]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, 1]."""
        model = self.model[0]
        residuals = torch.stack(
            [extract(images) * RESIDUAL_GAIN for extract in model.npr_extractors]
        )

        def features(weights: dict, buffers: dict, residual: Tensor) -> Tensor:
            return functional_call(self.branch[0], (weights, buffers), (residual,))

        each = torch.vmap(features)(self.weights, self.buffers_, residuals)  # [S, B, D]
        fused, _ = model.attention_fusion(each.unbind())
        return model.classifier(fused)


class Plain(Recipe):
    """The plain recipe, with the job's switches."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.steps = 0
        if job.device == "cuda":
            torch.backends.cudnn.enabled = "cudnn" in job.switches
        if "kept memory" in job.switches:
            keep_freed_memory()
        self.bf16 = "bf16" in job.switches
        tf32 = (
            job.device == "cuda"
            and torch.backends.cudnn.enabled
            and torch.backends.cudnn.allow_tf32
        )
        self.precision = "bf16" if self.bf16 else "tf32" if tf32 else "fp32"

    @cached_property
    def model(self) -> nn.Module:
        torch.manual_seed(SEED)
        model = build_model(model_config(TrainOptions(**model_flags(self.job.model))))
        if "ReLU after pooling" not in self.job.switches:
            published_order(model)
        layout = (
            torch.channels_last if "channels last" in self.job.switches else torch.contiguous_format
        )
        return model.to(self.device).to(memory_format=layout)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999))

    @cached_property
    def scorer(self) -> nn.Module:
        if "one pass" not in self.job.switches:
            return self.model
        if not isinstance(self.model, AttentionMultiScaleNPR):
            raise ValueError("one pass is for multi-scale models")
        return OnePass(self.model.eval())

    def begin(self, training: bool) -> None:
        self.model.train(training)

    def _compute(self, model: nn.Module, images: Tensor) -> Tensor:
        if "channels last" in self.job.switches:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return model(images)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        return self._compute(self.scorer, images)

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(
            self._compute(self.model, images).flatten(), labels.float()
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        if self.steps % LOSS_EVERY == 0:
            loss.item()
        return loss.detach()

    def _loader(self, steps: list[Any], batch_size: int, shuffle: bool) -> DataLoader:
        transform = transforms.Compose([*steps, transforms.ToTensor(), NORMALIZE])
        pictures = Pictures(Path(self.job.data) / "train", transform)
        workers = worker_count(WORKERS)
        return DataLoader(
            pictures,
            batch_size,
            shuffle=shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    @cached_property
    def training_loader(self) -> DataLoader:
        resize = transforms.Resize((self.job.resize, self.job.resize))
        steps = [resize, transforms.RandomCrop(self.job.size), transforms.RandomHorizontalFlip()]
        return self._loader(steps, self.job.batch_size, shuffle=True)

    @cached_property
    def evaluation_loader(self) -> DataLoader:
        return self._loader(
            [transforms.Resize((self.job.size, self.job.size))], self.job.batch_size, shuffle=False
        )

    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.training_loader:
            yield images.to(self.device), labels.to(self.device)

    def evaluation(self) -> Outcome:
        self.begin(training=False)
        scores: list[float] = []
        for images, _ in self.evaluation_loader:
            scores.extend(self.logits(images.to(self.device)).sigmoid().flatten().tolist())
        return Outcome(len(scores), sum(scores) / len(scores))
