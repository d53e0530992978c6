"""A small pair, in memory and as files."""

from __future__ import annotations

import pytest
from command import GRID
from synthetic import synthetic_pair

from lganet_fast.volumes import nifti


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(GRID, GRID)


@pytest.fixture
def files(tmp_path, monkeypatch, pair):
    """A pair with labels as files in the working folder; the folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(f"{name}.nii.gz", volume.data, volume.grid)
    return tmp_path
