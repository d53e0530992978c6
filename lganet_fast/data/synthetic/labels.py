"""Label maps to make images of: tissues and regions of the MNI152 template, and random shapes."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...volumes.template import TISSUES, load_template
from .noise import Size, Source, centred, smooth_noise

REGIONS = (8, 24)  # least and most, of the template
SHAPES = (6, 16)  # least and most, of a map of random shapes
ROUGHNESS = 0.15  # of the borders between regions, relative to the volume's side


@cache
def template_tissues(size: Size, spacing: int) -> Tensor:
    """(1, 1, H, W, D) float32: the template's tissues in the centre of a grid; 0 is background.

    spacing: in mm. Raises InputError without nilearn.
    """
    labels = torch.from_numpy(load_template(spacing)[1].data)[None, None].float()
    inside = (labels[0, 0] > 0).nonzero()
    first, last = inside.min(0).values, inside.max(0).values + 1
    box = [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]
    found = labels[(slice(None), slice(None), *box)]
    ends = []
    for want, have in zip(reversed(size), reversed(found.shape[2:]), strict=True):
        before = (want - have) // 2
        ends += [before, want - have - before]  # negative: cut off
    return F.pad(found, ends)


def brain(source: Source, size: Size, spacing: int) -> Tensor:
    """(1, 1, H, W, D) float32: tissues of the template in random regions, 1 to 3 * regions.

    Label 1 + tissue + 3 * region, tissues counted from 0.
    """
    tissues = template_tissues(size, spacing).to(source.device)
    count = source.whole(*REGIONS)
    inside = (tissues[0, 0] > 0).nonzero()
    chosen = (source.uniform(count) * len(inside)).long().clamp_max(len(inside) - 1)
    seeds = inside[chosen].float()
    rough = smooth_noise(source, 3, size, max(size) / 8) * (ROUGHNESS * max(size) / 4)
    places = inside.float() + rough[0].permute(1, 2, 3, 0)[tissues[0, 0] > 0]
    region = torch.cdist(places, seeds).argmin(1)
    out = tissues.clone()
    out[0, 0][tissues[0, 0] > 0] += len(TISSUES) * region
    return out


def shapes(source: Source, size: Size, spacing: int) -> Tensor:
    """(1, 1, H, W, D) float32: random shapes, 1 to 16, within a random smooth body."""
    count = source.whole(*SHAPES)
    distance = source.number(16.0, 40.0) / spacing
    found = smooth_noise(source, count, size, distance).argmax(1, keepdim=True) + 1.0
    half = torch.tensor(size, device=source.device).view(1, 3, 1, 1, 1) / 2
    radius = (centred(size, found) / half).square().sum(1, keepdim=True).sqrt()
    edge = 0.8 + 0.1 * smooth_noise(source, 1, size, 30.0 / spacing)
    return torch.where(radius < edge, found, 0.0)
