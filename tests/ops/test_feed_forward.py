"""ops.feed_forward against NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from ops_checks import BACKENDS, check_compiles, check_gradient_strictly, close, uniform

from lganet_fast.ops import feed_forward, use_backend


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(tokens, *widths):
    """x, tokens, the weights and biases of the layers, and those of the norm."""
    channels = widths[0]
    shapes = [s for a, b in pairwise(widths) for s in ((b, a), (b,))]
    shapes = [(2, tokens, channels)] * 2 + shapes + [(channels,)] * 2
    return [uniform(*shape, seed=n) for n, shape in enumerate(shapes)]


def run(x, tokens, *weights, transposed=False):
    *layers, scale, shift = weights
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    return feed_forward(x, tokens, pairs, (scale, shift), transposed)


def normed(x, scale, shift):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale + shift


@pytest.mark.parametrize("widths", [(4, 6, 4), (4, 2, 6, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_values(widths, transposed):
    given = inputs(5, *widths)
    x, t, *layers, scale, shift = (v.numpy() for v in given)
    for n in range(0, len(layers), 2):
        t = (np.maximum(t, 0) if n else t) @ layers[n].T + layers[n + 1]
    out, tokens = run(*given, transposed=transposed)
    close(out, x + t)
    right = normed(x + t, scale, shift)
    close(tokens, right.transpose(0, 2, 1).reshape(right.shape) if transposed else right)


def test_parts():
    """Without a norm, and the norm alone."""
    x, _, scale, shift = inputs(5, 4)
    out, tokens = feed_forward(x, None, [], (scale, shift))
    assert out is x
    close(tokens, normed(*(v.numpy() for v in (x, scale, shift))))
    assert feed_forward(x, x, [(scale[:, None] * scale, shift)] * 2)[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types(dtype):
    given = [x.to(dtype) for x in inputs(5, 4, 6, 4)]
    for found, exact in zip(run(*given), run(*(x.double() for x in given)), strict=True):
        assert found.dtype == dtype
        close(found, exact, 32 * torch.finfo(dtype).eps)


def test_gradient():
    check_gradient_strictly(lambda *given: run(*given)[1], *inputs(2, 3, 6, 3))


def test_compiles():
    check_compiles(lambda *given: torch.stack(run(*given, transposed=True)), *inputs(3, 4, 6, 4))


X, ONE = torch.zeros(1, 5, 4), torch.zeros(4)
LAYER = (torch.zeros(4, 4), ONE)
GOOD = {"x": X, "tokens": X, "layers": [LAYER, LAYER], "norm": (ONE, ONE)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[0]}, ValueError, r"x must have shape \(B, N, C\)"),
        ({"tokens": X[:, :2]}, ValueError, r"tokens must have shape \(1, 5, 4\)"),
        ({"tokens": X.double()}, TypeError, "tokens must be float32, got float64"),
        ({"tokens": None}, ValueError, "tokens and layers must be given both or neither"),
        ({"layers": [LAYER]}, ValueError, "layers must be .* got 1"),
        ({"layers": []}, ValueError, "tokens and layers must be given both or neither"),
        (
            {"layers": [LAYER, (torch.zeros(3, 4), torch.zeros(3))]},
            ValueError,
            r"layers\[1\]\[0\] must have shape \(4, 4\)",
        ),
        ({"norm": (ONE, ONE[:2])}, ValueError, r"norm\[1\] must have shape \(4\)"),
        ({"norm": (ONE, ONE.half())}, TypeError, r"norm\[1\] must be float32, got float16"),
    ],
)
def test_errors(change, error, message):
    feed_forward(**GOOD)
    with pytest.raises(error, match=message):
        feed_forward(**GOOD | change)
