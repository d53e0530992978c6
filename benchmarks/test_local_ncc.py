"""local_ncc, against convolutions with ones."""

from lganet_fast import ops

from . import published
from .case import IXI_OASIS, LPBA40, Case, image, voxels
from .implementations import always, beside


def inputs(size, dtype, device):
    """A fixed image, which needs no gradient, and a moving one."""
    return image(size, dtype, device).detach(), image(size, dtype, device, seed=1)


def of(size, main=False, **options):
    """A case; work: five running sums along three axes, and the quotient."""
    return Case(
        "local_ncc",
        size,
        beside(always(published.local_ncc), "local_ncc", ops.local_ncc, main),
        inputs,
        detail="window 9",
        work=lambda size: voxels(size) * (5 * 3 * 2 + 15),
        tolerance=1e-2,
        **options,
    )


CASES = [
    of(IXI_OASIS, quick=True, memory=True, main=True, modes=("forward", "full"), rounds=2),
    of(LPBA40, modes=("forward", "full"), rounds=1, warm=False),
]


def test_local_ncc(measure):
    measure()
