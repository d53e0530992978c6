"""The network: its stored outputs, the published computation, sizes, types, options."""

import json

import numpy as np
import pytest
import torch
from networks import (
    SIZE,
    blobs,
    golden_folder,
    golden_run,
    golden_state,
    lean_network,
    loss_parts,
    made_up_state,
    meta_network,
    published_network,
)

import lganet_fast
from lganet_fast import InputError
from lganet_fast.models import LGANetPlusPlus
from lganet_fast.models.published_format import published_name
from lganet_fast.models.sizes import fits, padded_size
from lganet_fast.nn.layers import Block
from lganet_fast.ops import integrate, warp


@pytest.fixture(scope="module")
def state():
    return made_up_state()


@pytest.fixture(scope="module")
def lean(state):
    return lean_network(state)


@pytest.fixture(scope="module")
def golden():
    """A float64 run on the stored pair: what the blocks gave, the flow, the losses, gradients."""
    moving, fixed, stored = golden_run(SIZE, 0)
    network = lean_network(golden_state()).double()
    found = {}

    def keep(name):
        def hook(module, inputs, output):
            found[name] = output

        return hook

    names = ["encoder", "deblock4.pa", "deblock4.swin"]
    names += [f"msfm.sdi_{i}" for i in (1, 2, 3, 4)] + [f"deblock{i}" for i in (1, 2, 3, 4)]
    names += ["deblock3.idm", "deblock2.idm", *(f"deblock{i}.nff" for i in (1, 2, 3))]
    for name in names:
        network.get_submodule(name).register_forward_hook(keep(name))
    flow = network(moving, fixed)
    losses = loss_parts(flow, moving, fixed)
    sum(losses).backward()
    found["flow"], found["warped"] = flow, warp(moving, flow)
    for i in (1, 2, 3, 4):
        found[f"moving_feature_{i}"] = found["encoder"][i - 1][1:]
        found[f"sdi_{i}"] = found.pop(f"msfm.sdi_{i}")
        found[f"integrate{i}"] = integrate(found[f"deblock{i}"])
    for i in (3, 2):
        features, inner, _ = found.pop(f"deblock{i}.idm")
        found[f"deblock{i}.idm.features"], found[f"deblock{i}.idm.flow"] = features, inner
    del found["encoder"]
    norms = {published_name(n): p.grad.norm().item() for n, p in network.named_parameters()}
    return stored, found, losses, norms


def test_every_block_is_the_stored_one(golden):
    stored, found, _, _ = golden
    assert found.keys() == stored.keys() - {"moving", "fixed", "ncc_loss", "gradient_loss"}
    for name, value in found.items():
        error = np.abs(value.detach().numpy() - stored[name]).max()
        assert error < 1e-7 * np.abs(stored[name]).max(), name


def test_losses_are_the_stored_ones(golden):
    stored, _, (ncc, gradient), _ = golden
    assert abs(ncc.item() - stored["ncc_loss"]) < 1e-12
    assert abs(gradient.item() - stored["gradient_loss"]) < 1e-12


def test_gradients_are_the_stored_ones(golden):
    wanted = json.loads((golden_folder() / "official_48x48x48_grad_norms.json").read_text())
    norms = golden[3]
    assert norms.keys() == {name for name, norm in wanted.items() if norm is not None}
    noise = [name for name in norms if wanted[name] < 1e-12]
    assert len(noise) == 19
    for name, norm in norms.items():
        if name in noise:  # zero in exact arithmetic
            assert norm < 1e-12, name
        else:
            assert abs(norm - wanted[name]) < 1e-6 * wanted[name], name


@pytest.mark.parametrize(("size", "seed"), [(SIZE, 0), ((48, 64, 80), 1), ((96, 48, 64), 2)])
def test_float32_flow_is_within_a_thousandth_of_a_voxel(size, seed):
    moving, fixed, stored = golden_run(size, seed)
    with torch.no_grad():
        flow = lean_network(golden_state())(moving.float(), fixed.float())
    assert np.abs(flow.numpy() - stored["flow"]).max() < 1e-3


def test_computes_what_the_published_network_computes(state):
    with torch.no_grad():
        flows = [f(state)(*blobs()) for f in (lean_network, published_network)]
    assert flows[1].abs().max() > 0.5  # voxels: enough to tell a wrong flow
    torch.testing.assert_close(*flows, rtol=0, atol=1e-3)


def test_parameter_counts():
    assert sum(p.numel() for p in LGANetPlusPlus(SIZE).parameters()) == 6_602_260
    dead = sum(p.numel() for p in meta_network().parameters()) - 6_602_260
    assert dead == 18_933_372


def test_a_published_state_dict_loads_strictly(state, lean):
    network = lganet_fast.LGANetPlusPlus(SIZE)
    network.load_state_dict(state)
    for name, p in network.named_parameters():
        assert torch.equal(p, lean.get_parameter(name)), name
    network.load_state_dict(lean.state_dict())
    wrapped = torch.nn.ModuleDict({"net": network})
    wrapped.load_state_dict({f"net.{name}": x for name, x in state.items()})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*stranger"):
        network.load_state_dict({**state, "stranger": torch.zeros(1)})


@pytest.mark.parametrize("token_order", ["published", "spatial"])
def test_pairs_of_a_batch_do_not_mix(state, token_order):
    network = lean_network(state, token_order=token_order)
    moving, fixed = blobs(batch=2)
    with torch.no_grad():
        together = network(moving, fixed)
        alone = torch.cat([network(moving[i : i + 1], fixed[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_token_orders_differ(state, lean):
    pair = blobs()
    with torch.no_grad():
        difference = lean(*pair) - lean_network(state, token_order="spatial")(*pair)
    assert difference.abs().max() > 1e-4


def test_other_sizes_are_padded_and_cropped(lean):
    moving, fixed = blobs((44, 48, 41))
    with torch.no_grad():
        flow = lean(moving, fixed)
        ends = [0, 7, 0, 0, 0, 4]
        whole = lean(*(torch.nn.functional.pad(x, ends) for x in (moving, fixed)))
    assert flow.shape == (1, 3, 44, 48, 41)
    torch.testing.assert_close(flow, whole[:, :, :44, :, :41])


def test_sizes_that_fit():
    assert padded_size((144, 176, 144), "published") == (144, 176, 144)
    assert padded_size((96, 112, 80), "published") == (96, 112, 80)
    assert padded_size((96, 192, 192), "published") == (96, 192, 192)
    assert padded_size((160, 192, 224), "spatial") == (160, 192, 224)
    assert padded_size((1, 49, 1000), "spatial") == (48, 56, 1000)
    # 20 x 24 x 28 voxels in 3 x 4 x 4 windows; 13 x 13 x 13 in 8 do not split evenly
    assert fits((160, 192, 224), "published")
    assert not fits((104, 104, 104), "published")
    found = padded_size((104, 104, 104), "published")
    assert fits(found, "published")
    assert all(n >= 104 and n % 8 == 0 for n in found)


def test_arguments_that_do_not_fit():
    with pytest.raises(InputError, match="token_order must be one of"):
        LGANetPlusPlus(SIZE, token_order="raster")
    with pytest.raises(InputError, match="filters must be a multiple of 8, got 6"):
        LGANetPlusPlus(SIZE, filters=6)
    with pytest.raises(InputError, match="three sides of at least one voxel, got"):
        LGANetPlusPlus((48, 0, 48))
    with pytest.raises(InputError, match='must be None or "blocks"'):
        LGANetPlusPlus(SIZE, checkpoint="all")
    network = LGANetPlusPlus(SIZE)
    with pytest.raises(ValueError, match=r"moving must have shape \(B, 1, H, W, D\), got"):
        network(torch.zeros(48, 48, 48), torch.zeros(48, 48, 48))
    with pytest.raises(ValueError, match=r"fixed must have shape"):
        network(torch.zeros(1, 1, 48, 48, 48), torch.zeros(1, 1, 48, 48, 56))
    with pytest.raises(TypeError, match="moving must be float"):
        network(torch.zeros(1, 1, 48, 48, 48, dtype=torch.int16), torch.zeros(1, 1, 48, 48, 48))


MODELS = {
    1: {"lgam": False, "fifm": False, "msfm": False},
    2: {"lgam": True, "fifm": False, "msfm": False},
    3: {"lgam": True, "fifm": True, "msfm": False},
}


@pytest.mark.parametrize("model", MODELS)
def test_ablations_use_every_parameter(model):
    torch.manual_seed(0)
    network = LGANetPlusPlus(SIZE, **MODELS[model])
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("gamma"):
                p.fill_(0.5)
    flow = network(*blobs())
    assert flow.shape == (1, 3, *SIZE)
    flow.square().sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
    counts = [
        sum(p.numel() for p in LGANetPlusPlus(SIZE, **o).parameters()) for o in MODELS.values()
    ]
    assert counts == sorted(counts)
    assert counts[-1] < 6_602_260


def test_recomputed_blocks_give_the_same_gradients(state):
    gradients = []
    for checkpoint in (None, "blocks"):
        network = lean_network(state, checkpoint=checkpoint).train()
        torch.manual_seed(1)  # the dropout of the recomputation must repeat, too
        sum(loss_parts(network(*blobs()), *blobs())).backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_alone(state):
    network = lean_network(state)
    with torch.no_grad():
        assert torch.equal(network(*blobs()), network(*blobs()))
        network.train()
        assert not torch.equal(network(*blobs()), network(*blobs()))


def test_half_precision_keeps_flows_wide(state, lean):
    moving, fixed = blobs()
    with torch.no_grad():
        wanted = lean(moving, fixed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = lean(moving, fixed)
        half = lean_network(state).bfloat16()(moving.bfloat16(), fixed.bfloat16())
    for flow in (mixed, half):
        assert flow.dtype == torch.float32
        assert (flow - wanted).abs().mean() < 0.05 * wanted.abs().mean() + 0.01


def test_compiles_as_one_graph(state, lean):
    torch._dynamo.reset()
    compiled = torch.compile(lean, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*blobs()), lean(*blobs()), rtol=0, atol=1e-4)


def test_blocks_that_can_be_recomputed_cover_the_network():
    network = LGANetPlusPlus(SIZE, checkpoint="blocks")
    assert all(m.recompute for m in network.modules() if isinstance(m, Block))


def test_no_map_of_features_is_copied(lean):
    """Only y, on purpose (its memory was half of another map's), and the flows, of 3 channels."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        lean(*blobs())
    shapes = [e.input_shapes[0] for e in seen.events() if e.name == "aten::copy_"]
    features = [x for x in shapes if len(x) == 5 and x[1] > 3 and x[2:] != [3, 3, 3]]
    assert sorted(features) == [[1, 8, 48, 48, 48], [1, 16, 24, 24, 24], [1, 32, 12, 12, 12]]
