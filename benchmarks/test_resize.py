"""resize to twice the size, against the reference, which is PyTorch's interpolate."""

from functools import partial

from lganet_fast import ops

from .case import IXI_OASIS, LPBA40, Case, flow, image, voxels
from .implementations import backends


def half(size):
    """The size that is resized to `size`."""
    return tuple(max(1, n // 2) for n in size)


def inputs(size, dtype, device, channels):
    """A flow, or features, at half the size."""
    if channels == 3:
        return (flow(half(size), device),)
    return (image(half(size), dtype, device, channels),)


def doubled(x, backend):
    """The volume at twice its size."""
    return ops.resize(x, [2 * n for n in x.shape[2:]], backend=backend)


def of(size, channels, **options):
    """A case; work per voxel and channel: an interpolation along each of three axes."""
    compile = options.pop("compile", False)
    return Case(
        "resize",
        size,
        backends("resize", doubled, compile),
        partial(inputs, channels=channels),
        detail=f"{channels} channels",
        work=lambda size: voxels(size) * channels * 7,
        **options,
    )


FEATURES = of(LPBA40, 8)
CASES = [
    of(LPBA40, 3, quick=True, memory=True, compile=True),
    of(IXI_OASIS, 3),
    FEATURES,
    FEATURES.in_bfloat16(),
]


def test_resize(measure):
    measure()
