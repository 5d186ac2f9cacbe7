"""The exported graph, scored by onnxruntime on the CPU; whatever is not scoring is the plain
recipe's."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from networks.checkpoint import LoadedModel
from networks.factory import model_config
from options.train_options import TrainOptions
from tools.benchmark.plain import Plain
from tools.benchmark.recipe import Job, model_flags
from tools.export.onnx import export_onnx, session


class Exported(Plain):
    """What tools.export writes of the network, for pictures of any size; it normalises them itself."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if job.device != "cpu":
            raise ValueError("onnxruntime is measured on the CPU")

    @cached_property
    def session(self) -> Any:
        """With as many threads as PyTorch has."""
        config = model_config(TrainOptions(**model_flags(self.job.model)))
        loaded = LoadedModel(self.model.eval(), config, Path("benchmark"), "", {})
        return session(export_onnx(loaded, None, {}), torch.get_num_threads())

    @property
    def to_score(self) -> Tensor:
        return self.pixels

    def logits(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(["logit"], {"images": pixels.numpy()})[0])[:, None]
