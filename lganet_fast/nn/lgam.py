"""Local-global attention at the coarsest level, LGAM (paper 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import attention
from .layers import Block, Conv1

TOKEN_ORDERS = ("published", "spatial")
WINDOW = 6  # voxels: the side of a window of the local attention, at least


def tokens_of(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, N, C), token n = voxel n; a view where x is channels_last_3d."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def volume_of(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, N, C) -> the (B, C, H, W, D) of `like`, channels_last_3d; the inverse of `tokens_of`."""
    batch, channels, *size = like.shape
    return tokens.view(batch, *size, channels).permute(0, 4, 1, 2, 3)


class PositionAttention(Block):
    """gamma * softmax(q^T k) v + x over all voxels; unscaled, as published (the paper scales)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = Conv1(channels, channels // 8)
        self.key_conv = Conv1(channels, channels // 8)
        self.value_conv = Conv1(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        q, k, v = (tokens_of(f(x)) for f in (self.query_conv, self.key_conv, self.value_conv))
        return torch.addcmul(x, self.gamma.view(1, 1, 1, 1, 1), volume_of(attention(q, k, v, 1), x))


class Attention(nn.Module):
    """proj(softmax(q k^T s) v), single head, s = (c / 8)^(-1/2); q, k, v linear without bias."""

    def __init__(self, channels: int, proj: nn.Module, dropout: float) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.proj = proj
        self.dropout = nn.Dropout(dropout)
        self.scale = (channels // 8) ** -0.5

    def forward(
        self,
        tokens: Tensor,
        windows: int | tuple[int, int, int],
        volume: tuple[int, int, int] | None,
    ) -> Tensor:
        """(B, N, C) -> the same shape; windows and volume as `ops.attention` takes them."""
        dropout = self.dropout.p if self.training else 0.0
        q, k, v = self.q(tokens), self.k(tokens), self.v(tokens)
        return self.dropout(self.proj(attention(q, k, v, self.scale, windows, dropout, volume)))


class LocalGlobalAttention(nn.Module):
    """Two rounds of x <- x + ffn(global(ln(x))); x <- x + ffn(local(ln(x))), the weights shared.

    token_order="spatial", as the paper describes: token n is voxel n and windows are boxes of
    about 6^3 voxels. "published", as the published network computes: the tokens are runs of C
    consecutive numbers of the normalised (B, C, H, W, D) tensor, channel after channel, and row n
    of the result goes to voxel n all the same.

    The published checkpoints have the local attention's weights under `gsa`, and the global one's
    under `lsa`: so do these.
    """

    def __init__(self, channels: int, token_order: str, dropout: float) -> None:
        super().__init__()
        self.token_order = token_order
        wide, narrow = 4 * channels, channels // 8
        self.ln = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(
            Conv1(channels, wide), nn.ReLU(inplace=True), Conv1(wide, channels)
        )
        self.dropout = nn.Dropout(dropout)
        proj = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(inplace=True), nn.Linear(narrow, channels)
        )
        self.lsa = Attention(channels, proj, dropout)
        self.gsa = Attention(channels, nn.Linear(channels, channels), dropout)

    def attended(self, x: Tensor, local: bool) -> Tensor:
        """X + ffn(attention(ln(x))), (B, C, H, W, D)."""
        height, width, depth = x.shape[2:]
        counts = tuple(max(n // WINDOW, 1) for n in (height, width, depth))
        tokens = self.ln(tokens_of(x))
        part = self.gsa if local else self.lsa
        if self.token_order == "published":
            tokens = tokens.transpose(1, 2).reshape(tokens.shape)
            out = part(tokens, counts[0] * counts[1] * counts[2] if local else 1, None)
        elif local:
            out = part(tokens, counts, (height, width, depth))
        else:
            out = part(tokens, 1, None)
        return x + self.dropout(self.ffn(volume_of(out, x)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        for _ in range(2):
            x = self.attended(x, local=False)
            x = self.attended(x, local=True)
        return x


class LGAM(Block):
    """One LocalGlobalAttention, under the name `attn` that checkpoints have for it."""

    def __init__(self, channels: int, token_order: str, dropout: float) -> None:
        super().__init__()
        self.attn = LocalGlobalAttention(channels, token_order, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        return self.attn(x)
