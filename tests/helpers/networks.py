"""Weights and inputs for network tests: stored reference runs, or synthetic ones."""

import importlib.util
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from lganet_fast.models import LGANetPlusPlus, PublishedLGANetPlusPlus

SIZE = (48, 48, 48)


def golden_folder():
    """The folder of the stored runs of the published network; skips the test without it."""
    folder = os.environ.get("LGANET_GOLDEN")
    if not folder:
        pytest.skip("LGANET_GOLDEN names no folder of reference outputs")
    return Path(folder)


@cache
def golden_rules():
    """The module in the folder of the stored runs that makes their weights and images."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden_folder() / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def golden_state():
    """The parameters of the stored runs, with published names; not to be written to."""
    shapes = {n: tuple(p.shape) for n, p in meta_network().named_parameters()}
    return {name: torch.from_numpy(x) for name, x in golden_rules().fill(shapes).items()}


def golden_run(size, seed):
    """Moving and fixed image, (1, 1, H, W, D) float64, and the stored arrays."""
    name = "x".join(map(str, size))
    stored = dict(np.load(golden_folder() / f"official_{name}.npz"))
    images = golden_rules().image_pair(size, seed)
    return *(torch.from_numpy(x).double()[None, None] for x in images), stored


@cache
def meta_network():
    """A published network on the meta device."""
    with torch.device("meta"):
        return PublishedLGANetPlusPlus(SIZE)


@cache
def made_up_state(seed=0):
    """A complete published state, not to be written to; its values make every part matter."""
    torch.manual_seed(seed)
    network = PublishedLGANetPlusPlus(SIZE)
    for name, p in network.named_parameters():
        with torch.no_grad():
            if name.endswith("gamma"):
                p.fill_(0.5)
            elif name.startswith("sdi_") and name.endswith("bias"):
                p.add_(1)
            elif p.dim() == 5 and "flow" not in name:
                p.mul_(1.5)
    return network.state_dict()


def lean_network(state, **options):
    """A lean network in evaluation mode with a published state."""
    network = LGANetPlusPlus(SIZE, **options).eval()
    network.load_state_dict(state)
    return network


def published_network(state, size=SIZE):
    """A published network in evaluation mode."""
    network = PublishedLGANetPlusPlus(size).eval()
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(state[name])
    return network


def blobs(size=SIZE, seed=0, batch=1, dtype=torch.float32):
    """Moving and fixed, (B, 1, H, W, D) in [0, 1], smooth."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, batch, 1, *(n // 6 for n in size), generator=generator, dtype=dtype)
    pair = [torch.nn.functional.interpolate(x, size=size, mode="trilinear") for x in coarse]
    return tuple(pair)


def loss_parts(flow, moving, fixed):
    """The two terms of the training loss (paper 2.6)."""
    from lganet_fast.ops import gradient_loss, local_ncc, warp

    return 1 - local_ncc(fixed, warp(moving, flow)), gradient_loss(flow)
