"""Blocks that several feature pyramids are built of; tensors are (B, C, H, W, D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import convolve, derived, norm_act
from .layers import SLOPE, Block, Conv3, ConvNormAct, done
from .slabs import PLANES, slabs


def leaky(x: Tensor, slope: float) -> Tensor:
    """LReLU(x) in the memory of x, whose gradient the result tells as well; slope 0 is a ReLU.

    x: the result of an operation whose own gradient does not read it.
    """
    return F.leaky_relu(x, slope, inplace=True) if slope else F.relu(x, inplace=True)


class ConvAct(nn.Module):
    """LReLU(conv3(x)), of stride 1 or 2; slope 0 is a ReLU. inplace as in Conv3."""

    def __init__(
        self, inputs: int, outputs: int, slope: float, stride: int = 1, inplace: bool = False
    ) -> None:
        super().__init__()
        self.slope = slope
        self.main: nn.Conv3d = (
            Conv3(inputs, outputs, inplace, relu=slope == 0)
            if stride == 1
            else nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        )

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, inputs, H, W, D), or, of stride 1, maps side by side -> (B, outputs, H', W', D')."""
        out: Tensor = self.main(x)
        done_there = self.slope == 0 and isinstance(self.main, Conv3)
        return out if done_there else leaky(out, self.slope)


def norm_leaky(x: Tensor, inplace: bool = True) -> Tensor:
    """LReLU(IN(x)); inplace as in `norm_act`."""
    return norm_act(x, SLOPE, inplace=inplace)


class ResidualAct(nn.Module):
    """LReLU(IN(x + conv3(LReLU(IN(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"2": Conv3(channels, channels, inplace=True)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        conv = self.block["2"]
        return norm_leaky(conv(norm_leaky(x, inplace=False), x))


class ResidualEncoder(Block):
    """Features of four levels with c, 2c, 4c, 8c channels at 1, 1/2, 1/4, 1/8 of the size.

    Level 1: LReLU(IN(conv3)). Level i + 1: a 3^3 convolution of stride 2, then a residual block.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv0 = ConvNormAct(inputs, channels, inplace=False)
        for level in (1, 2, 3):
            width = channels << level
            down = nn.Conv3d(width // 2, width, 3, stride=2, padding=1)
            self.add_module(f"conv{level}", nn.Sequential(down, ResidualAct(width)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 8 -> features of levels 1 to 4."""
        found = [done(self.conv0(x))]
        for level in (1, 2, 3):
            found.append(self.get_submodule(f"conv{level}")(found[-1]))
        return found


class UpConv(nn.Module):
    """LReLU(IN(transposed 4^3 convolution of stride 2)), which doubles each side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose3d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, 2H, 2W, 2D)."""
        return norm_leaky(self.upconv(x))


class TwoConvs(nn.Sequential):
    """Two ConvNormAct, widths `inputs` -> `outputs` -> `outputs`, named 0 and 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            ConvNormAct(inputs, outputs, inplace=False), ConvNormAct(outputs, outputs, inplace=True)
        )

    def forward(self, input: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, inputs, H, W, D), or maps side by side -> (B, outputs, H, W, D)."""
        first, second = self
        return done(second(first(input)))


def nearest_up(x: Tensor) -> Tensor:
    """Every voxel twice along each axis, (B, C, H, W, D) -> (B, C, 2H, 2W, 2D)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def of_enlarged(weight: Tensor) -> Tensor:
    """The transposed convolution of stride 2 that is a 3^3 convolution of a map enlarged by two.

    (outputs, inputs, 3, 3, 3) -> (inputs, outputs, 4, 4, 4): each voxel's two copies along an axis
    are read through neighbouring weights.
    """
    weight = weight.flip(2, 3, 4).transpose(0, 1)
    for axis in range(3):
        before, after = ([0, 0] * axis + ends + [0, 0] * (2 - axis) for ends in ([1, 0], [0, 1]))
        weight = F.pad(weight, before) + F.pad(weight, after)
    return weight.contiguous(memory_format=torch.channels_last_3d)


def parts_of(weight: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The weights of so many channels, as `of_enlarged` makes them, and those of the others."""
    others = weight[:, channels:].contiguous(memory_format=torch.channels_last_3d)
    return of_enlarged(weight[:, :channels]), others


def conv_of_enlarged(conv: ConvAct, x: Tensor, skip: Tensor) -> Tensor:
    """conv([nearest_up(x), skip]) without the enlarged map.

    x: (B, C, H, W, D). skip: (B, S, 2H, 2W, 2D). conv: of stride 1.
    """
    channels, weight, bias = x.shape[1], conv.main.weight, conv.main.bias
    assert bias is not None
    if torch.is_grad_enabled():
        enlarging, beside = parts_of(weight, channels)
    else:
        enlarging, beside = derived(parts_of, weight, channels=channels)
    out = F.conv_transpose3d(x, enlarging, stride=2, padding=1)
    if torch.is_grad_enabled() or x.is_cuda or torch.compiler.is_compiling():
        return leaky(convolve(skip, beside, bias, add=out), conv.slope)
    for here, around, inside in slabs(skip.shape[2], PLANES, 1):
        out[:, :, here] += convolve(skip[:, :, around], beside, bias)[:, :, inside]
    return leaky(out, conv.slope)
