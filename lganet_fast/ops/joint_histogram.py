"""The reference of `mutual_information`: joint histograms in plain PyTorch, as matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .reference import working
from .torch_func import tracing, transforming

AT_ONCE = 1 << 16  # voxels of both images whose weights of all bins are in memory at a time


def mutual_information(a: Tensor, b: Tensor, bins: int, weight: Tensor | None = None) -> Tensor:
    """The mutual information in nats of a and b, by joint histograms of cubic B-splines.

    Of each channel of each volume by itself; their mean counts each by the sum of its weights.
    """
    dtype = working(a).dtype
    a, b = a.flatten(2), b.flatten(2)
    scale = None if weight is None else weight.to(dtype).flatten(2)
    total: Tensor | int = a.numel() if scale is None else scale.double().sum() * a.shape[1]
    if a.numel() == 0:
        return (a.sum() + b.sum()).to(dtype) / 0  # NaN
    joint = joint_histogram(a, b, bins, scale) / total
    parts = (joint, joint.sum(3), joint.sum(2), joint.sum((2, 3)))
    joint_sum, a_sum, b_sum, whole = ((p * log_of(p)).sum() for p in parts)
    return (joint_sum - a_sum - b_sum + whole).to(dtype)


def log_of(p: Tensor) -> Tensor:
    """log(p), and that of the smallest number at 0, so that 0 log 0 is 0 with a finite gradient."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def joint_histogram(a: Tensor, b: Tensor, bins: int, weight: Tensor | None) -> Tensor:
    """The joint histogram (B, C, bins, bins) of (B, C, N); the weights of some voxels at a time."""
    voxels = a.shape[2]
    step = max(1, AT_ONCE // a.shape[:2].numel())
    keep = transforming() or tracing() or voxels <= step  # else computed again for the gradient
    total = a.new_zeros((), dtype=torch.float64)
    for start in range(0, voxels, step):
        part = slice(start, start + step)
        given = a[..., part], b[..., part], bins, None if weight is None else weight[..., part]
        counts = histogram(*given) if keep else checkpoint(histogram, *given, use_reentrant=False)
        total = total + counts
    return total


def histogram(a: Tensor, b: Tensor, bins: int, weight: Tensor | None) -> Tensor:
    """The joint histogram (B, C, bins, bins) of few voxels, in float64, which autocast leaves."""
    counts = spline_weights(a.double(), bins)
    if weight is not None:
        counts = counts * weight[..., None]
    return counts.transpose(2, 3) @ spline_weights(b.double(), bins)


def spline_weights(x: Tensor, bins: int) -> Tensor:
    """How much each of (B, C, N) counts in each bin, (B, C, N, bins): cubic B-splines.

    [0, 1] spans the bins but for one at either end, so that all weights of a number sum to 1.
    """
    inside = torch.where((x > 0) & (x < 1), x, x.detach().clamp(0, 1))
    place = 1 + inside * (bins - 3)
    far = (place[..., None] - torch.arange(bins, dtype=x.dtype, device=x.device)).abs()
    return ((2 - far).clamp_min(0) ** 3 - 4 * (1 - far).clamp_min(0) ** 3) / 6
