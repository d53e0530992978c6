"""Feature interaction and fusion, FIFM (paper 2.4): image decomposition and adaptive weighting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import Norm, derived, integrate, warp_sum, weigh
from ..ops.convolve_split import splits
from .layers import (
    Block,
    Conv3,
    ConvNormAct,
    ConvPair,
    FlowPair,
    Map,
    Pending,
    flow_conv,
    fold,
    fuses,
    times,
    wide,
)


class Decomposition(Block):
    """The trunk of IDM: a map into features M and a flow.

    x = ReLU(conv3(IN(conv3))) twice, c -> 2c -> 4c, then ReLU(Conv3(conv3));
    M = ReLU(conv1(conv3(x))), flow = ReLU(conv1(conv3(x))).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c, c2, c4 = channels, 2 * channels, 4 * channels
        shapes = ((0, c, c2), (2, c2, c2), (4, c2, c4), (6, c4, c4), (8, c4, c4), (9, c4, c4))
        self.conv = nn.ModuleDict(
            {str(k): Conv3(a, b, inplace=k > 0, relu=k in (2, 6, 9)) for k, a, b in shapes}
        )
        self.conv1 = ConvPair(c4, c2, c)
        self.conv2 = FlowPair(c4, c2)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """M and the flow from what both are made of; by one convolution where both are float32."""
        if not fuses(x):
            return self.conv1(x), self.conv2(x)
        parts = [p for pair in (self.conv1, self.conv2) for conv in pair for p in conv.parameters()]
        weight, bias = derived(side_by_side, *parts)
        half = x.dtype != wide(x.dtype) or torch.is_autocast_enabled(x.device.type)
        if half and not splits(x, weight):
            return self.conv1(x), self.conv2(x)
        both = flow_conv(x, weight, bias, relu=True)
        return both[:, :-3], both[:, -3:]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W, D) -> M of the same shape and a flow, at least float32, in voxels.

        M may be of a wider type than the map.
        """
        conv: Any = self.conv
        for first, second in (("0", "2"), ("4", "6")):
            x = conv[second](conv[first].normed(x, slope=1.0))
        return self.heads(conv["9"](conv["8"](x)))


def side_by_side(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of two folded pairs of convolutions as one, outputs of the first in front."""
    weights, biases = zip(fold(*parts[:4]), fold(*parts[4:]), strict=True)
    return torch.cat(weights), torch.cat(biases)


class IDM(nn.Module):
    """Image decomposition: each of a pair is decomposed and read where the other's flow points.

    (Ma, fa), (Mb, fb) = trunk(a), trunk(b);
    out = b + warp(Ma, fb) + warp(Mb, fa); flow = integrate(warp(fa, fb) + warp(fb, fa)).
    Applied twice in a level, (y, w) and then (y, out), so the trunk on y is run once.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.idm = Decomposition(channels)

    def interact(
        self, b: Tensor, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Combine b with what the trunk found in a (`ours`) and in b (`theirs`)."""
        (features_a, flow_a), (features_b, flow_b) = ours, theirs
        flows = (flow_b, flow_a)
        out = warp_sum((features_a, features_b), flows, b)
        return out, integrate(warp_sum((flow_a, flow_b), flows))

    def both(self, y: Tensor, w: Tensor) -> Any:
        """The trunk on two maps; as one batch where launches count."""
        if not fuses(y):
            return self.idm(y), self.idm(w)
        found = [x.chunk(2) for x in self.idm(torch.cat([y, w]))]
        return zip(*found, strict=True)

    def forward(
        self, y: Tensor, w: Tensor, of_y: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y, w (B, C, H, W, D) -> the second call's output and flow, and the first call's flow.

        of_y: what the trunk makes of y, where that is known.
        """
        of_y, of_w = self.both(y, w) if of_y is None else (of_y, self.idm(w))
        first, flow1 = self.interact(w, of_y, of_w)
        second, flow2 = self.interact(first, of_y, self.idm(first))
        return second, flow2, flow1


def largest(x: Tensor) -> Tensor:
    """(B, C, H, W, D) -> (B, C), over voxels.

    Eight voxels of a channels_last_3d map at a time fill whole vectors; one would not, and a
    single reduction would then take twenty times as long.
    """
    voxels = x.permute(0, 2, 3, 4, 1).flatten(1, 3)
    group = math.gcd(voxels.shape[1], 8)
    rows = torch.unflatten(voxels, 1, (-1, group)).flatten(2).amax(1)
    return torch.unflatten(rows, 1, (group, -1)).amax(1)


class ChannelGate(nn.Module):
    """sigmoid(MLP(mean) + MLP(max)) for each channel, mean and max over voxels."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
        )

    def weights(self) -> tuple[Tensor, Tensor]:
        """Those of the two layers."""
        first, second = self.fc.parameters()
        return first, second

    def forward(self, mean: Tensor, largest: Tensor) -> Tensor:
        """(B, C), (B, C) -> (B, C)."""
        return torch.sigmoid(self.fc(mean) + self.fc(largest))


class CWAM(Block):
    """Maps weighted voxel by voxel, then channel by channel; three, or two where MSFM is left out.

    a = softmax over the maps of conv3(t), t twice LReLU(IN(conv3)) of the maps side by side;
    z = [a_0 x_0, a_1 x_1, a_2 x_2]; out = z * gate(mean z, max z).
    reduction: of the gate's inner width. The result takes the memory of the maps where no gradient
    is requested.
    """

    def __init__(self, channels: int, maps: int = 3, reduction: int = 4) -> None:
        super().__init__()
        width = maps * channels
        self.conv = nn.Sequential(
            *(ConvNormAct(width, width, inplace=own) for own in (False, True))
        )
        self.weight_conv = nn.Sequential(Conv3(width, maps))
        self.channel_attention = ChannelGate(width, reduction)

    def forward(self, side: Tensor | Sequence[Tensor]) -> Map:
        """The n maps side by side, (B, nC, H, W, D), or in a list -> the same shape.

        Of a list the result is Pending: its gate is left to what reads it.
        """
        scores = self.weight_conv(self.conv(side))
        if not isinstance(side, Tensor):
            z, gate = weigh(side, scores, *self.channel_attention.weights())
            return Pending(z, Norm(gate))
        weights = torch.softmax(scores, 1)
        maps = torch.unflatten(side, 1, (weights.shape[1], -1))
        z = times(maps, weights.unsqueeze(2)).flatten(1, 2)
        gate = self.channel_attention(z.mean((2, 3, 4)), largest(z))
        return times(z, gate[..., None, None, None])
