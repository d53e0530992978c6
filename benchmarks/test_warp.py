"""warp, against grid_sample with its grid."""

from functools import partial

from lganet_fast import ops

from .case import IXI_OASIS, IXI_WHOLE, PAPER, Case, flow, image, voxels
from .implementations import beside
from .published import WARP


def inputs(size, dtype, device, channels=1):
    """An image and a flow in float32."""
    return image(size, dtype, device, channels), flow(size, device)


def of(size, channels=1, main=False, **options):
    """A case; work per voxel: the weights of 8 corners and a weighted sum for each channel."""
    detail = "" if channels == 1 else f"{channels} channels"
    return Case(
        "warp",
        size,
        beside(WARP, "warp", ops.warp, main),
        partial(inputs, channels=channels),
        detail=detail,
        work=lambda size: voxels(size) * (30 + 16 * channels),
        **options,
    )


MAIN = of(IXI_WHOLE, quick=True, memory=True, main=True)
CASES = [MAIN, MAIN.in_bfloat16(), *map(of, PAPER), of(IXI_OASIS, channels=8)]


def test_warp(measure):
    measure()
