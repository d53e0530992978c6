"""integrate, against 7 grid_samples."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, flow, voxels
from .implementations import beside
from .published import INTEGRATE
from .targets import VELOCITY


def of(size, main=False, **options):
    """A case; work: each step composes a flow with itself."""
    return Case(
        "integrate",
        size,
        beside(INTEGRATE, "integrate", ops.integrate, main),
        lambda size, dtype, device: (flow(size, device),),
        detail="7 steps",
        work=lambda size: 7 * voxels(size) * (30 + 17 * 3),
        **options,
    )


CASES = [
    of(VELOCITY, quick=True, memory=True, main=True),
    of(IXI_OASIS),
    of(LPBA40, modes=("forward", "full"), rounds=2),
]


def test_integrate(measure):
    measure()
