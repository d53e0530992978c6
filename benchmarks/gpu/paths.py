"""The paths of a convolution with their configurations: cuDNN, compiled, Triton.

A path that is missing says why, and is skipped.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lganet_fast import ops
from lganet_fast.ops import (
    convolve_gradients,
    convolve_maps,
    convolve_training,
    native,
    triton,
    tuned,
)
from lganet_fast.ops.dispatch import refusals
from lganet_fast.ops.tuned import Entry

from ..count import Conv
from .clock import tf32

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
    """A convolution in one of `DTYPES`, with bias; the forward also with ReLU."""

    conv: Conv
    type: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of the maps."""
        return DTYPES[self.type]

    @property
    def bytes(self) -> int:
        """The minimum of bytes that it moves."""
        return self.conv.bytes(self.dtype.itemsize)


@dataclass(frozen=True)
class Given:
    """The tensors of a problem: x, the gradient of the result, or both; channels_last_3d."""

    x: Tensor
    grad: Tensor
    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(problem: Problem, device: str, seed: int = 0) -> Given:
        """Random tensors; the weights are scaled so that results have unit variance."""
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

    def wide(self) -> Given:
        """The same tensors in float64."""
        return Given(*(x.double() for x in (self.x, self.grad, self.weight, self.bias)))


def aten(operation: str, given: Given) -> Tensor:
    """PyTorch's result, in the type of the tensors."""
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
    """The expected result in float64."""
    return aten(problem.conv.operation, given.wide())


@contextmanager
def forced(entry: Entry) -> Iterator[None]:
    """Make the package use one path and configuration for every convolution."""
    before = tuned.winner
    tuned.winner = lambda *_: entry  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        tuned.winner = before  # type: ignore[misc]


class Cudnn:
    """PyTorch's convolution; configuration 1 lets cuDNN choose by measuring."""

    name = "cudnn"

    def missing(self, device: str) -> str | None:
        """Why the path is missing, or None. On the CPU another library replaces cuDNN."""
        return None

    def configs(self, problem: Problem) -> list[int]:
        """The heuristics, and for the forward also cuDNN's own measurement."""
        return [0, 1] if problem.conv.operation == "convolve" else [0]

    def run(self, problem: Problem, config: int, given: Given) -> Run:
        """A function that does the work as the package does, with bias and ReLU."""
        entry, operation = Entry(self.name, config, 1.0), problem.conv.operation

        def call() -> Tensor:
            with torch.no_grad(), tf32(problem.type == "tf32"), forced(entry):
                return by_package(operation, given) if given.x.is_cuda else aten(operation, given)

        return call


def by_package(operation: str, given: Given) -> Tensor:
    """The result by the path that the package chooses."""
    if operation == "convolve":
        return ops.convolve(given.x, given.weight, given.bias, relu=True)
    more = (given.grad, given.x, given.weight, None, None)
    if operation == "convolve_input_gradient":
        return convolve_training.input_gradient(*more)
    return convolve_training.weight_gradient(*more)[0]


class Native(Cudnn):
    """The compiled convolution."""

    name = "native"

    def missing(self, device: str) -> str | None:
        """Why it is not there, or None."""
        if not native.LOADED:
            return native.REASON
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        name = "convolve_maps"
        if hasattr(torch.ops.lganet_fast, name) and has(f"lganet_fast::{name}", "CUDA"):
            return refusal("native", device)
        return f"missing: no {name} for CUDA"

    def configs(self, problem: Problem) -> list[int]:
        """The library's configurations, the fastest by its model first."""
        conv, size = problem.conv, problem.conv.shape[1:]
        gradient = conv.operation == "convolve_weight_gradient"
        named = convolve_gradients.configs if gradient else convolve_maps.configs
        how = {"capability": torch.cuda.get_device_capability()}
        return list(named(*ends(conv), problem.type, size, **how))


class Triton(Cudnn):
    """The Triton convolution."""

    name = "triton"

    def missing(self, device: str) -> str | None:
        """Why it is not there, or None."""
        return refusal("triton", device)

    def configs(self, problem: Problem) -> list[int]:
        """The indices of the module's configurations, the fastest by its model first."""
        conv, kernels = problem.conv, triton.kernels("convolve")
        gradient = conv.operation == "convolve_weight_gradient"
        named = kernels.weight_configs if gradient else kernels.configs
        return list(
            range(len(named(*ends(conv), problem.type, torch.cuda.get_device_capability())))
        )


def refusal(backend: str, device: str) -> str | None:
    """Why a backend has no convolution on a device, or None."""
    if device != "cuda":
        return "it needs a CUDA device"
    return refusals("convolve", device).get(backend)


def ends(conv: Conv) -> tuple[int, int]:
    """Input and output channels; exchanged for the gradient to the input."""
    turned = conv.operation == "convolve_input_gradient"
    return (conv.outputs, conv.inputs) if turned else (conv.inputs, conv.outputs)


PATHS: dict[str, Cudnn] = {path.name: path for path in (Cudnn(), Triton(), Native())}


def there(device: str) -> tuple[list[str], dict[str, str]]:
    """The paths that run on a device, and why the others do not."""
    found = {name: path.missing(device) for name, path in PATHS.items()}
    return [n for n, why in found.items() if why is None], {n: w for n, w in found.items() if w}


def legal(path: str, problem: Problem) -> list[int]:
    """A path's configurations; empty, with a line in the log, if that fails."""
    try:
        return list(PATHS[path].configs(problem))
    except Exception:
        traceback.print_exc()
        return []
