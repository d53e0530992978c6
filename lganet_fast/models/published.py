"""LGANet++ as its authors published it, op for op: the baseline for parity and for timing.

It has every parameter and buffer of a published checkpoint, including those that the forward does
not use, and needs the same time and memory as the published network: warps are `grid_sample` on a
stored grid, the correlation is 27 shifted products, every concatenation is made. Nothing else in
the package depends on it; use `LGANetPlusPlus`.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int, int]


def conv3(inputs: int, outputs: int) -> nn.Conv3d:
    """A 3^3 convolution that keeps the size."""
    return nn.Conv3d(inputs, outputs, 3, padding=1)


def double(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, C, 2H, 2W, 2D), trilinear with aligned corners; values unscaled."""
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


class Warp(nn.Module):
    """image(p + flow(p)); image (B, C, H, W, D), flow (B, 3, H, W, D) in voxels."""

    grid: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        lines = [torch.arange(n, dtype=torch.get_default_dtype()) for n in size]
        self.register_buffer("grid", torch.stack(torch.meshgrid(lines, indexing="ij"))[None])

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Sample on the shifted grid, zeros outside."""
        place = self.grid + flow
        axes = [2 * place[:, a] / (n - 1) - 1 for a, n in enumerate(flow.shape[2:])]
        return F.grid_sample(image, torch.stack(axes[::-1], -1), align_corners=True)


class Integrate(nn.Module):
    """Scaling and squaring in 7 steps."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.transformer = Warp(size)

    def forward(self, velocity: Tensor) -> Tensor:
        """(B, 3, H, W, D) velocity to flow, voxels."""
        flow = velocity / 2**7
        for _ in range(7):
            flow = flow + self.transformer(flow, flow)
        return flow


class ConvNormAct(nn.Module):
    """Convolution, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = conv3(inputs, outputs)
        self.norm = nn.InstanceNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, H, W, D)."""
        return F.leaky_relu(self.norm(self.main(x)), 0.1)


class Encoder(nn.Module):
    """Four levels of features (paper 2.1)."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        before = inputs
        for level in range(4):
            after = filters * 2**level
            stage = [conv3(before, after), ConvNormAct(after, after), ConvNormAct(after, after)]
            self.add_module(f"conv{level}", nn.Sequential(*stage))
            before = after

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D) -> features of levels 1 to 4."""
        found = []
        for level in range(4):
            x = self.get_submodule(f"conv{level}")(F.max_pool3d(x, 2) if level else x)
            found.append(x)
        return found


class SDI(nn.Module):
    """The product of eight maps brought to one size (paper 2.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3(channels, channels) for _ in range(8))

    def forward(self, maps: list[Tensor], size: Size) -> Tensor:
        """Eight (B, f, ., ., .) maps -> (B, f, *size)."""
        out = torch.ones_like(maps[0][:1, :1, :1, :1, :1])
        for conv, x in zip(self.convs, maps, strict=True):
            fitted = x
            if x.shape[-1] > size[-1]:
                fitted = F.adaptive_avg_pool3d(x, size)
            elif x.shape[-1] < size[-1]:
                fitted = F.interpolate(x, size=size, mode="trilinear", align_corners=True)
            out = out * conv(fitted)
        return out


class Residual(nn.Module):
    """a = ReLU(conv conv x); a + ReLU(conv conv ReLU(conv a))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        one = [conv3(channels, channels) for _ in range(2)]
        two = [conv3(channels, channels) for _ in range(3)]
        self.conv1 = nn.Sequential(*one, nn.ReLU())
        self.conv2 = nn.Sequential(two[0], nn.ReLU(), two[1], two[2], nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        x = self.conv1(x)
        return x + self.conv2(x)


class PositionAttention(nn.Module):
    """gamma * softmax(q k) v + x over all voxels, unscaled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv3d(channels, channels // 8, 1)
        self.key_conv = nn.Conv3d(channels, channels // 8, 1)
        self.value_conv = nn.Conv3d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        q, k, v = (f(x).flatten(2) for f in (self.query_conv, self.key_conv, self.value_conv))
        weights = torch.softmax(q.transpose(1, 2) @ k, -1)
        return self.gamma * (v @ weights.transpose(1, 2)).view_as(x) + x


class Attention(nn.Module):
    """Attention inside runs of tokens."""

    def __init__(self, channels: int, proj: nn.Module, dropout: float) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.proj = proj
        self.dropout = nn.Dropout(dropout)
        self.scale = (channels // 8) ** -0.5

    def forward(self, tokens: Tensor, windows: int) -> Tensor:
        """(B, N, C) -> the same shape."""
        batch, count, channels = tokens.shape
        runs = tokens.reshape(batch, windows, count // windows, channels)
        weights = torch.softmax(self.q(runs) @ self.k(runs).transpose(-1, -2) * self.scale, -1)
        return self.dropout(self.proj(self.dropout(weights) @ self.v(runs))).view_as(tokens)


class LocalGlobal(nn.Module):
    """Two rounds of global, then local attention, each followed by the MLP."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels)
        wide, narrow = 4 * channels, channels // 8
        self.ffn = nn.Sequential(
            nn.Conv3d(channels, wide, 1), nn.ReLU(), nn.Conv3d(wide, channels, 1)
        )
        self.dropout = nn.Dropout(dropout)
        proj = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        self.lsa = Attention(channels, proj, dropout)
        self.gsa = Attention(channels, nn.Linear(channels, channels), dropout)

    def attend(self, attention: nn.Module, x: Tensor, windows: int) -> Tensor:
        """X + ffn(attention(ln(x))); the tokens are read in memory order, not by voxel."""
        normed = self.ln(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3).contiguous()
        tokens = normed.view(x.shape[0], -1, x.shape[1])
        out = attention(tokens, windows).transpose(1, 2).reshape(x.shape)
        return x + self.dropout(self.ffn(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        height, width, depth = x.shape[2:]
        windows = (height // 6) * (width // 6) * (depth // 6)
        for _ in range(2):
            x = self.attend(self.lsa, x, 1)
            x = self.attend(self.gsa, x, windows)
        return x


class SwinBlock(nn.Module):
    """Holds one LocalGlobal under the name that checkpoints have for it."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.attn = LocalGlobal(channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        return self.attn(x)


class Trunk(nn.Module):
    """Features and a flow from one map (paper 2.4, image decomposition)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c, c2, c4 = channels, 2 * channels, 4 * channels
        self.conv = nn.Sequential(
            *(conv3(c, c2), nn.InstanceNorm3d(c2), conv3(c2, c2), nn.ReLU()),
            *(conv3(c2, c4), nn.InstanceNorm3d(c4), conv3(c4, c4), nn.ReLU()),
            *(conv3(c4, c4), conv3(c4, c4), nn.ReLU()),
        )
        self.conv1 = nn.Sequential(conv3(c4, c2), nn.Conv3d(c2, c, 1), nn.ReLU())
        self.conv2 = nn.Sequential(conv3(c4, c2), nn.Conv3d(c2, 3, 1), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W, D) -> features of the same shape and a flow."""
        x = self.conv(x)
        return self.conv1(x), self.conv2(x)


class IDM(nn.Module):
    """Each of a pair read where the other's flow points (paper 2.4)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)
        self.idm = Trunk(channels)
        self.stn = Warp(size)
        self.vec = Integrate(size)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Two (B, C, H, W, D) -> features of that shape and an integrated flow."""
        features_a, flow_a = self.idm(a)
        features_b, flow_b = self.idm(b)
        out = b + self.stn(features_a, flow_b) + self.stn(features_b, flow_a)
        return out, self.vec(self.stn(flow_a, flow_b) + self.stn(flow_b, flow_a))


class ChannelGate(nn.Module):
    """sigmoid(MLP(mean) + MLP(max)) per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> (B, C, 1, 1, 1)."""
        mean, largest = x.mean((2, 3, 4)), x.amax((2, 3, 4))
        return torch.sigmoid(self.fc(mean) + self.fc(largest))[..., None, None, None]


class CWAM(nn.Module):
    """Three maps weighted voxel by voxel, then channel by channel (paper 2.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(ConvNormAct(3 * channels, 3 * channels) for _ in range(2)))
        self.weight_conv = nn.Sequential(conv3(3 * channels, 3), nn.Softmax(1))
        self.channel_attention = ChannelGate(3 * channels)

    def forward(self, *maps: Tensor) -> Tensor:
        """Three (B, C, H, W, D) -> (B, 3C, H, W, D)."""
        weights = self.weight_conv(self.conv(torch.cat(maps, 1)))
        z = torch.cat([weights[:, i : i + 1] * x for i, x in enumerate(maps)], 1)
        return z * self.channel_attention(z)


class Deblock(nn.Module):
    """One decoder level with the modules of every level, as checkpoints hold them."""

    def __init__(self, level: int, channels: int, size: Size, dropout: float) -> None:
        super().__init__()
        self.level = level
        self.resnet = Residual(3 * channels)
        self.resnets = Residual(channels)
        self.pa = PositionAttention(channels)
        self.flow = conv3(3 * channels, 3)
        self.flows = conv3(channels, 3)
        self.nff = CWAM(channels)
        if level == 4:
            self.swin = nn.Sequential(*(SwinBlock(channels, dropout) for _ in range(2)))
        else:
            self.stn = Warp(size)
        if level in (2, 3):
            self.de = Trunk(channels)
        self.convs = conv3(3 * channels, channels)
        self.idm = IDM(channels, size)
        self.Conv = conv3(27, channels)

    def correlated(self, x: Tensor, y: Tensor) -> Tensor:
        """X + Conv(corr(x, y)) by 27 shifted products (paper 2.3)."""
        height, width, depth = y.shape[2:]
        padded = F.pad(y, [1] * 6)
        planes = [
            (x * padded[:, :, i : i + height, j : j + width, k : k + depth]).mean(1, keepdim=True)
            for i, j, k in itertools.product(range(3), repeat=3)
        ]
        return x + self.Conv(torch.cat(planes, 1))

    def forward(self, x: Tensor, y: Tensor, fused: Tensor, flow: Tensor | None = None) -> Tensor:
        """The level's flow before integration.

        x, y: moving and fixed features; fused: C_i; flow: twice the coarser flow, upsampled.
        """
        x = self.correlated(x, y)
        if flow is None:
            stack = self.pa(self.convs(torch.cat([x, y, fused], 1)))
            return self.flows(self.swin(self.resnets(stack)))
        warped = self.stn(x, flow)
        if self.level == 1:
            return self.flow(self.resnet(self.nff(fused, warped, y)))
        first, flow1 = self.idm(y, warped)
        second, flow2 = self.idm(y, first)
        both = self.stn(flow1, flow2) + flow2
        change = self.flow(self.resnet(self.nff(fused, second, y)))
        return self.stn(both, change) + change


class PublishedLGANetPlusPlus(nn.Module):
    """The published network for volumes of one `size` (H, W, D); 25,535,632 parameters.

    in_channel: channels of each image. filters: channels of level 1. dropout: in level 4's
    attention, while training. Each side of `size` must be a multiple of 8 and at least 48, and at
    an eighth of the size the number of windows must divide the number of voxels.
    """

    def __init__(
        self, size: Size, in_channel: int = 1, filters: int = 8, dropout: float = 0.1
    ) -> None:
        super().__init__()
        sizes: list[Size] = [(size[0] >> i, size[1] >> i, size[2] >> i) for i in range(4)]
        widths = [filters << i for i in range(4)]
        self.encoder = Encoder(in_channel, filters)
        for level in (4, 3, 2, 1):
            self.add_module(f"c{level}", conv3(widths[level - 1], filters))
        for level in (1, 2, 3, 4):
            self.add_module(f"sdi_{level}", SDI(filters))
        for level in (4, 3, 2):
            self.add_module(f"u{level}", conv3(filters, widths[level - 1]))
        self.transformer = nn.ModuleList(Warp(s) for s in sizes)
        for level in (4, 3, 2, 1):
            i = level - 1
            self.add_module(f"deblock{level}", Deblock(level, widths[i], sizes[i], dropout))
        for level in (4, 3, 2, 1):
            self.add_module(f"integrate{level}", Integrate(sizes[level - 1]))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """moving, fixed (B, in_channel, H, W, D) -> flow (B, 3, H, W, D) in voxels."""
        part = self.get_submodule
        moved, still = self.encoder(moving), self.encoder(fixed)
        maps = [part(f"c{i + 1}")(x) for features in (still, moved) for i, x in enumerate(features)]
        fused = [part(f"sdi_{i + 1}")(maps, still[i].shape[2:]) for i in range(4)]
        for i in (1, 2, 3):
            fused[i] = part(f"u{i + 1}")(fused[i])
        flow = self.get_submodule("integrate4")(part("deblock4")(moved[3], still[3], fused[3]))
        for level in (3, 2, 1):
            i = level - 1
            coarse = double(2 * flow)
            step = part(f"deblock{level}")(moved[i], still[i], fused[i], coarse)
            step = part(f"integrate{level}")(step)
            flow = self.transformer[i](coarse, step) + step
        return flow
