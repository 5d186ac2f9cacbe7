"""Fast ways to run a model: the same outputs as the plain one."""

import copy
import runpy
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torchvision.models import resnet18

from data.transforms import Protocol
from device import computing
from networks.fast import CompiledOrPlain, InferenceModel, place_model
from networks.multiscale_npr import AttentionMultiScaleNPR
from networks.resnet import resnet50

PIXELS = torch.randint(
    0, 256, (5, 3, 65, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
NORMALISE = Protocol("native").normalise
IMAGES = NORMALISE(PIXELS)


def trained_like(model: nn.Module) -> nn.Module:
    """Statistics and weights of BatchNorm that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.eval()


MODELS = {
    "single": lambda: resnet50(),
    "multi": lambda: AttentionMultiScaleNPR(scales=(0.25, 0.5)),
    "torchvision": lambda: resnet18(num_classes=1),
}


@torch.inference_mode()
def test_inference_model_gives_logits_and_attention_of_each_image() -> None:
    model = trained_like(MODELS["multi"]())
    fast = InferenceModel(model, batch_size=4, compiled=False, normalise=NORMALISE)
    for pixels in (PIXELS, PIXELS[:1]):
        expected = model(NORMALISE(pixels), return_attention=True)
        for ours, plain in zip(fast(pixels, return_attention=True), expected, strict=True):
            assert ours.shape == plain.shape and torch.allclose(ours, plain, atol=1e-4)
        expected = model(NORMALISE(pixels), return_branches=True)
        for ours, plain in zip(fast(pixels, return_branches=True), expected, strict=True):
            assert ours.shape == plain.shape and torch.allclose(ours, plain, atol=1e-4)


@torch.inference_mode()
def test_small_batches_are_filled_up_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(
        torch, "compile", lambda model, **_: lambda x, **k: sizes.append(len(x)) or model(x, **k)
    )
    model = trained_like(MODELS["single"]())
    fast = InferenceModel(model, batch_size=4, compiled=True, normalise=NORMALISE)
    for count in (4, 3, 1):
        assert torch.allclose(fast(PIXELS[:count]), model(IMAGES[:count]), atol=1e-4)
    assert sizes == [4, 4, 4]
    other = PIXELS[:2, :, :48]  # a size without a full batch is neither compiled for nor filled up
    assert torch.allclose(fast(other), model(NORMALISE(other)), atol=1e-4) and sizes == [4, 4, 4]


def test_other_shapes_go_through_the_plain_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of an epoch must not make the compiler start over, for all shapes at once."""
    shapes = []
    monkeypatch.setattr(
        torch, "compile", lambda model, **_: lambda x, **k: shapes.append(x.shape) or model(x, **k)
    )
    model = nn.Linear(2, 1)
    compiled = CompiledOrPlain(model)
    for count in (4, 4, 3, 4):
        x = torch.ones(count, 2)
        assert torch.equal(compiled(x), model(x))
    assert shapes == [(4, 2)] * 3


@torch.inference_mode()
def test_compiled_for_the_sizes_that_fill_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(
        torch,
        "compile",
        lambda model, **_: lambda x, **k: compiled.append(x.shape[2:]) or model(x, **k),
    )
    fast = InferenceModel(
        trained_like(MODELS["single"]()), batch_size=2, compiled=True, normalise=NORMALISE
    )
    for size in (30, 40, 50, 60, 40):
        fast(PIXELS[:1, :, :size])
        fast(PIXELS[:2, :, :size])
    # the first batch of each size is too small to compile for, the fourth size is one too many
    assert [height for height, _ in compiled] == [30, 40, 50, 40, 40]


@pytest.mark.gpu
@torch.inference_mode()
@pytest.mark.parametrize("precision", (None, torch.bfloat16))
def test_on_a_gpu_replayed_passes_give_the_scores_of_the_plain_model(
    precision: torch.dtype | None,
) -> None:
    model = place_model(trained_like(MODELS["multi"]()), torch.device("cuda"), precision)
    fast = InferenceModel(model, batch_size=4, compiled=True, normalise=NORMALISE)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 256, (n, 3, 64, side), dtype=torch.uint8, generator=generator)
               for n, side in ((4, 64), (4, 48), (3, 64), (4, 64), (1, 48), (2, 40))]  # fmt: skip
    with computing("fp32" if precision is None else "bf16", torch.device("cuda")):
        ours = [fast(pixels.cuda()) for pixels in batches]  # all kept until the end
        plain = [model(NORMALISE(pixels.cuda())) for pixels in batches]
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(
            one.float().sigmoid(), other.float().sigmoid(), atol=1e-5 if precision is None else 1e-2
        )


def test_goes_on_plain_where_compiling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    warnings: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: broken)
    monkeypatch.setattr(
        "networks.fast.log.warning", lambda text, *values: warnings.append(text % values)
    )
    model = nn.Linear(2, 1)
    compiled = CompiledOrPlain(model)
    x = torch.ones(1, 2)
    assert torch.equal(compiled(x), model(x)) and torch.equal(compiled(x), model(x))
    assert warnings == ["--compile: going on without compiling (RuntimeError: no compiler)"]


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("name", ("single", "multi"))
def test_compiled_scores_are_those_of_the_plain_model(name: str) -> None:
    model = trained_like(MODELS[name]())
    fast = InferenceModel(model, batch_size=5, compiled=True, normalise=NORMALISE)
    assert torch.allclose(fast(PIXELS), model(IMAGES), atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(
            fast(PIXELS).sigmoid().float(), model(IMAGES).sigmoid().float(), atol=1e-2
        )


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that Inductor gets; instead of generating code, it runs them."""
    seen = []

    def compile_graph(graph: torch.fx.GraphModule, *_: object, **__: object) -> Any:
        seen.append(graph)
        return make_boxed_func(graph.forward)

    monkeypatch.setattr("torch._inductor.compile_fx._compile_fx_inner", compile_graph)
    return seen


def small_network() -> nn.Module:
    return trained_like(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    )


@torch.inference_mode()
def test_compiled_for_scoring_weights_are_constants_and_norms_folded(
    graphs: list[torch.fx.GraphModule],
) -> None:
    model = small_network()
    fast = InferenceModel(model, batch_size=5, compiled=True, normalise=NORMALISE)
    assert torch.allclose(fast(PIXELS), model(IMAGES), atol=1e-4)
    (graph,) = graphs
    operators = [node.name for node in graph.graph.nodes if node.op == "call_function"]
    # pixels, and the mean and standard deviation of the normalisation
    assert len(graph.graph.find_nodes(op="placeholder")) == 3
    convolution = next(at for at, name in enumerate(operators) if "convolution" in name)
    assert operators[convolution + 1] == "relu"  # BatchNorm is part of the weights


@torch.inference_mode()
def test_compiled_however_many_models_there_are(graphs: list[torch.fx.GraphModule]) -> None:
    for count in range(1, 12):
        fast = InferenceModel(small_network(), 2, compiled=True, normalise=NORMALISE)
        fast(PIXELS[:2, :, :16, :16])
        assert len(graphs) == count


def test_where_compiling_fails_for_a_size_others_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda model, **_: broken)
    warnings: list[str] = []
    monkeypatch.setattr("networks.fast.log.warning", lambda text, *_: warnings.append(text))
    model = small_network()
    fast = InferenceModel(model, 2, compiled=True, normalise=NORMALISE)
    for side in (16, 12, 16):
        pixels = PIXELS[:2, :, :side, :side]
        assert torch.equal(fast(pixels), model(NORMALISE(pixels)))
    assert len(warnings) == 1


def test_compiling_without_a_gpu_does_not_tell_where_cuda_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_HOME", "/usr/local")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code = runpy.run_module("torch.utils.cpp_extension")
    assert code["CUDA_HOME"] == "/usr/local"
    assert "CUDA" not in capfd.readouterr().err


def test_goes_on_plain_where_the_backward_pass_does_not_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    warnings: list[str] = []
    backend = aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=broken)
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: compile_with(model, backend=backend))
    monkeypatch.setattr(
        "networks.fast.log.warning", lambda text, *values: warnings.append(text % values)
    )
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    compiled, x, plain = CompiledOrPlain(model), torch.randn(7, 3), copy.deepcopy(model)
    for _ in range(2):
        for network in (compiled, plain):
            network(x).square().sum().backward()
    assert len(warnings) == 1 and "--compile: going on without compiling" in warnings[0]
    assert torch.allclose(model[0].weight.grad, plain[0].weight.grad, atol=1e-5)
    assert torch.equal(model[1].running_mean, plain[1].running_mean)  # no batch counts twice
