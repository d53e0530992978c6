"""LGANet against the published one: its coarse levels in float64, all of it in float32."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from networks import golden_folder, golden_rules

from lganet_fast.models import create
from lganet_fast.models.checkpoint import load

SIZE, NAME = (96, 112, 96), "96x112x96"
DOUBLE = (  # beside the levels' outputs
    "encoder.conv4",
    "deblock5.convs",
    "deblock5.pa",
    "deblock5.resnets",
    "deblock5.swin",
    "deblock4.de",
    "deblock4.nff",
)


class EnoughError(Exception):
    """Stops a forward before its finer levels, which take minutes in float64."""


@pytest.fixture(scope="module")
def stored():
    """The arrays, what is known of each, and a network with the weights of their run."""
    arrays = np.load(golden_folder() / "peers" / "lganet.npz")
    meta = json.loads(bytes(arrays["meta"]))
    network = create("lganet", SIZE).eval()
    network.load_state_dict(published_state(network), strict=True)
    pair = golden_rules().image_pair(SIZE, meta["sizes_seeds"][NAME])
    images = [torch.from_numpy(x)[None, None] for x in pair]
    return arrays, meta["arrays"][NAME], network, images


def published_state(network):
    filled = golden_rules().fill(network.published_parameters())
    return {name: torch.from_numpy(x).float() for name, x in filled.items()}


def difference(stored, key, x):
    """The largest from what is stored of an array, and that of the means of the whole."""
    arrays, about = stored[:2]
    steps = tuple(slice(None, None, n) for n in about[key]["stride"])
    part = x.double().numpy()[(slice(None), *steps)]
    mean = abs(x.double().sum().item() - about[key]["sum"]) / x.numel()
    return np.abs(part - arrays[f"{NAME}/{key}"]).max(), mean


@torch.no_grad()
def test_coarse_levels_in_float64(stored):
    network, images = stored[2].double(), [x.double() for x in stored[3]]
    found = {}

    def keep(name):
        def hook(_, inputs, output):
            calls = sum(key.startswith(f"{name}#") for key in found)
            parts = reversed(output) if isinstance(output, tuple) else [output]
            for k, part in enumerate(parts):
                end = f".{k}" if isinstance(output, tuple) else ""
                found[f"{name}#{calls // 2 if end else calls}{end}"] = part.clone()

        return hook

    def stop(*_):
        raise EnoughError

    hooks = [network.deblock2.register_forward_pre_hook(stop)]
    for name in (*DOUBLE, "deblock5", "deblock4", "deblock3"):
        hooks.append(network.get_submodule(name).register_forward_hook(keep(name)))
    with pytest.raises(EnoughError):
        network(*images)
    for hook in hooks:
        hook.remove()
    # both images go through the encoder as one batch
    both = found.pop("encoder.conv4#0").split(1)
    found |= {f"encoder.conv4#{k}": x for k, x in enumerate(both)}
    assert len(found) == 14
    for key, x in found.items():
        assert max(difference(stored, key, x)) < 1e-8, key


@torch.no_grad()
def test_flow_in_float32(stored):
    network = stored[2].float()
    far, mean = difference(stored, "flow", network(*stored[3]))
    assert far < 2e-3
    assert mean < 1e-4


def test_published_weights_load_from_a_file(tmp_path):
    network = create("lganet", (96, 96, 96), filters=4)
    state = published_state(network)
    network.load_state_dict(state, strict=True)
    wrapped = {"net": {f"module.{name}": x for name, x in state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "a.pth")
    found = load(tmp_path / "a.pth").model
    assert (found.name, found.config["filters"]) == ("lganet", 4)
    own = network.state_dict()
    assert all(torch.equal(x, own[name]) for name, x in found.state_dict().items())
