"""Distances to the nearest point: both ways of finding them, and a GPU's HD95."""

import numpy as np
import pytest
import torch

from lganet_fast.metrics import hd95, nearest


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("sizes", [(1, 1), (40, 1), (37, 91)])
def test_all_pairs_give_the_trees_distances(rng, monkeypatch, sizes):
    monkeypatch.setattr(nearest, "PAIRS", 200)
    a, b = (rng.normal(size=(n, 3)) for n in sizes)
    found = nearest.by_all_pairs(a, b, torch.device("cpu"))
    for one, other in zip(found, nearest.by_tree(a, b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("profile", ["medpy", "paper", "monai", "learn2reg"])
def test_hd95_on_a_gpu_is_that_of_the_cpu(rng, profile):
    a, b = rng.integers(0, 4, (2, 24, 20, 22))
    found = hd95(a, b, (1.0, 2.0, 1.5), profile=profile, device=torch.device("cuda"))
    assert found == pytest.approx(hd95(a, b, (1.0, 2.0, 1.5), profile=profile))
