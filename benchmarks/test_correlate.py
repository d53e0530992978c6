"""correlate, against 27 shifted products, at the sizes and widths of the network's levels."""

from functools import partial

from lganet_fast import ops

from . import published
from .case import LPBA40, Case, image, voxels
from .implementations import always, beside
from .targets import CORRELATED


def inputs(size, dtype, device, channels):
    """Moving and fixed features."""
    return tuple(image(size, dtype, device, channels, seed) for seed in (0, 1))


def of(size, channels, main=False, **options):
    """A case; work per voxel: 27 products and sums for each channel."""
    return Case(
        "correlate",
        size,
        beside(always(published.correlate), "correlate", ops.correlate, main),
        partial(inputs, channels=channels),
        detail=f"{channels} channels",
        work=lambda size: voxels(size) * 27 * 2 * channels,
        **options,
    )


MAIN = of(CORRELATED, 32, quick=True, memory=True, main=True)
FINEST = of(LPBA40, 8, modes=("forward", "full"), rounds=1, warm=False)
COARSER = [of(tuple(n >> level for n in LPBA40), 8 << level) for level in range(1, 4)]
CASES = [MAIN, MAIN.in_bfloat16(), FINEST, *COARSER]


def test_correlate(measure):
    measure()
