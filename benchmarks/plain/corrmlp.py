"""CorrMLP; its blocks are computed again in the backward, as its authors train it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..published import correlate
from .parts import conv3, up, warp

ENCODED, DECODED, SLOPE, SIDES = 8, 16, 0.2, (3, 5, 7)


class Recomputed(nn.Module):
    """Saves only its input for the backward."""

    def forward(self, x: Tensor) -> Tensor:
        """The result of `inside`."""
        if x.requires_grad:
            out: Any = checkpoint(self.inside, x, use_reentrant=False)
            return out
        return self.inside(x)

    def inside(self, x: Tensor) -> Tensor:
        """The computation."""
        raise NotImplementedError


class ConvBlock(Recomputed):
    """Twice IN(LReLU(conv3))."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.Conv_1, self.Conv_2 = conv3(inputs, channels), conv3(channels, channels)

    def inside(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, channels, H, W, D)."""
        for conv in (self.Conv_1, self.Conv_2):
            x = F.instance_norm(F.leaky_relu(conv(x), SLOPE))
        return x


class Encoder(nn.Module):
    """Features of four levels."""

    def __init__(self) -> None:
        super().__init__()
        before = 1
        for level in range(4):
            self.add_module(f"Convblock_{level + 1}", ConvBlock(before, ENCODED << level))
            before = ENCODED << level

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> the levels' features."""
        found = []
        for level in range(4):
            x = F.avg_pool3d(x, 2) if level else x
            x = self.get_submodule(f"Convblock_{level + 1}")(x)
            found.append(x)
        return found


class SpatialGate(nn.Module):
    """Mixes the tokens of a window."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.Dense_0 = nn.Linear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, 2C) -> (windows, tokens, C)."""
        u, v = x.chunk(2, -1)
        mixed = self.Dense_0(self.LayerNorm(v).transpose(1, 2)).transpose(1, 2)
        return u * (mixed + 1)


class WindowMLP(Recomputed):
    """The gated MLP of one window size."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.LayerNorm = nn.LayerNorm(channels)
        self.in_project = nn.Linear(channels, 2 * channels)
        self.SpatialGatingUnit = SpatialGate(channels, side**3)
        self.out_project = nn.Linear(channels, channels)

    def inside(self, x: Tensor) -> Tensor:
        """(B, H, W, D, C) -> the same shape."""
        batch, height, width, depth, channels = x.shape
        s = self.side
        ends = [-n % s for n in (height, width, depth)]
        x = F.pad(x, [0, 0, 0, ends[2], 0, ends[1], 0, ends[0]])
        a, b, c = (n // s for n in x.shape[1:4])
        x = x.view(batch, a, s, b, s, c, s, channels).permute(0, 1, 3, 5, 2, 4, 6, 7)
        tokens = x.reshape(-1, s**3, channels)
        mixed = self.SpatialGatingUnit(F.gelu(self.in_project(self.LayerNorm(tokens))))
        tokens = self.out_project(mixed) + tokens
        x = tokens.view(batch, a, b, c, s, s, s, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(batch, a * s, b * s, c * s, channels)
        return x[:, :height, :width, :depth].contiguous()


class Reweight(nn.Module):
    """Weights of the windows for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, 3 * channels)

    def forward(self, means: Tensor) -> Tensor:
        """(B, C) -> (B, C, windows)."""
        logits = self.fc2(F.gelu(self.fc1(means)))
        return torch.softmax(logits.view(*means.shape, 3), 2)


class MultiWindowMLP(nn.Module):
    """The weighted sum of the MLPs of three windows, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        for k, side in enumerate(SIDES, 1):
            self.add_module(f"WinGmlpLayer_{k}", WindowMLP(channels, side))
        self.reweight = Reweight(channels)
        self.out_project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D, C) -> the same shape."""
        normed = self.LayerNorm(x)
        y1, y2, y3 = (self.get_submodule(f"WinGmlpLayer_{k}")(normed) for k in (1, 2, 3))
        weights = self.reweight((y1 + y2 + y3).mean((1, 2, 3)))[:, None, None, None]
        total = y1 * weights[..., 0] + y2 * weights[..., 1] + y3 * weights[..., 2]
        return self.out_project(total) + x


class ChannelGate(nn.Module):
    """A weight of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv3d(channels, channels // 4, 1)
        self.Conv_1 = nn.Conv3d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        means = x.mean((2, 3, 4), keepdim=True)
        return x * torch.sigmoid(self.Conv_1(F.relu(self.Conv_0(means))))


class ChannelAttention(Recomputed):
    """Two convolutions, weighted, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.conv1, self.conv2 = conv3(channels, channels), conv3(channels, channels)
        self.channel_attention = ChannelGate(channels)

    def inside(self, x: Tensor) -> Tensor:
        """(B, H, W, D, C) -> the same shape."""
        normed = self.LayerNorm(x).permute(0, 4, 1, 2, 3).contiguous()
        q = self.conv2(F.leaky_relu(self.conv1(normed), SLOPE))
        return self.channel_attention(q).permute(0, 2, 3, 4, 1) + x


class CorrelatedMLP(nn.Module):
    """Two maps and their correlation, mixed."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.Conv = conv3(2 * inputs + 27, channels)
        self.mlpLayer = MultiWindowMLP(channels)
        self.channel_attention_block = ChannelAttention(channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, inputs, H, W, D) -> (B, channels, H, W, D)."""
        z = self.Conv(torch.cat([x, correlate(x, y), y], 1))
        out = self.channel_attention_block(self.mlpLayer(z.permute(0, 2, 3, 4, 1)))
        return out.permute(0, 4, 1, 2, 3).contiguous() + z


class Expand(nn.Module):
    """A map at twice its size with half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(channels, channels // 2, 2, stride=2)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> (B, C / 2, 2H, 2W, 2D)."""
        x = self.norm(self.up_conv(x).permute(0, 2, 3, 4, 1))
        return x.permute(0, 4, 1, 2, 3).contiguous()


class FlowHead(nn.Module):
    """A level's flow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reg_head = conv3(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> flow."""
        return self.reg_head(x)


class Decoder(nn.Module):
    """The flow from both images' features."""

    def __init__(self) -> None:
        super().__init__()
        for level in range(1, 5):
            width = DECODED << (level - 1)
            self.add_module(f"mlp_1{level}", CorrelatedMLP(ENCODED << (level - 1), width))
            self.add_module(f"reghead_{level}", FlowHead(width))
            if level < 4:
                self.add_module(f"mlp_2{level}", CorrelatedMLP(width, width))
                self.add_module(f"upsample_{level}", Expand(2 * width))

    def forward(self, fixed: list[Tensor], moving: list[Tensor]) -> Tensor:
        """Coarse to fine."""
        part = self.get_submodule
        x = part("mlp_14")(fixed[3], moving[3])
        flow = part("reghead_4")(x)
        for level in (3, 2, 1):
            doubled = up(2 * flow)
            moved = warp(moving[level - 1], doubled)
            x = part(f"mlp_2{level}")(
                part(f"mlp_1{level}")(fixed[level - 1], moved), part(f"upsample_{level}")(x)
            )
            flow = part(f"reghead_{level}")(x) + doubled
        return flow


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.Encoder, self.Decoder = Encoder(), Decoder()

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The decoder's flow."""
        return self.Decoder(self.Encoder(fixed), self.Encoder(moving))
