"""Pool: a map at half the size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import check, reference, triton
from .dispatch import choose_backend
from .memory_format import empty_in_format_of
from .torch_func import transforming

KINDS = ("mean", "max")


def pool(
    x: Tensor,
    kind: str,
    backend: str | None = None,
    *,
    norm: tuple[Tensor, float] | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor]:
    """The mean or the maximum of every 2^3 voxels, and the map that it is of.

    x: (B, C, H, W, D), sides even, any float type. kind: "mean" or "max".
    norm: moments (2, B, C), float32 or float64, and the slope of a leaky ReLU: the map is
    leaky((x - moments[0]) * moments[1]) then, as in `convolve`, stored where `keep` asks for it.
    Returns (B, C, H/2, W/2, D/2), and the map, (B, C, H, W, D), which is x where there is no norm
    and empty where it is not kept. Paper 2.1 and 2.2.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    check.choice("kind", kind, KINDS)
    check.flag("keep", keep)
    if any(n % 2 for n in x.shape[2:]):
        raise ValueError(f"x must have even sides, got {tuple(x.shape)}")
    if norm is not None:
        check.norm("norm", norm, x.shape[:2], x)
    moments, slope = norm or (None, 1.0)
    call = {
        "gradient": triton.gradient_asked(x, moments),
        "channels": x.shape[1],
        "voxels": x.shape[2:].numel(),
    }
    choice = choose_backend("pool", x.device.type, backend, **call).backend
    if choice == "triton":
        out, kept = fused(x, kind, moments, slope, keep and moments is not None)
        return out, (x if moments is None else kept)
    if moments is not None:
        x = reference.normalised(x, moments, slope)
    fast = choice == "native" and x.numel()
    return (plain(x, kind) if fast else reference.pool(x, kind)), x


def plain(x: Tensor, kind: str) -> Tensor:
    """By PyTorch's kernels, in channels_last_3d; the mean axis by axis, whose poolings are slow."""
    if kind == "max":
        return F.max_pool3d(x, 2)
    for axis in (2, 3, 4):
        first, second = torch.unflatten(x, axis, (-1, 2)).unbind(axis + 1)
        x = first + second
    x = x / 8
    return x if transforming() else x.contiguous(memory_format=torch.channels_last_3d)


@torch.library.custom_op("lganet_fast_triton::pool", mutates_args=())
def fused(
    x: Tensor, kind: str, moments: Tensor | None, slope: float, keep: bool
) -> tuple[Tensor, Tensor]:
    """The operation by the Triton kernel; the second result is empty where nothing is kept."""
    out, kept = results_like(x, kind, moments, slope, keep)
    if out.numel():
        moments = None if moments is None else moments.contiguous()
        whole = kept if keep else None
        triton.kernels("pool").forward(x, out, whole, moments, slope, kind == "max")
    return out, kept


@fused.register_fake
def results_like(
    x: Tensor, kind: str, moments: Tensor | None, slope: float, keep: bool
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes, in the memory format of x."""
    half = [n // 2 for n in x.shape[2:]]
    whole = empty_in_format_of(x, *x.shape) if keep else x.new_empty(0)
    return empty_in_format_of(x, *x.shape[:2], *half), whole
