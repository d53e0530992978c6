"""Smoothing and resizing along axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d

from lganet_fast.registration.separable import (
    along_axes,
    gaussian_map,
    linear_map,
    positions,
    shrink,
    stretch_flow,
)


def test_along_axes_is_one_product_per_axis():
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    maps = [torch.randn(n + 2, n, dtype=torch.float64) for n in (4, 5, 6)]
    expected = torch.einsum("bcijk,xi,yj,zk->bcxyz", x, *maps)
    assert torch.allclose(along_axes(x, maps), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_gaussian_map_matches_scipy_inside(sigma):
    line = np.random.default_rng(0).standard_normal(60)
    expected = gaussian_filter1d(line, sigma, truncate=4.5)
    found = gaussian_map(60, 60, sigma).numpy() @ line
    assert np.abs(found - expected)[15:-15].max() < 2e-4


def test_gaussian_map_keeps_constants_to_the_border():
    assert torch.allclose(gaussian_map(20, 9, 1.3).sum(1), torch.ones(9, dtype=torch.float64))


def test_linear_map_matches_interpolate():
    x = torch.randn(1, 3, 5, 6, 7, dtype=torch.float64)
    sizes = zip((5, 6, 7), (9, 6, 15), strict=True)
    maps = [linear_map(o, positions(o, n)) for o, n in sizes]
    expected = F.interpolate(x, size=(9, 6, 15), mode="trilinear", align_corners=True)
    assert torch.allclose(along_axes(x, maps), expected, rtol=0, atol=1e-12)


def test_shrink_keeps_what_is_smooth_and_its_place():
    n = 65
    line = torch.linspace(0, 1, n, dtype=torch.float64)
    ramp = (line[:, None, None] + 2 * line[:, None] + 3 * line).reshape(1, 1, n, n, n)
    small = shrink(ramp, (17, 17, 17))
    expected = ramp[:, :, ::4, ::4, ::4]
    assert (small - expected)[..., 3:-3, 3:-3, 3:-3].abs().max() < 1e-9


def test_shrink_removes_what_the_coarse_grid_cannot_hold():
    checks = torch.arange(65).reshape(-1, 1, 1) % 2 * torch.ones(65, 65, 65)
    small = shrink(checks[None, None].double(), (17, 17, 17))
    assert (small[..., 3:-3, :, :] - 0.5).abs().max() < 1e-6


def test_stretch_flow_counts_in_the_new_voxels():
    flow = torch.ones(1, 3, 5, 6, 7, dtype=torch.float64)
    big = stretch_flow(flow, (9, 11, 25))
    assert big.shape == (1, 3, 9, 11, 25)
    for axis, ratio in enumerate((8 / 4, 10 / 5, 24 / 6)):
        assert torch.allclose(big[:, axis], torch.full_like(big[:, axis], ratio))
    assert stretch_flow(flow, (5, 6, 7)) is flow
