"""What a registration on a device launches, and how often it waits: counted without a device."""

from __future__ import annotations

import pytest
import torch
from far import META, Watch, far, needs_operators  # noqa: F401
from synthetic import synthetic_pair

from lganet_fast.metrics import surface_distance
from lganet_fast.metrics.nearest import by_tree
from lganet_fast.registration import optimiser, pairwise
from lganet_fast.registration.levels import Level
from lganet_fast.registration.objective import ImageTerm, SmoothnessTerm
from lganet_fast.registration.optimiser import Search, optimise

pytestmark = needs_operators
SIZE = (24, 26, 28)


def images():
    return tuple(torch.empty(1, 1, *SIZE, device=META) for _ in range(2))


@pytest.mark.parametrize(("similarity", "most"), [("lncc", 85), ("mse", 80)])
def test_an_iteration_launches_little_and_never_waits(far, similarity, most):  # noqa: F811
    level = Level(1, SIZE, (13, 14, 15), 10)
    start = torch.empty(1, 3, *level.velocity, device=META)
    terms = [ImageTerm(*images(), (None, None), similarity, noise=0.01), SmoothnessTerm(0.1)]
    search = Search(level, terms, start, margin=3.0)
    with Watch() as seen:
        search.iterate()
    print(sum(seen.launches.values()), dict(seen.launches))
    assert sum(seen.launches.values()) <= most
    assert not seen.waits
    assert not seen.sent


def test_the_search_waits_once_in_every_few_iterations(far):  # noqa: F811
    weight = torch.empty(1, 1, *SIZE, device=META)
    steps = []
    with Watch() as seen:
        optimise(
            *images(),
            (weight, weight),
            similarity="lncc",
            iterations=(10, 10, 8),
            smoothness=0.1,
            margin=6,
            on_step=steps.append,
        )
    assert len(steps) == 28
    assert sum(seen.waits.values()) == 6  # of levels of 10, 10 and 8 iterations
    assert optimiser.LOOK == 5


def test_a_registration_waits_for_what_it_returns_alone(far, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pairwise, "choose_device", lambda name: META)
    # The labels are scored in a thread of their own, whose waits hold nothing up.
    monkeypatch.setattr(surface_distance, "nearest", lambda a, b, device: by_tree(a, b))
    pair = synthetic_pair()
    volumes = {
        name: (getattr(pair, name).data, getattr(pair, name).grid.affine)
        for name in ("fixed", "moving", "fixed_labels", "moving_labels")
    }
    with Watch() as seen:
        result = pairwise.register(**volumes, iterations=(10, 10, 10), device="cuda")
    print(sum(seen.launches.values()), dict(seen.waits), seen.sent)
    assert result.transform.device == result.inverse.device == META
    assert seen.waits["copy"] <= 19
    assert seen.waits["nonzero"] <= 13
