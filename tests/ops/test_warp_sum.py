"""ops.warp_sum against SciPy."""

from __future__ import annotations

import pytest
import torch
from ops_checks import (
    BACKENDS,
    check_compiles,
    check_gradient_strictly,
    close,
    kink_free,
    uniform,
    warp_oracle,
)

from lganet_fast.ops import compose, use_backend, warp_sum


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(*size, channels=2):
    """Base, two images, two flows that leave the volume here and there."""
    maps = [uniform(2, channels, *size, seed=s) for s in range(3)]
    return [*maps, *(kink_free(uniform(2, 3, *size, seed=s, low=-2, high=2)) for s in (3, 4))]


def test_values():
    base, a, b, shift, other = inputs(3, 4, 5)
    parts = [warp_oracle(x.numpy(), f.numpy()) for x, f in zip((a, b), (shift, other), strict=True)]
    close(warp_sum([a, b], [shift, other], base), base.numpy() + parts[0] + parts[1])
    close(warp_sum([a, b], [shift, other]), parts[0] + parts[1])
    close(warp_sum([a], [shift], base), base.numpy() + parts[0])
    close(warp_sum([shift], [other], other), compose(shift, other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_narrow_types(dtype):
    base, a, b, *flows = (x.float() for x in inputs(3, 4, 5))
    base, a, b = (x.to(dtype) for x in (base, a, b))
    out = warp_sum([a, b], flows, base)
    assert out.dtype == dtype
    exact = warp_sum([a.double(), b.double()], flows, base.double())
    close(out, exact, 8 * torch.finfo(dtype).eps)


def test_the_base_decides_the_type():
    base, a, b, *flows = (x.float() for x in inputs(3, 4, 5))
    out = warp_sum([a, b], flows, base.bfloat16())
    assert out.dtype == torch.bfloat16
    exact = warp_sum([a.double(), b.double()], flows, base.bfloat16().double())
    close(out, exact, torch.finfo(torch.bfloat16).eps)


def test_gradient():
    base, a, b, *flows = inputs(1, 2, 2, channels=1)
    check_gradient_strictly(
        lambda base, a, b, f, g: warp_sum([a, b], [f, g], base), base, a, b, *flows
    )


def test_compiles():
    base, a, b, *flows = inputs(3, 4, 5)
    check_compiles(lambda base, a, b, f, g: warp_sum([a, b], [f, g], base), base, a, b, *flows)


MAP, FLOW = torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 3, 3, 3, 3)
GOOD = {"images": [MAP, MAP], "flows": [FLOW, FLOW], "base": MAP}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": []}, ValueError, "images must be a list or a tuple of 1 or 2, got 0"),
        ({"images": [MAP] * 3}, ValueError, "images must be .* of 1 or 2, got 3"),
        ({"images": [MAP, FLOW]}, ValueError, r"images\[1\] must have shape \(1, 2, 3, 3, 3\)"),
        ({"images": [MAP, MAP.half()]}, TypeError, r"images\[1\] must be float32, got float16"),
        ({"flows": [FLOW, MAP]}, ValueError, r"flows\[1\] must have shape \(1, 3, 3, 3, 3\)"),
        ({"flows": [FLOW.half()] * 2}, TypeError, r"flows\[0\] must be float32, float64"),
        ({"base": FLOW}, ValueError, r"base must have shape \(1, 2, 3, 3, 3\)"),
        ({"base": MAP.to("meta")}, ValueError, r"base must be on flows\[0\]'s device"),
    ],
)
def test_errors(change, error, message):
    warp_sum(**GOOD)
    with pytest.raises(error, match=message):
        warp_sum(**GOOD | change)
