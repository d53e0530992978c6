"""Losses against their definitions."""

import itertools

import numpy as np
import pytest
import torch
from ops_checks import check_gradient_strictly, kink_free, uniform
from scipy.ndimage import shift

from lganet_fast.losses import dissimilarity
from lganet_fast.losses.dissimilarity import (
    SIMILARITIES,
    dice_loss,
    folding_loss,
    lncc_loss,
    mi_loss,
    mind_ssc,
    mse_loss,
    unshaded,
    with_foreground,
)
from lganet_fast.metrics.scores import dice
from lganet_fast.ops import gradient_loss, warp
from lganet_fast.transforms.jacobian import jacobian_determinant
from lganet_fast.volumes.grid import Grid


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


def test_mi_loss_has_no_background_in_its_intensities():
    """Whatever share of a voxel is background, and of the foreground whatever function."""
    image, share = 0.1 + 0.8 * volume(8, 9, 10), 0.2 + 0.8 * volume(8, 9, 10, seed=1)
    whole = torch.cat([image, torch.ones_like(image)], 1)
    inverted = torch.cat([1 - image, torch.ones_like(image)], 1)
    assert mi_loss(whole, inverted).item() == pytest.approx(mi_loss(whole, whole).item())
    shared = [x * share for x in (whole, inverted)]
    counts = 1 / share.square()  # so that each counts as before
    assert mi_loss(*shared, counts).item() == pytest.approx(
        1 - (1 - mi_loss(whole, whole).item()) * counts.numel() / counts.sum().item()
    )
    seen = torch.ones_like(image)
    seen[..., 5:] = 0
    part = [x[..., :5] for x in (whole, inverted)]
    assert mi_loss(whole, inverted, seen).item() == pytest.approx(mi_loss(*part).item())


def test_shading_is_found_whatever_the_contrast():
    size = (40, 44, 36)
    fixed = volume(*size).round(decimals=1) * (volume(*size, seed=1) > 0.2)
    line = torch.linspace(0.7, 1.3, size[1], dtype=torch.float64).reshape(1, 1, 1, -1, 1)
    moving = torch.where(fixed > 0, 1.2 - fixed.square(), 0)
    left = unshaded(fixed, moving * line) / moving
    found = left[fixed > 0]
    assert found.std() / found.mean() < 0.03 < (line / line.mean()).std()
    assert (unshaded(fixed, moving * line)[fixed == 0] == 0).all()
    first, second = with_foreground(fixed, moving)
    assert torch.equal(first[:, :1], fixed)
    assert torch.equal(second[:, 1:] > 0, fixed > 0)
    assert not unshaded(0 * fixed, moving).isnan().any()


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
    pair = measure.channels(volume(10, 10, 10), volume(10, 10, 10, seed=3))
    fixed, moved = map(measure.features, pair)
    moved.requires_grad_(True)
    loss = measure.loss(fixed, moved, None)
    assert loss > measure.loss(fixed, fixed, None)
    loss.backward()
    assert torch.isfinite(moved.grad).all()
    assert moved.grad.abs().max() > 0


def test_plain_lncc_is_the_mean_correlation_with_its_sign():
    a, b = uniform(1, 1, 7, 6, 5, low=0), uniform(1, 1, 7, 6, 5, seed=2, low=0)
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.pad(x[0, 0], 1), (3, 3, 3)).reshape(-1, 27)
        for x in (a, b)
    ]
    i, j = (w - w.mean(1, keepdims=True) for w in windows)
    cross, product = (i * j).sum(1), (i * i).sum(1) * (j * j).sum(1)
    expected = (cross / np.sqrt(product + 1e-5)).mean()
    assert lncc_loss(a, b, None, 3, squared=False).item() == pytest.approx(1 - expected, abs=1e-12)
    assert lncc_loss(a, -a, None, 3, squared=False).item() > 1.99
    flat = torch.zeros(1, 1, 6, 6, 6, requires_grad=True)
    lncc_loss(flat, a[..., :6, :6, :5].float().mean() + flat, None, 3, squared=False).backward()
    assert torch.isfinite(flat.grad).all()


def label_maps(batch=1, size=(5, 6, 4), count=4):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, count, (2, batch, 1, *size), generator=generator, dtype=torch.int32)


def test_dice_loss_of_no_motion_is_the_dice_of_the_maps(monkeypatch):
    monkeypatch.setattr(dissimilarity, "LABELS_AT_ONCE", 2)
    fixed, moving = label_maps(batch=2)
    moving[0][moving[0] == 3] = 7  # 3 in the first fixed map alone, 7 in its moving one alone
    fixed[1][fixed[1] == 2] = 1
    moving[1][moving[1] == 2] = 1  # 2 in neither of the second pair's
    expected = [
        np.mean(list(dice(f.numpy(), m.numpy()).values()))
        for f, m in zip(fixed, moving, strict=True)
    ]
    found = dice_loss(fixed, moving, torch.zeros(2, 3, 5, 6, 4))
    assert found.item() == pytest.approx(1 - np.mean(expected), abs=1e-6)
    nothing = torch.zeros_like(fixed)
    assert dice_loss(nothing, nothing, torch.zeros(2, 3, 5, 6, 4)).item() == 0


def test_folding_loss_counts_only_folds():
    flow = 0.1 * uniform(1, 3, 5, 6, 4)
    assert folding_loss(flow).item() == 0
    flow = 2 * uniform(2, 3, 5, 6, 4)
    det = [
        jacobian_determinant(f.permute(1, 2, 3, 0).numpy(), Grid((5, 6, 4), np.eye(4)), "forward")
        for f in flow
    ]
    assert folding_loss(flow).item() == pytest.approx(np.maximum(0, -np.stack(det)).mean())
    assert folding_loss(flow[..., :1]).isfinite()


FLOW = kink_free(2 * uniform(1, 3, 4, 3, 3))
FIXED, MOVING = uniform(2, 1, 1, 4, 3, 3, low=0)
GRADIENTS = {
    "lncc": lambda x: lncc_loss(FIXED, warp(MOVING, x), None, 3),
    "plain lncc": lambda x: lncc_loss(FIXED, warp(MOVING, x), None, 3, squared=False),
    "mse": lambda x: mse_loss(FIXED, warp(MOVING, x)),
    "mind": lambda x: mse_loss(mind_ssc(FIXED), mind_ssc(warp(MOVING, x))),
    "mi": lambda x: mi_loss(
        *(torch.cat([i, torch.ones_like(i)], 1) for i in (FIXED, warp(MOVING, x)))
    ),
    "dice": lambda x: dice_loss(*label_maps(size=(4, 3, 3)), x),
    "folding": folding_loss,
    "gradient": gradient_loss,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_to_the_flow(name):
    check_gradient_strictly(GRADIENTS[name], FLOW)


def test_losses_of_a_batch_are_means_over_its_pairs():
    fixed, moving = uniform(2, 2, 1, 6, 5, 4, low=0)
    flow, maps = uniform(2, 3, 6, 5, 4), label_maps(2, (6, 5, 4))
    terms = {
        "lncc": lambda f, m, u, *_: lncc_loss(f, warp(m, u), None, 3),
        "plain": lambda f, m, u, *_: lncc_loss(f, warp(m, u), None, 3, squared=False),
        "mind": lambda f, m, u, *_: mse_loss(mind_ssc(f), warp(mind_ssc(m), u)),
        "dice": lambda f, m, u, *labels: dice_loss(*labels, u),
        "folding": lambda f, m, u, *_: folding_loss(u),
    }
    for term in terms.values():
        both = (fixed, moving, flow, *maps)
        apart = [term(*(x[i : i + 1] for x in both)) for i in range(2)]
        assert term(*both).item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-12)
