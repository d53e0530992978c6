"""A bfloat16 map convolved with float32 weights to a float32 result, without a float32 copy of it.

The weights are a sum of bfloat16 numbers, w = w_0 + w_1 + ..., each the nearest to what the ones
before it leave, and the map stands beside itself once for each: one launch of the Triton kernel,
which sums in float32 anyway. float16 has not the range for what is left of small weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .convolve_on_cuda import fused, in_rows, pack_for_triton, path, precision
from .derived import derived


def splits(x: Tensor, weight: Tensor) -> bool:
    """Whether a map and weights are convolved so: in bfloat16, where the Triton kernel runs."""
    return x.dtype == torch.bfloat16 and path("convolve", weight, x).path == "triton"


def parts_of(weight: Tensor, count: int) -> Tensor:
    """(outputs, inputs, ...) -> (outputs, count * inputs, ...), bfloat16: w_0, w_1, ..."""
    left, parts = weight.float(), []
    for _ in range(count):
        parts.append(left.bfloat16())
        left = left - parts[-1].float()
    return torch.cat(parts, 1)


def packed_parts(weight: Tensor, count: int) -> Tensor:
    """The same in the order in which the Triton kernel reads them."""
    return pack_for_triton(parts_of(weight, count), torch.bfloat16, "bfloat16")


def convolve_split(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """The convolution with bias, and its ReLU. Without gradients.

    x: (B, inputs, H, W, D), one that `splits`. Returns (B, outputs, H, W, D) in float32. Where
    float32 may be multiplied in TF32, of 11 digits, two parts are enough, of 16; else there are
    three, of 24.
    """
    count = 2 if precision(torch.float32) == "tf32" else 3
    packed = derived(packed_parts, weight, count=count)
    return fused(
        [in_rows(x)] * count, packed, bias, None, 1.0, relu, None, None, None, False,
        weight.shape[0], "bfloat16", 0, wide=True,
    )[0]  # fmt: skip
