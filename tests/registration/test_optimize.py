"""Instance optimisation finds what it is made to find."""

from __future__ import annotations

import pytest
import torch
from tape import record

from lganet_fast.ops import integrate, warp
from lganet_fast.registration.levels import plan_levels
from lganet_fast.registration.noise import noise_between, noise_of
from lganet_fast.registration.objective import ImageTerm, SmoothnessTerm
from lganet_fast.registration.optimiser import flow_of, minimise, optimise, stalled, taper
from lganet_fast.registration.separable import along_axes, gaussian_map
from lganet_fast.registration.settings import ITERATIONS, SMOOTHNESS


def smooth_noise(size, sigma, seed, channels=1):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, channels, *size, generator=generator)
    smooth = along_axes(noise, [gaussian_map(n, n, sigma).float() for n in size])
    return smooth / smooth.abs().max()


SIZE = (36, 40, 32)


@pytest.fixture(scope="module")
def pair():
    """An image, and the image that a known flow warps onto it."""
    window = taper(SIZE, 8)
    moving = (0.6 + 0.4 * smooth_noise(SIZE, 1.5, 0)) * window
    flow = integrate(3 * smooth_noise(SIZE, 6.0, 1, channels=3) * window)
    return warp(moving, flow), moving, flow, window


@pytest.mark.parametrize(
    ("similarity", "smoothness"), [("lncc", 0.1), ("mse", 0.01), ("mind", 0.1)]
)
def test_recovers_a_known_flow(pair, similarity, smoothness):
    fixed, moving, flow, window = pair
    velocity = optimise(
        fixed,
        moving,
        (None, None),
        similarity=similarity,
        iterations=(40, 40, 20),
        smoothness=smoothness,
        margin=4,
    )
    found = flow_of(velocity, SIZE)
    inside = (window > 0.5).expand_as(flow)
    before = flow[inside].square().mean().sqrt()
    after = (found - flow)[inside].square().mean().sqrt()
    assert after < 0.35 * before


def test_smoothness_restrains_and_the_border_stays(pair):
    fixed, moving, _, _ = pair
    sizes = []
    for smoothness in (0.1, 10.0):
        velocity = optimise(
            fixed,
            moving,
            (None, None),
            similarity="lncc",
            iterations=(20, 10),
            smoothness=smoothness,
            margin=4,
        )
        sizes.append(flow_of(velocity, SIZE).square().mean())
        assert velocity[:, :, 0].abs().max() == 0
        assert velocity[..., -1].abs().max() == 0
    assert sizes[1] < 0.5 * sizes[0]


def test_where_the_weight_is_zero_nothing_pulls(pair):
    fixed, moving, _, _ = pair
    weight = torch.zeros(1, 1, *SIZE)
    velocity = optimise(
        fixed,
        moving,
        (weight + 1e-9, None),
        similarity="mse",
        iterations=(5,),
        smoothness=1.0,
        margin=4,
    )
    weight[:, :, : SIZE[0] // 2] = 1
    half = optimise(
        fixed, moving, (weight, None), similarity="mse", iterations=(25,), smoothness=0.01, margin=4
    )
    flow = flow_of(half, SIZE).square().sum(1)
    assert flow[:, : SIZE[0] // 2].mean() > 5 * flow[:, 3 * SIZE[0] // 4 :].mean()
    assert torch.isfinite(velocity).all()


def test_plan_levels_goes_from_coarse_to_fine():
    levels = plan_levels((65, 81, 97), (10, 0, 20, 30))
    assert [level.factor for level in levels] == [8, 2, 1]
    assert [level.images for level in levels] == [(33, 41, 49), (33, 41, 49), (65, 81, 97)]
    assert [level.velocity for level in levels] == [(9, 11, 13), (33, 41, 49), (33, 41, 49)]
    assert levels[2].cost == 30 * 65 * 81 * 97


def test_the_images_have_four_times_the_velocitys_detail_but_are_whole_only_in_the_end():
    levels = plan_levels((129, 129, 129), (1, 1, 1, 1, 1, 1))
    assert [level.velocity[0] for level in levels] == [5, 9, 17, 33, 65, 65]
    assert [level.images[0] for level in levels] == [17, 33, 65, 65, 65, 129]


def test_plan_levels_leaves_out_what_is_too_coarse_but_never_all():
    assert [level.factor for level in plan_levels((13, 40, 40), (9, 9, 9, 9))] == [4, 2, 1]
    assert [level.factor for level in plan_levels((5, 5, 5), (9, 0, 0, 0))] == [8]


def test_progress_reaches_its_total_even_when_a_level_stops_early(pair):
    fixed, _, _, _ = pair
    steps = []
    optimise(
        fixed,
        fixed,
        (None, None),
        similarity="mse",
        iterations=(200, 3),
        smoothness=1.0,
        margin=4,
        on_step=steps.append,
    )
    assert len(steps) < 203
    assert steps[-1].done == steps[-1].total
    assert [s.done for s in steps] == sorted(s.done for s in steps)


def test_stalled_compares_recent_gain_with_all_gain():
    falling = [1 - 0.01 * i for i in range(30)]
    assert not stalled(falling)
    assert stalled(falling + [falling[-1]] * 20)
    assert not stalled(falling[:15])
    assert stalled([0.0] * 20)


@pytest.mark.parametrize(("look", "recorder"), [(1, record), (4, None), (7, record)])
@pytest.mark.parametrize("similarity", ["lncc", "mse"])
def test_looking_seldom_and_replaying_change_nothing(pair, similarity, look, recorder):
    """A level that stalls between two looks ends as it was when it stalled."""
    fixed, moving, _, window = pair
    counted, found = [], []
    for how in ({"look": 1}, {"look": look, "record": recorder}):
        steps = []
        velocity = optimise(
            fixed,
            moving,
            (window.contiguous(), None),
            similarity=similarity,
            iterations=(60, 3),
            smoothness=4.0,
            margin=4,
            on_step=steps.append,
            **how,
        )
        counted.append(steps)
        found.append(velocity)
    assert counted[0] == counted[1]
    assert 20 <= len(counted[0]) < 63
    assert len(counted[0]) % 4 != 3
    assert torch.equal(*found)


def test_neither_image_is_favoured(pair):
    """The other way round the velocity is the other way round."""
    fixed, moving, _, _ = pair
    there, back = (
        optimise(
            *images,
            (None, None),
            similarity="lncc",
            iterations=(20, 10),
            smoothness=0.1,
            margin=4,
        )
        for images in ((fixed, moving), (moving, fixed))
    )
    assert there.abs().max() > 0.5
    assert (there + back).abs().max() < 0.02 * there.abs().max()


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind", "mi"])
@pytest.mark.parametrize(("noise", "most"), [(0.0, 0.005), (0.01, 0.1)])
def test_equal_images_stay(similarity, noise, most):
    size = (40, 44, 36)
    window = taper(size, 10)
    fixed = (window > 0.5) * (0.7 + 0.3 * smooth_noise(size, 3.0, 0))
    generator = torch.Generator().manual_seed(5)
    moving = fixed + noise * torch.randn(fixed.shape, generator=generator) * (fixed > 0)
    velocity = optimise(
        fixed,
        moving,
        (None, None),
        similarity=similarity,
        iterations=ITERATIONS,
        smoothness=SMOOTHNESS[similarity],
        margin=4,
        noise=float(noise_between(fixed, moving)),
    )
    moved = flow_of(velocity, size).norm(dim=1, keepdim=True)[fixed > 0]
    assert moved.mean() < most


def test_where_either_image_is_not_seen_nothing_pulls(pair):
    """What lies beyond the edge of either view may be anything."""
    fixed, moving, _, _ = pair
    seen = torch.ones(1, 1, *SIZE)
    seen[:, :, 24:] = 0

    def found(one, other, weights):
        velocity = optimise(
            one, other, weights, similarity="lncc", iterations=(40, 20), smoothness=0.3, margin=4
        )
        return flow_of(velocity, SIZE)

    whole = found(fixed, moving, (None, None))
    size = whole.norm(dim=1).mean()
    for weights in ((seen, None), (None, seen)):
        images = [
            x if w is None else x * seen for x, w in zip((fixed, moving), weights, strict=True)
        ]
        error = (found(*images, weights) - whole)[:, :, :20].norm(dim=1).mean()
        blind = (found(*images, (None, None)) - whole)[:, :, :20].norm(dim=1).mean()
        assert error < 0.2 * size
        assert error < 0.6 * blind


def test_noise_is_measured_and_counts_where_it_is_what_differs(pair):
    fixed, moving, _, _ = pair
    generator = torch.Generator().manual_seed(5)
    noise = 0.02 * torch.randn(fixed.shape, generator=generator) * (fixed > 0)
    assert noise_of(fixed) < 0.005
    assert noise_of(fixed + noise) == pytest.approx(0.02, rel=0.15)
    assert noise_of(torch.zeros_like(fixed)) == 0
    assert noise_between(fixed, fixed) <= noise_of(fixed)
    assert noise_between(fixed, fixed + noise) == pytest.approx(0.02, rel=0.15)
    assert noise_between(fixed, moving + noise) < 0.8 * noise_of(moving + noise)  # more differs


def test_terms_add_up():
    """Twice the same term is the term of twice the weight, and a weight of 1 changes nothing."""
    fixed, moving = (0.6 + 0.4 * smooth_noise((12, 12, 12), 1.5, seed) for seed in (0, 1))
    smooth = SmoothnessTerm(0.1)

    def found(*terms):
        return minimise(terms, fixed, (3, 2), margin=2)

    def image(weight=1.0):
        return ImageTerm(fixed, moving, (None, None), "mse", weight=weight)

    options = {"similarity": "mse", "iterations": (3, 2), "smoothness": 0.1, "margin": 2}
    assert torch.equal(found(image(), smooth), optimise(fixed, moving, (None, None), **options))
    twice = found(image(2.0), smooth)
    torch.testing.assert_close(found(image(), image(), smooth), twice, atol=1e-4, rtol=0)
    torch.testing.assert_close(found(smooth, image(2.0)), twice, atol=1e-4, rtol=0)
    assert (found(image(), smooth) - twice).abs().max() > 1e-3
