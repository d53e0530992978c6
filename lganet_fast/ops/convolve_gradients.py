"""The gradients of the 3^3 convolution to its weights and bias, compiled for CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .convolve_maps import LEAST_SHARED, SHARED, check
from .convolve_packs import DTYPES


def configs(
    inputs: int,
    outputs: int,
    precision: str,
    size: Sequence[int],
    capability: tuple[int, int] = (8, 9),
    *,
    masked: bool = False,
    processors: int = 132,
) -> list[int]:
    """Values of `config` for volumes of `size` (H, W, D), the best by a model of the time first.

    precision: one of convolve_packs.DTYPES. capability: the device's, with so many multiprocessors.
    masked: whether there is a mask. Raises RuntimeError for what cannot be computed.
    """
    block = SHARED.get(capability, LEAST_SHARED)  # KiB; a multiprocessor has one more
    device = [processors, (block + 1) * 1024, block * 1024]
    number_bytes, exact = DTYPES[precision].itemsize, precision == "float32"
    return list(
        torch.ops.lganet_fast.convolve_weight_gradient_configs(
            inputs, outputs, number_bytes, exact, masked, list(size), device
        )
    )


def weight_gradient(
    maps: Sequence[Tensor],
    grad: Tensor,
    *,
    precision: str,
    norm: Tensor | None = None,
    slope: float = 1.0,
    mask: Tensor | None = None,
    config: int = 0,
) -> tuple[Tensor, Tensor]:
    """Gradients to the weights (outputs, inputs, 3, 3, 3) and the bias (outputs,), in float32.

    maps: 1 to 3 tensors (B, Ck, H, W, D), channels_last_3d or channels of such a tensor; their
    channels one after the other were convolved, after leaky((x - shift) * scale, slope) where norm
    is given, (2, B, inputs) float32, shift and scale. grad: (B, outputs, H, W, D) of the same type
    and layout, the gradient to the convolution's result; it counts only where `mask`, of its shape,
    is given and > 0. config: 0, or one of `configs`. Results repeat bit for bit.
    Raises ValueError for shapes and TypeError for types that do not fit, RuntimeError for layouts
    and for a config that is none or needs more shared memory than the device has.
    """
    if not 1 <= len(maps) <= 3:
        raise ValueError(f"expected 1 to 3 maps, got {len(maps)}")
    dtype = DTYPES[precision]
    batch, outputs, *size = grad.shape
    check("grad", grad, (batch, outputs, *size), dtype)
    for x in maps:
        check("x", x, (batch, x.shape[1], *size), dtype)
    if norm is not None:
        check("norm", norm, (2, batch, sum(x.shape[1] for x in maps)), torch.float32)
    if mask is not None:
        check("mask", mask, grad.shape, dtype)
    found = torch.ops.lganet_fast.convolve_maps_weight_gradient(
        list(maps), grad, norm, slope, mask, precision == "float32", config
    )
    return found[0], found[1]


if native.LOADED:

    @torch.library.register_fake("lganet_fast::convolve_maps_weight_gradient")
    def _(
        maps: list[Tensor],
        grad: Tensor,
        norm: Tensor | None,
        slope: float,
        mask: Tensor | None,
        exact: bool,
        config: int,
    ) -> tuple[Tensor, Tensor]:
        size = (grad.shape[1], sum(x.shape[1] for x in maps), 3, 3, 3)
        weight = grad.new_empty(size, dtype=torch.float32)
        return weight, grad.new_empty(size[:1], dtype=torch.float32)
