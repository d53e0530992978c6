"""PIViT, with windows of 8^3 voxels, a table of biases and a mask."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts import ConvAct, compose, conv3, up, warp

WIDTH, WINDOW = 32, 8
Sides = tuple[int, ...]


def windows_of(x: Tensor, window: Sides) -> Tensor:
    """(B, H, W, D, C) -> (windows of all, tokens, C)."""
    batch, height, width, depth, channels = x.shape
    a, b, c = window
    x = x.view(batch, height // a, a, width // b, b, depth // c, c, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, a * b * c, channels)


def volume_of(x: Tensor, window: Sides, size: Sides) -> Tensor:
    """The inverse of `windows_of`, for a volume of the given size."""
    (a, b, c), (height, width, depth) = window, size
    x = x.view(-1, height // a, width // b, depth // c, a, b, c, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, height, width, depth, x.shape[-1])


def mask_of(size: Sides, window: Sides, shift: Sides, device: torch.device) -> Tensor:
    """(windows, tokens, tokens): -100 between tokens that are neighbours only after the roll."""
    regions = torch.zeros(1, *size, 1, device=device)
    cuts = [
        (slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),)
        for w, s in zip(window, shift, strict=True)
    ]
    for number, (a, b, c) in enumerate(itertools.product(*cuts)):
        regions[:, a, b, c] = number
    numbers = windows_of(regions, window).squeeze(2)
    return (numbers[:, None] != numbers[:, :, None]) * -100.0


class WindowAttention(nn.Module):
    """Single-head attention inside windows."""

    relative_position_index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = channels**-0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 3, 1))
        lines = [torch.arange(WINDOW)] * 3
        places = torch.stack(torch.meshgrid(lines, indexing="ij")).flatten(1).T
        apart = places[:, None] - places[None] + WINDOW - 1
        index = (apart[..., 0] * 15 + apart[..., 1]) * 15 + apart[..., 2]
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(windows, tokens, C) -> the same shape."""
        count, tokens = x.shape[:2]
        q, k, v = self.qkv(x).chunk(3, -1)
        logits = q * self.scale @ k.transpose(1, 2)
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        logits = logits + self.relative_position_bias_table[index].view(1, tokens, tokens)
        if mask is not None:
            logits = logits.view(-1, *mask.shape) + mask
        weights = torch.softmax(logits, -1).view(count, tokens, tokens)
        return self.proj(weights @ v)


class MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual connection."""

    def __init__(self, channels: int, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = WindowAttention(channels)
        self.mlp = MLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D, C) -> the same shape."""
        size = x.shape[1:4]
        window = tuple(min(n, WINDOW) for n in size)
        shift = tuple(WINDOW // 2 if self.shifted and n > WINDOW else 0 for n in size)
        ends = [-n % w for n, w in zip(size, window, strict=True)]
        y = F.pad(self.norm1(x), [0, 0, 0, ends[2], 0, ends[1], 0, ends[0]])
        whole, mask = tuple(y.shape[1:4]), None
        if any(shift):
            y = torch.roll(y, [-n for n in shift], (1, 2, 3))
            mask = mask_of(whole, window, shift, x.device)
        y = volume_of(self.attn(windows_of(y, window), mask), window, whole)
        if any(shift):
            y = torch.roll(y, shift, (1, 2, 3))
        x = x + y[:, : size[0], : size[1], : size[2]]
        return x + self.mlp(self.norm2(x))


class Stage(nn.Module):
    """Two blocks, the second shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, shifted) for shifted in (False, True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 4, 1, 2, 3).contiguous()


class SwinDecoder(nn.Module):
    """A flow by attention and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.Swin1 = Stage(2 * WIDTH)
        self.Conv2 = ConvAct(2 * WIDTH, WIDTH)
        self.Conv3 = conv3(WIDTH, 3)

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> flow."""
        return self.Conv3(self.Conv2(self.Swin1(torch.cat([moved, fixed], 1))))


class ConvDecoder(nn.Module):
    """A flow by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv1 = ConvAct(2 * WIDTH, WIDTH)
        self.Conv2 = conv3(WIDTH, 3)

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> flow."""
        return self.Conv2(self.Conv1(torch.cat([moved, fixed], 1)))


class Encoder(nn.Module):
    """Features at 1/2, 1/4 and 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        for level in (1, 2, 3):
            self.add_module(f"block{level}", ConvAct(1 if level == 1 else WIDTH, WIDTH, stride=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> three maps."""
        found = []
        for level in (1, 2, 3):
            x = self.get_submodule(f"block{level}")(x)
            found.append(x)
        return found


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder31, self.decoder32, self.decoder33 = (SwinDecoder() for _ in range(3))
        self.decoder2, self.decoder1 = ConvDecoder(), ConvDecoder()

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Three flows at 1/8 of the size, one at 1/4 and 1/2, composed."""
        x1, x2, x3 = self.encoder(moving)
        y1, y2, y3 = self.encoder(fixed)
        flow = self.decoder31(x3, y3)
        flow = compose(flow, self.decoder32(warp(x3, flow), y3))
        flow = compose(flow, self.decoder33(warp(x3, flow), y3))
        flow = up(2 * flow)
        flow = compose(flow, self.decoder2(warp(x2, flow), y2))
        flow = up(2 * flow)
        flow = compose(flow, self.decoder1(warp(x1, flow), y1))
        return up(2 * flow)
