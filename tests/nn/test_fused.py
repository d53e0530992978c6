"""The network as it runs on CUDA in evaluation, on the CPU: what convolutions take over."""

import os

import numpy as np
import pytest
import torch
from networks import SIZE, blobs, golden_run, golden_state, lean_network

from lganet_fast.models import LGANetPlusPlus
from lganet_fast.nn import decoder, fifm, layers, msfm

ALL = os.environ.get("LGANET_FAST_ALL") == "1"  # in float64, too, which takes five times as long


@pytest.fixture
def fused(monkeypatch):
    """Let the blocks fuse on any device where no gradient is asked for."""
    for module in (layers, fifm, decoder, msfm):
        monkeypatch.setattr(module, "fuses", lambda x: not torch.is_grad_enabled())


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3)] + [(torch.float64, 1e-6)] * ALL)
def test_flow_is_the_stored_one(fused, dtype, most):
    moving, fixed, stored = golden_run(SIZE, 0)
    with torch.no_grad():
        flow = lean_network(golden_state()).to(dtype)(moving.to(dtype), fixed.to(dtype))
    assert np.abs(flow.numpy() - stored["flow"]).max() < most


@pytest.mark.parametrize("options", [{"lgam": False, "fifm": False, "msfm": False}, {}])
def test_ablations_and_batches(options, request):
    torch.manual_seed(0)
    network = LGANetPlusPlus(SIZE, **options).eval()
    pair = blobs(batch=2)
    with torch.no_grad():
        wanted = network(*pair)
        request.getfixturevalue("fused")
        torch.testing.assert_close(network(*pair), wanted, rtol=0, atol=1e-4)
