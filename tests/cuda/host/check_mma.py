"""The instructions of csrc/common/mma.cuh as the host runs them, against their descriptions."""

from __future__ import annotations

import host_mma
import pytest
import torch

TYPES = [torch.float16, torch.bfloat16, torch.float32]


def run(dtype, wait=True):
    """The factors, their product and the first one transposed."""
    depth = 8 if dtype == torch.float32 else 16
    torch.manual_seed(3)
    a, b = torch.randn(16, depth).to(dtype), torch.randn(depth, 8).to(dtype)
    sums, turned = torch.full((16, 8), torch.nan), torch.zeros(16, 16, dtype=dtype)
    host_mma.multiply(a, b, sums, turned, wait)
    return a, b, sums, turned


def cut(x):
    """What a TF32 product reads of float32."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32) if x.dtype == torch.float32 else x


@pytest.mark.parametrize("dtype", TYPES)
def test_a_warp_multiplies(dtype):
    a, b, sums, turned = run(dtype)
    torch.testing.assert_close(sums.double(), cut(a).double() @ cut(b).double(), rtol=0, atol=3e-6)
    if dtype != torch.float32:
        assert torch.equal(turned, a.T)


def test_what_has_not_been_waited_for_is_not_there():
    assert run(torch.float16, wait=False)[2].isnan().all()


@pytest.mark.parametrize("dtype", TYPES[:2])
def test_two_numbers_in_a_register(dtype):
    numbers, packed = torch.randn(64), torch.zeros(64, dtype=dtype)
    host_mma.pack(numbers, packed)
    assert torch.equal(packed, numbers.to(dtype))


def test_rounding_to_tf32():
    """Half a unit of the 10th bit at most, and nothing left behind it."""
    numbers, rounded = torch.randn(128), torch.zeros(128)
    host_mma.round(numbers, rounded)
    assert torch.equal(cut(rounded), rounded)
    assert ((rounded - numbers).abs() <= numbers.abs() * 2**-11).all()
    assert not torch.equal(rounded, cut(numbers))


def test_a_missing_barrier_shows():
    """In the first block threads run forwards, in the second backwards: either can be wrong."""
    expected = torch.arange(1, 65, dtype=torch.int32) % 64
    for barrier in (True, False):
        out = torch.zeros(2, 64, dtype=torch.int32)
        host_mma.pass_on(out, barrier)
        assert torch.equal(out, expected.expand(2, 64)) == barrier
        assert barrier or not torch.equal(out[0], out[1])
