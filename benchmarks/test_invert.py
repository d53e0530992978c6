"""invert, against the reference. It has no gradient."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, flow, voxels
from .implementations import backends


def inputs(size, dtype, device):
    """A field, a zero goal, and the negative field as the initial guess."""
    field = flow(size, device, voxels=1.5).detach()
    return field, field * 0, -field


def of(size, **options):
    """A case; work: one iteration per voxel, as for a perfect guess."""
    return Case(
        "invert",
        size,
        backends("invert", ops.invert),
        inputs,
        modes=("forward",),
        work=lambda size: voxels(size) * (30 + 16 * 3 + 40),
        tolerance=1e-2,
        **options,
    )


CASES = [of(IXI_OASIS, quick=True, memory=True), of(LPBA40, rounds=2)]


def test_invert(measure):
    measure()
