"""Presets: how long a search goes on, and what goes before them."""

import warnings

import numpy as np
import pytest
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import InputError, register
from lganet_fast.registration import settings, stages
from lganet_fast.registration.settings import PRESETS, Preset, check_settings


def test_a_preset_sets_iterations_and_a_second_search():
    for name, preset in PRESETS.items():
        found = check_settings(preset=name)
        assert (found.iterations, found.again) == (preset.iterations, preset.again)
    assert check_settings() == check_settings(preset="default")
    assert PRESETS["best"].again
    assert not PRESETS["default"].again
    assert PRESETS["fast"].iterations[-1] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_iterations_and_a_network_go_before_a_preset(name):
    asked = check_settings(preset=name, iterations=(3, 2))
    assert (asked.iterations, asked.again) == ((3, 2), ())
    after = check_settings(preset=name, checkpoint="weights")
    assert (after.iterations, after.again) == (PRESETS[name].after_network, ())


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="preset must be one of fast, default, best, got 'quick'"):
        check_settings(preset="quick")


@pytest.fixture(scope="module")
def pair():
    grid = oblique_grid((30, 28, 26), (2.0, 2.0, 2.0), 0)
    return synthetic_pair(grid, grid)


def registered(pair, preset):
    sources = ((x.data, x.grid.affine) for x in (pair.fixed, pair.moving))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return register(*sources, preset=preset, threads=1)


def test_a_second_search_goes_on_from_the_first(pair, monkeypatch):
    short = Preset((10, 4), (4,))
    monkeypatch.setitem(settings.PRESETS, "default", short)
    monkeypatch.setitem(settings.PRESETS, "best", Preset(short.iterations, (4,), again=(20, 10)))
    once, twice = (registered(pair, name) for name in ("default", "best"))
    assert twice.details.similarity.before == once.details.similarity.before
    assert twice.details.similarity.after > once.details.similarity.after
    points = pair.moving.grid.world()[pair.moving.data > 0]
    back = twice.transform.map(twice.inverse.map(points))
    assert np.linalg.norm(back - points, axis=-1).mean() < 0.05


def test_a_second_search_that_finds_nothing_better_changes_nothing(pair, monkeypatch):
    monkeypatch.setitem(settings.PRESETS, "default", Preset((5,), (5,)))
    monkeypatch.setitem(settings.PRESETS, "best", Preset((5,), (5,), again=(7,)))
    once, real = registered(pair, "default"), stages.similarity_change

    def worse(velocity, start, work, similarity):
        change = real(velocity, start, work, similarity)
        return change if work is start else stages.replace(change, found=change.start - 1)

    monkeypatch.setattr(stages, "similarity_change", worse)
    twice = registered(pair, "best")
    assert np.array_equal(twice.warped.data, once.warped.data)
    assert twice.details.similarity == once.details.similarity
