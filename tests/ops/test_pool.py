"""ops.pool against reshaping."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_checks import (
    BACKENDS,
    CHANNELS_LAST,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    close,
    uniform,
)

from lganet_fast.ops import pool, use_backend


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def cubes(x):
    """The 2^3 voxels of each voxel of the result, on the last axis."""
    batch, channels, *size = x.shape
    halves = [part for n in size for part in (n // 2, 2)]
    x = x.reshape(batch, channels, *halves)
    return x.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5)


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_values(layout):
    x = uniform(2, 3, 4, 6, 2)
    given = LAYOUTS[layout](x) if layout else x
    close(pool(given, "mean")[0], cubes(x).mean(5))
    close(pool(given, "max")[0], cubes(x).amax(5))
    assert pool(given, "max", keep=True)[1] is given


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_normalised_first(kind):
    x, moments = uniform(2, 3, 4, 6, 2), uniform(2, 2, 3, seed=1)
    shift, scale = moments[..., None, None, None]
    normed = F.leaky_relu((x - shift) * scale, 0.1)
    out, kept = pool(x, kind, norm=(moments, 0.1), keep=True)
    close(kept, normed)
    close(out, pool(normed, kind)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["mean", "max"])
def test_narrow_types(kind, dtype):
    x = uniform(1, 8, 4, 4, 4).to(dtype)
    out = pool(x, kind)[0]
    assert out.dtype == dtype
    close(out, pool(x.double(), kind)[0], 4 * torch.finfo(dtype).eps)


def test_channels_stay_innermost():
    x = uniform(1, 3, 4, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    assert pool(x, "mean", backend="native")[0].is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_gradient(kind):
    moments = uniform(2, 1, 2, seed=1)
    check_gradient_strictly(lambda x: pool(x, kind, norm=(moments, 0.1))[0], uniform(1, 2, 2, 4, 2))


def test_compiles():
    check_compiles(lambda x: pool(x, "max")[0], uniform(1, 2, 4, 2, 2))


GOOD = {"x": torch.zeros(1, 2, 4, 4, 4), "kind": "max", "norm": (torch.zeros(2, 1, 2), 0.1)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 4, 4, 4)}, ValueError, r"x must have shape \(B, C, H, W, D\)"),
        ({"x": torch.zeros(1, 2, 4, 5, 4)}, ValueError, "x must have even sides"),
        ({"x": torch.zeros(1, 2, 4, 4, 4).long()}, TypeError, "x must be .* got int64"),
        ({"kind": "min"}, ValueError, "kind must be one of mean, max, got 'min'"),
        ({"norm": (torch.zeros(2, 1, 3), 0.1)}, ValueError, r"norm\[0\] must have shape"),
        (
            {"norm": (torch.zeros(2, 1, 2), 2.0)},
            ValueError,
            r"norm\[1\] must be from 0 to 1, got 2.0",
        ),
    ],
)
def test_errors(change, error, message):
    pool(**GOOD)
    with pytest.raises(error, match=message):
        pool(**GOOD | change)
