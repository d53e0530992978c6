"""GroupMorph, group by group, with four, two and two groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..case import Size
from ..published import correlate
from .parts import conv3, norm_leaky, up, voxels, warp

SLOPE, WIDTHS, GROUPS = 0.2, (8, 16, 16, 32, 32, 64, 64), {8: 4, 4: 2, 2: 2}


def free(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    """A 3^3 convolution without bias."""
    return nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False)


class Features(nn.Module):
    """Maps at 1, 1/2, 1/4 and 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        before = 1
        for k, width in enumerate(WIDTHS):
            stride = 2 if k % 2 else 1
            self.add_module(f"conv{k}", nn.Sequential(free(before, width, stride)))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> four maps, finest first."""
        found = []
        for k in range(len(WIDTHS)):
            x = norm_leaky(self.get_submodule(f"conv{k}")(x), SLOPE)
            found.append(x)
        return found[::2]


class Split(nn.Module):
    """A convolution for each group."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        width, sides = channels // groups, (1, 3, 5, 7) if groups == 4 else (3, 5)
        self.convs = nn.ModuleList(nn.Conv3d(width, width, n, padding=n // 2) for n in sides)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        parts = zip(self.convs, x.chunk(len(self.convs), 1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], 1)


def normed(channels: int) -> list[nn.Module]:
    """Norm, leaky ReLU and convolution."""
    return [nn.InstanceNorm3d(channels), nn.LeakyReLU(SLOPE), conv3(channels, channels)]


class GroupFlow(nn.Module):
    """The mean flow of the groups, and their contexts."""

    def __init__(self, inputs: int, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv1 = nn.Sequential(conv3(inputs, channels), *normed(channels))
        self.conv2 = nn.Sequential(*normed(channels), *normed(channels))
        if groups == 4:
            self.conv3 = nn.Sequential(*normed(channels))
            self.conv4 = nn.Sequential(*normed(channels))
        self.flowout = conv3(channels, 3)
        self.context = nn.Sequential(
            free(channels, channels // 2), nn.InstanceNorm3d(channels // 2), nn.LeakyReLU(SLOPE)
        )

    def forward(
        self, moved: Tensor, fixed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Maps of all groups -> flow, contexts of all groups."""
        n, flows, contexts = self.groups, [], []
        others = [None] * n if context is None else list(context.chunk(n, 1))
        groups = zip(moved.chunk(n, 1), fixed.chunk(n, 1), others, strict=True)
        for k, (x, y, other) in enumerate(groups):
            maps = [y, correlate(x, y)] + ([] if other is None else [other])
            z = torch.cat(maps, 1)
            for stage in range(1, k + 2):
                z = self.get_submodule(f"conv{stage}")(z)
            flows.append(self.flowout(z))
            contexts.append(self.context(z))
        return torch.stack(flows).mean(0), torch.cat(contexts, 1)


class ContextAttention(nn.Module):
    """Combines the contexts of pairs of neighbouring groups."""

    def __init__(self, channels: int, both: bool) -> None:
        super().__init__()
        self.both = both
        self.conv1 = nn.Sequential(
            conv3(2 * channels, channels), nn.InstanceNorm3d(channels), nn.LeakyReLU(SLOPE)
        )
        self.conv2 = conv3(channels, 1)

    def forward(self, context: Tensor, positions: Tensor, groups: int) -> Tensor:
        """(B, groups C, H, W, D) -> as many groups or half."""
        placed, bare = (context + positions).chunk(groups, 1), context.chunk(groups, 1)
        order = [(k, k + 1) for k in range(0, groups, 2)]
        order += [(b, a) for a, b in order] if self.both else []
        found = []
        for a, b in order:
            joined = self.conv1(torch.cat([placed[a], placed[b]], 1))
            weights = self.conv2(bare[a]), self.conv2(bare[b])
            found.append(joined + weights[0] * joined + weights[1] * joined)
        return torch.cat(found, 1)


def moved(x: Tensor, flow: Tensor) -> Tensor:
    """The warp of this network, whose corners are not aligned."""
    return warp(x, flow, aligned=False)


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D) of one size, for a warp with aligned corners."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.mf = Features()
        context = 0
        for s, n in GROUPS.items():
            width = 4 * s
            places = torch.zeros(1, n * width, *(m // s for m in size))
            self.register_parameter(f"absolute_pos_embed{s}", nn.Parameter(places))
            self.add_module(f"split{s}", Split(8 * s, n))
            self.add_module(f"groupflow{s}", GroupFlow(8 * s // n + 27 + context, 8 * s, n))
            self.add_module(f"context_attention{s}", ContextAttention(width, both=s == 4))
            context = width
        self.conv = nn.Sequential(
            free(24, 8), nn.InstanceNorm3d(8), nn.LeakyReLU(SLOPE), free(8, 3)
        )

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine."""
        xs, ys = self.mf(moving), self.mf(fixed)
        part = self.get_submodule
        context: Tensor | None = None
        flow: Tensor | None = None
        for level, (s, n) in zip((3, 2, 1), GROUPS.items(), strict=True):
            x, y = part(f"split{s}")(xs[level]), part(f"split{s}")(ys[level])
            if flow is not None:
                flow = 2 * up(flow)
                x = moved(x, flow)
            step, context = part(f"groupflow{s}")(x, y, context)
            flow = step if flow is None else moved(flow, step) + step
            positions = self.get_parameter(f"absolute_pos_embed{s}")
            context = up(part(f"context_attention{s}")(context, positions, n))
        assert flow is not None
        assert context is not None
        flow = 2 * up(flow)
        step = self.conv(torch.cat([moved(xs[0], flow), ys[0], context], 1))
        return aligned(moved(flow, step) + step)


def aligned(flow: Tensor) -> Tensor:
    """The flow for a warp with aligned corners that is equal to this network's warp."""
    size = flow.shape[2:]
    sides = torch.tensor(size, dtype=flow.dtype, device=flow.device).view(1, 3, 1, 1, 1)
    places = voxels(tuple(size), flow.dtype, flow.device)
    return (places + flow) * (sides / (sides - 1)) - 0.5 - places
