"""norm_act, against the reference, on level 1's features."""

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, image, voxels
from .implementations import backends

CHANNELS = 8


def normed(x, backend):
    """LReLU(IN(x)) with the network's slope."""
    return ops.norm_act(x, slope=0.1, backend=backend)


def of(size, **options):
    """A case; work: mean, variance, shift, scale and the leaky ReLU."""
    compile = options.pop("compile", False)
    return Case(
        "norm_act",
        size,
        backends("norm_act", normed, compile),
        lambda size, dtype, device: (image(size, dtype, device, CHANNELS),),
        detail=f"{CHANNELS} channels",
        work=lambda size: voxels(size) * CHANNELS * 8,
        **options,
    )


MAIN = of(LPBA40, quick=True, memory=True, compile=True)
CASES = [MAIN, MAIN.in_bfloat16(), of(IXI_OASIS)]


def test_norm_act(measure):
    measure()
