"""torch.func's transforms through every operation: grad as autograd has it, vmap as a loop does."""

from __future__ import annotations

import pytest
import torch
from ops_checks import BACKENDS, kink_free, uniform
from torch.autograd import forward_ad

from lganet_fast import ops
from lganet_fast.ops import use_backend

MAP, OTHER = uniform(1, 2, 4, 2, 6), uniform(1, 2, 4, 2, 6, seed=1)
FLOW = kink_free(uniform(1, 3, 4, 2, 6, seed=2))
TOKENS = uniform(1, 6, 2, seed=3)
WEIGHT, BIAS = uniform(2, 2, 3, 3, 3, seed=4), uniform(2, seed=5)
NORM, SHARE = uniform(2, 1, 2, seed=6), uniform(1, 1, 4, 2, 6, seed=7, low=0.5)
FIRST, SECOND = uniform(3, 4, seed=8), uniform(4, 3, seed=9)


def convolved(x, y, weight, bias, norm, add):
    return ops.convolve(
        [x, y], torch.cat([weight] * 2, 1), bias, relu=True, norm=ops.Norm(
            torch.cat([norm] * 2, 2), 0.1
        ), add=add, times=add,
    )  # fmt: skip


def inverted(field, goal):
    return ops.invert(0.1 * field, goal, torch.zeros_like(goal))[0]


CALLS = {
    "warp": (ops.warp, MAP, FLOW),
    "nearest": (lambda x, flow: ops.warp(x, flow, "nearest", "border"), MAP, FLOW + 0.011),
    "compose": (ops.compose, FLOW, 0.3 * FLOW),
    "integrate": (lambda x: ops.integrate(x, 5), FLOW),
    "correlate": (lambda x, y: ops.correlate(x, y, width=30), MAP, OTHER),
    "neighbour_attention": (
        lambda q, k, b: ops.neighbour_attention(q, k, b, 0.7), MAP, OTHER,
        uniform(2, 3, 3, 3, seed=10),
    ),
    "stepped": (lambda x, y: ops.correlate(x, y, step=2), MAP, OTHER),
    "attention": (lambda q, k, v: ops.attention(q, k, v, 0.7, 2), TOKENS, 2 * TOKENS, TOKENS.sin()),
    "local_ncc": (lambda a, b: ops.local_ncc(a, b, 3), MAP, OTHER),
    "weighted": (lambda a, b, w: ops.local_ncc(a, b, 3, w), MAP, OTHER, SHARE),
    "mutual_information": (lambda a, b: ops.mutual_information(a, b, 6), MAP, OTHER),
    "weighted mutual_information": (
        lambda a, b, w: ops.mutual_information(a, b, 6, w), MAP, OTHER, SHARE
    ),
    "gradient_loss": (ops.gradient_loss, FLOW),
    "resize": (lambda x: ops.resize(x, (3, 5, 2), factor=2.0), MAP),
    "invert": (inverted, FLOW, 0.1 * FLOW),
    "norm_act": (lambda x: ops.norm_act(x, 0.2, inplace=True), MAP),
    "convolve": (convolved, MAP, OTHER, WEIGHT, BIAS, NORM, MAP),
    "float32": (
        lambda x, w, b: ops.convolve(x, w, b, inplace=True, relu=True),
        *(t.float() for t in (MAP, WEIGHT, BIAS)),
    ),
    "convolve_moments": (lambda x, w, b: ops.convolve_moments(x, w, b)[1], MAP, WEIGHT, BIAS),
    "pool": (lambda x, m: ops.pool(x, "mean", norm=(m, 0.1))[0], MAP, NORM),
    "max": (lambda x: ops.pool(x, "max")[0], MAP),
    "warp_sum": (
        lambda x, f, y, g, z: ops.warp_sum([x, y], [f, g], z), MAP, FLOW, OTHER, -FLOW, MAP
    ),
    "weigh": (
        lambda x, y, a, b, c: torch.cat([p.flatten() for p in ops.weigh([x, y], a, b, c)]),
        MAP, OTHER, MAP + OTHER, FIRST, SECOND,
    ),
    "feed_forward": (
        lambda x, t, w, b, v, c: ops.feed_forward(x, t, [(w, b), (v, c)], (c, c), True)[1],
        TOKENS, TOKENS.sin(), FIRST[:, :2], FIRST[:, 2], SECOND[:2], SECOND[:2, 0],
    ),
}  # fmt: skip
WITHOUT = ("invert", "convolve_moments")  # gradients


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def loss_of(call):
    """A number of what comes out."""

    def loss(*inputs):
        out = call(*inputs)
        return (out * torch.arange(out.numel()).reshape(out.shape).cos()).sum()

    return loss


def gradients(call, inputs):
    """By autograd; zero where there is none."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = loss_of(call)(*leaves)
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


def several(inputs, dims):
    """Three of each input along an axis, or the input itself where that is None."""
    return [
        x if d is None else torch.stack([x, 0.5 * x, x - 0.04], d)
        for x, d in zip(inputs, dims, strict=True)
    ]


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        rough = one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-9, atol=2e-5 if rough else 1e-10)


def test_every_operation_is_here():
    assert {*ops.OPERATIONS, "convolve_moments"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_grad(name):
    call, *inputs = CALLS[name]
    found = torch.func.grad(loss_of(call), tuple(range(len(inputs))))(*inputs)
    close(found, gradients(call, inputs))
    if name not in WITHOUT:
        assert any(g.any() for g in found)


@pytest.mark.parametrize("first", [0, -1, None])
@pytest.mark.parametrize("name", CALLS)
def test_vmap(name, first):
    call, *inputs = CALLS[name]
    dims = [first if len(inputs) > 1 or first is not None else 0, *[1] * (len(inputs) - 1)]
    given = several(inputs, dims)
    found = torch.func.vmap(call, tuple(dims))(*given)
    rows = [
        [x if d is None else x.select(d, n) for x, d in zip(given, dims, strict=True)]
        for n in range(3)
    ]
    close([found], [torch.stack([call(*(x.clone() for x in row)) for row in rows])])


@pytest.mark.parametrize("name", CALLS)
def test_vmap_of_grad_and_grad_of_vmap(name):
    call, *inputs = CALLS[name]
    given = several(inputs, [0] * len(inputs))
    every = tuple(range(len(inputs)))
    found = torch.func.vmap(torch.func.grad(loss_of(call), every))(*given)
    rows = [gradients(call, [x[n] for x in given]) for n in range(3)]
    wanted = [torch.stack(parts) for parts in zip(*rows, strict=True)]
    close(found, wanted)
    mapped = torch.func.vmap(loss_of(call))
    close(torch.func.grad(lambda *xs: mapped(*xs).sum(), every)(*given), wanted)


@pytest.mark.parametrize("name", CALLS)
def test_vmap_of_what_autograd_follows(name):
    call, *inputs = CALLS[name]
    given = [x.requires_grad_() for x in several(inputs, [0] * len(inputs))]
    out = torch.func.vmap(loss_of(call))(*given).sum()
    if name in WITHOUT:
        assert not out.requires_grad
        return
    found = torch.autograd.grad(out, given)
    rows = [gradients(call, [x.detach()[n] for x in given]) for n in range(3)]
    close(found, [torch.stack(parts) for parts in zip(*rows, strict=True)])


def directions(inputs):
    return [uniform(*x.shape, seed=n).to(x.dtype) for n, x in enumerate(inputs)]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_forward_mode_is_right_or_refused_in_one_line(name, plain):
    call, *inputs = CALLS[name]
    along = directions(inputs)
    refusal = found = None
    try:
        if plain:
            with forward_ad.dual_level():
                out = loss_of(call)(*map(forward_ad.make_dual, inputs, along))
                found = forward_ad.unpack_dual(out).tangent
        else:
            _, found = torch.func.jvp(loss_of(call), tuple(inputs), tuple(along))
    except RuntimeError as error:
        refusal = str(error)
    if refusal:
        assert "has no forward-mode derivative (torch.func.jvp): use reverse mode" in refusal
        assert len(refusal) <= 300
        assert refusal.isprintable()
    elif name not in WITHOUT:
        pairs = zip(gradients(call, inputs), along, strict=True)
        close([found.detach()], [sum((g * d).sum() for g, d in pairs)])


@pytest.mark.parametrize("name", CALLS)
def test_second_derivatives_are_right_or_refused_in_one_line(name):
    call, *inputs = CALLS[name]
    (x, *rest), (along, *_) = inputs, directions(inputs)

    def slope(x):
        return (torch.func.grad(loss_of(call))(x, *rest) * along).sum()

    refusal = None
    try:
        found = torch.func.grad(slope)(x)
    except RuntimeError as error:
        refusal = str(error)
    if refusal:
        assert refusal == (
            "the compiled operators have no second derivative: use backend='reference' for it"
        )
    elif x.dtype == torch.float64:
        step = 1e-5 * uniform(*x.shape, seed=7)
        change = slope(x + step) - slope(x - step)
        torch.testing.assert_close(change, 2 * (found * step).sum(), rtol=1e-4, atol=1e-8)
