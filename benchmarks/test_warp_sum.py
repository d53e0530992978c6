"""warp_sum, against the reference: the interaction of two decomposed maps at level 2."""

from lganet_fast import ops

from .case import LPBA40, Case, flow, image, voxels
from .implementations import backends

CHANNELS = 16


def inputs(size, dtype, device):
    """A map, two maps of features and two flows, at half the size."""
    half = tuple(n // 2 for n in size)
    maps = (image(half, dtype, device, CHANNELS, seed) for seed in range(3))
    return (*maps, flow(half, device), flow(half, device))


def interaction(base, a, b, for_a, for_b, backend):
    """The map plus the warped features."""
    return ops.warp_sum([a, b], [for_a, for_b], base, backend)


MAIN = Case(
    "warp_sum",
    LPBA40,
    backends("warp_sum", interaction),
    inputs,
    detail=f"{CHANNELS} channels at half the size",
    work=lambda size: voxels(size) // 8 * (2 * 16 * CHANNELS + 60),
    quick=True,
)
CASES = [MAIN, MAIN.in_bfloat16()]


def test_warp_sum(measure):
    measure()
