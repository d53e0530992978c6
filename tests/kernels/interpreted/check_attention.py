"""ops.attention by the Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import lganet_fast.kernels.attention_kernels as kernels
import pytest
import torch
from interpreter import agree, on_the_cpu, results  # noqa: F401
from ops_checks import LAYOUTS, uniform

from lganet_fast.kernels import launch
from lganet_fast.ops import attention, use_backend

FLOAT = torch.float32


def inputs(tokens, narrow=8, wide=16, batch=1, dtype=FLOAT):
    q, k = (uniform(batch, tokens, narrow, seed=s, low=-2, high=2).to(dtype) for s in (1, 2))
    return q, k, uniform(batch, tokens, wide, seed=3).to(dtype)


def call(scale=0.7, **how):
    return lambda q, k, v: attention(q, k, v, scale, **how)


CASES = {
    "one window": (inputs(70, 8, 64), call(1.0)),
    "one window, whole tiles": (inputs(64, 16, 32), call()),
    "less than a tile": (inputs(5, 2, 3), call()),
    "negative scale": (inputs(40, 2, 5), call(-3.0)),
    "runs": (inputs(2 * 45, 20, 24, 2), call(windows=2)),
    "wide": (inputs(40, 100, 128), call(0.1)),
    "boxes": (inputs(5 * 2 * 7), call(windows=(2, 1, 2), volume=(5, 2, 7))),
    "fewer boxes than asked for": (inputs(5 * 4), call(windows=(1, 4, 2), volume=(1, 5, 4))),
    "slabs": (inputs(7 * 3 * 4), call(windows=(2, 1, 1), volume=(7, 3, 4))),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    tokens, operation = CASES[case]
    agree(operation, operation, *tokens)


@pytest.mark.parametrize(("tokens", "scale"), [(1, 0.7), (40, 0.0)])
def test_gradients_that_vanish(tokens, scale):
    """Of one token alone, and where the scores do not count."""
    found = results(call(scale), inputs(tokens), torch.ones(()))
    with use_backend("reference"):
        right = results(call(scale), inputs(tokens), torch.ones(()))
    for x, y in zip(found, right, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 128])
def test_half_types(dtype, width):
    agree(call(0.2), call(0.2), *inputs(70, width, width, dtype=dtype))


KERNELS = (kernels.forward_kernel, kernels.query_kernel, kernels.key_kernel)
CHOICES = (kernels.FORWARD, kernels.QUERY, kernels.KEY)
TILES = [
    (kind, place)
    for kind in kernels.FORWARD
    if kind[0] != "tf32"
    for place in range(0 if kind[0] == "ieee" else 1, max(len(c[kind]) for c in CHOICES))
]


@pytest.mark.parametrize(("kind", "place"), TILES)
def test_every_tile(kind, place, monkeypatch):
    """Those after the first, which every other check runs."""
    for kernel, choices in zip(KERNELS, CHOICES, strict=True):
        config = choices[kind][place:][:1] or choices[kind][-1:]
        monkeypatch.setattr(kernel, "early_config_prune", lambda *_, c=config, **__: c)
    dtype = torch.float16 if kind[0] == "half" else FLOAT
    agree(call(), call(), *inputs(70, 8, 20, dtype=dtype))


def test_three_products_are_as_good_as_one_in_full(monkeypatch):
    """One product of TF32 is not."""
    tokens = inputs(96, 64, 64)
    with use_backend("reference"):
        right = results(call(0.2), [x.double() for x in tokens], torch.ones(()).double())

    def error(kind):
        for kernel, choices in zip(KERNELS, CHOICES, strict=True):
            config = choices[kind, False][:1]
            monkeypatch.setattr(kernel, "early_config_prune", lambda *_, c=config, **__: c)
        pairs = zip(results(call(0.2), tokens, torch.ones(())), right, strict=True)
        # the gradients to q and k are differences that all but cancel: the value's scale is v's
        return max(((x - y).abs().max() / y.abs().max()).item() for x, y in list(pairs)[::3])

    full, three, one = (error(kind) for kind in ("ieee", "tf32x3", "tf32"))
    assert three < max(2 * full, 1e-6)
    assert one > 20 * three


def test_the_fastest_configuration_stays(monkeypatch):
    """Without the need to repeat bit for bit, those that fit are raced once for a kind of call."""
    seconds, raced = iter([3.0, 1.0, 2.0]), []

    def race(run, quantiles):
        run()
        raced.append(next(seconds))
        return [raced[-1]]

    torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(kernels.forward_kernel, "_do_bench", race)
    monkeypatch.setattr(kernels.forward_kernel, "cache", {})
    monkeypatch.delitem(kernels.forward_kernel.__dict__, "do_bench", raising=False)
    tokens = inputs(70)
    for _ in range(2):
        found = attention(*tokens, 0.7)
    assert raced == [3.0, 1.0, 2.0]
    assert kernels.forward_kernel.best_config is kernels.FORWARD["tf32x3", False][1]
    torch.testing.assert_close(found, attention(*tokens, 0.7, backend="reference"))


@pytest.mark.parametrize(("case", "layout"), [("boxes", "strided"), ("slabs", "transposed")])
def test_layouts(case, layout):
    tokens, operation = CASES[case]
    agree(operation, operation, *map(LAYOUTS[layout], tokens))


def test_parts_of_one_projection_and_a_gradient_without_strides():
    q, k, v = uniform(2, 40, 48, seed=4).float().chunk(3, -1)
    one = torch.ones(()).expand(2, 40, 16)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attention(*leaves, 0.5)
    found = torch.autograd.grad(out, leaves, one)
    right = torch.autograd.grad(attention(*leaves, 0.5, backend="reference"), leaves, one)
    for x, y in zip(found, right, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["slabs", "boxes"])
def test_offsets_of_64_bits(case, monkeypatch):
    tokens, operation = CASES[case]
    narrow = results(operation, tokens, torch.ones(()))
    monkeypatch.setattr(launch, "OFFSETS_32", 1)
    for x, y in zip(results(operation, tokens, torch.ones(())), narrow, strict=True):
        assert torch.equal(x, y)


def weights_of(dropout_p, seed, tokens=64, **how):
    """`tokens` times each weight that is left where all scores are equal."""
    zero, v = torch.zeros(2, tokens, 1), torch.eye(tokens).expand(2, -1, -1)
    torch.manual_seed(seed)
    return tokens * attention(zero, zero, v, 1.0, dropout_p=dropout_p, **how)


def test_dropout_rate_and_seed():
    weights = weights_of(0.25, 0)
    dropped = (weights == 0).float()
    assert dropped.mean().item() == pytest.approx(0.25, abs=0.015)
    for axes in ((0, 1), (0, 2)):  # no key and no query is special
        assert (dropped.mean(axes) - 0.25).abs().max() < 0.15
    assert weights[weights > 0] == pytest.approx(1 / 0.75, rel=1e-5)
    assert torch.equal(weights, weights_of(0.25, 0))
    assert not torch.equal(weights, weights_of(0.25, 1))
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0, 0], weights[0, 1])


def test_dropout_differs_between_windows():
    dropped = weights_of(0.5, 0, windows=2) == 0
    assert not torch.equal(dropped[0, :32, :32], dropped[0, 32:, 32:])


def test_dropout_does_not_depend_on_the_tiles(monkeypatch):
    before = weights_of(0.25, 0, 40)
    small = kernels.FORWARD["ieee", True][-1:]
    monkeypatch.setattr(kernels.forward_kernel, "early_config_prune", lambda *_, **__: small)
    torch.testing.assert_close(weights_of(0.25, 0, 40), before)


def masked(keep, dropout_p, scale):
    """Attention with a known mask, in plain PyTorch."""

    def operation(q, k, v):
        weights = torch.softmax(q @ k.transpose(1, 2) * scale, -1)
        return (weights * keep.to(q.dtype) / (1 - dropout_p)) @ v

    return operation


def test_dropout_in_the_backward_is_that_of_the_forward():
    keep = weights_of(0.4, 7, 40) != 0

    def seeded(q, k, v):
        torch.manual_seed(7)
        return attention(q, k, v, 0.7, dropout_p=0.4)

    agree(seeded, masked(keep, 0.4, 0.7), *inputs(40, batch=2))


def test_large_scores_do_not_overflow():
    """Only the one key of the largest score counts."""
    q = torch.tensor([[[1e4], [-1e4]]])
    v = torch.tensor([[[1.0], [2.0]]])
    assert attention(q, q, v, 1.0).flatten().tolist() == [1.0, 2.0]


def test_not_a_number_stays_in_its_window():
    q, k, v = inputs(80)
    k[0, 3, 0] = torch.nan
    bad = attention(q, k, v, 1.0, 2).isnan().any(2)[0]
    assert bad.tolist() == [True] * 40 + [False] * 40


def test_gradients_only_where_asked_for():
    q, k, v = inputs(20)
    k.requires_grad_()
    attention(q, k, v, 1.0).sum().backward()
    assert k.grad.shape == k.shape
    assert q.grad is None


def test_empty_batch():
    leaves = [x.requires_grad_() for x in inputs(6, batch=0)]
    out = attention(*leaves, 1.0, 2)
    out.sum().backward()
    assert out.shape == (0, 6, 16)
    assert all(x.grad.shape == x.shape for x in leaves)


def test_second_derivative_is_refused():
    q, k, v = (x.requires_grad_() for x in inputs(6))
    (grad,) = torch.autograd.grad(attention(q, k, v, 1.0).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_autocast_changes_nothing():
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*inputs(20), 1.0)
    assert torch.equal(out, attention(*inputs(20), 1.0))


def test_operators():
    q, k, v = (x.requires_grad_() for x in inputs(12))
    seed = torch.tensor([5])
    cut = (seed, 0.7, (2, 1, 1), 0.25, (4, 1, 3))
    operators = torch.ops.lganet_fast_triton
    torch.library.opcheck(operators.attention.default, (q, k, v, *cut))
    q, k, v = inputs(12)
    out, lse = operators.attention(q, k, v, *cut)
    torch.library.opcheck(operators.attention_backward.default, (v, q, k, v, out, lse, *cut))
