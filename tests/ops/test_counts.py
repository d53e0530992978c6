"""What the network asks of a GPU, counted: a new pass over memory or a new launch fails here.

The figures are today's. Where a change lowers one, the figure here is lowered too.
"""

import sys
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # last, as in test_benchmarks

from benchmarks import count
from benchmarks.case import IXI_OASIS, LPBA40
from benchmarks.count import Conv, Counting
from benchmarks.gpu import predicted, shapes
from lganet_fast.ops import native

needs_native = pytest.mark.skipif(not native.LOADED, reason=f"not compiled: {native.REASON}")
BF16 = torch.bfloat16
of_network = cache(count.of_network)
PINNED = {
    # size, type, step, path of the convolutions: launching operators, GB moved by them, GFLOP
    (IXI_OASIS, None, False, "cudnn"): (342, 11.36, 867.8),
    (IXI_OASIS, BF16, False, "cudnn"): (358, 6.26, 867.8),
    (IXI_OASIS, None, False, "triton"): (199, 5.66, 867.8),
    (IXI_OASIS, BF16, False, "triton"): (200, 3.05, 903.2),
    (LPBA40, None, False, "triton"): (199, 23.91, 3730.6),
    (IXI_OASIS, None, True, "cudnn"): (1577, 27.99, 2599.4),
    (IXI_OASIS, BF16, True, "cudnn"): (2569, 18.90, 2597.6),
}


@needs_native
@pytest.mark.parametrize("case", PINNED, ids=str)
def test_of_the_network(case):
    *work, path = case
    found = of_network(*work, path=path).totals()
    launching, gigabytes, gflop = PINNED[case]
    assert found["launching"] <= launching, "an operator more than there were"
    assert found["gigabytes"] <= gigabytes + 0.01, "more bytes than there were"
    assert found["launching"] > 0.97 * launching, "fewer: lower the figure in PINNED"
    assert found["gigabytes"] > 0.97 * gigabytes, "fewer: lower the figure in PINNED"
    assert found["gflop"] == pytest.approx(gflop, rel=1e-3)


@needs_native
def test_a_fixed_image_that_was_prepared_saves_its_part():
    """Half an encoder, half of the MSFM and one of three trunks."""
    whole, rest = (
        of_network(IXI_OASIS, BF16, path="triton", atlas=atlas).totals() for atlas in (False, True)
    )
    assert rest["gflop"] < 0.8 * whole["gflop"]
    assert rest["gigabytes"] < 0.8 * whole["gigabytes"]
    assert rest["launching"] <= 181


@needs_native
def test_what_is_asked_of_a_card_is_up_to_date():
    """The questions and the convolutions of today's network."""
    stored = shapes.FILE.read_text(encoding="utf-8")
    assert predicted.text(predicted.everything(of_network)) == stored, (
        "run python -m benchmarks.gpu.predicted"
    )


def test_bytes_and_launches_of_operators():
    x, y = torch.zeros(2, 100), torch.zeros(2, 100)
    with Counting() as counting:
        x.view(100, 2).transpose(0, 1)
        torch.empty(5)
        x + y
        x.add_(y)
        x.copy_(y)
        torch.add(x, y, out=y)
        x + y[:1].expand(2, 100)
    found, one = counting.count, 4 * 200
    assert found.launching == {"add.Tensor": 2, "add_.Tensor": 1, "copy_.default": 1, "add.out": 1}
    assert found.bytes["add.Tensor"] == 3 * one + 2 * one + one // 2
    assert found.bytes["add_.Tensor"] == 3 * one
    assert found.bytes["copy_.default"] == 2 * one
    assert found.bytes["add.out"] == 3 * one
    assert found.dispatched["view.default"] == found.dispatched["empty.memory_format"] == 1
    assert not found.operations.total()


def test_convolutions_are_found():
    x = torch.zeros(2, 3, 4, 5, 6, requires_grad=True)
    conv = torch.nn.Conv3d(3, 7, 3, padding=1)
    narrow = torch.nn.Conv3d(3, 7, 1)
    with Counting() as counting:
        (conv(x) + narrow(x)).sum().backward()
    first, *rest = counting.count.convolutions
    assert first == Conv("convolve", 3, 7, (2, 4, 5, 6))
    assert {conv.operation for conv in rest} == {
        "convolve_input_gradient",
        "convolve_weight_gradient",
    }
    assert first.operations == 2 * 27 * 3 * 7 * 240
    assert first.bytes(4) == 4 * (240 * 10 + 27 * 21)


def test_backward_by_hand_is_the_engines():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.InstanceNorm3d(4), torch.nn.Conv3d(4, 2, 1)
    ).double()
    scale = torch.rand(2, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    parameters = [*network.parameters(), scale]
    x = torch.rand(1, 2, 4, 5, 6, dtype=torch.float64)

    def loss():
        y = network(x) * scale  # summed over what is broadcast
        return (y * y.detach() + y.float()).square().mean() + y.std()

    expected = torch.autograd.grad(loss(), parameters)
    count.backward(loss())
    for p, right in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, right)
