"""The ways to do a convolution, each with its configurations: cuDNN's, the compiled, Triton's.

A path that this tree does not have says so, and is passed over.
"""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lganet_fast.ops import native, triton
from lganet_fast.ops.tuned import Config

from ..count import Conv

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}
TOLERANCES = {"float16": 1e-3, "bfloat16": 8e-3, "tf32": 3e-3, "float32": 2e-5}
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Problem:
    """A convolution in one of `DTYPES`: with bias, and ReLU forward."""

    conv: Conv
    type: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps."""
        return DTYPES[self.type]

    @property
    def bytes(self) -> int:
        """The fewest that it moves."""
        return self.conv.bytes(self.dtype.itemsize)


@dataclass(frozen=True)
class Given:
    """Its tensors: x or the gradient of the result, or both; channels_last_3d."""

    x: Tensor
    grad: Tensor
    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(problem: Problem, device: str, seed: int = 0) -> Given:
        """Random ones; weights of such a size that results are of unit variance."""
        conv, dtype = problem.conv, problem.dtype
        generator = torch.Generator(device).manual_seed(seed)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            x = torch.randn(shape, generator=generator, device=device) * scale
            return x.to(dtype)

        def map_of(channels: int) -> Tensor:
            x = random(conv.shape[0], channels, *conv.shape[1:])
            return x.contiguous(memory_format=torch.channels_last_3d)

        weight = random(conv.outputs, conv.inputs, 3, 3, 3, scale=(27 * conv.inputs) ** -0.5)
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
        return Given(map_of(conv.inputs), map_of(conv.outputs), weight, random(conv.outputs))


def aten(operation: str, given: Given) -> Tensor:
    """PyTorch's own, in whatever type it is given."""
    x, grad, weight, bias = given.x, given.grad, given.weight, given.bias
    if operation == "convolve":
        return F.conv3d(x, weight, bias, padding=1).relu_()
    wanted = [operation == "convolve_input_gradient", operation == "convolve_weight_gradient"]
    ones, zeros = [1, 1, 1], [0, 0, 0]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(bias)], ones, ones, ones, False, zeros, 1, [*wanted, False]
    )
    return found[0] if wanted[0] else found[1]


def right(problem: Problem, given: Given) -> Tensor:
    """The same in float64."""
    wide = Given(*(x.double() for x in (given.x, given.grad, given.weight, given.bias)))
    return aten(problem.conv.operation, wide)


class Cudnn:
    """PyTorch's convolution; configuration 1 lets cuDNN choose by measuring."""

    def missing(self, device: str) -> str | None:
        """It is always there; on the CPU another library stands for it."""
        return None

    def configs(self, problem: Problem) -> list[Config]:
        """By the heuristics, by measuring."""
        return [0, 1]

    def run(self, problem: Problem, config: Config, given: Given) -> Run:
        """What does the work."""

        def call() -> Tensor:
            with choosing(bool(config), problem.type == "tf32"):
                return aten(problem.conv.operation, given)

        return call


@contextmanager
def choosing(by_measuring: bool, tf32: bool) -> Iterator[None]:
    """CuDNN's choice of algorithm and of precision."""
    conv = torch.backends.cudnn
    before = conv.benchmark, conv.allow_tf32
    conv.benchmark, conv.allow_tf32 = by_measuring, tf32
    try:
        yield
    finally:
        conv.benchmark, conv.allow_tf32 = before


class Native:
    """The compiled convolution."""

    def missing(self, device: str) -> str | None:
        """Why it is not there, or None."""
        if not native.LOADED:
            return native.REASON
        has = hasattr(torch.ops.lganet_fast, "convolve_maps")
        key = device.upper()
        if not has or not torch._C._dispatch_has_kernel_for_dispatch_key(
            "lganet_fast::convolve_maps", key
        ):
            return f"not there: no lganet_fast::convolve_maps for {device}"
        return None if module("lganet_fast.ops.packed") else "not there: no lganet_fast.ops.packed"

    def configs(self, problem: Problem) -> list[Config]:
        """As the library numbers them, the best by its model first."""
        conv = problem.conv
        if conv.operation == "convolve_weight_gradient":
            return [0]
        ends = (conv.inputs, conv.outputs)
        inputs, outputs = ends if conv.operation == "convolve" else ends[::-1]
        capability = torch.cuda.get_device_capability()
        code = 10 * capability[0] + capability[1]
        return list(torch.ops.lganet_fast.convolve_configs(inputs, outputs, problem.type, code))

    def run(self, problem: Problem, config: Config, given: Given) -> Run:
        """What does the work, its weights packed already."""
        conv, own = problem.conv, torch.ops.lganet_fast
        if conv.operation == "convolve_weight_gradient":
            return lambda: own.convolve_weights_gradient_maps(given.x, given.grad)
        pack: Any = module("lganet_fast.ops.packed")
        forward = conv.operation == "convolve"
        weight = given.weight if forward else mirrored(given.weight)
        packed = pack.native(weight, problem.dtype, problem.type)
        bias = given.bias.float() if forward else torch.zeros(conv.inputs, device=given.x.device)
        maps = [given.x if forward else given.grad]
        outputs = conv.outputs if forward else conv.inputs
        rest = (None, 0.0, forward, None, None, False, outputs, config)
        return lambda: own.convolve_maps(maps, packed, bias, *rest)[0]


class Triton:
    """The Triton convolution."""

    def missing(self, device: str) -> str | None:
        """Why it is not there, or None."""
        if device != "cuda":
            return "it needs a CUDA device"
        if not triton.INSTALLED:
            return "triton is not installed"
        return None if module("lganet_fast.kernels.convolve") else "not there: no such kernel"

    def configs(self, problem: Problem) -> list[Config]:
        """As the module names them, the best by its model first."""
        conv, kernels = problem.conv, module("lganet_fast.kernels.convolve")
        ends = (conv.inputs, conv.outputs)
        inputs, outputs = ends[::-1] if conv.operation == "convolve_input_gradient" else ends
        found: list[Config] = list(
            kernels.configs(conv.operation, inputs, outputs, problem.type)  # type: ignore[union-attr]
        )
        return found

    def run(self, problem: Problem, config: Config, given: Given) -> Run:
        """What does the work, its weights packed already."""
        conv, kernels = problem.conv, module("lganet_fast.kernels.convolve")
        assert kernels is not None
        if conv.operation == "convolve_weight_gradient":
            return lambda: kernels.weight_gradient(given.x, given.grad, None, config)
        forward = conv.operation == "convolve"
        weight = given.weight if forward else mirrored(given.weight)
        packed = kernels.pack(weight, problem.dtype, problem.type)
        bias = given.bias.float() if forward else torch.zeros(conv.inputs, device=given.x.device)
        maps = [given.x if forward else given.grad]
        outputs = conv.outputs if forward else conv.inputs
        rest = (None, 0.0, forward, None, None, False, outputs, config)
        return lambda: kernels.forward(maps, packed, bias, *rest)[0]


def legal(path: str, problem: Problem) -> list[Config]:
    """A path's configurations; none, and a note in the log, where it cannot tell them."""
    try:
        return list(PATHS[path].configs(problem))
    except Exception:
        traceback.print_exc()
        return []


def module(name: str) -> Any:
    """A module of the package; None where this tree has none."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def mirrored(weight: Tensor) -> Tensor:
    """The weights with which a convolution is the gradient to the input."""
    turned = weight.transpose(0, 1).flip(2, 3, 4)
    return turned.contiguous(memory_format=torch.channels_last_3d)


PATHS: dict[str, Any] = {"cudnn": Cudnn(), "triton": Triton(), "native": Native()}
