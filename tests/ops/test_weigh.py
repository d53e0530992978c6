"""ops.weigh against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import BACKENDS, check_compiles, check_gradient_strictly, close, uniform

from lganet_fast.ops import use_backend, weigh


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(maps, channels, *size):
    """Maps, logits and the two layers."""
    width = maps * channels
    return [
        *(uniform(2, channels, *size, seed=s) for s in range(maps)),
        uniform(2, maps, *size, seed=5, low=-3, high=3),
        uniform(2, width, seed=6),
        uniform(width, 2, seed=7),
    ]


def weighed(*given):
    *maps, logits, first, second = given
    return weigh(maps, logits, first, second)


@pytest.mark.parametrize("maps", [2, 3])
def test_values(maps):
    given = inputs(maps, 4, 3, 2, 5)
    *x, logits, first, second = (t.numpy() for t in given)
    a = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    z = np.concatenate([x[k] * a[:, k : k + 1] for k in range(maps)], 1)
    rows = z.reshape(2, 4 * maps, -1)
    found = [np.maximum(v @ first.T, 0) @ second.T for v in (rows.mean(2), rows.max(2))]
    gate = 1 / (1 + np.exp(-found[0] - found[1]))
    out, norm = weighed(*given)
    close(out, z)
    close(norm, np.stack([0 * gate, gate]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types(dtype):
    given = [x.to(dtype) for x in inputs(3, 4, 3, 2, 5)]
    out, norm = weighed(*given)
    assert (out.dtype, norm.dtype) == (dtype, torch.float32)
    exact, scale = weighed(*(x.double() for x in given))
    close(out, exact, 4 * torch.finfo(dtype).eps)
    close(norm, scale, 8 * torch.finfo(dtype).eps)


def test_large_logits():
    """The largest is taken off before the exponential."""
    given = inputs(3, 2, 2, 2, 2)
    right = weighed(*given)[0]
    given[3] = given[3] + 1e4
    close(weighed(*given)[0], right, 1e-10)


def test_gradient():
    given = inputs(2, 2, 1, 2, 2)
    check_gradient_strictly(lambda *x: weighed(*x, *given[3:])[0], *given[:3])
    check_gradient_strictly(lambda *x: weighed(*given[:3], *x)[1][1], *given[3:])


def test_compiles():
    given = inputs(3, 2, 2, 3, 2)
    check_compiles(lambda *x: torch.cat([part.flatten() for part in weighed(*x)]), *given)


MAP = torch.zeros(1, 4, 2, 2, 2)
GOOD = {
    "maps": [MAP] * 3,
    "logits": torch.zeros(1, 3, 2, 2, 2),
    "first": torch.zeros(2, 12),
    "second": torch.zeros(12, 2),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"maps": [MAP]}, ValueError, "maps must be a list or a tuple of 2 or 3, got 1"),
        ({"maps": [MAP, MAP]}, ValueError, r"logits must have shape \(1, 2, 2, 2, 2\)"),
        ({"maps": [MAP, MAP, MAP.half()]}, TypeError, r"maps\[2\] must be float32, got float16"),
        ({"maps": [MAP, MAP[:, :2], MAP]}, ValueError, r"maps\[1\] must have shape"),
        ({"logits": torch.zeros(1, 3, 2, 2, 2).double()}, TypeError, "logits must be float32"),
        ({"first": torch.zeros(2, 8)}, ValueError, r"first must have shape \(hidden, 12\)"),
        ({"second": torch.zeros(12, 3)}, ValueError, r"second must have shape \(12, 2\)"),
        (
            {"maps": [MAP[:, :, :0]] * 3, "logits": torch.zeros(1, 3, 0, 2, 2)},
            ValueError,
            "maps must hold voxels",
        ),
    ],
)
def test_errors(change, error, message):
    weigh(**GOOD)
    with pytest.raises(error, match=message):
        weigh(**GOOD | change)
