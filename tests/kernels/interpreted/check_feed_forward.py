"""ops.feed_forward by the Triton kernel, in the interpreter, against the reference in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from interpreter import TOLERANCES, on_the_cpu, values  # noqa: F401
from ops_checks import uniform

from lganet_fast.kernels import launch
from lganet_fast.ops import feed_forward

DTYPES = [dtype for dtype in TOLERANCES if dtype != torch.float64]


def arguments(tokens, channels, widths, dtype=torch.float32):
    """x, tokens, the layers' weights and biases, the norm's."""
    widths = [channels, *widths, channels]
    layers = [
        (uniform(b, a, seed=n) * (3 / a) ** 0.5, uniform(b, seed=n + 9))
        for n, (a, b) in enumerate(pairwise(widths))
    ]
    parts = [uniform(2, tokens, channels, seed=s) for s in (20, 21)]
    norm = [uniform(channels, seed=s) for s in (22, 23)]
    return [x.to(dtype) for x in (*parts, *(w for layer in layers for w in layer), *norm)]


def run(transposed=False, norm=True):
    """feed_forward on what `arguments` returns."""

    def call(x, tokens, *weights):
        *layers, scale, shift = weights
        pairs = list(zip(layers[::2], layers[1::2], strict=True))
        out = feed_forward(x, tokens, pairs, (scale, shift) if norm else None, transposed)
        return out if norm else out[0]

    return call


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("widths", [(64,), (8, 64)])
def test_values(widths, transposed, dtype):
    values(run(transposed), *arguments(70, 16, widths, dtype))


@pytest.mark.parametrize(
    ("tokens", "channels", "widths"), [(5, 24, (40,)), (1, 3, (2, 5)), (33, 100, (100,))]
)
def test_widths(tokens, channels, widths):
    """That fill no block."""
    values(run(True), *arguments(tokens, channels, widths))


def test_without_norm():
    values(run(norm=False), *arguments(20, 16, (32,)))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("channels", [16, 24])
def test_norm_alone(transposed, channels):
    x, scale, shift = uniform(2, 150, channels).float(), *uniform(2, channels).float()
    out, normed = feed_forward(x, None, [], (scale, shift), transposed)
    assert out is x
    values(lambda *a: feed_forward(a[0], None, [], a[1:], transposed)[1], x, scale, shift)
    assert normed.is_contiguous()


def test_rows_of_wider_tokens():
    """As the views of one product of several layers are, and what `tokens_of` makes of a map."""
    x, tokens, *weights = arguments(20, 16, (32,))
    wide = torch.full((2, 20, 40), torch.nan)
    wide[..., 8:24] = x
    planes = tokens.transpose(1, 2).contiguous().transpose(1, 2)
    right = run()(x, tokens, *weights)
    for a, b in zip(run()(wide[..., 8:24], planes, *weights), right, strict=True):
        assert torch.equal(a, b)


def test_offsets_of_64_bits(monkeypatch):
    given = arguments(20, 16, (8, 32))
    narrow = run(True)(*given)
    monkeypatch.setattr(launch, "OFFSETS_32", 1)
    for before, after in zip(narrow, run(True)(*given), strict=True):
        assert torch.equal(before, after)


def test_operator():
    x, tokens, *weights = arguments(4, 8, (16,))
    operator = torch.ops.lganet_fast_triton.feed_forward.default
    for given in ((weights[:-2], weights[-2:]), ([], weights[-2:]), (weights[:-2], [])):
        for test in ("test_faketensor", "test_schema"):
            torch.library.opcheck(operator, (x, tokens, *given, True), test_utils=test)
