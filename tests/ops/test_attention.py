"""ops.attention against a plain softmax over explicit lists of tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_checks import LAYOUTS, check_compiles, check_gradient_strictly, close, uniform

from lganet_fast.ops import attention, use_backend


@pytest.fixture(autouse=True, params=["reference", "native"])
def backend(request):
    """Every test on either path."""
    with use_backend(request.param):
        yield


def inputs(batch=2, tokens=12, narrow=2, wide=3):
    q, k = (uniform(batch, tokens, narrow, seed=s, low=-2, high=2) for s in (1, 2))
    return q, k, uniform(batch, tokens, wide, seed=3)


def runs(tokens, windows):
    """The token numbers of each window."""
    length = tokens // windows
    return [range(j * length, (j + 1) * length) for j in range(windows)]


def boxes(volume, counts):
    """The token numbers of each box, from the box that each voxel's coordinates fall in."""
    members = {}
    for token, p in enumerate(np.ndindex(*volume)):
        box = tuple(i // math.ceil(s / n) for i, s, n in zip(p, volume, counts, strict=True))
        members.setdefault(box, []).append(token)
    return list(members.values())


def oracle(q, k, v, scale, windows):
    q, k, v = (t.double().numpy() for t in (q, k, v))
    out = np.full_like(v, np.nan)
    for b in range(len(q)):
        for window in map(list, windows):
            for i in window:
                weights = np.array([math.exp(scale * (q[b, i] @ k[b, j])) for j in window])
                out[b, i] = weights / weights.sum() @ v[b, window]
    return out


@pytest.mark.parametrize("windows", [1, 3, 4, 12])
def test_runs(windows):
    q, k, v = inputs()
    close(attention(q, k, v, 0.7, windows), oracle(q, k, v, 0.7, runs(12, windows)))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), volume=st.tuples(*[st.integers(1, 5)] * 3))
def test_boxes(data, volume):
    counts = tuple(data.draw(st.integers(1, s)) for s in volume)
    q, k, v = inputs(1, math.prod(volume))
    expected = oracle(q, k, v, 0.7, boxes(volume, counts))
    close(attention(q, k, v, 0.7, counts, volume=volume), expected)


def test_last_box_is_cut_short():
    assert [len(b) for b in boxes((22, 1, 1), (3, 1, 1))] == [8, 8, 6]
    q, k, v = inputs(1, 22)
    out = attention(q, k, v, 0.7, (3, 1, 1), volume=(22, 1, 1))
    close(out[:, 16:], oracle(q[:, 16:], k[:, 16:], v[:, 16:], 0.7, [range(6)]))


@settings(max_examples=15, deadline=None)
@given(tokens=st.integers(1, 9), seed=st.integers(0, 9999))
def test_windows_of_one_token_return_the_value(tokens, seed):
    q, v = uniform(1, tokens, 2, seed=seed), uniform(1, tokens, 3, seed=seed + 1)
    close(attention(q, q, v, 1.0, tokens), v)
    close(attention(q, q, v, 1.0, (1, tokens, 1), volume=(1, tokens, 1)), v)


def test_equal_keys_average():
    q, k, v = inputs()
    out = attention(q, k[:, :1].expand_as(k), v, 3.0, 2)
    close(out, v.reshape(2, 2, 6, 3).mean(2, keepdim=True).expand(2, 2, 6, 3).reshape(2, 12, 3))


def test_large_scores_do_not_overflow():
    """Only the one key of the largest score counts."""
    q = torch.tensor([[[1e4], [-1e4]]])
    k, v = torch.tensor([[[1e4], [-1e4]]]), torch.tensor([[[1.0], [2.0]]])
    assert attention(q, k, v, 1.0).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types(dtype):
    q, k, v = (t.to(dtype) for t in inputs())
    out = attention(q, k, v, 0.7, 3)
    assert out.dtype == dtype
    close(out, oracle(q, k, v, 0.7, runs(12, 3)), 2e-5 + torch.finfo(dtype).eps / 2)


WINDOWS = {"runs": {"windows": 2}, "boxes": {"windows": (2, 1, 1), "volume": (3, 1, 2)}}


@pytest.mark.parametrize("how", WINDOWS)
def test_gradient(how):
    check_gradient_strictly(
        lambda q, k, v: attention(q, k, v, 0.7, **WINDOWS[how]), *inputs(1, 6, 2, 3)
    )


@pytest.mark.parametrize("how", WINDOWS)
def test_second_derivative(how):
    leaves = [t.requires_grad_() for t in inputs(1, 6, 1, 2)]
    with use_backend("reference"):
        torch.autograd.gradgradcheck(
            lambda q, k, v: attention(q, k, v, 0.7, **WINDOWS[how]), leaves
        )


@pytest.mark.parametrize("how", WINDOWS)
def test_compiles(how):
    check_compiles(lambda q, k, v: attention(q, k, v, 0.7, **WINDOWS[how]), *inputs(2, 6))


@pytest.mark.parametrize("layout", ["strided", "transposed"])
def test_layouts(layout):
    close(
        attention(*map(LAYOUTS[layout], inputs()), 0.7, 3),
        attention(*inputs(), 0.7, 3),
    )


@pytest.mark.parametrize("how", WINDOWS)
def test_empty_batch(how):
    assert attention(*inputs(0, 6), 0.7, **WINDOWS[how]).shape == (0, 6, 3)


def test_dropout():
    """Weights are dropped at the stated rate, the rest scaled up, and a seed repeats."""
    q, k = torch.zeros(2, 1, 400, 1)
    v = torch.eye(400)[None]  # so that the output is the weights
    torch.manual_seed(0)
    weights = 400 * attention(q, k, v, 1.0, dropout_p=0.25)
    assert (weights == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert weights[weights > 0] == pytest.approx(1 / 0.75, rel=1e-5)
    torch.manual_seed(0)
    assert torch.equal(weights, 400 * attention(q, k, v, 1.0, dropout_p=0.25))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.zeros(6, 2)}, ValueError, r"q must have shape \(B, N, c\), got \(6, 2\)"),
        ({"q": torch.zeros(1, 6, 2).int()}, TypeError, "q must be .* got int32"),
        ({"k": torch.zeros(1, 5, 2)}, ValueError, r"k must have shape \(1, 6, 2\)"),
        ({"k": torch.zeros(1, 6, 2).half()}, TypeError, "k must be float32, got float16"),
        ({"v": torch.zeros(1, 5, 3)}, ValueError, r"v must have shape \(1, 6, d\)"),
        ({"v": torch.zeros(1, 6, 3).double()}, TypeError, "v must be float32, got float64"),
        ({"v": torch.zeros(1, 6, 3, device="meta")}, ValueError, "v must be on q's device cpu"),
        ({"dropout_p": 1.0}, ValueError, r"dropout_p must be in \[0, 1\), got 1.0"),
        ({"dropout_p": -0.1}, ValueError, r"dropout_p must be in \[0, 1\), got -0.1"),
        ({"windows": 0}, ValueError, "windows must be an integer of at least 1, got 0"),
        ({"windows": 4}, ValueError, "windows must divide the 6 tokens, got 4"),
        ({"windows": (1, 1, 1)}, ValueError, "windows must be an integer"),
        ({"volume": (1, 2, 3)}, ValueError, "windows must be a list or a tuple of 3, got 1"),
        ({"volume": (1, 2, 4), "windows": (1, 1, 1)}, ValueError, "volume must .* the 6 tokens"),
        ({"volume": (2, 3), "windows": (1, 1)}, ValueError, "volume must be .* of 3, got 2"),
        ({"volume": (1, 2, 3), "windows": (1, 1)}, ValueError, "windows must be .* of 3, got 2"),
        ({"volume": (1, 2, 3), "windows": (1, 3, 1)}, ValueError, "from 1 to the axis length 2"),
        ({"volume": (1, 2, 3), "windows": (1, 0, 1)}, ValueError, "axis length 2, got 0"),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys("qk", torch.zeros(1, 6, 2)) | {"v": torch.zeros(1, 6, 3), "scale": 1.0}
    attention(**good)
    with pytest.raises(error, match=message):
        attention(**good | change)
