"""ops.neighbour_attention against explicit loops, and the compiled path against the reference."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from ops_checks import (
    BACKENDS,
    CHANNELS_LAST,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    check_same,
    close,
    needs_native,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import neighbour_attention, use_backend

FORMATS = [torch.contiguous_format, CHANNELS_LAST]
OFFSETS = list(product((-1, 0, 1), repeat=3))
SHAPES = [(2, 6, 4, 5, 3), (1, 2, 1, 1, 1), (1, 12, 3, 2, 19), (1, 48, 5, 3, 33)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(*shape, heads=2):
    """Maps large enough that the softmax is far from even."""
    q, k = (3 * uniform(*shape, seed=seed) for seed in (1, 2))
    return q, k, uniform(heads, 3, 3, 3, seed=3)


def oracle(q, k, bias, scale):
    batch, channels, *size = q.shape
    heads = len(bias)
    q, k = (t.reshape(batch, heads, channels // heads, *size) for t in (q, k))
    out = np.zeros((batch, heads, 3, *size))
    for b, a, *p in np.ndindex(batch, heads, *size):
        logits = []
        for offset in OFFSETS:
            at = tuple(np.add(p, offset))
            inside = all(0 <= i < n for i, n in zip(at, size, strict=True))
            key = k[(b, a, slice(None), *at)] if inside else np.zeros(channels // heads)
            logits.append(scale * q[(b, a, slice(None), *p)] @ key)
        logits = np.array(logits) + bias[a].ravel()
        weights = np.exp(logits - logits.max())
        out[(b, a, slice(None), *p)] = weights @ np.array(OFFSETS) / weights.sum()
    return out.reshape(batch, 3 * heads, *size)


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_values(backend, shape, scale):
    given = inputs(*shape)
    close(neighbour_attention(*given, scale), oracle(*(t.numpy() for t in given), scale), 1e-13)


@pytest.mark.parametrize("reach", [30.0, 700.0, 5000.0])
def test_logits_far_apart(backend, reach):
    """One offset takes all weight, on the spot of a softmax's largest logit."""
    q, k, bias = inputs(1, 2, 3, 4, 5)
    bias = bias + reach * (torch.arange(54).view(2, 3, 3, 3) == 5)
    close(neighbour_attention(q, k, bias), oracle(q.numpy(), k.numpy(), bias.numpy(), 1.0), 1e-13)


def test_gradient(backend):
    def attend(*given):
        return neighbour_attention(*given, 0.7)

    check_gradient_strictly(attend, *inputs(1, 4, 2, 3, 2))


def test_second_derivative(backend):
    leaves = [t.requires_grad_() for t in inputs(1, 2, 2, 1, 2)]
    if backend == "reference":
        torch.autograd.gradgradcheck(neighbour_attention, leaves)
        return
    out = neighbour_attention(*leaves)
    grad = torch.autograd.grad(out.square().sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_compiles(backend):
    check_compiles(neighbour_attention, *inputs(2, 6, 3, 4, 5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, layout):
    given = inputs(2, 6, 3, 4, 5)
    close(neighbour_attention(*map(LAYOUTS[layout], given[:2]), given[2]), oracle_of(given))


def oracle_of(given):
    return oracle(*(t.numpy() for t in given), 1.0)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 5), (1, 2, 0, 4, 5)])
def test_empty(backend, shape):
    leaves = [t.requires_grad_() for t in inputs(*shape)]
    out = neighbour_attention(*leaves)
    out.sum().backward()
    assert out.shape == (shape[0], 6, *shape[2:])
    assert (leaves[2].grad == 0).all()


def test_gradients_only_where_asked_for(backend):
    given = inputs(1, 4, 3, 4, 3)
    _, *every = values_and_gradients(neighbour_attention, *given)
    for i, expected in enumerate(every):
        leaves = [x.clone() for x in given]
        leaves[i].requires_grad_()
        out = neighbour_attention(*leaves)
        out.backward(uniform(*out.shape, seed=9))
        close(leaves[i].grad, expected)
        assert all(leaf.grad is None for n, leaf in enumerate(leaves) if n != i)


def test_not_a_number_reaches_only_its_neighbours(backend):
    q, k, bias = inputs(1, 2, 7, 7, 7)
    k[0, 0, 3, 3, 3] = torch.nan
    bad = neighbour_attention(q, k, bias).isnan()
    assert bad[0, :3, 2:5, 2:5, 2:5].all()
    assert bad.sum() == 3 * 27


@needs_native
@pytest.mark.parametrize(("q_format", "k_format"), [*zip(FORMATS, FORMATS, strict=True), FORMATS])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_against_reference(shape, dtype, q_format, k_format):
    q, k, bias = (t.to(dtype) for t in inputs(*shape))
    given = q.contiguous(memory_format=q_format), k.contiguous(memory_format=k_format), bias
    results = [
        values_and_gradients(lambda *x, name=name: neighbour_attention(*x, backend=name), *given)
        for name in ("native", "reference")
    ]
    assert results[0][0].dtype == torch.promote_types(dtype, torch.float32)
    check_same(*results, 4 * [TOLERANCES[dtype]])


@needs_native
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("needed", [(True, True, True), (False, True, False)])
def test_operator_is_well_formed(needed, dtype):
    given = [
        t.to(dtype).requires_grad_(n) for t, n in zip(inputs(1, 4, 4, 3, 5), needed, strict=True)
    ]
    operators = torch.ops.lganet_fast
    torch.library.opcheck(operators.neighbour_attention.default, (*given, 1.0))
    plain = [t.detach() for t in given]
    out, norms = operators.neighbour_attention(*plain, 1.0)
    arguments = (out, *plain, out, norms, 1.0, any(needed[::2]), needed[1])
    torch.library.opcheck(operators.neighbour_attention_backward.default, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.zeros(2, 3, 3, 3)}, ValueError, r"q must have shape \(B, C, H, W, D\)"),
        ({"q": torch.zeros(1, 4, 3, 3, 3).long()}, TypeError, "q must be .* got int64"),
        ({"k": torch.zeros(1, 2, 3, 3, 3)}, ValueError, r"k must have shape \(1, 4, 3, 3, 3\)"),
        ({"k": torch.zeros(1, 4, 3, 3, 3).double()}, TypeError, "k must be float32, got float64"),
        ({"k": torch.zeros(1, 4, 3, 3, 3, device="meta")}, ValueError, "k must be on q's device"),
        ({"bias": torch.zeros(2, 27)}, ValueError, r"bias must have shape \(heads, 3, 3, 3\)"),
        ({"bias": torch.zeros(3, 3, 3, 3)}, ValueError, "divide q's 4 channels, got 3"),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys("qk", torch.zeros(1, 4, 3, 3, 3)) | {"bias": torch.zeros(2, 3, 3, 3)}
    neighbour_attention(**good)
    with pytest.raises(error, match=message):
        neighbour_attention(**good | change)
