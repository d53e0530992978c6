"""Pairs with one fixed image: what the network makes of it is computed once, and never stale."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from fake_graphs import fake_cuda  # noqa: F401
from networks import SIZE, blobs, lean_network, made_up_state

from lganet_fast.models import LGANetPlusPlus
from lganet_fast.models.checkpoint import PUBLISHED_CARD, Card, Checkpoint
from lganet_fast.models.inference import network_flow
from lganet_fast.models.registry import create
from lganet_fast.nn import decoder, fifm, layers, msfm
from lganet_fast.nn.encoder import Encoder
from lganet_fast.ops import use_backend


@pytest.fixture
def network():
    return lean_network(made_up_state())


@pytest.fixture
def encoded(monkeypatch):
    """How many images each call of an encoder had."""
    calls, run = [], Encoder.forward

    def noted(self, x):
        calls.append(len(x))
        return run(self, x)

    monkeypatch.setattr(Encoder, "forward", noted)
    return calls


def images(count, size=SIZE):
    """Moving images, and a fixed one."""
    found = [blobs(size, seed=seed)[0] for seed in range(count + 1)]
    return found[:-1], found[-1]


def checkpoint(network, order="x"):
    return Checkpoint(network, Card(axis_order=order))


@pytest.mark.parametrize("card", [Card(), PUBLISHED_CARD], ids=["as it is", "backwards"])
def test_a_cohort_encodes_its_fixed_image_once(network, encoded, card):
    moving, fixed = images(3, (40, 48, 44))
    one = Checkpoint(network, card)
    wanted = [network_flow(one, x, fixed) for x in moving]
    assert encoded == [2, 2, 2]
    encoded.clear()
    for x, flow in zip(moving, wanted, strict=True):
        assert torch.equal(network_flow(one, x, fixed.clone(), keep=True), flow)
    assert encoded == [1, 1, 1, 1]


ALL = os.environ.get("LGANET_FAST_ALL") == "1"  # in float64, too, which takes ten times as long


@pytest.mark.parametrize(
    ("options", "batch", "dtype"),
    [({"msfm": False}, 2, torch.float32), ({"fifm": False}, 1, torch.float32)]
    + [({"fifm": False}, 1, torch.float64)] * ALL,
    ids=["no MSFM, two pairs", "no FIFM", "no FIFM, float64"][: 2 + ALL],
)
def test_without_a_module_in_batches_and_in_float64(options, batch, dtype):
    torch.manual_seed(0)
    network = LGANetPlusPlus(SIZE, **options).eval().to(dtype)
    moving, fixed = blobs(batch=batch, dtype=dtype)
    with torch.no_grad():
        prepared = network.prepare(fixed)
        before = [x.clone() for x in prepared]
        assert torch.equal(network.onto(moving, prepared), network(moving, fixed))
    assert all(map(torch.equal, prepared, before))


def test_with_several_threads(network):
    moving, fixed = blobs()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.no_grad():
            assert torch.equal(network.onto(moving, network.prepare(fixed)), network(moving, fixed))
    finally:
        torch.set_num_threads(before)


def test_where_what_follows_a_convolution_is_left_to_it(network, monkeypatch):
    moving, fixed = blobs()
    for module in (layers, fifm, decoder, msfm):
        monkeypatch.setattr(module, "fuses", lambda x: not torch.is_grad_enabled())
    with torch.no_grad():
        wanted = network(moving, fixed)
        found = network.onto(moving, network.prepare(fixed))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "change", ["weight", "loaded", "exchanged", "in place", "other", "shape", "type", "backend"]
)
def test_what_changes_the_features_makes_them_anew(network, encoded, change):
    (moving,), fixed = images(1)
    one = checkpoint(network)
    network_flow(one, moving, fixed, keep=True)
    backend = "auto"
    if change == "weight":
        with torch.no_grad():
            network.encoder.conv0[0].weight.mul_(1.01)
    elif change == "loaded":
        network.load_state_dict(LGANetPlusPlus(SIZE).state_dict())
    elif change == "exchanged":
        network.encoder = LGANetPlusPlus(SIZE).encoder.eval()
    elif change == "in place":
        fixed[0, 0, 20, 20, 20] += 0.5
    elif change == "other":
        fixed = fixed + 0.01
    elif change == "shape":
        moving, fixed = moving[..., :40], fixed[..., :40]
    elif change == "type":
        moving, fixed = moving.double(), fixed.double()
    else:
        backend = "reference"
    with use_backend(backend):
        wanted = network_flow(one, moving, fixed)
        encoded.clear()
        found = [network_flow(one, moving, fixed, keep=True) for _ in range(2)]
    assert encoded == [1, 1, 1]
    assert torch.equal(*found)
    exact = backend == "auto"  # PyTorch's own may sum one image otherwise than two
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=0 if exact else 1e-3)


@pytest.mark.parametrize("way", ["hook", "training part"])
def test_nothing_is_kept_where_something_else_has_a_say(network, encoded, way):
    (moving,), fixed = images(1)
    one = checkpoint(network)
    network_flow(one, moving, fixed, keep=True)
    if way == "hook":
        network.encoder.register_forward_hook(lambda *call: None)
    else:
        network.encoder.train()
    encoded.clear()
    for _ in range(2):
        network_flow(one, moving, fixed, keep=True)
    assert encoded == [1, 1, 1, 1]
    assert not network.atlas.prepared


def test_a_copy_has_nothing_and_is_its_own(network, encoded):
    (moving,), fixed = images(1)
    network_flow(checkpoint(network), moving, fixed, keep=True)
    other = copy.deepcopy(network)
    assert not other.atlas.prepared
    with torch.no_grad():
        other.encoder.conv0[0].weight.mul_(2)
    assert not torch.equal(
        network_flow(checkpoint(other), moving, fixed, keep=True),
        network_flow(checkpoint(network), moving, fixed, keep=True),
    )


def test_as_a_graph(network, cuda, encoded):
    moving, fixed = images(4)
    with torch.no_grad():
        wanted = [network.run(x, fixed) for x in moving]
    encoded.clear()
    one = checkpoint(network)
    for x, flow in zip(moving, wanted, strict=True):
        assert torch.equal(network_flow(one, x, fixed, keep=True), flow)
    assert (cuda.captures, cuda.replays) == (1, 3)
    other = fixed + 0.01  # the graph takes what was made of any fixed image
    with torch.no_grad():
        wanted = network.run(moving[0], other)
    assert torch.equal(network_flow(one, moving[0], other, keep=True), wanted)
    assert (cuda.captures, cuda.replays) == (1, 4)


def test_networks_that_make_nothing_of_one_image_alone():
    torch.manual_seed(0)
    network = create("voxelmorph", (32, 32, 32)).eval()
    moving, fixed = blobs((30, 32, 28))
    found = network_flow(checkpoint(network), moving, fixed, keep=True)
    assert torch.equal(found, network_flow(checkpoint(network), moving, fixed))


def test_refuses_other_images(network):
    moving, fixed = blobs()
    prepared = network.prepare(fixed)
    larger = torch.zeros(1, 1, 48, 48, 50)
    for wrong in (larger, torch.cat([moving, moving]), moving[0], moving.to("meta")):
        with torch.no_grad(), pytest.raises(ValueError, match="moving must"):
            network.onto(wrong, prepared)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_gpu(network):
    """Computed, captured and replayed alike, and as close to the forward as its own rounding."""
    (moving,), fixed = images(1)
    one, moving, fixed = checkpoint(network.cuda()), moving.cuda(), fixed.cuda()
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = [network_flow(one, moving, fixed, keep=True) for _ in range(4)]
        wanted = network_flow(one, moving, fixed)
    assert all(torch.equal(x, found[0]) for x in found)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-3)
