"""convolve, against PyTorch's conv3d, at the widths of the network."""

from functools import partial

import torch

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, image, voxels
from .implementations import backends


def inputs(size, dtype, device, before, after):
    """Features, weights and bias."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(after, before, 3, 3, 3, generator=generator) / (27 * before) ** 0.5
    bias = torch.randn(after, generator=generator)
    made = [x.to(device, dtype).requires_grad_(True) for x in (weight, bias)]
    return image(size, dtype, device, before), *made


def of(size, before, after, **options):
    """A case; work per voxel: 27 products and sums for each pair of channels."""
    compile = options.pop("compile", False)
    return Case(
        "convolve",
        size,
        backends("convolve", ops.convolve, compile),
        partial(inputs, before=before, after=after),
        detail=f"{before} to {after}",
        work=lambda size: voxels(size) * 27 * 2 * before * after,
        **options,
    )


HALF = tuple(n // 2 for n in IXI_OASIS)
CASES = [
    of(IXI_OASIS, 8, 8, quick=True, memory=True, compile=True),
    of(IXI_OASIS, 24, 24),
    of(IXI_OASIS, 24, 3),
    of(HALF, 48, 48),
    of(HALF, 64, 64),
    of(LPBA40, 8, 8),
]


def test_convolve(measure):
    measure()
