"""LGANet++'s forward, against the published network, operator by operator."""

import torch

from .case import ABDOMEN, IXI_OASIS, LPBA40, LUNG_CT, Case, Way
from .implementations import compiled, no_bfloat16
from .networks import lean, multiply_adds, pair, published, under
from .targets import SMALL


def theirs(size, dtype, device):
    """The published network."""
    return under("reference", dtype, device, published(size, device).eval())


def ours(backend):
    """Our network on one backend, or on "auto", the fastest of each operation."""

    def build(size, dtype, device):
        return under(backend, dtype, device, lean(size, device).eval())

    return build


def of(size, reference=False, compile=False, dtype=torch.float32, tolerance=5e-3, **options):
    """A case; half types by autocast. On CUDA PyTorch rounds the factors of float32 to TF32."""
    ways = {"published": Way(theirs), "auto": Way(ours("auto"))}
    if reference:
        ways["reference"] = Way(ours("reference"))
    if compile:
        ways["compiled"] = compiled(theirs)
    if dtype == torch.bfloat16:
        ways = {name: Way(way.build, no_bfloat16) for name, way in ways.items()}
    return Case(
        "model",
        size,
        ways,
        pair,
        dtype=dtype,
        modes=("forward",),
        work=multiply_adds,
        tolerance=tolerance,
        **options,
    )


CASES = [
    of(SMALL, reference=True, quick=True),
    of(IXI_OASIS, compile=True, memory=True, rounds=2, warm=False),
    of(IXI_OASIS, dtype=torch.bfloat16, tolerance=0.2, warm=False),
    of(LPBA40, memory=True, rounds=1, warm=False),
    of(LUNG_CT, rounds=1, warm=False),
    of(ABDOMEN, rounds=1, warm=False),
]


def test_model(measure):
    measure()
