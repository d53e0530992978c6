"""Every data set in its true layout: pairs, splits, roles, shapes."""

from __future__ import annotations

import layouts
import numpy as np
import pytest

from lganet_fast import config, data
from lganet_fast.sections import SPLITS

COUNTS = {
    "lpba40": (3, 1, 2),
    "ixi": (3, 1, 1),
    "oasis": (3, 1, 2),
    "oasis_neurite": (2, 1, 1),
    "lung_ct": (3, 1, 1),
    "abdomen_ct_mr": (3, 1, 1),
    "pairs": (3, 1, 2),
    "atlas": (4, 1, 2),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each data set, written once when first asked for."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name] = config.load(name, layouts.write(name, folder))
        return done[name]

    return get


@pytest.mark.parametrize("name", COUNTS)
def test_splits_and_shapes(written, name):
    settings = written(name)
    splits = [data.open_split(settings, split) for split in SPLITS]
    assert tuple(map(len, splits)) == COUNTS[name]
    for split in splits:
        sample = split[len(split) - 1]
        for volume in (sample.moving, sample.fixed):
            assert volume.shape == layouts.SIZE
            assert volume.dtype == np.float32
            assert volume.flags.c_contiguous
            assert 0 <= volume.min() < volume.max() <= 1
        assert not np.array_equal(sample.moving, sample.fixed)
        assert [x.shape for x in sample.tensors()] == [(1, 1, *layouts.SIZE)] * 2
