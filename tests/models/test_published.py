"""The published network, op for op, against its stored outputs."""

import json

import numpy as np
import torch
from networks import SIZE, golden_folder, golden_run, golden_state, meta_network, published_network


def test_holds_every_parameter():
    assert sum(p.numel() for p in meta_network().parameters()) == 25_535_632


def test_names_are_those_of_the_checkpoints():
    stored = json.loads((golden_folder() / "official_48x48x48_grad_norms.json").read_text())
    assert [name for name, _ in meta_network().named_parameters()] == list(stored)
    grids = [name for name, _ in meta_network().named_buffers()]
    assert len(grids) == 19
    assert all(name.endswith(".grid") for name in grids)


def test_flow_is_the_stored_one():
    moving, fixed, stored = golden_run(SIZE, 0)
    with torch.no_grad():
        flow = published_network(golden_state()).double()(moving, fixed)
    error = np.abs(flow.numpy() - stored["flow"]).max()
    assert error < 1e-7 * np.abs(stored["flow"]).max()
