"""gradient_loss, against the reference."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, flow, voxels
from .implementations import backends


def of(size, **options):
    """A case; work: a difference, its square and its sum for each axis of each component."""
    compile = options.pop("compile", False)
    return Case(
        "gradient_loss",
        size,
        backends("gradient_loss", ops.gradient_loss, compile),
        lambda size, dtype, device: (flow(size, device),),
        work=lambda size: voxels(size) * 27,
        **options,
    )


CASES = [of(LPBA40, quick=True, memory=True, compile=True), of(IXI_OASIS)]


def test_gradient_loss(measure):
    measure()
