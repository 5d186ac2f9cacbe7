"""Faster ways to run a model: memory layout and compilation."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from device import is_out_of_memory
from util import log

Model = TypeVar("Model", bound=nn.Module)

# the compiler imports it, and without a GPU it warns of an installed CUDA
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

COMPILED_SIZES = 3  # image sizes for which a model is compiled
MANY = 2**20  # compiled programs of one model class; by default, from the ninth it runs uncompiled


def place_model(model: Model, device: torch.device, dtype: torch.dtype | None) -> Model:
    """Move a model to the device, in the memory layout in which its convolutions are fast there.

    Channels last, except on a GPU in full precision. Values stay the same to rounding.

    Args:
        dtype: autocast type, None for full precision.
    """
    channels_last = device.type == "cpu" or dtype is not None
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(device).to(memory_format=layout)


class CompiledOrPlain(nn.Module):
    """`torch.compile` that falls back to the plain model, with a warning, where it fails.

    That includes the compilation of the backward pass.

    It is compiled for the shape that comes first. Others, such as the rest of an epoch, go through
    the plain model: compiling for each would take long, and one program for all shapes is slower.

    Args:
        model: the plain model.
        freezing: weights become constants, and BatchNorm part of them; for use without gradients.
        cuda_graphs: replay whole passes on a GPU; what `forward` returns then lies where the next
            pass writes, so copy what is kept.
    """

    def __init__(self, model: nn.Module, freezing: bool = False, cuda_graphs: bool = False) -> None:
        super().__init__()
        self._plain = [model]  # in a list, so that the weights are not registered twice
        options: Any = {"triton.cudagraphs": True} if cuda_graphs else None
        self._compiled: Any = torch.compile(model, dynamic=False, options=options)
        # not among the options, which do not reach Dynamo and the backward pass
        self._settings = (
            torch._inductor.config.patch(freezing=freezing),
            torch._dynamo.config.patch(recompile_limit=MANY, accumulated_recompile_limit=MANY),
            # where the plain model can still take over
            torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
        )
        self._shape: torch.Size | None = None

    @property
    def failed(self) -> bool:
        """True once it did not compile."""
        return self._compiled is None

    def forward(self, images: Tensor, **kwargs: Any) -> Any:
        self._shape = self._shape or images.shape
        if self._compiled is None or images.shape != self._shape:
            return self._plain[0](images, **kwargs)
        try:
            # what the pass before returned may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
            with ExitStack() as stack:
                for setting in self._settings:
                    stack.enter_context(setting)
                return self._compiled(images, **kwargs)
        except (
            torch._dynamo.exc.TorchDynamoException,
            torch._inductor.exc.InductorError,
            RuntimeError,
        ) as error:
            if is_out_of_memory(error):
                raise
            first = (str(error).splitlines() or [""])[0]
            log.warning(
                "--compile: going on without compiling (%s: %s)", type(error).__name__, first
            )
            self._compiled = None
            return self._plain[0](images, **kwargs)


class InferenceModel(nn.Module):
    """A model made fast for scoring: normalisation in the same pass and, with `compiled`, compiled
    with frozen weights.

    It is compiled for the first `COMPILED_SIZES` image sizes that fill a batch; later smaller
    batches of these are filled up to `batch_size`, and all others go through the model as it is,
    because compiling would take longer than scoring them. Call it without gradients.

    Args:
        normalise: pixels [B, 3, H, W] uint8 -> images as the model takes them.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_size: int,
        compiled: bool,
        normalise: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.batch_size, self._compile = batch_size, compiled
        self.network = _OnPixels(model, normalise)
        self._compiled: dict[torch.Size, CompiledOrPlain] = {}  # by height and width

    def _compiled_for(self, pixels: Tensor) -> CompiledOrPlain | None:
        size = pixels.shape[2:]
        wanted = (
            self._compile
            and len(pixels) == self.batch_size
            and len(self._compiled) < COMPILED_SIZES
            and not any(network.failed for network in self._compiled.values())
        )
        if wanted and size not in self._compiled:
            graphs = pixels.device.type == "cuda"
            self._compiled[size] = CompiledOrPlain(self.network, freezing=True, cuda_graphs=graphs)
        return self._compiled.get(size)

    def forward(self, pixels: Tensor, **kwargs: Any) -> Any:
        """Return the model's outputs for pixels [B, 3, H, W] uint8: logits, or a tuple that
        begins with them."""
        count = len(pixels)
        compiled = self._compiled_for(pixels)
        if compiled is None:
            return self.network(pixels, **kwargs)
        if count < self.batch_size:
            pixels = torch.cat([pixels, pixels[-1:].expand(self.batch_size - count, -1, -1, -1)])
        outputs = compiled(pixels, **kwargs)
        copied = pixels.device.type == "cuda"  # the next pass writes there
        kept = [
            part[:count].clone() if copied else part[:count]
            for part in (outputs if isinstance(outputs, tuple) else (outputs,))
        ]
        return tuple(kept) if isinstance(outputs, tuple) else kept[0]


class _OnPixels(nn.Module):
    """Normalisation and model as one, so that a compiler sees both."""

    def __init__(self, model: nn.Module, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise

    def forward(self, pixels: Tensor, **kwargs: Any) -> Any:
        return self.model(self.normalise(pixels), **kwargs)
