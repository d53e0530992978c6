"""Operations as in the published network and its training script, operator by operator."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from lganet_fast.models.published import Integrate, Warp

from .case import Call, Size, Way


def correlate(x: Tensor, y: Tensor) -> Tensor:
    """27 shifted products, each averaged over the channels (paper 2.3)."""
    height, width, depth = x.shape[2:]
    padded = F.pad(y, [1] * 6)
    planes = [
        (x * padded[:, :, i : i + height, j : j + width, k : k + depth]).mean(1, keepdim=True)
        for i, j, k in itertools.product(range(3), repeat=3)
    ]
    return torch.cat(planes, 1)


def neighbour_attention(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """27 concatenated shifted copies of the keys, then matrix products (ModeT)."""
    heads, (batch, channels, height, width, depth) = bias.shape[0], q.shape
    padded = F.pad(k, [1] * 6)
    copies = [
        padded[:, :, i : i + height, j : j + width, m : m + depth]
        for i, j, m in itertools.product(range(3), repeat=3)
    ]
    keys = torch.stack(copies, -1).view(batch, heads, channels // heads, height, width, depth, 27)
    queries = q.reshape(*keys.shape[:-1], 1)
    rows = [t.permute(0, 1, 3, 4, 5, 2, 6) for t in (queries, keys)]
    logits = (rows[0].transpose(-1, -2) @ rows[1]).squeeze(-2) + bias.view(1, heads, 1, 1, 1, 27)
    offsets = torch.cartesian_prod(*[torch.arange(-1.0, 2, device=q.device)] * 3).to(q.dtype)
    found = torch.softmax(logits, -1) @ offsets
    return found.permute(0, 1, 5, 2, 3, 4).reshape(batch, 3 * heads, height, width, depth)


def local_ncc(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared local correlation, window 9, its five sums by convolutions with ones."""
    ones = a.new_ones(1, 1, 9, 9, 9)
    sums = [F.conv3d(x, ones, padding=4) for x in (a, b, a * a, b * b, a * b)]
    cross = sums[4] - sums[0] * sums[1] / 729
    var_a = sums[2] - sums[0] * sums[0] / 729
    var_b = sums[3] - sums[1] * sums[1] / 729
    return (cross * cross / (var_a * var_b + 1e-5)).mean()


def warp(size: Size, dtype: torch.dtype, device: str) -> Call:
    """grid_sample on a stored grid."""
    module = Warp(size).to(device)

    def call(image: Tensor, flow: Tensor) -> Tensor:
        return module(image.to(flow.dtype), flow).to(image.dtype)

    return call


def integrate(size: Size, dtype: torch.dtype, device: str) -> Call:
    """7 grid_samples on a stored grid."""
    return Integrate(size).to(device)


WARP, INTEGRATE = Way(warp), Way(integrate)
