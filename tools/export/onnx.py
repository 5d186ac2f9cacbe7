"""Write a detector as an ONNX graph that takes an image's bytes, of any size.

Normalisation, residuals and network are in the graph.
"""

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.export import Dim

from data.protocols import EVALUATION_PROTOCOLS, trained_protocol
from networks.calibration import Calibration
from networks.checkpoint import LoadedModel, stored_calibration
from networks.factory import MULTISCALE
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.npr import RESIDUAL_GAIN, reduced_size
from networks.resnet import LIGHT, NPRResNet
from tools.export.npr_indices import IndexedNPR
from util import UserError

OPSET = 18  # of ONNX 1.13 (2022): old enough for most programs that run graphs
TOLERANCE = 1e-4  # largest difference of an output from PyTorch's; see `largest_difference`
LARGE = 10.0  # differences of larger logits are rounding; sigmoid(10) is 0.99995
GEOMETRY = EVALUATION_PROTOCOLS["native"]  # protocol of the graph: an image keeps its size
CLASSES = ("real", "generated")  # a logit below and above 0
CHECKED_SIZES = 6  # random image sizes on which the graph is compared with PyTorch
LARGEST_SIDE = 320  # pixels, of these images

Size = tuple[int, int]
"""Height and width in pixels."""


class OnnxGraph(nn.Module):
    """The network to export: pixels [B, 3, H, W] uint8, RGB -> the tensors of `output_names`."""

    mean: Tensor
    std: Tensor

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__()
        protocol = trained_protocol(loaded)
        self.model = copy.deepcopy(loaded.model).eval()
        self.residual = IndexedNPR(NPRResNet.scale)
        if isinstance(self.model, AttentionMultiScaleNPR):
            self.model.npr_extractors = nn.ModuleList(
                IndexedNPR(scale) for scale in self.model.scales
            )
        self.register_buffer("mean", torch.tensor(protocol.mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(protocol.std, dtype=torch.float32).view(3, 1, 1))
        self.calibration = graph_calibration(loaded)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        attention: tuple[Tensor, ...] = ()
        if isinstance(self.model, AttentionMultiScaleNPR):
            output, weights = self.model(images, return_attention=True)
            attention = (weights,)
        else:
            assert isinstance(self.model, NPRResNet)
            output = self.model.fc1(
                self.model.pooled_features(self.residual(images) * RESIDUAL_GAIN)
            )
        logits = output.flatten()
        calibrated = (
            () if self.calibration is None else (calibrated_probability(logits, self.calibration),)
        )
        return (logits, logits.sigmoid(), *attention, *calibrated)


def graph_calibration(loaded: LoadedModel) -> Calibration | None:
    """Return the checkpoint's calibration; None if it is missing or of another protocol."""
    calibration = stored_calibration(loaded)
    fits = calibration is not None and calibration.protocol == GEOMETRY.label
    return calibration if fits else None


def calibrated_probability(logits: Tensor, calibration: Calibration) -> Tensor:
    """Compute `Calibration.probabilities` of logits [B] in single precision."""
    return (logits / calibration.temperature).sigmoid()


def output_names(loaded: LoadedModel) -> list[str]:
    """Return the names of the graph's outputs.

    They are logit [B], score [B] = sigmoid(logit), attention [B, S] of multi-scale models, and
    probability [B] with a `graph_calibration`.
    """
    names = ["logit", "score"]
    if loaded.config.model_type == MULTISCALE:
        names.append("attention")
    if graph_calibration(loaded) is not None:
        names.append("probability")
    return names


def smallest_side(loaded: LoadedModel) -> int:
    """Return the smallest side in pixels that leaves one pixel at the smallest scale."""
    smallest = min(loaded.config.scales)
    side = max(1, math.floor(1 / smallest) - 1)
    while reduced_size(side, smallest) < 1:
        side += 1
    return side


def export_onnx(loaded: LoadedModel, size: Size | None, config: dict[str, Any]) -> bytes:
    """Return the graph as the content of an ONNX file, checked by onnx.checker. The batch may have
    any size.

    Args:
        loaded: the model.
        size: image size of the graph; None: any.
        config: metadata, stored with each value as JSON; constants are added.

    Raises:
        UserError: PyTorch cannot export this network, or cannot export it for any size.
    """
    import onnx

    axes = dict.fromkeys((0,) if size else (0, 2, 3), Dim.DYNAMIC)
    example = torch.zeros(2, 3, *(size or (224, 232)), dtype=torch.uint8)
    graph, names = OnnxGraph(loaded).eval(), output_names(loaded)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=names,
                dynamic_shapes=(axes,),
                external_data=False,
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
        name_axes(proto, size)
        without_traces(proto)
        onnx.helper.set_model_props(proto, metadata(loaded, size, config))
        onnx.checker.check_model(proto, full_check=True)
        return proto.SerializeToString()
    except (
        torch.onnx.OnnxExporterError,
        onnx.checker.ValidationError,
        RuntimeError,
        ValueError,
    ) as error:
        network = f"--format onnx: backbone {loaded.config.backbone} cannot be exported"
        if size is not None:
            raise UserError(f"{network} ({root_cause(error)})") from None
        raise UserError(
            f"{network} for images of any size ({root_cause(error)}); "
            "pass a fixed size, such as --size 224 224"
        ) from None


def root_cause(error: BaseException) -> str:
    """Return type and first line of the error that started a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's warnings and logged tracebacks; exceptions still pass."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def name_axes(proto: Any, size: Size | None) -> None:
    """Name the free axes of inputs and outputs batch, height and width.

    Raises:
        ValueError: an axis of the input that should be free is fixed.
    """
    names = ("batch", "", "height", "width")
    for value in (*proto.graph.input, *proto.graph.output):
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.HasField("dim_param"):
                axis.dim_param = names[position]
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    if any(not axes[position].HasField("dim_param") for position in ((0,) if size else (0, 2, 3))):
        raise ValueError("an axis of the input became fixed")
    # shapes of inner values hold the old names of the axes, and follow from the rest
    del proto.graph.value_info[:]


def without_traces(proto: Any) -> None:
    """Remove the exporter's notes on the origin of nodes, which hold paths on this machine."""
    graph = proto.graph
    parts = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    parts += [*proto.functions, *(node for function in proto.functions for node in function.node)]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def metadata(loaded: LoadedModel, size: Size | None, config: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of the graph: config and constants, each value as JSON."""
    protocol = trained_protocol(loaded)
    constants = {
        "scales": list(loaded.config.scales),
        "mean": list(protocol.mean),
        "std": list(protocol.std),
        "classes": list(CLASSES),
        "input": "images, uint8 [batch, 3, height, width], RGB, 0..255, not normalised",
        "size": "any" if size is None else list(size),
        "smallest_side": smallest_side(loaded),
    }
    return {
        name: json.dumps(value, allow_nan=False) for name, value in (config | constants).items()
    }


def session(model: bytes) -> Any:
    """Start an onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only; errors come as exceptions
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def largest_difference(
    model: bytes, loaded: LoadedModel, size: Size | None, seed: int = 0
) -> float:
    """Return the largest difference between outputs of onnxruntime and PyTorch on random images.

    Rounding errors grow with a logit, so beyond `LARGE` a difference is divided by |logit| / LARGE.
    A NaN counts as an infinite difference.

    Args:
        model: content of the ONNX file.
        loaded: the model in PyTorch.
        size: image size of the graph; None: random sizes.
        seed: seed of images and sizes.

    Raises:
        UserError: onnxruntime cannot run the graph.
    """
    rng = np.random.default_rng(seed)
    least = max(32 if loaded.config.backbone == LIGHT else 128, smallest_side(loaded))
    most = max(LARGEST_SIDE, least + 32)
    largest, running, names = 0.0, session(model), output_names(loaded)
    for number in range(CHECKED_SIZES):
        height, width = size or rng.integers(least, most + 1, 2).tolist()
        pixels = noise(rng, 1 + number % 3, height, width)
        try:
            outputs = dict(zip(names, running.run(None, {"images": pixels}), strict=True))
        # onnxruntime's exceptions have no common class
        except Exception as error:
            raise UserError(
                f"--format onnx: onnxruntime fails on {width}x{height} pixels ({root_cause(error)})"
            ) from None
        for name, expected in plain_outputs(loaded, pixels).items():
            tolerated = np.maximum(1, np.abs(expected) / LARGE)
            difference = np.abs(outputs[name] - expected) / tolerated
            largest = max(largest, float(np.nan_to_num(difference, nan=math.inf).max()))
    return largest


def plain_outputs(loaded: LoadedModel, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of the model in PyTorch for pixels uint8 [B, 3, H, W], by name."""
    with torch.inference_mode():
        images = trained_protocol(loaded).normalise(torch.from_numpy(pixels))
        if isinstance(loaded.model, AttentionMultiScaleNPR):
            output, attention = loaded.model(images, return_attention=True)
            outputs = {"attention": attention.numpy()}
        else:
            output, outputs = loaded.model(images), {}
    logits = output.flatten().numpy()
    if (calibration := graph_calibration(loaded)) is not None:
        outputs["probability"] = calibration.probabilities(logits)
    return outputs | {"logit": logits, "score": expit(logits)}


def noise(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Draw images uint8 [count, 3, height, width]: noise of random strength around random greys."""
    strength, grey = rng.uniform(2, 80, (count, 1, 1, 1)), rng.uniform(40, 215, (count, 1, 1, 1))
    return (
        (grey + strength * rng.standard_normal((count, 3, height, width)))
        .clip(0, 255)
        .astype(np.uint8)
    )
