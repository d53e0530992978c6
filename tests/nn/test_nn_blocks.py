"""Layers, MSFM, IDM and CWAM against the published blocks, in float64 on small odd volumes."""

import pytest
import torch

from lganet_fast.models import published
from lganet_fast.nn import CWAM, IDM, MSFM, SDI
from lganet_fast.nn.layers import ConvPair, FlowConv, FlowPair, Residual


def noise(*shape, seed=0):
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).contiguous(memory_format=torch.channels_last_3d)


def twins(ours, theirs):
    """Both in float64 with our parameters; the published one may hold more."""
    state = {**theirs.state_dict(), **ours.state_dict()}
    theirs.load_state_dict(state)
    return ours.double(), theirs.double()


@pytest.mark.parametrize("pair", [ConvPair(6, 5, 4), FlowPair(6, 5)])
def test_folded_pair_is_both_convolutions(pair):
    pair, x = pair.double(), noise(2, 6, 4, 5, 3).requires_grad_()
    wanted = pair[1](pair[0](x)).relu()
    torch.testing.assert_close(pair(x), wanted)
    inputs = [x, *pair.parameters()]
    ones = torch.linspace(0, 1, wanted.numel(), dtype=torch.float64).view_as(wanted)
    for one, other in zip(
        torch.autograd.grad(pair(x), inputs, ones),
        torch.autograd.grad(wanted, inputs, ones),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_flows_are_float32_at_least(dtype):
    x = noise(1, 8, 4, 4, 4).to(dtype)
    wanted = torch.promote_types(dtype, torch.float32)
    assert FlowConv(8).to(dtype)(x).dtype == wanted
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FlowPair(8, 4).to(dtype)(x).dtype == wanted


def assert_same_gradients(ours, theirs, one, other):
    """Of both results, and so of what has led to them, to our parameters."""
    for results in (one, other):
        sum(
            (x * torch.linspace(0, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in results
        ).backward()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, theirs.get_parameter(name).grad, msg=name)


def test_residual_block():
    ours, theirs = twins(Residual(6), published.Residual(6))
    x = noise(2, 6, 5, 4, 7)
    one, other = ours(x), theirs(x)
    torch.testing.assert_close(one, other)
    assert_same_gradients(ours, theirs, [one], [other])


def test_msfm_is_the_published_fusion():
    features = [noise(2, 4 << i, 16 >> i, 24 >> i, 8 >> i, seed=i) for i in range(4)]
    fusion = MSFM(4).double()
    maps = [
        fusion.get_submodule(f"c{i + 1}")(x[half])
        for half in (slice(0, 1), slice(1, 2))
        for i, x in enumerate(features)
    ]
    wanted = []
    for i, x in enumerate(features):
        _, theirs = twins(fusion.get_submodule(f"sdi_{i + 1}"), published.SDI(4))
        product = theirs(maps, x.shape[2:])
        wanted.append(fusion.get_submodule(f"u{i + 1}")(product) if i else product)
    for one, other in zip(fusion(features), wanted, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():  # where products take the memory of maps
        for one, other in zip(fusion(features), wanted, strict=True):
            torch.testing.assert_close(one, other)


def test_sdi_gradients():
    ours, theirs = twins(SDI(4), published.SDI(4))
    maps = [noise(2, 4, 8 >> i % 4, 8 >> i % 4, 8 >> i % 4, seed=i) for i in range(8)]
    one, other = ours((8, 8, 8), (0, 4), None, *maps), theirs(maps, (8, 8, 8))
    torch.testing.assert_close(one, other)
    assert_same_gradients(ours, theirs, [one], [other])


def test_msfm_gives_each_level_its_channels():
    features = [noise(2, 8 << i, 16 >> i, 16 >> i, 8 >> i) for i in range(4)]
    fused = MSFM(8).double()(features)
    assert [x.shape for x in fused] == [x[:1].shape for x in features]


def test_idm_applied_twice():
    size = (6, 7, 8)
    theirs = published.IDM(8, size)
    ours, theirs = twins(IDM(8), theirs)
    y, w = noise(2, 8, *size), noise(2, 8, *size, seed=1)
    first, flow1 = theirs(y, w)
    second, flow2 = theirs(y, first)
    found, wanted = ours(y, w), (second, flow2, flow1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert_same_gradients(ours, theirs, found, wanted)


def test_cwam_weights_voxels_then_channels():
    ours, theirs = twins(CWAM(8), published.CWAM(8))
    maps = [noise(2, 8, 5, 6, 7, seed=i) for i in range(3)]
    one, other = ours(torch.cat(maps, 1)), theirs(*maps)
    torch.testing.assert_close(one, other)
    assert_same_gradients(ours, theirs, [one], [other])
    assert CWAM(8, maps=2).double()(torch.cat(maps[:2], 1)).shape == (2, 16, 5, 6, 7)
