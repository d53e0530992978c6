"""Gated MLPs in windows of several sizes over correlated maps (CorrMLP)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import correlate, warp
from .layers import Block, Conv1, Conv3
from .lgam import tokens_of, volume_of
from .pyramid import leaky
from .slabs import beside_correlation, in_slabs

WINDOWS = (3, 5, 7)  # sides, in voxels
SLOPE = 0.2  # of CorrMLP's leaky ReLU
TOKENS = 1 << 15  # that are worked on together, so that they stay in the caches


class SpatialGate(nn.Module):
    """Normalise the channels of each token, then mix the tokens of a window."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.Dense_0 = nn.Linear(tokens, tokens)

    def forward(self, v: Tensor) -> Tensor:
        """(T, windows, C) -> the same shape."""
        rows = self.LayerNorm(v).flatten(1)
        return torch.addmm(self.Dense_0.bias[:, None], self.Dense_0.weight, rows).view(v.shape)


class WindowMLP(nn.Module):
    """The gated MLP of one window size; the volume's far ends are padded with zeros.

    Windows that are padded mix these zeros, normalised, into the others, as published.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.LayerNorm = nn.LayerNorm(channels)
        self.in_project = nn.Linear(channels, 2 * channels)
        self.SpatialGatingUnit = SpatialGate(channels, side**3)
        self.out_project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Channels last, (B, H, W, D, C) -> the same shape; some layers of windows at a time.

        The backward computes the inside again, which would hold ten times the result.
        """
        layers = max(1, TOKENS // (x[:, 0, :, :, 0].numel() * self.side)) * self.side
        slabs = torch.split(x, layers, 1)
        if torch.is_grad_enabled():
            return torch.cat(
                [checkpoint(self.over, slab, use_reentrant=False) for slab in slabs], 1
            )
        out = torch.empty_like(x)
        for slab, place in zip(slabs, torch.split(out, layers, 1), strict=True):
            place.copy_(self.over(slab))
        return out

    def over(self, x: Tensor) -> Tensor:
        """The windows that (B, H, W, D, C) holds -> the same shape."""
        batch, *size, channels = x.shape
        side = self.side
        ends = [-n % side for n in size]
        padded = F.pad(x, [0, 0, 0, ends[2], 0, ends[1], 0, ends[0]]) if any(ends) else x
        counts = [n // side for n in padded.shape[1:4]]
        cut = padded.reshape(batch, counts[0], side, counts[1], side, counts[2], side, channels)
        tokens = cut.permute(2, 4, 6, 0, 1, 3, 5, 7)
        mixed = self.mixed(tokens.reshape(side**3, -1, channels)).view(tokens.shape)
        whole = mixed.permute(3, 4, 0, 5, 1, 6, 2, 7).reshape(padded.shape)
        return whole[:, : size[0], : size[1], : size[2]]

    def mixed(self, tokens: Tensor) -> Tensor:
        """Tokens of windows, (T, windows, C) -> the same shape."""
        u, v = F.gelu(self.in_project(self.LayerNorm(tokens))).chunk(2, 2)
        return tokens + self.out_project(u * (self.SpatialGatingUnit(v) + 1))


class Reweight(nn.Module):
    """Weights of the windows for each channel, by their mean over the volume."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, len(WINDOWS) * channels)

    def forward(self, means: Tensor) -> Tensor:
        """(B, C) -> (B, C, windows), their sum 1."""
        logits = self.fc2(F.gelu(self.fc1(means)))
        return torch.softmax(logits.view(*means.shape, len(WINDOWS)), 2)


class MultiWindowMLP(nn.Module):
    """X plus the layer `out_project` of the weighted sum of the windows' MLPs on LayerNorm(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        for k, side in enumerate(WINDOWS, 1):
            self.add_module(f"WinGmlpLayer_{k}", WindowMLP(channels, side))
        self.reweight = Reweight(channels)
        self.out_project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Channels last, (B, H, W, D, C) -> the same shape."""
        normed = self.LayerNorm(x)
        mixed: list[Tensor] = []
        for k in range(1, len(WINDOWS) + 1):
            mixed.append(self.get_submodule(f"WinGmlpLayer_{k}")(normed))
        del normed
        means = torch.stack([y.mean((1, 2, 3)) for y in mixed]).sum(0)
        weights = self.reweight(means)[:, None, None, None].unbind(-1)
        fresh = torch.is_grad_enabled()
        total = mixed[0] * weights[0] if fresh else mixed[0].mul_(weights[0])
        for y, weight in zip(mixed[1:], weights[1:], strict=True):
            total = torch.addcmul(total, y, weight) if fresh else total.addcmul_(y, weight)
        del mixed
        out = self.out_project(total)
        return out + x if fresh else out.add_(x)


class ChannelGate(nn.Module):
    """A weight in (0, 1) of each channel, by its mean over the volume."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = Conv1(channels, channels // 4)
        self.Conv_1 = Conv1(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> (B, C, 1, 1, 1)."""
        return torch.sigmoid(self.Conv_1(F.relu(self.Conv_0(x.mean((2, 3, 4), keepdim=True)))))


class ChannelAttention(nn.Module):
    """X plus two convolutions of LayerNorm(x), weighted channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.conv1 = Conv3(channels, channels, inplace=True)
        self.conv2 = Conv3(channels, channels, inplace=True)
        self.channel_attention = ChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        normed = volume_of(self.LayerNorm(tokens_of(x)), x)
        q = self.conv2(leaky(self.conv1(normed), SLOPE))
        gate = self.channel_attention(q)
        return torch.addcmul(x, q, gate) if torch.is_grad_enabled() else x.addcmul_(q, gate)


class CorrelatedMLP(Block):
    """Two maps and their local correlation, mixed within windows and across channels (CMW)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.Conv = Conv3(2 * inputs + 27, channels)
        self.mlpLayer = MultiWindowMLP(channels)
        self.channel_attention_block = ChannelAttention(channels)

    def forward(self, maps: list[Tensor], flow: Tensor | None = None) -> Tensor:
        """Two (B, inputs, H, W, D), the second read where a flow points -> (B, channels, H, W, D).

        Where no gradient needs them the list is emptied, so that their memory is free.
        """
        x, y = maps
        y = y if flow is None else warp(y, flow)
        z = in_slabs(self.joined, x, y, halo=2)
        del x, y
        if not torch.is_grad_enabled():
            maps.clear()
        mixed = self.mlpLayer(z.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        out = self.channel_attention_block(mixed)
        return out + z if torch.is_grad_enabled() else out.add_(z)

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """The convolution of both maps and their correlation."""
        return self.Conv(beside_correlation(x, y, correlate, halo=1))
