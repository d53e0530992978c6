"""neighbour_attention, against ModeT's shifted products, at the sizes and heads of its levels."""

from functools import partial

from lganet_fast import ops

from . import published
from .case import IXI_OASIS, Case, image, voxels
from .implementations import always, beside

HEAD = 6  # channels


def inputs(size, dtype, device, heads):
    """Queries, keys and the bias of the offsets."""
    q, k = (image(size, dtype, device, HEAD * heads, seed) for seed in (0, 1))
    return q, k, image((3, 3, 3), dtype, device, heads, 2)[0].detach().requires_grad_()


def of(level, heads, main=False, **options):
    """A case; work per voxel and head: 27 products over its channels, and a softmax."""
    return Case(
        "neighbour_attention",
        tuple(n >> level for n in IXI_OASIS),
        beside(
            always(published.neighbour_attention),
            "neighbour_attention",
            ops.neighbour_attention,
            main,
        ),
        partial(inputs, heads=heads),
        detail=f"{heads} head{'s' * (heads > 1)}",
        work=lambda size: voxels(size) * 27 * 2 * heads * (HEAD + 3),
        **options,
    )


CASES = [of(2, 2, quick=True, memory=True, main=True), of(0, 1, modes=("forward",)), of(3, 4)]


def test_neighbour_attention(measure):
    measure()
