"""The gradients of the 3^3 convolution to its weights and bias, compiled for CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native

SHARED_MEMORY = {  # compute capability -> bytes of a multiprocessor, of a block
    (8, 0): (164 * 1024, 163 * 1024),
    (8, 6): (100 * 1024, 99 * 1024),
    (8, 9): (100 * 1024, 99 * 1024),
    (9, 0): (228 * 1024, 227 * 1024),
    (10, 0): (228 * 1024, 227 * 1024),
    (12, 0): (100 * 1024, 99 * 1024),
}
COMPILED = native.LOADED and hasattr(torch.ops.lganet_fast, "convolve_maps_weight_gradient")
BEST = -1  # the configuration that `configs` would name first


def configs(
    inputs: int,
    outputs: int,
    precision: str,
    size: Sequence[int],
    capability: tuple[int, int],
    masked: bool = False,
    processors: int = 132,
) -> list[int]:
    """The configurations worth a try, the best by a model of their time first.

    precision: "float16", "bfloat16", "tf32" or "float32". size: (B, H, W, D). capability: of the
    device, with so many multiprocessors. masked: whether there is a mask. Empty where nothing fits,
    for an unknown capability and where this install has no kernels for CUDA.
    """
    if not COMPILED or capability not in SHARED_MEMORY:
        return []
    number_bytes = 2 if precision in ("float16", "bfloat16") else 4
    device = (processors, *SHARED_MEMORY[capability])
    found: list[int] = torch.ops.lganet_fast.convolve_weight_gradient_configs(
        inputs, outputs, size, number_bytes, precision == "float32", masked, device
    )
    return found


def weight_gradient(
    maps: Sequence[Tensor],
    grad: Tensor,
    exact: bool,
    norm: tuple[Tensor, float] | None = None,
    mask: Tensor | None = None,
    config: int = BEST,
) -> tuple[Tensor, Tensor]:
    """The gradients to the weights, (outputs, inputs, 3, 3, 3), and bias, (outputs,), in float32.

    maps: one to three (B, Ck, H, W, D) in channels_last_3d, or slices of channels of such tensors,
    whose channels side by side are what was convolved. norm: moments (2, B, inputs), float32, and a
    slope: leaky((maps - moments[0]) * moments[1]) was convolved. grad: (B, outputs, H, W, D), the
    gradient to the result in the same format and type; it counts only where mask, of its shape, is
    above zero. exact: float32 by three TF32 products instead of one. config: one of `configs`.
    float16, bfloat16 and float32 on CUDA. Raises RuntimeError for tensors that do not fit together
    and for a configuration that is none or needs more shared memory than the device has.
    """
    moments, slope = norm if norm is not None else (None, 1.0)
    found: tuple[Tensor, Tensor] = torch.ops.lganet_fast.convolve_maps_weight_gradient(
        list(maps), grad, moments, slope, mask, exact, config
    )
    return found


if COMPILED:

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
        inputs, outputs = sum(x.shape[1] for x in maps), grad.shape[1]
        sums = torch.float32
        return (
            grad.new_empty((outputs, inputs, 3, 3, 3), dtype=sums),
            grad.new_empty((outputs,), dtype=sums),
        )
