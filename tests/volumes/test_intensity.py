"""The range of an image, whatever a few voxels and the air around it hold."""

from __future__ import annotations

import numpy as np
import pytest

from lganet_fast.volumes.intensity import foreground_box, window_of

RANDOM = np.random.default_rng(0)


def body():
    data = np.zeros((30, 32, 28), np.float32)
    data[6:24, 7:26, 5:22] = 40 + 20 * RANDOM.random((18, 19, 17))
    return data


@pytest.mark.parametrize("value", [1e5, -1e5])
def test_a_faulty_voxel_changes_nothing(value):
    data = body()
    right = window_of(data)
    data[2, 3, 2] = value
    found = window_of(data)
    assert found.low == right.low == 0
    assert found.high == pytest.approx(right.high, rel=0.01)
    first, last = foreground_box(data, found.low)
    assert (first.tolist(), last.tolist()) == ([6, 7, 5], [23, 25, 21])
    assert 0 <= found.scaled(data, 1.5).min() <= found.scaled(data, 1.5).max() <= 1.5


def test_noise_of_air_is_background():
    data = 20 * body() - 1000 + 15 * RANDOM.standard_normal((30, 32, 28)).astype(np.float32)
    window = window_of(data)
    assert -950 < window.low < -800
    first, last = foreground_box(data, window.low)
    assert (first.tolist(), last.tolist()) == ([6, 7, 5], [23, 25, 21])


def test_what_fills_the_view_has_no_background():
    lung = -850 + 60 * RANDOM.standard_normal((30, 30, 30))
    data = np.where(RANDOM.random(lung.shape) > 0.7, lung + 900, lung)
    assert window_of(data).low < -980
    assert window_of(np.array([[[0.0, 1.0]]])).high > window_of(np.array([[[0.0, 1.0]]])).low
