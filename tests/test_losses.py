"""Losses against their definitions."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import shift

from lganet_fast.losses import SIMILARITIES, lncc_loss, mind_ssc, mse_loss


def volume(*size, seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, *size, generator=generator, dtype=torch.float64)


def test_mse_loss_and_its_weight():
    a, b = volume(4, 5, 6), volume(4, 5, 6, seed=1)
    weight = (volume(4, 5, 6, seed=2) > 0.5).double()
    kept = weight.bool()
    assert mse_loss(a, b).item() == pytest.approx(((a - b) ** 2).mean().item())
    expected = ((a - b)[kept] ** 2).mean().item()
    assert mse_loss(a, b, weight).item() == pytest.approx(expected)


def test_lncc_loss_ignores_local_brightness_and_contrast():
    a = volume(12, 12, 12)
    inner = torch.zeros_like(a)
    inner[..., 3:-3, 3:-3, 3:-3] = 1  # windows that reach outside see a step that scales with b
    assert lncc_loss(a, 0.3 * a + 2, inner).item() == pytest.approx(0, abs=1e-5)
    assert lncc_loss(a, volume(12, 12, 12, seed=1), inner).item() > 0.9


def test_mind_ssc_matches_its_definition():
    image = volume(6, 7, 8)
    data = image[0, 0].numpy()
    faces = [s * np.eye(3, dtype=int)[a] for a in range(3) for s in (-1, 1)]
    moved = [shift(data, -f, order=0, mode="nearest") for f in faces]
    distances = []
    for i, j in itertools.combinations(range(6), 2):
        if (faces[i] + faces[j]).any():
            squared = np.pad((moved[i] - moved[j]) ** 2, 1)
            windows = np.lib.stride_tricks.sliding_window_view(squared, (3, 3, 3))
            distances.append(windows.sum((-1, -2, -3)))
    stack = np.stack(distances) - np.min(distances, 0)
    variance = stack.mean(0)
    mean = variance.mean()
    expected = np.exp(-stack / variance.clip(1e-3 * mean, 1e3 * mean))
    found = mind_ssc(image)[0].numpy()
    assert found.shape == expected.shape
    order = [np.abs(found - e).max((1, 2, 3)).argmin() for e in expected]
    assert sorted(order) == list(range(12))
    assert np.abs(found[order] - expected).max() < 1e-10


def test_mind_ssc_of_an_inverted_image_is_the_same():
    image = volume(8, 8, 8)
    assert torch.allclose(mind_ssc(image), mind_ssc(1 - image), rtol=0, atol=1e-10)
    assert torch.isfinite(mind_ssc(torch.zeros(1, 1, 6, 6, 6))).all()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_losses_are_least_where_images_agree_and_have_gradients(name):
    measure = SIMILARITIES[name]
    fixed = measure.features(volume(10, 10, 10))
    moved = measure.features(volume(10, 10, 10, seed=3)).requires_grad_(True)
    loss = measure.loss(fixed, moved, None)
    assert loss > measure.loss(fixed, fixed, None)
    loss.backward()
    assert torch.isfinite(moved.grad).all()
    assert moved.grad.abs().max() > 0
