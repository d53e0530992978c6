"""attention, against PyTorch's scaled_dot_product_attention, at level 4 of LPBA40's volumes."""

from functools import partial

import torch
import torch.nn.functional as F

from lganet_fast import ops

from .case import LPBA40, Case, voxels
from .implementations import always, backends

WIDTH = 64
LEVEL4 = tuple(n // 8 for n in LPBA40)


def inputs(size, dtype, device, narrow=WIDTH):
    """q, k and v: (1, H W D, narrow or WIDTH)."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, voxels(size), width) for width in (narrow, narrow, WIDTH)]
    made = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    return tuple(x.requires_grad_(True) for x in made)


def sdpa(q, k, v, windows):
    """PyTorch's attention, in runs of tokens."""
    cut = [x.view(windows, 1, -1, x.shape[-1]) for x in (q, k, v)]
    return F.scaled_dot_product_attention(*cut, scale=WIDTH**-0.5).view_as(v)


def of(detail, windows=1, narrow=WIDTH, **options):
    """A case; its work: scores and weighted sums of every pair of tokens in a window."""
    compile = options.pop("compile", False)
    ours = partial(ops.attention, scale=WIDTH**-0.5, windows=windows)
    ways = backends("attention", ours, compile)
    return Case(
        "attention",
        LEVEL4,
        {
            "reference": ways.pop("reference"),
            "SDPA": always(partial(sdpa, windows=windows)),
            **ways,
        },
        partial(inputs, narrow=narrow),
        detail=detail,
        work=lambda size: 2 * voxels(size) ** 2 / windows * (narrow + WIDTH),
        **options,
    )


MAIN = of("global", memory=True, compile=True)
LOCAL = of("27 windows", windows=27, quick=True)
CASES = [MAIN, MAIN.in_bfloat16(), LOCAL, LOCAL.in_bfloat16(), of("position", narrow=8)]


def test_attention(measure):
    measure()
