"""The blocks of CorrMLP, and what is built some planes at a time, against their definitions."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from ops_checks import CHANNELS_LAST, check_gradient, close, uniform

from lganet_fast.models.prnetpp import read_coarse, windows_correlated
from lganet_fast.models.registry import create
from lganet_fast.nn import gmlp, slabs
from lganet_fast.ops import correlate, resize, warp


@pytest.fixture
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(gmlp, "TOKENS", 200)
    monkeypatch.setattr(slabs, "PLANES", 4)
    monkeypatch.setattr(slabs, "CORRELATED", 3)


def windowed(layer, x):
    """The layer, window by window and token by token."""
    side = layer.side
    padded = F.pad(x, [0, 0] + [k for n in x.shape[3:0:-1] for k in (0, -n % side)])
    out = torch.empty_like(padded)
    for start in product(*(range(0, n, side) for n in padded.shape[1:4])):
        box = (slice(None), *(slice(s, s + side) for s in start))
        tokens = padded[box].flatten(1, 3)
        u, v = F.gelu(layer.in_project(layer.LayerNorm(tokens))).chunk(2, 2)
        gate = layer.SpatialGatingUnit
        mixed = gate.Dense_0(gate.LayerNorm(v).transpose(1, 2)).transpose(1, 2)
        result = layer.out_project(u * (mixed + 1)) + tokens
        out[box] = result.view(padded[box].shape)
    return out[tuple(slice(n) for n in x.shape[:4])]


@pytest.mark.parametrize("side", gmlp.WINDOWS)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.usefixtures("few_at_a_time")
def test_windows(side, grad):
    layer = gmlp.WindowMLP(8, side).double()
    x = uniform(2, 9, 8, 7, 8)
    with torch.set_grad_enabled(grad):
        close(layer(x), windowed(layer, x).detach(), 1e-12)


@pytest.mark.usefixtures("few_at_a_time")
def test_gradient_of_windows_that_are_computed_again():
    layer = gmlp.WindowMLP(4, 3).double()
    x = uniform(1, 7, 4, 3, 4)
    check_gradient(lambda x: layer(x) ** 2, x)
    grads = []
    for run in (layer, lambda x: windowed(layer, x)):
        layer.zero_grad()
        run(x).square().sum().backward()
        grads.append([p.grad for p in layer.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        close(ours, theirs, 1e-10)


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize(("correlation", "halo"), [(correlate, 1), (windows_correlated, 3)])
@pytest.mark.parametrize("height", [1, 6, 11])
def test_beside_a_correlation(height, correlation, halo):
    x, y = (uniform(2, 3, height, 4, 5, seed=seed) for seed in (1, 2))
    found = slabs.beside_correlation(x, y, correlation, halo)
    whole = torch.cat([x, correlation(x, y), y], 1)
    close(found, whole, 1e-12)
    with torch.no_grad():
        found = slabs.beside_correlation(x, y, correlation, halo)
    assert found.is_contiguous(memory_format=CHANNELS_LAST)
    close(found, whole, 1e-12)


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("height", [1, 4, 11])
def test_in_slabs(height):
    x, weight = uniform(2, 3, height, 4, 5, seed=1), uniform(6, 3, 5, 1, 1, seed=2)

    def convolved(x):
        return F.conv3d(x, weight, padding=(2, 0, 0))

    with torch.no_grad():
        close(slabs.in_slabs(convolved, x, halo=2), convolved(x), 1e-13)


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("name", ["corrmlp", "prnetpp", "groupmorph"])
def test_without_gradients_networks_give_the_same(name):
    network = create(name, (32, 16, 16)).double().eval()
    for p in network.parameters():
        p.data.copy_(p + 0.05 * uniform(*p.shape, seed=p.numel()))
    pair = [uniform(2, 1, 32, 16, 16, seed=seed) for seed in (1, 2)]
    expected = network(*pair)
    with torch.no_grad():
        close(network(*pair), expected.detach(), 1e-9)


def test_windows_are_summed_before_they_are_multiplied():
    """By loops over one offset each, sums outside the volume included."""
    x, y = (uniform(1, 2, 4, 5, 6, seed=seed) for seed in (1, 2))
    box_x, box_y = (27 * F.avg_pool3d(F.pad(t, [4] * 6), 3, 1, 1) for t in (x, y))
    found = windows_correlated(x, y)
    for n, offset in enumerate(product((-2, 0, 2), repeat=3)):
        there = tuple(
            slice(4 + o, 4 + o + size) for o, size in zip(offset, x.shape[2:], strict=True)
        )
        product_of = box_x[:, :, 4:-4, 4:-4, 4:-4] * box_y[(slice(None), slice(None), *there)]
        close(found[:, n], product_of.sum(1) / 27, 1e-12)


def test_coarse_map_is_resized_and_read_in_one():
    """A map that is linear along the axes is resized without loss, so that both ways agree."""
    lines = [torch.linspace(0, 1, n, dtype=torch.float64) for n in (4, 5, 6)]
    coarse = torch.stack(torch.meshgrid(*lines, indexing="ij"))[None]
    flow = 0.4 * uniform(1, 3, 8, 10, 12)
    inside = (slice(None), slice(None), *[slice(1, -1)] * 3)
    fine = warp(resize(coarse, flow.shape[2:]), flow)
    close(read_coarse(coarse, flow)[inside], fine[inside], 1e-12)
