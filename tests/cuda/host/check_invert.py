"""The kernel of invert, run on the host, against the reference in float64."""

from __future__ import annotations

import host_invert
import pytest
import torch
from ops_checks import uniform

from lganet_fast.ops import reference
from lganet_fast.ops.invert import IDENTITY
from lganet_fast.ops.memory_format import empty_in_format_of

TURN = (0.9, 0.1, 0.0, -0.1, 0.8, 0.0, 0.0, 0.05, 1.1)
CASES = {  # size of the field, size of the goal
    "one size": ((5, 6, 19), (5, 6, 19)),
    "other size": ((4, 5, 8), (3, 7, 9)),
    "one voxel thick": ((1, 3, 1), (3, 1, 4)),
}


def inputs(case, reach=0.4):
    """A field that is gentle enough to be inverted in most places, and rough in a few."""
    size, other = CASES[case]
    field = uniform(2, 3, *size, seed=1, low=-reach, high=reach)
    field[0, :, 0, 0] *= 20
    goal, start = (uniform(2, 3, *other, seed=s, low=-2, high=2) for s in (2, 3))
    return field, goal, start


def run(field, goal, start, step, metric, tolerance=1e-6, patience=4, wide=False):
    out = empty_in_format_of(start, *start.shape).fill_(torch.nan)
    solved = torch.empty(goal.shape[0], *goal.shape[2:], dtype=torch.bool)
    numbers = list(step), list(metric), tolerance, 0.9, patience, wide
    host_invert.invert(field, goal, start, out, solved, *numbers)
    return out, solved


@pytest.mark.parametrize("step", [IDENTITY, TURN])
@pytest.mark.parametrize("case", CASES)
def test_against_reference(case, step):
    field, goal, start = inputs(case)
    right = reference.invert(field, goal, start, step, TURN, 1e-6, 0.9, 4)
    out, solved = run(field, goal, start, step, TURN)
    assert solved.float().mean() > 0
    assert torch.equal(solved, right[1])
    assert (out - right[0]).abs().max() < 1e-10
    wide = run(field, goal, start, step, TURN, wide=True)
    assert torch.equal(wide[1], solved)
    assert (wide[0] - out).abs().max() < 1e-12


def test_float32_and_other_layouts():
    field, goal, start = inputs("one size", reach=0.2)
    right, solved = reference.invert(field, goal, start, IDENTITY, IDENTITY, 1e-4, 0.9, 4)
    last = [x.float().contiguous(memory_format=torch.channels_last_3d) for x in (field, goal)]
    out, found = run(*last, start.float().transpose(2, 4).contiguous().transpose(2, 4), IDENTITY,
                     IDENTITY, tolerance=1e-4)  # fmt: skip
    assert (found == solved).float().mean() > 0.99
    both = (found & solved)[:, None].expand_as(out)
    assert (out - right)[both].abs().max() < 5e-4


def test_gives_up_where_nothing_is_finite():
    field, goal, start = inputs("one size")
    goal[0, 1, 2, 3, 4] = torch.nan
    field[1] = torch.inf
    _, solved = run(field, goal, start, IDENTITY, IDENTITY)
    assert not solved[0, 2, 3, 4]
    assert not solved[1].any()
