"""What GroupMorph has and others have not: its warp, and position maps of one size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_checks import close, uniform

from lganet_fast.errors import InputError
from lganet_fast.models import registry
from lganet_fast.models.groupmorph import stretched
from lganet_fast.ops import warp


def test_flow_is_stretched_to_corners_that_are_not_aligned():
    image, flow = uniform(2, 2, 5, 6, 7), 2 * uniform(2, 3, 5, 6, 7, seed=1)
    size = flow.shape[2:]
    lines = [torch.arange(n, dtype=flow.dtype) for n in size]
    places = flow + torch.stack(torch.meshgrid(*lines, indexing="ij"))
    grid = torch.stack([2 * (places[:, a] / (size[a] - 1) - 0.5) for a in (2, 1, 0)], -1)
    close(warp(image, stretched(flow)), F.grid_sample(image, grid, align_corners=False), 1e-12)


def test_smaller_volumes_are_padded_and_larger_ones_refused():
    network = registry.create("groupmorph", (16, 30, 16)).eval()
    small = torch.rand(2, 1, 1, 12, 32, 9)
    whole = F.pad(small, [0, 7, 0, 0, 0, 4])
    close(network(*small), network(*whole)[:, :, :12, :, :9].detach())
    with pytest.raises(InputError, match=r"at most \(16, 32, 16\), got \(16, 33, 16\)"):
        network(*torch.rand(2, 1, 1, 16, 33, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": (4, 2, 4)}, r"groups must be one of .*\(4, 4, 2\)"),
        ({"corners": "none"}, "corners must be one of"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        registry.create("groupmorph", (16, 16, 16), **options)


def test_aligned_corners_are_another_result():
    flows = []
    for corners in ("published", "aligned"):
        torch.manual_seed(0)
        network = registry.create("groupmorph", (16, 16, 24), corners=corners).eval()
        flows.append(network(*uniform(2, 1, 1, 16, 16, 24).float()))
    assert (flows[0] - flows[1]).abs().max() > 0.01


@torch.no_grad()
def test_the_flow_is_what_warp_takes():
    network = registry.create("groupmorph", (16, 16, 24)).double().eval()
    moving, fixed = uniform(2, 1, 1, 16, 16, 24)
    own, _ = network.flow_and_steps(moving, fixed)
    close(warp(moving, network(moving, fixed)), network.warped(moving, own), 1e-12)
