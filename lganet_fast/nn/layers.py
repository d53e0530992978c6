"""The layers of the blocks: convolutions, instance norm, resizing, residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import Norm, convolve, convolve_moments, derived, norm_act, resize
from ..ops.convolve_on_cuda import through
from ..ops.convolve_split import convolve_split, splits

SLOPE = 0.1  # of every leaky ReLU


class Block(nn.Module):
    """A module that can drop its inner activations and recompute them in the backward."""

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        """Run the block, keeping only its inputs if `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


@dataclass(frozen=True)
class Pending:
    """A map x (B, C, H, W, D) with a pending norm, which its reader applies."""

    x: Tensor
    norm: Norm


Map = Tensor | Pending


def fuses(x: Tensor) -> bool:
    """Whether a convolution, or the next one, also does the steps after it: on CUDA, in evaluation.

    A pass over memory costs as much there as the convolution; on the CPU it is in the caches.
    """
    return x.is_cuda and not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def done(x: Map) -> Tensor:
    """The map itself."""
    return x if isinstance(x, Tensor) else through(x.x, x.norm)


def times(x: Tensor, y: Tensor) -> Tensor:
    """X * y, in the memory of x where no gradient needs it."""
    return x * y if torch.is_grad_enabled() else x.mul_(y)


class Conv3(nn.Conv3d):
    """A 3^3 convolution with bias that keeps the size.

    inplace: the input is not read later, so that the result may reuse its memory. relu: a ReLU
    follows.
    """

    bias: Tensor

    def __init__(
        self, inputs: int, outputs: int, inplace: bool = False, relu: bool = False
    ) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.inplace, self.relu = inplace, relu

    def forward(
        self, x: Map | Sequence[Tensor], add: Tensor | None = None, times: Tensor | None = None
    ) -> Tensor:
        """(B, inputs, H, W, D), or maps side by side -> (B, outputs, H, W, D); see `convolve`."""
        maps, norm = (x.x, x.norm) if isinstance(x, Pending) else (x, None)
        more: dict[str, Any] = {"norm": norm, "add": add, "times": times}
        return convolve(maps, self.weight, self.bias, self.inplace, self.relu, **more)

    def normed(self, x: Map | Sequence[Tensor], slope: float) -> Map:
        """LReLU(IN(conv3(x))), Pending where it fuses."""
        maps, norm = (x.x, x.norm) if isinstance(x, Pending) else (x, None)
        if not fuses(maps if isinstance(maps, Tensor) else maps[0]):
            return norm_act(self(x), slope, inplace=True)
        out, moments = convolve_moments(maps, self.weight, self.bias, norm)
        return Pending(out, Norm(moments, slope))


Conv = TypeVar("Conv", bound=Conv3)


class Conv1(nn.Conv3d):
    """A 1^3 convolution with bias: a matrix product over the voxels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, H, W, D), channels_last_3d."""
        out = F.linear(input.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias)
        return out.permute(0, 4, 1, 2, 3)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that flows have beside features of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def flow_conv(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """A 3^3 convolution to a flow, (B, C, H, W, D) -> (B, 3, H, W, D), in at least float32.

    Also under autocast and in a half-precision network: a flow of some voxels rounded to bfloat16
    is off by hundredths of a voxel at every step.
    """
    if fuses(x) and splits(x, weight):
        return convolve_split(x, weight, bias, relu)
    dtype = wide(torch.promote_types(x.dtype, weight.dtype))
    weight, bias = in_type(weight, bias, dtype)
    with torch.autocast(x.device.type, enabled=False):
        return convolve(x.to(dtype), weight, bias, relu=relu)


def in_type(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both in a type; cast once where no gradient is requested."""
    if torch.is_grad_enabled() or weight.dtype == dtype:
        return cast(weight, bias, dtype)
    return derived(cast, weight, bias, dtype=dtype)


def cast(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both in a type."""
    return weight.to(dtype), bias.to(dtype)


def near_zero(conv: Conv) -> Conv:
    """The convolution with weights near zero, so that its initial flows are near zero."""
    nn.init.normal_(conv.weight, std=1e-5)
    nn.init.zeros_(conv.bias)
    return conv


class FlowConv(Conv3):
    """The convolution that computes a level's flow; see `flow_conv`."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 3)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W, D) -> (B, 3, H, W, D), at least float32."""
        return flow_conv(x, self.weight, self.bias)


def fold(weight: Tensor, bias: Tensor, second: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that a conv1 after a conv3 makes with it."""
    mix = second.flatten(1)
    whole = (mix @ weight.flatten(1)).view(-1, *weight.shape[1:])
    return whole.contiguous(memory_format=torch.channels_last_3d), mix @ bias + shift


class ConvPair(nn.Sequential):
    """ReLU(conv1(conv3(x))), run as the one conv3 that the two are together.

    Only the input of the first is padded, so the two ways agree at the borders too.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(Conv3(inputs, hidden), Conv1(hidden, outputs))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution, differentiable."""
        parts = [p for conv in self for p in conv.parameters()]
        return fold(*parts) if torch.is_grad_enabled() else derived(fold, *parts)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, H, W, D)."""
        return convolve(input, *self.folded(), relu=True)


class FlowPair(ConvPair):
    """A ConvPair that computes a flow; see `flow_conv`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 3)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, 3, H, W, D), at least float32."""
        return flow_conv(input, *self.folded(), relu=True)


class ConvNormAct(nn.Module):
    """LReLU(IN(conv3(x))), (B, inputs, H, W, D) -> (B, outputs, H, W, D); inplace as in Conv3.

    Where the reader of the result fuses them, the last two are left to it.
    """

    def __init__(self, inputs: int, outputs: int, *, inplace: bool) -> None:
        super().__init__()
        self.main = Conv3(inputs, outputs, inplace)

    def forward(self, x: Map | Sequence[Tensor]) -> Map:
        """Run the three."""
        return self.main.normed(x, SLOPE)


class Chain(Block):
    """Conv3 layers in a row, channels as many all along, under the names that checkpoints have.

    relus: the names after which a ReLU follows. own: whether the first may take the input's memory.
    """

    def __init__(self, channels: int, names: str, *, relus: str, own: bool) -> None:
        super().__init__()
        for k, name in enumerate(names):
            self.add_module(
                name, Conv3(channels, channels, inplace=own or k > 0, relu=name in relus)
            )

    def forward(self, x: Map | Sequence[Tensor], add: Tensor | None = None) -> Tensor:
        """(B, C, H, W, D), or maps side by side -> the same shape; `add` comes to the result."""
        *first, last = self.children()
        for conv in first:
            x = conv(x)
        return last(x, add)


class Residual(nn.Module):
    """a + ReLU(conv3(conv3(ReLU(conv3(a))))) with a = ReLU(conv3(conv3(x))); the shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Chain(channels, "01", relus="1", own=True)
        self.conv2 = Chain(channels, "023", relus="03", own=False)

    def forward(self, x: Map | Sequence[Tensor]) -> Tensor:
        """(B, C, H, W, D), or maps side by side -> the same shape."""
        a = self.conv1(x)
        return self.conv2(a, a)


def double(flow: Tensor) -> Tensor:
    """(B, 3, H, W, D) -> (B, 3, 2H, 2W, 2D), trilinear with aligned corners, in its own voxels."""
    return resize(flow, [2 * n for n in flow.shape[2:]], factor=2)
