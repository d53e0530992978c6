"""weigh, against the reference: three maps of level 1."""

import torch

from lganet_fast import ops

from .case import LPBA40, Case, image, voxels
from .implementations import backends

CHANNELS = 8


def inputs(size, dtype, device):
    """Three maps, their logits, and the layers of the gate."""
    maps = [image(size, dtype, device, channels, channels) for channels in (CHANNELS,) * 3]
    layers = [torch.rand(*s, device=device).to(dtype) for s in ((6, 24), (24, 6))]
    return (*maps, image(size, dtype, device, 3), *layers)


def weighed(*given, backend):
    """The weighted maps."""
    *maps, logits, first, second = given
    return torch.cat([x.flatten() for x in ops.weigh(maps, logits, first, second, backend)])


MAIN = Case(
    "weigh",
    LPBA40,
    backends("weigh", weighed),
    inputs,
    detail=f"3 maps of {CHANNELS} channels",
    work=lambda size: voxels(size) * 3 * (3 * CHANNELS + 4),
    modes=("forward",),
    quick=True,
)
CASES = [MAIN]


def test_weigh(measure):
    measure()
