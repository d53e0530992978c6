"""feed_forward, against the reference, on the tokens of the coarsest level."""

import torch

from lganet_fast import ops

from .case import LPBA40, Case, voxels
from .implementations import backends

WIDTH = 64


def inputs(size, dtype, device):
    """x, tokens, and the weights: 64 to 256 to 64, and the layer norm's."""
    shapes = [(1, voxels(size) // 512, WIDTH)] * 2
    shapes += [(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), (WIDTH,), (WIDTH,), (WIDTH,)]
    return tuple(torch.rand(*shape, device=device).to(dtype) for shape in shapes)


def layers(x, tokens, first, shift, second, offset, gain, last, backend):
    """The layers between two attentions."""
    pairs = [(first, shift), (second, offset)]
    return ops.feed_forward(x, tokens, pairs, (gain, last), True, backend)[1]


MAIN = Case(
    "feed_forward",
    LPBA40,
    backends("feed_forward", layers),
    inputs,
    detail=f"{WIDTH} wide",
    work=lambda size: voxels(size) // 512 * 16 * WIDTH**2,
    quick=True,
)
CASES = [MAIN]


def test_feed_forward(measure):
    measure()
