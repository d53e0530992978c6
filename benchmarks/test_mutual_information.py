"""mutual_information, against the reference."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, image, voxels
from .implementations import backends


def of(size, **options):
    """A case; two sets of four weights, and their products, for each voxel."""
    return Case(
        "mutual_information",
        size,
        backends("mutual_information", ops.mutual_information, False),
        lambda size, dtype, device: tuple(image(size, dtype, device, seed=n) for n in range(2)),
        detail="32 bins",
        work=lambda size: voxels(size) * 2 * (2 * 4 * 3 + 16),
        **options,
    )


CASES = [of(LPBA40, quick=True, memory=True), of(IXI_OASIS)]


def test_mutual_information(measure):
    measure()
