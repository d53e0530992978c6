"""pool, against the reference, on level 1's features."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, image, voxels
from .implementations import backends

CHANNELS = 8


def averaged(x, backend):
    """The means of 2^3 voxels."""
    return ops.pool(x, "mean", backend=backend)[0]


def of(size, **options):
    """A case; work: one addition per number."""
    return Case(
        "pool",
        size,
        backends("pool", averaged),
        lambda size, dtype, device: (image(size, dtype, device, CHANNELS),),
        detail=f"{CHANNELS} channels",
        work=lambda size: voxels(size) * CHANNELS,
        **options,
    )


MAIN = of(LPBA40, quick=True)
CASES = [MAIN, MAIN.in_bfloat16(), of(IXI_OASIS)]


def test_pool(measure):
    measure()
