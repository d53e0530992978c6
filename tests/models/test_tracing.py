"""Every network as torch.export.export and torch.jit.trace take it, saved and read back."""

from __future__ import annotations

import os

import pytest
import torch

from lganet_fast import models

SIZES = {"lganet": (96, 96, 96), "lganetpp": (48, 48, 48)}
SLOW = ("lganet", "corrmlp")  # half of the time of all; LGANET_FAST_ALL=1 tries them
OPTIONS = {"lganet": {"filters": 4}}


def example(name):
    """A network, a pair to trace it with and another pair."""
    if name in SLOW and os.environ.get("LGANET_FAST_ALL") != "1":
        pytest.skip("only with LGANET_FAST_ALL=1")
    torch.manual_seed(0)
    size = SIZES.get(name, (16, 32, 24))
    network = models.create(name, size, **OPTIONS.get(name, {})).eval()
    return network, torch.rand(2, 2, 1, 1, *size)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", models.names())
def test_a_traced_network_gives_the_flow(name, tmp_path):
    network, pairs = example(name)
    torch.jit.trace(network, tuple(pairs[0]), check_trace=False).save(tmp_path / "a.pt")
    traced = torch.jit.load(tmp_path / "a.pt")
    with torch.no_grad():
        for pair in pairs:
            assert (traced(*pair) - network(*pair)).abs().max() < 1e-5
        height, width, depth = pairs.shape[-3:]
        with pytest.raises(RuntimeError, match="must match the existing size"):
            traced(*torch.rand(2, 1, 1, height, width, depth + 16))


@pytest.mark.parametrize("name", models.names())
def test_an_exported_network_gives_the_flow(name, tmp_path):
    network, pairs = example(name)
    with torch.no_grad():
        torch.export.save(torch.export.export(network, tuple(pairs[0])), tmp_path / "a.pt2")
        exported = torch.export.load(tmp_path / "a.pt2").module()
        for pair in pairs:
            assert (exported(*pair) - network(*pair)).abs().max() < 1e-5
