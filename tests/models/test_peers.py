"""The networks that the paper compares with, against outputs of the published ones in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from networks import golden_folder, golden_rules

from lganet_fast.models import create
from lganet_fast.models.checkpoint import load
from lganet_fast.reproduction.targets import NETWORKS

# LGANet has tests of its own: its volumes take minutes in float64.
PEERS = [name for name in NETWORKS if name not in ("lganetpp", "lganet")]
NOISE = 1e-11  # gradients that are nothing: of biases before a norm


@pytest.mark.parametrize("name", PEERS)
def test_flow_and_gradients_of_published_weights(name, tmp_path):
    stored = np.load(golden_folder() / "peers" / f"{name}.npz")
    meta, norms = (json.loads(bytes(stored[key])) for key in ("meta", "grad_norms"))
    text = min(meta["sizes_seeds"], key=lambda size: np.prod([int(n) for n in size.split("x")]))
    size = tuple(map(int, text.split("x")))
    network = create(name, size).double().eval()
    rules = golden_rules()
    rules.GAINS = {**rules.GAINS, **meta["gains_added"]}
    filled = rules.fill(network.published_parameters())
    state = {key: torch.from_numpy(value).float() for key, value in filled.items()}
    network.load_state_dict(state, strict=True)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    found = load(tmp_path / "a.pth").model
    assert found.name == name
    assert all(
        torch.equal(found.state_dict()[k].double(), v) for k, v in network.state_dict().items()
    )

    pair = rules.image_pair(size, meta["sizes_seeds"][text])
    images = [torch.from_numpy(x).double()[None, None] for x in pair]
    # GroupMorph's own flow is for its own warp, not for `ops.warp`.
    raw = getattr(network, "flow_and_steps", None)
    flow = network(*images) if raw is None else raw(*network.padded(*images))[0]
    about = meta["arrays"][text]["flow"]
    steps = tuple(slice(None, None, n) for n in about["stride"])
    own = flow.detach().numpy()[(slice(None), *steps)]
    assert np.abs(own - stored[f"{text}/flow"]).max() < 1e-8
    assert flow.sum().item() == pytest.approx(about["sum"], rel=1e-8, abs=1e-6)

    flow.square().mean().backward()
    for key, x in network.named_parameters():
        wanted = norms[text][network.published_name(key)]
        if wanted is None:
            assert x.grad is None, key
        else:
            assert x.grad.norm().item() == pytest.approx(wanted, rel=1e-6, abs=NOISE), key
