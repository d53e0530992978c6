"""compose, against grid_sample with its grid and a sum."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, Way, flow, voxels
from .implementations import beside
from .published import warp


def published(size, dtype, device):
    """The composition of the published network."""
    moved = warp(size, dtype, device)
    return lambda first, second: second + moved(first, second)


def of(size, main=False, **options):
    """A case; work per voxel: the weights of 8 corners and three weighted sums."""
    return Case(
        "compose",
        size,
        beside(Way(published), "compose", ops.compose, main),
        lambda size, dtype, device: (flow(size, device), flow(size, device, 1.0)),
        work=lambda size: voxels(size) * (30 + 17 * 3),
        **options,
    )


CASES = [of(LPBA40, quick=True, memory=True, main=True), of(IXI_OASIS)]


def test_compose(measure):
    measure()
