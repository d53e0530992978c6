"""Every network's forward and training step, against the same network in plain PyTorch."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lganet_fast import ops
from lganet_fast.models import create
from lganet_fast.reproduction.targets import NETWORKS

from . import published
from .case import IXI_OASIS, Case, Way
from .networks import pair, under
from .plain import plain
from .plain.parts import warp
from .test_training_step import step_of

NEAR_ZERO = 1e-4  # largest standard deviation of weights that are initialised near zero


def ours(name, size):
    """The network with fixed random weights, without dropout, with flows above one voxel."""
    torch.manual_seed(0)
    more = {"dropout": 0.0} if name.startswith("lganet") else {}
    network = create(name, size, **more)
    for p in network.parameters():
        if p.dim() > 1 and p.shape[0] > 1 and p.std() < NEAR_ZERO:
            nn.init.kaiming_uniform_(p, a=5**0.5)
    return network


def theirs(name, size):
    """The plain network with the same weights, for images padded like ours."""
    network = ours(name, size)
    padded = network.padded_size(size)
    return Padded(plain(network, padded), size, padded)


class Padded(nn.Module):
    """A network for images of one size, padded with zeros at the end of each axis to another."""

    def __init__(self, network, size, padded):
        super().__init__()
        self.network, self.size = network, size
        self.ends = [padded[2] - size[2], padded[1] - size[1], padded[0] - size[0]]

    def forward(self, moving, fixed):
        ends = [part for n in self.ends for part in (0, n)]
        height, width, depth = self.size
        images = [nn.functional.pad(x, ends) if any(ends) else x for x in (moving, fixed)]
        return self.network(*images)[:, :, :height, :width, :depth]


def forward(network, name, size, dtype, device):
    """A function from two images to their flow."""
    return network(name, size).to(device).eval()


def step(network, name, size, dtype, device):
    """A function that takes a training step, with the same losses and Adam for every network."""
    if network is ours:
        return step_of(ours(name, size).to(device), ops.local_ncc, ops.warp)
    run = step_of(theirs(name, size).to(device), published.local_ncc, warp)
    return under("reference", dtype, device, run)


@cache
def multiply_adds(name, size):
    """Multiplications and additions of the plain network's convolutions and matrix products."""
    network = theirs(name, size).eval()
    fake, counter = FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False)
    with fake, counter, torch.no_grad():
        network(*torch.empty(2, 1, 1, *size))
    return float(counter.get_total_flops())


def of(name, mode, share, build):
    """A case; a backward counts as two forwards."""
    return Case(
        "peers",
        IXI_OASIS,
        {"plain": Way(partial(build, theirs, name)), "auto": Way(partial(build, ours, name))},
        pair,
        detail=name,
        modes=(mode,),
        work=lambda size: share * multiply_adds(name, size),
        memory=True,
        rounds=3,
        warm=False,
        tolerance=5e-3,
    )


CASES = [
    case
    for name in NETWORKS
    for case in (of(name, "forward", 1, forward), of(name, "step", 3, step))
]


def test_peers(measure):
    measure()
