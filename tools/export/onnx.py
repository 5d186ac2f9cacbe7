"""A detector as an ONNX graph that takes a picture's bytes: normalisation, residuals and network in
one, for any size."""

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

OPSET = 18
"""Of ONNX 1.13, 2022: old enough for most programs that run graphs."""
TOLERANCE = 1e-4
"""Largest difference of an output from PyTorch's; of logits beyond `LARGE` relative to that."""
LARGE = 10.0
"""A logit's size up to which rounding in single precision matters; sigmoid(10) is 0.99995."""
GEOMETRY = EVALUATION_PROTOCOLS["native"]
"""The protocol of the graph: a picture keeps its size."""
CLASSES = ("real", "generated")
"""What a logit below and above 0 stands for."""
CHECKED_SIZES = 6
LARGEST_SIDE = 320

Size = tuple[int, int]
"""Height and width in pixels."""


class OnnxGraph(nn.Module):
    """What is exported: pixels [B, 3, H, W] uint8, RGB -> logit [B], score [B], and see
    `output_names`."""

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
    """The checkpoint's calibration; None where there is none, or one that was fitted for another
    protocol than the graph's."""
    found = stored_calibration(loaded)
    return found if found is not None and found.protocol == GEOMETRY.label else None


def calibrated_probability(logits: Tensor, calibration: Calibration) -> Tensor:
    """`Calibration.probabilities` of logits [B], in single precision."""
    return (logits / calibration.temperature).sigmoid()


def output_names(loaded: LoadedModel) -> list[str]:
    """logit [B], score [B] = sigmoid(logit); attention [B, S] of models with it; probability [B]
    with a `graph_calibration`."""
    attention = ["attention"] if loaded.config.model_type == MULTISCALE else []
    return [
        "logit",
        "score",
        *attention,
        *([] if graph_calibration(loaded) is None else ["probability"]),
    ]


def smallest_side(loaded: LoadedModel) -> int:
    """Pixels that a picture's sides must have so that one is left at the smallest scale."""
    smallest = min(loaded.config.scales)
    side = max(1, math.floor(1 / smallest) - 1)
    while reduced_size(side, smallest) < 1:
        side += 1
    return side


def export_onnx(loaded: LoadedModel, size: Size | None, config: dict[str, Any]) -> bytes:
    """The graph as the content of an ONNX file, which onnx.checker has passed. The batch may have
    any size.

    Args:
        size: of all pictures that it will take; None: any.
        config: what its metadata says, each value as JSON; constants are added.

    Raises:
        UserError: PyTorch cannot export this network, perhaps only not for any size.
    """
    import onnx

    axes = dict.fromkeys((0,) if size else (0, 2, 3), Dim.DYNAMIC)
    example = torch.zeros(2, 3, *(size or (224, 232)), dtype=torch.uint8)
    graph, names = OnnxGraph(loaded).eval(), output_names(loaded)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph, (example,), dynamo=True, opset_version=OPSET, input_names=["images"], output_names=names,
                dynamic_shapes=(axes,), external_data=False, verbose=False,
            )  # fmt: skip
        proto = program.model_proto if program is not None else onnx.ModelProto()
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
        network = (
            f"backbone {loaded.config.backbone}"
            if loaded.config.backbone != LIGHT
            else "this network"
        )
        which, advice = (
            ("", "")
            if size
            else ("for pictures of any size ", "; give one, such as --size 224 224")
        )
        raise UserError(
            f"--format onnx: {network} cannot be exported {which}({root_cause(error)}){advice}"
        ) from None


def root_cause(error: BaseException) -> str:
    """The first line of what an exporter's error came from, without the traceback that it prints."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back the exporter's warnings and its logged tracebacks: what matters comes as an
    exception."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def name_axes(proto: Any, size: Size | None) -> None:
    """Call the free axes of inputs and outputs batch, height and width."""
    names = ("batch", "", "height", "width")
    for value in (*proto.graph.input, *proto.graph.output):
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.HasField("dim_param"):
                axis.dim_param = names[position]
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    if any(not axes[position].HasField("dim_param") for position in ((0,) if size else (0, 2, 3))):
        raise ValueError("an axis of the input became fixed")
    del proto.graph.value_info[:]  # they speak of the axes by other names, and follow from the rest


def without_traces(proto: Any) -> None:
    """Take out what the exporter notes about where nodes come from: source files by their paths on
    this machine."""
    graph = proto.graph
    for part in (
        proto,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *proto.functions,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")


def metadata(loaded: LoadedModel, size: Size | None, config: dict[str, Any]) -> dict[str, str]:
    """The model's properties: config, and the constants of the preprocessing that the graph
    contains; each as JSON."""
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


def session(model: bytes, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; 0 threads are onnxruntime's own choice."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come as exceptions
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def largest_difference(
    model: bytes, loaded: LoadedModel, size: Size | None, seed: int = 0
) -> float:
    """The largest difference of any output between onnxruntime and PyTorch, on random sizes and
    pictures.

    That of a logit beyond `LARGE` is divided by its size in `LARGE`s, because rounding errors grow
    with it.

    Raises:
        UserError: onnxruntime cannot run the graph.
    """
    rng = np.random.default_rng(seed)
    least = max(32 if loaded.config.backbone == LIGHT else 128, smallest_side(loaded))
    largest, running = 0.0, session(model)
    for number in range(CHECKED_SIZES):
        height, width = size or (
            int(side) for side in rng.integers(least, max(LARGEST_SIDE, least + 32) + 1, 2)
        )
        pixels = noise(rng, 1 + number % 3, height, width)
        try:
            found = dict(
                zip(output_names(loaded), running.run(None, {"images": pixels}), strict=True)
            )
        except Exception as error:  # onnxruntime's have no common class
            raise UserError(
                f"--format onnx: {width}x{height} pixels fail ({root_cause(error)})"
            ) from None
        expected = plain_outputs(loaded, pixels)
        sizes = {name: np.maximum(1, np.abs(value) / LARGE) for name, value in expected.items()}
        differences = [
            (np.abs(found[name] - value) / sizes[name]).max() for name, value in expected.items()
        ]
        largest = max(
            largest, *(float(one) if np.isfinite(one) else math.inf for one in differences)
        )
    return largest


def plain_outputs(loaded: LoadedModel, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the model in PyTorch and its calibration say of uint8 [B, 3, H, W]: by `output_names`."""
    with torch.inference_mode():
        images = trained_protocol(loaded).normalise(torch.from_numpy(pixels))
        if isinstance(loaded.model, AttentionMultiScaleNPR):
            output, attention = loaded.model(images, return_attention=True)
            found = {"attention": attention.numpy()}
        else:
            output, found = loaded.model(images), {}
    logits = output.flatten().numpy()
    if (calibration := graph_calibration(loaded)) is not None:
        found["probability"] = calibration.probabilities(logits)
    return found | {"logit": logits, "score": expit(logits)}


def noise(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Pictures [count, 3, height, width] uint8: noise of different strength around different greys."""
    strength, grey = rng.uniform(2, 80, (count, 1, 1, 1)), rng.uniform(40, 215, (count, 1, 1, 1))
    return (
        (grey + strength * rng.standard_normal((count, 3, height, width)))
        .clip(0, 255)
        .astype(np.uint8)
    )
