"""Weights of a 3^3 convolution in the order in which the compiled kernel for CUDA reads them.

A kernel multiplies by chunks: one or two planes of 16 bytes of channels, `columns` outputs at a
time (`csrc/convolve/convolve_plan.h` has the same rules). What one lane of a warp needs for one
product lies side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {  # precision -> type of the numbers
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}
# The order of the neighbours 3 h + w. Of two planes, each product has one neighbour; of one plane,
# two, and 9 stands for none.
SINGLE = (0, 3, 6, 1, 4, 7, 2, 5, 8)
PAIRS = (0, 1, 3, 4, 6, 7, 2, 5, 8, 9)


class Kind(NamedTuple):
    """Which kernel computes so many inputs and outputs."""

    per_plane: int  # channels
    planes: int  # of a chunk
    columns: int  # outputs of a block
    exact: bool  # float32 by three TF32 products


def kind(inputs: int, outputs: int, precision: str) -> Kind:
    """The kernel for so many channels; precision is one of DTYPES."""
    per_plane, exact = 16 // DTYPES[precision].itemsize, precision == "float32"
    choices = (16, 8) if exact else (32, 24, 16, 8)
    columns = min(choices, key=lambda n: -(-outputs // n) * (n + 6))
    fewer = 5 * -(-inputs // 8) < 9 * -(-inputs // 16)
    one = per_plane == 8 and fewer and columns < 32
    return Kind(per_plane, 1 if one else 2, columns, exact)


def round_tf32(x: Tensor) -> Tensor:
    """Float32 rounded to the 10 bits of mantissa that a TF32 product reads."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def in_order(w: Tensor, order: tuple[int, ...]) -> Tensor:
    """The neighbours, last but one axis, in an order; a CUDA graph could not take an index."""
    neighbours = w.unbind(-2)
    return torch.stack([neighbours[k] for k in order], -2)


def pack(weight: Tensor, precision: str) -> Tensor:
    """The packed weights, one axis, on the weight's device.

    weight: (outputs, inputs, 3, 3, 3). precision: what the products are computed in: "float16",
    "bfloat16", "tf32" (float32 rounded to 10 bits of mantissa) or "float32" (large and small part).
    Raises KeyError for another precision, ValueError for another shape.
    """
    if weight.dim() != 5 or weight.shape[2:] != (3, 3, 3):
        raise ValueError(f"expected (outputs, inputs, 3, 3, 3), got {tuple(weight.shape)}")
    outputs, inputs = weight.shape[:2]
    per_plane, planes, columns, exact = kind(inputs, outputs, precision)
    taps, chunk = columns // 8, planes * per_plane
    w = weight.detach().to(DTYPES[precision]).reshape(outputs, inputs, 9, 3)
    w = F.pad(w, (0, 0, 0, 1, 0, -inputs % chunk, 0, -outputs % columns))
    # output: block, lane / 8, tile of a tap, lane / 4 % 2; input: chunk, plane, lane % 4, number
    w = w.reshape(-1, 4, taps, 2, w.shape[1] // chunk, planes, 4, per_plane // 4, 10, 3)
    if planes == 2:
        w = in_order(w, SINGLE).permute(0, 4, 8, 9, 2, 1, 3, 6, 5, 7)
    else:
        w = torch.unflatten(in_order(w.squeeze(5), PAIRS), -2, (5, 2))
        w = w.permute(0, 4, 7, 9, 2, 1, 3, 5, 8, 6)
    if precision == "tf32":
        w = round_tf32(w.contiguous())
    elif exact:
        large = round_tf32(w.contiguous())
        w = torch.stack((large, round_tf32(w - large)), -3)
    return w.reshape(-1)
