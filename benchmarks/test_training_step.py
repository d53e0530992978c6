"""A training step, forward, losses, backward and Adam, against the published network's."""

import torch

from lganet_fast import ops
from lganet_fast.models.published import Warp

from . import published as op_for_op
from .case import IXI_OASIS, Case, Way
from .networks import lean, multiply_adds, pair, published
from .targets import SMALL


def step_of(network, dissimilarity, warp):
    """A function that takes a step (paper 2.6 and 3.1.2) and returns the loss before it."""
    network.train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step(moving, fixed):
        adam.zero_grad(set_to_none=True)
        flow = network(moving, fixed)
        loss = 1 - dissimilarity(fixed, warp(moving, flow)) + ops.gradient_loss(flow)
        loss.backward()
        adam.step()
        return loss.detach()

    return step


def theirs(size, dtype, device):
    """The published network, with local correlation by convolutions with ones."""
    with ops.use_backend("reference"):
        step = step_of(published(size, device), op_for_op.local_ncc, Warp(size).to(device))

    def run(moving, fixed):
        with ops.use_backend("reference"):
            return step(moving, fixed)

    return run


def ours(checkpoint):
    """Our network, with or without recomputing the blocks in the backward."""

    def build(size, dtype, device):
        return step_of(lean(size, device, checkpoint), ops.local_ncc, ops.warp)

    return build


def of(size, **options):
    """A case; a backward counts as two forwards."""
    return Case(
        "training_step",
        size,
        {"published": Way(theirs), "auto": Way(ours(None)), "blocks": Way(ours("blocks"))},
        pair,
        modes=("step",),
        work=lambda size: 3 * multiply_adds(size),
        warm=False,
        **options,
    )


CASES = [of(SMALL, quick=True, rounds=1), of(IXI_OASIS, memory=True, rounds=1)]


def test_training_step(measure):
    measure()
