"""What may be captured on CUDA: no operator waits for the device or reads the host's memory.

Traced with fake tensors, as on a machine with a GPU and everything that is compiled for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.append(str(Path(__file__).parents[2]))  # last, as in test_benchmarks

from benchmarks.count import as_on_cuda, backward, faked
from lganet_fast.models import LGANetPlusPlus
from lganet_fast.ops import convolve_packs, native, triton
from lganet_fast.ops.derived import computed_anew

SIZE = (48, 56, 64)
# "lift_fresh": numbers from Python, in an index perhaps, which PyTorch copies to the device unseen.
REFUSED = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal.", "lift_fresh")


class Offences(TorchDispatchMode):
    """Notes the operators that a capture refuses. count: how many ran in all."""

    def __init__(self):
        super().__init__()
        self.found, self.count = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count += 1
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        elsewhere = {x.device.type for x in tensors if x.dim()} - {"cuda"}
        if func.namespace != "prim" and (elsewhere or any(word in str(func) for word in REFUSED)):
            self.found.append(str(func))
        return out


def traced(path, step):
    """The offences of a later forward in evaluation, or of a forward and a backward in training."""
    network = LGANetPlusPlus(SIZE, dropout=0.1).train(step)
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_cuda(path):
        faked(network)
        moving, fixed = (torch.empty(1, 1, *SIZE, device="cuda") for _ in range(2))
        if step:
            with computed_anew(), Offences() as offences:
                backward(network(moving, fixed).square().mean())
            return offences
        with torch.no_grad():
            network(moving, fixed)
            with Offences() as offences:
                network(moving, fixed)
        return offences


@pytest.mark.skipif(not native.LOADED, reason="needs the compiled extension")
@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("path", ["cudnn", "triton", "native"])
def test_nothing_that_a_capture_refuses_runs(path, step):
    offences = traced(path, step)
    assert offences.count > 500
    assert offences.found == []


@pytest.mark.parametrize("precision", convolve_packs.DTYPES)
@pytest.mark.parametrize("channels", [8, 24, 48])
def test_weights_may_be_packed_in_a_capture(channels, precision):
    dtype = convolve_packs.DTYPES[precision]
    with FakeTensorMode():
        weight = torch.empty(channels, channels, 3, 3, 3, device="cuda", dtype=dtype)
        with Offences() as offences:
            convolve_packs.pack(weight, precision)
            triton.kernels("convolve").pack(weight, dtype, precision)
    assert offences.count
    assert offences.found == []


def test_what_a_capture_refuses_is_found():
    with FakeTensorMode(), Offences() as offences:
        torch.ones(3).to("cuda")
        torch.empty(3, device="cuda")[[0, 2]]
    words = [name.removeprefix("aten.").removesuffix(".default") for name in offences.found]
    assert words == ["ones", "_to_copy", "lift_fresh", "_to_copy"]
